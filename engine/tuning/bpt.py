"""BPT-VLM's search for prompts of both towers (Yu et al., IJCAI 2023): CMA-ES in a random subspace.

A context is `start + A z`, A a fixed matrix of normal numbers, and CMA-ES searches z from zero. The fitness
of a solution is its mean loss over an epoch. The prompts of the image tower are `B y` with a matrix of their
own, and y is searched together with z; they can be left out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import numpy as np

from ..errors import InputError
from ..model import FloatArray
from ..search.cma import CovarianceForm, Search, ask, start_search, tell
from ..state import State
from .sapt import StepRecord

VISUAL_PROMPTS = 5
_FAN_IN = 3072  # values of a patch of 32 x 32 pixels, which the official code takes for other patches, too
# Returns the losses `[C, B]` of contexts `[C, M, D]`, and of prompts `[C, P, D]` where there are any.
PromptLosses = Callable[..., FloatArray]


@dataclass(frozen=True)
class BptState(State):
    """State of BPT.

    Attributes:
        start: the context that the origin stands for, float32 `[M, D]`.
        search: the distribution of z.
        best_loss: the smallest loss so far; infinite before the first step.
        values: the context that has it, float32 `[M, D]`.
        prompts: the prompts of the image tower beside it, float32 `[P, D]`; P is 0 where there are none.
    """

    start: FloatArray
    search: Search
    best_loss: float
    values: FloatArray
    prompts: FloatArray


@dataclass(frozen=True)
class Bpt:
    """CMA-ES over the context, or over context and prompts of the image tower.

    Attributes:
        projection: A, float32 `[M · D, N]`.
        visual: B, float32 `[P, D, N]`; None: no prompts.
        population: solutions in a generation, which is a step.
        sigma: σ at the start.
        covariance: the part of the covariance that is learnt.
        first_batches: judge the best solution by the smallest of its running means over the batches, as the
            official code does, so that a lucky first batch may win.
    """

    projection: FloatArray
    population: int = 15
    sigma: float = 1.0
    covariance: CovarianceForm = "identity"
    first_batches: bool = False
    visual: FloatArray | None = None

    def __post_init__(self) -> None:
        """Refuse values that have no meaning.

        Raises:
            InputError: the population has fewer than two solutions, or σ is not above 0.
        """
        if self.population < 2 or not self.sigma > 0:
            raise InputError(
                "expected two solutions at least, and a step size above 0, found "
                f"{self.population} and {self.sigma}"
            )

    @property
    def losses_per_step(self) -> int:
        """Number of losses of each batch that a step needs."""
        return self.population

    def init(self, values: FloatArray, seed: int) -> BptState:
        """Return the state before the first step."""
        start, dimension = values.astype(np.float32), self.projection.shape[1]
        prompts = np.zeros((0, 0), np.float32)
        if self.visual is not None:
            dimension += self.visual.shape[2]
            prompts = np.zeros(self.visual.shape[:2], np.float32)
        search = start_search(dimension, self.sigma, self.covariance)
        return BptState(0, seed, start, search, float("inf"), start, prompts)

    def step(self, state: BptState, losses: PromptLosses) -> tuple[BptState, StepRecord]:
        """Return the next state, and the step in numbers; `losses` is called once, with all solutions.

        Args:
            state: the state.
            losses: returns the losses of all batches of an epoch, in their order, `[C, B]`.
        """
        solutions = ask(state.search, state.seed, state.step, self.population)
        size = self.projection.shape[1]
        contexts = compute_contexts(self.projection, solutions[:, :size], state.start)
        candidates = [contexts]
        if self.visual is not None:
            candidates.append(compute_prompts(self.visual, solutions[:, size:]))
        by_batch = np.asarray(losses(*candidates), np.float64)
        fitness, best_loss = by_batch.mean(axis=1), state.best_loss
        values, prompts = state.values, state.prompts
        scores = find_smallest_running_mean(by_batch) if self.first_batches else fitness
        best = int(scores.argmin())
        if scores[best] < best_loss:
            values, best_loss = contexts[best], float(scores[best])
            prompts = candidates[1][best] if self.visual is not None else prompts
        search = tell(state.search, solutions, fitness, self.population)
        next_state = BptState(state.step + 1, state.seed, state.start, search, best_loss, values, prompts)
        return next_state, StepRecord(float(fitness.mean()), 0.0, 0.0)


def draw_projection(
    seed: int, shape: tuple[int, int], dimension: int, std: float, sigma: float
) -> FloatArray:
    """Draw A, float32 `[M · D, N]`: the first solutions spread like token embeddings.

    The entries have the standard deviation `std / (√N σ)`.

    Args:
        seed: of the numbers.
        shape: M and D.
        dimension: N.
        std: standard deviation of the entries of all token embeddings.
        sigma: σ at the start.
    """
    generator = np.random.default_rng([seed, 0, 1])
    normals = generator.standard_normal((shape[0] * shape[1], dimension), dtype=np.float32)
    return cast(FloatArray, np.float32(std / (np.sqrt(dimension) * sigma)) * normals)


def draw_visual_projection(
    seed: int, shape: tuple[int, int], dimension: int, mean: float, std: float, sigma: float
) -> FloatArray:
    """Draw B, float32 `[P, D, N]`: prompts spread like sums over a patch times the weights that embed it.

    The entries have the mean `3072 mean / N` and the standard deviation `√(3072 / N) std σ`, as in the
    official code.

    Args:
        seed: of the numbers.
        shape: P and D.
        dimension: N.
        mean, std: of the weights that embed patches.
        sigma: σ at the start.
    """
    normals = np.random.default_rng([seed, 0, 2]).standard_normal((*shape, dimension), dtype=np.float32)
    factor = _FAN_IN / dimension
    return cast(FloatArray, np.float32(mean * factor) + np.float32(std * factor**0.5 * sigma) * normals)


def compute_prompts(projection: FloatArray, solutions: FloatArray) -> FloatArray:
    """Return `B y` of each of C solutions, float32 `[C, P, D]`.

    Args:
        projection: B, `[P, D, N]`.
        solutions: y, `[C, N]`.
    """
    prompts = np.einsum("pdn,cn->cpd", projection.astype(np.float64), solutions)
    return cast(FloatArray, prompts.astype(np.float32))


def compute_contexts(projection: FloatArray, solutions: FloatArray, start: FloatArray) -> FloatArray:
    """Return `start + A z` of each of C solutions, float32 `[C, M, D]`.

    Args:
        projection: A, `[M · D, N]`.
        solutions: z, `[C, N]`.
        start: `[M, D]`.
    """
    moves = solutions @ projection.T.astype(np.float64)
    return cast(FloatArray, (start + moves.reshape(-1, *start.shape)).astype(np.float32))


def find_smallest_running_mean(by_batch: FloatArray) -> FloatArray:
    """Return the smallest mean over the first batches, whatever their number, float64 `[C]`.

    >>> print(find_smallest_running_mean(np.array([[3.0, 1.0, 5.0], [1.0, 9.0, 9.0]])))
    [2. 1.]

    Args:
        by_batch: losses, `[C, B]`.
    """
    means = by_batch.cumsum(axis=1) / np.arange(1, by_batch.shape[1] + 1)
    return cast(FloatArray, means.min(axis=1))
