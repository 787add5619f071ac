"""The guard around every method: a stream never dies, and no bad state is kept, because of one bad batch."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..model import Forward, ImageArray

if TYPE_CHECKING:  # methods that wrap others use the guard too
    from ..interface.method import AnyMethod, Prediction, State


def guarded_step(
    method: AnyMethod, state: State, images: ImageArray, network: Forward
) -> tuple[Prediction, State]:
    """A step of `method`, unless it produces a loss, logits or a state that is not finite.

    Then nothing is learnt from the batch and the frozen network predicts it (one more forward). An image for
    which even the frozen network answers with non-finite logits gets zeros: no opinion. The step still
    counts, so that the next one draws other directions.

    Args:
        method: any method.
        state: from `method.init` or an earlier step.
        images: uint8 `[N, H, W, 3]`.
        network: what runs the forwards.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        prediction, following = method.step(state, images, network)
    if _is_finite(prediction) and _is_finite(following, state):
        return prediction, following
    logits = network(images).logits
    readable = np.isfinite(logits).all(axis=1, keepdims=True)
    frozen = replace(
        prediction,
        logits=np.where(readable, logits, np.float32(0)),
        forwards=prediction.forwards + 1,
        loss=None,
        guarded=True,
        diagnostics={"nonfinite_images": float((~readable).sum())},
    )
    return frozen, replace(state, step=state.step + 1)


def _is_finite(record: Any, before: Any = None) -> bool:
    """Whether all numbers of a record are finite, those of the states inside it too.

    What is the very object that it was before has been looked at then.
    """
    return all(_finite_value(getattr(record, f.name), getattr(before, f.name, None)) for f in fields(record))


def _finite_value(value: Any, before: Any = None) -> bool:
    if value is before:
        return True
    if is_dataclass(value):
        return _is_finite(value, before)
    if isinstance(value, tuple):
        return all(map(_finite_value, value))
    if isinstance(value, np.ndarray) and value.dtype.kind != "f":
        return True  # images that are kept
    return not isinstance(value, (float, np.ndarray)) or bool(np.isfinite(value).all())
