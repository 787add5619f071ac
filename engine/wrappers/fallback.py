"""The non-finite fallback around every method: one bad batch neither ends a stream nor spoils its state."""

from __future__ import annotations

from dataclasses import is_dataclass, replace
from typing import Any

import numpy as np

from ..interface.method import AnyBoundMethod, Prediction, State, Step, list_fields
from ..interface.request import Request
from ..interface.view_batch import get_plain_images
from ..model import ImageArray


def step_with_fallback(method: AnyBoundMethod, state: State, images: ImageArray) -> Step[State]:
    """Step a method, unless that produces a loss, logits or a state that is not finite.

    In that case nothing is learnt from the batch and the frozen network predicts it (one more forward). An
    image for which even the frozen network answers with non-finite logits gets zeros: no opinion. The step
    still counts, so that the next one draws other directions.

    Args:
        method: any bound method.
        state: from `method.init` or an earlier step.
        images: uint8 `[N, H, W, 3]`, or a `ViewBatch`, of which the frozen network sees view 0.
    """
    prediction, next_state = yield from method.step(state, images)
    if _is_finite(prediction) and _is_finite(next_state, state):
        return prediction, next_state
    (outputs,) = yield Request(get_plain_images(images))
    finite_images = np.isfinite(outputs.logits).all(axis=1, keepdims=True)
    frozen: Prediction = replace(
        prediction,
        logits=np.where(finite_images, outputs.logits, np.float32(0)),
        forwards=prediction.forwards + 1,
        loss=None,
        fallback=True,
        diagnostics={"nonfinite_images": float((~finite_images).sum())},
    )
    return frozen, replace(state, step=state.step + 1)


def _is_finite(value: Any, previous: Any = None) -> bool:
    """Return whether all floating-point numbers of a value are finite, nested records included.

    Objects identical to those of the previous state were checked in the last step and are skipped.
    """
    if value is previous:
        return True
    if is_dataclass(value):
        names = list_fields(value) or ()
        return all(_is_finite(getattr(value, name), getattr(previous, name, None)) for name in names)
    if isinstance(value, tuple):  # named tuples as well
        return all(map(_is_finite, value))
    if isinstance(value, np.ndarray) and value.dtype.kind != "f":
        return True  # stored images
    return not isinstance(value, (float, np.ndarray)) or bool(np.isfinite(value).all())
