"""Interval updates, FOA-I for any method: predict what arrives at once, adapt to every I images together.

A batch of one image says too little about its domain to adapt to. This is the variant of the FOA paper (ICML
2024, section 3.3) that stores images. No code of it was published, and the paper leaves open which prediction
an image gets: here, it is predicted on arrival, with the state learnt before.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ..interface.method import Prediction, State, Step, count_views, variable_length_array
from ..interface.method_options import option
from ..interface.request import Requests
from ..interface.view_batch import stack_views
from ..model import ImageArray, ModelInfo
from .fallback import step_with_fallback
from .wrapper import BoundWrapper, Wrapper


@dataclass(frozen=True)
class IntervalState(State):
    """State of the method, and the images since its last step.

    Attributes:
        inner: state of the method.
        images: images since its last step, uint8 `[W, H, W, 3]`, or `[W, V, H, W, 3]` with V views of each.
    """

    inner: State
    images: ImageArray = variable_length_array(axes=5)


@dataclass(frozen=True)
class Interval(Wrapper):
    """Another method, stepped once for every so many images that arrived.

    The step sees all images since the last one, at least `interval` of them, as one batch; what it predicts
    is discarded. With batches of `interval` images or more this is the plain method, except that predictions
    come before the update.
    """

    interval: int = option(
        64, "predict every batch on arrival, and adapt to this many images together", low=2
    )

    @property
    def forwards(self) -> int:
        """Forwards per image, on the average over a stream."""
        return count_views(self.method) + self.method.forwards

    def bind(self, model: ModelInfo) -> BoundInterval:
        """Return the wrapped method bound to a model.

        Raises:
            BundleError: the bundle lacks something the method needs.
        """
        return BoundInterval(self, model, self.method.bind(model))


@dataclass(frozen=True, eq=False)
class BoundInterval(BoundWrapper[Interval]):
    """Interval updates of a method on one model."""

    def init(self, seed: int) -> IntervalState:
        """Return the method's initial state, and no images."""
        axes = 4 if count_views(self.options) == 1 else 5
        return IntervalState(0, seed, self.inner.init(seed), np.zeros((0,) * axes, np.uint8))

    def step(self, state: IntervalState, images: ImageArray) -> Step[IntervalState]:
        """Predict, store the images, and adapt to them once there are enough.

        `forwards` of the prediction are in forwards over this batch, rounded up: a step of F forwards over W
        images costs F W / N of them, so that one image at a time pays for the others' adaptation when the
        interval is full.
        """
        prediction = yield from self.inner.predict(state.inner, images)
        views = count_views(self.options)
        arrived = images if views == 1 else stack_views(images, views)
        stored = np.concatenate([state.images, arrived]) if len(state.images) else arrived
        diagnostics = {**prediction.diagnostics, "updated": 0.0}
        if len(stored) < self.options.interval:
            # A copy, because the caller may fill the array of this batch again.
            stored = stored.copy() if stored is arrived else stored
            next_state = replace(state, step=state.step + 1, images=stored)
            return replace(prediction, diagnostics=diagnostics), next_state
        # The step has a fallback of its own: images that broke it must not come back with the next ones.
        update, inner = yield from step_with_fallback(self.inner, state.inner, stored)
        forwards = prediction.forwards - (-update.forwards * len(stored) // len(images))
        diagnostics = {**update.diagnostics, **prediction.diagnostics, "updated": float(not update.fallback)}
        adapted = replace(
            prediction,
            forwards=forwards,
            pull_backs=update.pull_backs * len(stored) / len(images),
            loss=update.loss,
            diagnostics=diagnostics,
        )
        return adapted, IntervalState(state.step + 1, state.seed, inner, stored[:0].copy())

    def predict(self, state: IntervalState, images: ImageArray) -> Requests[Prediction]:
        """Predict with the current state of the method."""
        return self.inner.predict(state.inner, images)
