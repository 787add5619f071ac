"""Batches of training images: shuffled in each epoch, a pure function of seed and step."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class BatchOrder:
    """The order of N images in training.

    As in Dassl, the last batch of an epoch is left out if it is not full, unless it is the only one.

    Attributes:
        images: N.
        batch: images in a batch; None: all of them, in their order.
        seed: of the order.
    """

    images: int
    batch: int | None
    seed: int

    @property
    def size(self) -> int:
        """Number of images in a step."""
        return self.images if self.batch is None else min(self.batch, self.images)

    @property
    def steps_per_epoch(self) -> int:
        """Number of batches in an epoch."""
        return 1 if self.batch is None else max(1, self.images // self.batch)

    def get_epoch(self, step: int) -> int:
        """Return the epoch of a step; both count from 0."""
        return step // self.steps_per_epoch

    def get_rows(self, step: int) -> NDArray[np.int64]:
        """Return the numbers of the images of a step, counted from 0."""
        if self.batch is None:
            return np.arange(self.images)
        epoch, index = divmod(step, self.steps_per_epoch)
        order = np.random.default_rng([self.seed, epoch]).permutation(self.images)
        return order[index * self.batch : (index + 1) * self.batch]
