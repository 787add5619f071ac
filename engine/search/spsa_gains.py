"""Gains of SPSA that shrink by powers of the step (Spall, 1998), and a limit for its estimates."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import InputError
from ..model import FloatArray


@dataclass(frozen=True)
class PowerGains:
    """Step sizes and perturbation sizes; the defaults are those of ZIP's official scripts (ICLR 2025).

    Attributes:
        rate: a of the step size `a_t = a / (t + offset)^rate_power`.
        size: c of the perturbation size `c_t = c / t^size_power`.
        offset, rate_power, size_power: of these formulas; t counts from 1.
    """

    rate: float = 0.01
    size: float = 0.01
    offset: float = 1.0
    rate_power: float = 0.4
    size_power: float = 0.1

    def get_rate(self, t: int) -> float:
        """Return the step size of step t, counted from 1.

        >>> [f"{PowerGains().get_rate(t):.3g}" for t in (1, 2, 5, 10, 100, 500)]
        ['0.00758', '0.00644', '0.00488', '0.00383', '0.00158', '0.000832']
        """
        return float(self.rate / (t + self.offset) ** self.rate_power)

    def get_size(self, t: int) -> float:
        """Return the perturbation size of step t, counted from 1.

        >>> [f"{PowerGains().get_size(t):.3g}" for t in (1, 2, 5, 10, 100, 500)]
        ['0.01', '0.00933', '0.00851', '0.00794', '0.00631', '0.00537']
        """
        return float(self.size / t**self.size_power)


def check_pairs(pairs: int, gains: PowerGains) -> None:
    """Check that two-sided estimates can be made.

    Raises:
        InputError: there is no pair, or perturbations have no size.
    """
    if pairs < 1 or not gains.size > 0:
        raise InputError(
            f"expected one pair at least, and perturbations above 0, found {pairs} and {gains.size}"
        )


def clip_norm(gradient: FloatArray) -> FloatArray:
    """Return a gradient of δ entries, scaled down to the norm √δ if it is longer (ZIP, equation 8).

    >>> print(clip_norm(np.full(4, 2.0)), clip_norm(np.full(4, 0.5)))
    [1. 1. 1. 1.] [0.5 0.5 0.5 0.5]
    """
    limit, norm = np.sqrt(gradient.size), np.linalg.norm(gradient)
    return gradient * (limit / norm) if norm >= limit else gradient
