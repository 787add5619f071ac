"""BAR, black-box adversarial reprogramming (Tsai et al., ICML 2020): a border around smaller images.

A pixel of the border is `sigmoid(w)`, w free. The gradient is estimated from one side: q random unit
directions u give `(d / q) Σ u (ℓ(w + r u) − ℓ(w)) / r`, d the number of all values. Constants are those of
BlackVIP's code. As there, the values under the image are moved as well, without any effect.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np

from ..errors import InputError
from ..model import FloatArray
from ..search.spsa import draw_gaussian_direction
from ..state import State
from .polynomial_schedule import PolynomialSchedule
from .sapt import StepRecord
from .zo_sapt import Losses

FOCAL_GAMMA = 2.0  # of the loss
_FRAME, _SIDE = 15, 224  # pixels of the published border, and of the images with it
_SCHEDULED_EPOCHS = 900  # nine tenths of the 1,000 epochs that the published schedule is made for


@dataclass(frozen=True)
class BarState(State):
    """State of BAR: w, float32 `[H, W, 3]`."""

    values: FloatArray


@dataclass(frozen=True)
class Bar:
    """Search for a border.

    Attributes:
        frame: width of the border in pixels.
        schedule: learning rates.
        directions: q.
        radius: r, by which the values are moved along a direction.
    """

    frame: int
    schedule: PolynomialSchedule
    directions: int = 5
    radius: float = 0.01

    def __post_init__(self) -> None:
        """Refuse values that have no meaning.

        Raises:
            InputError: there is no border or no direction, or the radius is not above 0.
        """
        if min(self.frame, self.directions) < 1 or not self.radius > 0:
            raise InputError(
                "expected at least a border of one pixel and one direction, and a perturbation above 0, "
                f"found {self.frame}, {self.directions} and {self.radius}"
            )

    @property
    def losses_per_step(self) -> int:
        """Number of losses that a step needs."""
        return 1 + self.directions

    def init(self, values: FloatArray, seed: int) -> BarState:
        """Return the state before the first step."""
        return BarState(0, seed, values.astype(np.float32))

    def step(self, state: BarState, losses: Losses) -> tuple[BarState, StepRecord]:
        """Return the next state, and the step in numbers; `losses` is called once, with all borders.

        The loss of the record is that of the border before the step.
        """
        drawn = [
            draw_gaussian_direction(state.seed, state.step, sample, state.values.shape).astype(np.float64)
            for sample in range(self.directions)
        ]
        units = [direction / np.linalg.norm(direction) for direction in drawn]
        candidates = [state.values, *((state.values + self.radius * unit) for unit in units)]
        borders = np.stack([compute_border(values, self.frame) for values in candidates])
        base, *moved = np.asarray(losses(borders), np.float64).tolist()
        factor = state.values.size / len(units)
        gradient = np.zeros(state.values.shape)
        for unit, loss in zip(units, moved, strict=True):
            gradient += factor * (loss - base) / self.radius * unit
        rate = self.schedule.get_rate(state.step + 1)
        values = (state.values - rate * gradient).astype(np.float32)
        record = StepRecord(base, 0.0, float(np.linalg.norm(gradient)))
        return BarState(state.step + 1, state.seed, values), record


def choose_frame(size: tuple[int, int]) -> int:
    """Return the width of the border for images of a size: 15 pixels of 224, and else in proportion.

    >>> choose_frame((224, 224)), choose_frame((32, 32))
    (15, 2)
    """
    return max(1, round(_FRAME * min(size) / _SIDE))


def make_published_schedule(rate: float, steps_per_epoch: int) -> PolynomialSchedule:
    """Return the published schedule, which most runs end long before it falls."""
    return PolynomialSchedule(rate, _SCHEDULED_EPOCHS * steps_per_epoch)


def draw_border(seed: int, size: tuple[int, int]) -> FloatArray:
    """Draw w before the first step, normal numbers, float32 `[H, W, 3]`."""
    return np.random.default_rng([seed, 0, 3]).standard_normal((*size, 3), dtype=np.float32)


def compute_border(values: FloatArray, frame: int) -> FloatArray:
    """Return the pixels of a border `sigmoid(w)`, zero inside, float32 `[H, W, 3]`, in 0..1.

    Args:
        values: w, `[H, W, 3]`.
        frame: width of the border in pixels.
    """
    with np.errstate(over="ignore"):  # of exp, whose infinity is a pixel of 0
        pixels = 1 / (1 + np.exp(-values.astype(np.float64)))
    pixels[frame:-frame, frame:-frame] = 0
    return cast(FloatArray, pixels.astype(np.float32))
