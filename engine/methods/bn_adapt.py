"""Batch norms with the statistics of the stream: prediction-time normalisation of convolutional networks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from ..interface.method import Binding, Prediction, State, Step
from ..interface.method_options import option, validate
from ..interface.request import Request, Requests
from ..model import BATCH_STATISTICS, ImageArray, ModelInfo
from ..statistics.objective import entropy


@dataclass(frozen=True)
class BnAdapt:
    """Batch norms normalise with the statistics of the batch (Nado et al. 2020, Schneider et al. 2020).

    With `prior`, the running statistics weigh as much as that many images (Schneider et al., equation 2:
    `(prior · running + n · batch) / (prior + n)`, for mean and variance alike), so that small batches work:
    the statistics of one image alone say little of the domain, and remove what tells the classes apart.
    Nothing is carried from batch to batch.
    """

    name: ClassVar[str] = "bn_adapt"

    prior: int = option(
        0, "images that the running statistics count for; 0 normalises with the batch alone", low=0
    )

    def __post_init__(self) -> None:
        validate(self)

    @property
    def forwards(self) -> int:
        """Forwards that one step uses."""
        return 1

    def bind(self, model: ModelInfo) -> BoundBnAdapt:
        """Return the method bound to a model.

        Raises:
            BundleError: the network has no batch norms.
        """
        model.require_tunable(BATCH_STATISTICS, self.name)
        return BoundBnAdapt(self, model)


@dataclass(frozen=True, eq=False)
class BoundBnAdapt(Binding[BnAdapt]):
    """Batch norms of one model with the statistics of the stream."""

    def init(self, seed: int) -> State:
        """Return a state that only counts."""
        return State(step=0, seed=seed)

    def step(self, state: State, images: ImageArray) -> Step[State]:
        """Predict a batch by its own statistics."""
        prediction = yield from self.predict(state, images)
        return prediction, replace(state, step=state.step + 1)

    def predict(self, state: State, images: ImageArray) -> Requests[Prediction]:
        """Predict a batch by its own statistics."""
        share = len(images) / (len(images) + self.options.prior)
        (outputs,) = yield Request(images, [{BATCH_STATISTICS: np.asarray([share], np.float32)}])
        mean_entropy = float(entropy(outputs.logits).mean())
        return Prediction(outputs.logits, 1, diagnostics={"entropy": mean_entropy, "batch_share": share})
