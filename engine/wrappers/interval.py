"""Interval updates, FOA-I for any method: predict what arrives at once, adapt to every I images together.

A batch of one image says too little about its domain to adapt to. This is the variant of the FOA paper (ICML
2024, section 3.3) that stores images; no code of it was published, and the paper leaves open which prediction
an image gets: here, that of what was learnt before it arrived.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ..interface.method import Prediction, State, growing_array
from ..interface.options import option
from ..model import Forward, ImageArray, ModelInfo
from .fallback import guarded_step
from .wrapper import Wrapper


@dataclass(frozen=True)
class IntervalState(State):
    """What interval updates carry.

    Attributes:
        inner: state of the method.
        images: those that arrived since its last step, uint8 `[W, H, W, 3]`.
    """

    inner: State
    images: ImageArray = growing_array(free=4)


@dataclass(frozen=True)
class Interval(Wrapper):
    """Another method, stepped once for every so many images that arrived.

    The step sees all images since the last one, at least `interval` of them, as one batch; what it predicts
    is discarded. With batches of `interval` images or more this is the plain method, except that predictions
    come before the update.
    """

    interval: int = option(
        64, "predict at once with what was learnt before, and adapt to every so many images together", low=2
    )

    @property
    def forwards(self) -> int:
        """Forwards per image, on the average over a stream."""
        return 1 + self.method.forwards

    def init(self, info: ModelInfo, seed: int) -> IntervalState:
        """The method's initial state, and no images.

        Raises:
            BundleError: the bundle lacks something the method needs.
        """
        return IntervalState(0, seed, self.method.init(info, seed), np.zeros((0, 0, 0, 0), np.uint8))

    def step(
        self, state: IntervalState, images: ImageArray, network: Forward
    ) -> tuple[Prediction, IntervalState]:
        """Predicts, keeps the images, and if they are enough adapts to them.

        `forwards` of the prediction are in forwards over this batch, rounded up: a step of F forwards over W
        images costs F W / N of them, so that one image at a time pays for the others' adaptation when the
        interval is full.
        """
        prediction = self.method.predict(state.inner, images, network)
        kept = np.concatenate([state.images, images]) if len(state.images) else images
        diagnostics = {**prediction.diagnostics, "updated": 0.0}
        if len(kept) < self.interval:
            # A copy, because the caller may fill the array of this batch again.
            waiting = replace(state, step=state.step + 1, images=kept.copy() if kept is images else kept)
            return replace(prediction, diagnostics=diagnostics), waiting
        # The step has a guard of its own: the images that broke it must not come back with the next ones.
        update, inner = guarded_step(self.method, state.inner, kept, network)
        spent = prediction.forwards - (-update.forwards * len(kept) // len(images))
        diagnostics = {**update.diagnostics, **prediction.diagnostics, "updated": float(not update.guarded)}
        adapted = replace(prediction, forwards=spent, loss=update.loss, diagnostics=diagnostics)
        return adapted, IntervalState(state.step + 1, state.seed, inner, kept[:0].copy())

    def predict(self, state: IntervalState, images: ImageArray, network: Forward) -> Prediction:
        """Predicts with what the method has learnt so far."""
        return self.method.predict(state.inner, images, network)
