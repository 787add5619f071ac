"""CoOp's learning rates: one epoch of warm-up, then half a cosine, constant within an epoch."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class CosineSchedule:
    """Learning rates of CoOp's configurations (`cosine` with `WARMUP_TYPE: constant` of Dassl).

    The epochs after the warm-up follow a cosine over all epochs, so the last rate is above 0.

    >>> [round(CosineSchedule(0.002, 4, 1).get_rate(step), 6) for step in range(4)]
    [1e-05, 0.002, 0.001707, 0.001]

    Attributes:
        rate: the largest learning rate.
        epochs: number of epochs.
        steps_per_epoch: steps in each of them.
        warmup_epochs: epochs at `warmup_rate` before.
        warmup_rate: learning rate of these.
    """

    rate: float
    epochs: int
    steps_per_epoch: int
    warmup_epochs: int = 1
    warmup_rate: float = 1e-5

    @property
    def steps(self) -> int:
        """Number of all steps."""
        return self.epochs * self.steps_per_epoch

    def get_rate(self, step: int) -> float:
        """Return the learning rate of a step, counted from 0."""
        epoch = step // self.steps_per_epoch
        if epoch < self.warmup_epochs:
            return self.warmup_rate
        return self.rate * (1 + math.cos(math.pi * (epoch - self.warmup_epochs) / self.epochs)) / 2
