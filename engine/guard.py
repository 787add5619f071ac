"""The guard around every method: a stream never dies, and no bad state is kept, because of one bad batch."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np

from .methods.base import AnyMethod, Prediction, State
from .model import Forward, ImageArray


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
    if _is_finite(prediction) and _is_finite(following):
        return prediction, following
    logits = network(images).logits
    readable = np.isfinite(logits).all(axis=1, keepdims=True)
    frozen = Prediction(
        np.where(readable, logits, np.float32(0)),
        prediction.forwards + 1,
        guarded=True,
        diagnostics={"nonfinite_images": float((~readable).sum())},
    )
    return frozen, replace(state, step=state.step + 1)


def _is_finite(record: Any) -> bool:
    """Whether all numbers of a record are finite, those of the states inside it too."""
    values = [getattr(record, f.name) for f in fields(record)]
    return all(
        _is_finite(v) if isinstance(v, State) else bool(np.isfinite(v).all())
        for v in values
        if isinstance(v, (float, np.ndarray, State))
    )
