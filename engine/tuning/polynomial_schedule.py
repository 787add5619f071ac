"""Learning rates that fall to a smallest one by a power of the steps that are left."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PolynomialSchedule:
    """Learning rates of BAR's code: `(rate − last) (1 − t / T)^power + last`, and `last` from step T on.

    >>> schedule = PolynomialSchedule(10.0, 900)
    >>> [round(schedule.get_rate(t), 3) for t in (1, 450, 900, 1000)]
    [9.99, 5.405, 0.1, 0.1]

    Attributes:
        rate: before the first step.
        steps: T.
        last: the smallest rate.
        power: of the formula; t counts from 1.
    """

    rate: float
    steps: float
    last: float = 0.1
    power: float = 0.9

    def get_rate(self, t: int) -> float:
        """Return the learning rate of step t, counted from 1."""
        remaining = 1 - min(t, self.steps) / self.steps
        return float((self.rate - self.last) * remaining**self.power + self.last)
