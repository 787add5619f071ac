"""Batch norms with the statistics of the stream: prediction-time normalisation of convolutional networks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from ..interface.method import Prediction, State
from ..interface.options import option, validate
from ..model import Forward, ImageArray, ModelInfo
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

    def init(self, info: ModelInfo, seed: int) -> State:
        """A state that only counts.

        Raises:
            BundleError: the network has no batch norms.
        """
        info.require_tunable("batch_statistics", self.name)
        return State(step=0, seed=seed)

    def step(self, state: State, images: ImageArray, network: Forward) -> tuple[Prediction, State]:
        """Predicts a batch by its own statistics."""
        return self.predict(state, images, network), replace(state, step=state.step + 1)

    def predict(self, state: State, images: ImageArray, network: Forward) -> Prediction:
        """Predicts a batch by its own statistics."""
        share = len(images) / (len(images) + self.prior)
        logits = network(images, batch_statistics=np.asarray([share], np.float32)).logits
        return Prediction(
            logits, 1, diagnostics={"entropy": float(entropy(logits).mean()), "batch_share": share}
        )
