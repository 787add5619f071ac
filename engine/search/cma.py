"""CMA-ES as pure functions: the search goes in as a value, and the next search comes out.

Formulas are those of N. Hansen, "The CMA Evolution Strategy: A Tutorial" (arXiv 1604.00772), with active
(negative) recombination weights and cumulative step-size adaptation, in the variant of the package `cma`
4.0.0, which the official code of FOA uses and with which the tests compare every generation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

import numpy as np

from ..model import FloatArray

CovarianceForm = Literal["identity", "diagonal", "full"]


@dataclass(frozen=True)
class Search:
    """A search: a normal distribution of N dimensions, and the paths that adapt it.

    Attributes:
        generation: how often it was told.
        mean: m, float64 `[N]`.
        sigma: σ, the step size.
        path_sigma: evolution path of the step size, float64 `[N]`.
        path_c: evolution path of the covariance, float64 `[N]`.
        covariance: C, float64: None stands for the identity, `[N]` is a diagonal, `[N, N]` is all of it.
        basis: eigenvectors of a whole C, as it was when last decomposed, one a column, float64 `[N, N]`.
        scales: square roots of their eigenvalues, float64 `[N]`.
    """

    generation: int
    mean: FloatArray
    sigma: float
    path_sigma: FloatArray
    path_c: FloatArray
    covariance: FloatArray | None
    basis: FloatArray | None
    scales: FloatArray | None


SearchT = TypeVar("SearchT", bound=Search)


@dataclass(frozen=True)
class Constants:
    """The constants that dimension and population determine.

    Attributes:
        weights: of the solutions from best to worst, `[λ]`: the positive ones sum to 1.
        parents: µ, how many weights are positive.
        mu_eff: variance-effective number of parents.
        c_sigma: learning rate of the step size's path.
        d_sigma: damping of the step size.
        c_c: learning rate of the covariance's path.
        c_1: learning rate of the covariance from its path.
        c_mu: learning rate of the covariance from the solutions.
        chi: about the expected length of a standard normal vector.
    """

    weights: FloatArray
    parents: int
    mu_eff: float
    c_sigma: float
    d_sigma: float
    c_c: float
    c_1: float
    c_mu: float
    chi: float

    def period(self, dimension: int) -> int:
        """Return the generations between two decompositions of C, which hardly changes in between."""
        return math.ceil(1 / ((self.c_1 + self.c_mu) * 10 * dimension))


def compute_constants(dimension: int, population: int, *, separable: bool = False) -> Constants:
    """Return the constants for N = `dimension` ≥ 1 and λ = `population` ≥ 2.

    A diagonal has N numbers to learn and not N²: with `separable`, c_1 and c_µ are (N + 2)/3 times as large
    (Ros and Hansen, "A Simple Modification in CMA-ES Achieving Linear Time and Space Complexity", PPSN 2008).
    The negative weights follow from the larger rates then, so that no variance can become negative.
    """
    n = dimension
    raw = np.array([math.log((population + 1) / 2) - math.log(i + 1) for i in range(population)])
    good, bad = raw[raw > 0], raw[raw < 0]
    mu_eff = float(good.sum() ** 2 / np.square(good).sum())
    mu_eff_bad = float(bad.sum() ** 2 / np.square(bad).sum())

    faster = (n + 2) / 3 if separable else 1.0
    c_1 = faster * 2 * min(1, population / 6) / ((n + 1.3) ** 2 + mu_eff)
    c_mu = min(1 - c_1, faster * 2 * (mu_eff + 1 / mu_eff - 1.75) / ((n + 2) ** 2 + mu_eff))
    c_sigma = (mu_eff + 2) / (n + mu_eff + 3)
    bad_sum = min(1 + c_1 / c_mu, (1 - c_1 - c_mu) / (n * c_mu), 1 + 2 * mu_eff_bad / (mu_eff + 2))
    return Constants(
        weights=np.where(raw > 0, raw / good.sum(), raw * (bad_sum / -bad.sum())),
        parents=len(good),
        mu_eff=mu_eff,
        c_sigma=c_sigma,
        d_sigma=1 + 2 * max(0.0, math.sqrt((mu_eff - 1) / (n + 1)) - 1) + c_sigma,
        c_c=(4 + mu_eff / n) / (n + 4 + 2 * mu_eff / n),
        c_1=c_1,
        c_mu=c_mu,
        chi=math.sqrt(n) * (1 - 1 / (4 * n) + 1 / (26 * n**2)),
    )


def start_search(dimension: int, sigma: float, covariance: CovarianceForm) -> Search:
    """Return a search that starts as a standard normal around the origin, scaled by `sigma`.

    Args:
        dimension: N.
        sigma: σ at the start, above 0.
        covariance: the part of C that is learnt: none, where state and generations cost O(N) per solution;
            the diagonal, also O(N); or all of it, with 2 N² numbers and an occasional O(N³) decomposition.
    """
    zeros, ones = np.zeros(dimension), np.ones(dimension)
    search = Search(0, zeros, float(sigma), zeros, zeros, None, None, None)
    if covariance == "diagonal":
        return replace(search, covariance=ones)
    if covariance == "full":
        eye = np.eye(dimension)
        return replace(search, covariance=eye, basis=eye, scales=ones)
    return search


def ask(search: Search, seed: int, step: int, population: int) -> FloatArray:
    """Draw solutions from the distribution, float64 `[λ, N]`.

    The normal numbers behind each are a pure function of the seed, the step and its index.

    Args:
        search: the distribution.
        seed: what the draws derive from.
        step: number of this draw; not the generation, because a draw may never be told.
        population: λ.
    """
    n = len(search.mean)
    normals = [
        np.random.default_rng([seed, step + 1, index]).standard_normal(n) for index in range(population)
    ]
    return search.mean + search.sigma * _color(search, np.stack(normals))


def tell(search: SearchT, solutions: FloatArray, fitness: FloatArray, population: int) -> SearchT:
    """Return the search after one generation; fields that a subclass adds stay.

    Only the order of `fitness` matters; of equals the first counts as better.

    Args:
        search: what `ask` drew from.
        solutions: `[Λ, N]`, Λ ≥ λ: those of `ask`, then others, such as the best one so far. Of the others,
            one that lies farther out than a draw ever would is pulled towards the mean.
        fitness: `[Λ]`, smaller is better.
        population: λ.
    """
    n = len(search.mean)
    is_diagonal = search.covariance is not None and search.covariance.ndim == 1
    k = compute_constants(n, population, separable=is_diagonal)
    moves, lengths = _rank_moves(search, solutions, fitness, population)

    move = k.weights[: k.parents] @ moves[: k.parents]
    rate = math.sqrt(k.c_sigma * (2 - k.c_sigma) * k.mu_eff)
    path_sigma = (1 - k.c_sigma) * search.path_sigma + rate * _whiten(search, move)
    generation = search.generation + 1
    # While σ has far to grow, the path of C waits for it.
    expected = n * (1 - (1 - k.c_sigma) ** (2 * generation))
    waits = bool(path_sigma @ path_sigma / expected >= 2 + 4 / (n + 1))
    path_c = (1 - k.c_c) * search.path_c
    if not waits:
        path_c = path_c + math.sqrt(k.c_c * (2 - k.c_c) * k.mu_eff) * move
    growth = (float(np.linalg.norm(path_sigma)) / k.chi - 1) * k.c_sigma / k.d_sigma

    next_search = replace(
        search,
        generation=generation,
        mean=search.mean + search.sigma * move,
        sigma=search.sigma * math.exp(min(1.0, max(-1.0, growth))),
        path_sigma=path_sigma,
        path_c=path_c,
    )
    if search.covariance is None:
        return next_search
    covariance = _update_covariance(search.covariance, k, moves, lengths, path_c, waits)
    if is_diagonal or generation % k.period(n):
        return replace(next_search, covariance=covariance)
    basis, scales = decompose(covariance)
    return replace(next_search, covariance=covariance, basis=basis, scales=scales)


def _rank_moves(
    search: Search, solutions: FloatArray, fitness: FloatArray, population: int
) -> tuple[FloatArray, FloatArray]:
    """Return moves from the mean in units of σ, `[Λ, N]`, and their lengths in C, from best to worst."""
    n = len(search.mean)
    moves = (solutions - search.mean) / search.sigma
    lengths = np.linalg.norm(_whiten(search, moves), axis=1)
    longest = math.sqrt(n) + 2 * n / (n + 2)
    shrinking = np.ones(len(solutions))
    shrinking[population:] = longest / np.maximum(longest, lengths[population:])
    order = np.argsort(fitness, kind="stable")
    return (shrinking[:, None] * moves)[order], (shrinking * lengths)[order]


def _update_covariance(
    covariance: FloatArray,
    k: Constants,
    moves: FloatArray,
    lengths: FloatArray,
    path_c: FloatArray,
    waits: bool,
) -> FloatArray:
    """Return C, or the diagonal of it, after a generation."""
    middle = np.zeros(len(moves) - len(k.weights))
    weights = np.concatenate([k.weights[: k.parents], middle, k.weights[k.parents :]])
    c_1 = k.c_1 * (1 - k.c_c * (2 - k.c_c)) if waits else k.c_1
    retention = 1 - c_1 - k.c_mu * weights.sum()
    # However long a bad move is, it takes no more variance than one of the expected length.
    weights = np.where(weights < 0, weights * moves.shape[1] / (lengths + 1e-9) ** 2, weights)
    weights, rows = np.append(k.c_mu * weights, k.c_1), np.vstack([moves, path_c])
    updated: FloatArray = weights @ np.square(rows) if covariance.ndim == 1 else (rows.T * weights) @ rows
    updated += retention * covariance
    return updated


def decompose(covariance: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return eigenvectors `[N, N]`, one a column, and roots of eigenvalues `[N]` of a covariance `[N, N]`."""
    variances, basis = np.linalg.eigh(covariance)
    # Rounding may leave an eigenvalue at or below zero, along which nothing could ever be drawn again.
    return basis, np.sqrt(np.maximum(variances, 1e-14 * variances[-1]))


def _color(search: Search, vectors: FloatArray) -> FloatArray:
    """Return `C^(1/2) v` up to a rotation, for rows `[n, N]`."""
    result: FloatArray = vectors
    if search.basis is not None and search.scales is not None:
        result = (vectors * search.scales) @ search.basis.T
    elif search.covariance is not None:
        result = vectors * np.sqrt(search.covariance)
    return result


def _whiten(search: Search, vectors: FloatArray) -> FloatArray:
    """Return `C^(-1/2) v`, for a vector `[N]` or rows `[n, N]`."""
    result: FloatArray = vectors
    if search.basis is not None and search.scales is not None:
        result = (vectors @ search.basis / search.scales) @ search.basis.T
    elif search.covariance is not None:
        result = vectors / np.sqrt(search.covariance)
    return result
