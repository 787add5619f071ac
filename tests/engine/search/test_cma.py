"""CMA-ES against the package `cma` 4.0.0, generation by generation, and what must hold in any case."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import cma as package
import numpy as np
import pytest
from fozo.engine.model import FloatArray
from fozo.engine.search import cma
from fozo.engine.search.cma import CovarianceForm, Search

FORMS: tuple[CovarianceForm, ...] = ("identity", "diagonal", "full")
every_form = pytest.mark.parametrize("form", FORMS)
# What is told beside the solutions that were asked for: from the package's search, and the best one so far.
Beside = Callable[[Any, FloatArray], list[FloatArray]]


def bowl(solutions: FloatArray) -> FloatArray:
    """`Σ i (x_i − 0.7)²` of each row, i = 1..N."""
    weights = np.arange(1, solutions.shape[1] + 1)
    return np.asarray(np.square(solutions - 0.7) @ weights)


def with_covariance(search: Search, covariance: FloatArray) -> Search:
    basis, scales = cma.decompose(covariance)
    return replace(search, covariance=covariance, basis=basis, scales=scales)


def told(
    search: Search, generations: int, seed: int = 1, population: int = 9, f: Any = bowl, beside: bool = False
) -> Search:
    """Return the search after some generations, each with one more solution than it drew."""
    for step in range(generations):
        solutions = cma.ask(search, seed, step, population)
        if beside:
            extra = np.random.default_rng([seed, 99, step]).normal(size=(1, solutions.shape[1]))
            solutions = np.vstack([solutions, 4 * extra])
        search = cma.tell(search, solutions, f(solutions), population)
    return search


# --- constants


def test_constants_of_the_paper_on_vit_b() -> None:
    k = cma.compute_constants(2304, 27)
    expected = {
        "parents": 13,
        "mu_eff": 7.824762623358721,
        "c_c": 1.7345686e-3,
        "c_1": 3.76334866e-7,
        "c_mu": 2.33282342e-6,
        "c_sigma": 4.24427921e-3,
        "d_sigma": 1.00424428,
        "chi": 47.99479,
    }
    for name, value in expected.items():
        assert getattr(k, name) == pytest.approx(value, rel=2e-7), name
    np.testing.assert_allclose(k.weights[:3], [0.22449399, 0.16553074, 0.13103946], atol=5e-9)
    assert k.weights[13] == 0
    np.testing.assert_allclose(k.weights[-3:], [-0.13311182, -0.14211592, -0.15078015], atol=5e-9)
    assert k.weights[:13].sum() == pytest.approx(1, rel=1e-15)
    assert (np.diff(k.weights) < 0).all()


@pytest.mark.parametrize(
    ("dimension", "population"),
    [(12, 27), (1, 2), (2, 3), (3, 7), (5, 6), (7, 2), (12, 9), (40, 28), (192, 27), (300, 14), (10, 400)],
)
def test_constants_are_those_of_the_package(dimension: int, population: int) -> None:
    """Not for populations of 4 and 5, in which the package mirrors one solution, with another damping."""
    theirs = package.CMAEvolutionStrategy([0.0] * dimension, 1, {"popsize": population, "verbose": -9})
    theirs.adapt_sigma.initialize(theirs)
    ours = cma.compute_constants(dimension, population)
    np.testing.assert_allclose(ours.weights, list(theirs.sp.weights), rtol=1e-13)
    pairs = {
        "parents": theirs.sp.weights.mu,
        "mu_eff": theirs.sp.weights.mueff,
        "c_c": theirs.sp.cc,
        "c_1": theirs.sp.c1,
        "c_mu": theirs.sp.cmu,
        "c_sigma": theirs.adapt_sigma.cs,
        "d_sigma": theirs.adapt_sigma.damps,
    }
    for name, value in pairs.items():
        assert getattr(ours, name) == pytest.approx(value, rel=1e-13), name


def test_a_diagonal_learns_faster() -> None:
    """Ros and Hansen (2008): (N + 2)/3 times; and the negative weights leave every variance positive."""
    for dimension, population in ((12, 27), (2304, 27), (5, 2), (1, 4)):
        whole = cma.compute_constants(dimension, population)
        separable = cma.compute_constants(dimension, population, separable=True)
        factor = (dimension + 2) / 3
        assert separable.c_1 == pytest.approx(factor * whole.c_1, rel=1e-14)
        assert separable.c_mu == pytest.approx(min(1 - separable.c_1, factor * whole.c_mu), rel=1e-14)
        taken = separable.c_mu * dimension * -separable.weights[separable.weights < 0].sum()
        assert taken <= (1 - separable.c_1 - separable.c_mu) * (1 + 1e-12)
        assert (separable.parents, separable.mu_eff) == (whole.parents, whole.mu_eff)


def test_a_whole_covariance_is_decomposed_now_and_then() -> None:
    assert [cma.compute_constants(n, 27).period(n) for n in (1, 12, 192, 2304)] == [1, 1, 2, 17]


# --- generations


def nothing(theirs: Any, best: FloatArray) -> list[FloatArray]:
    return []


def best_so_far(theirs: Any, best: FloatArray) -> list[FloatArray]:
    return [best]


def far_away(theirs: Any, best: FloatArray) -> list[FloatArray]:
    """Past the optimum, so that it ranks high although it has to be pulled back; and on its way there."""
    return [theirs.mean + 20 * theirs.sigma * direction for direction in (np.sin(np.arange(theirs.N)), best)]


@pytest.mark.parametrize("beside", [nothing, best_so_far, far_away])
@pytest.mark.parametrize(
    ("dimension", "population", "sigma", "generations"),
    [(12, 27, 1, 40), (12, 6, 1e-3, 40), (192, 27, 1, 12)],
)
def test_generations_are_those_of_the_package(
    dimension: int, population: int, sigma: float, generations: int, beside: Beside
) -> None:
    """The same solutions to both; at 192 dimensions C is decomposed every other generation."""
    settings = {"popsize": population, "seed": 5, "verbose": -9, "CSA_squared": False}
    theirs = package.CMAEvolutionStrategy([0.0] * dimension, sigma, settings)
    theirs.ask()
    start = np.asarray(theirs.sm.C, dtype=np.float64).copy()
    np.testing.assert_allclose(start, np.eye(dimension), atol=2e-4)  # nearly: it breaks the symmetry
    theirs = package.CMAEvolutionStrategy([0.0] * dimension, sigma, settings)

    ours = with_covariance(cma.start_search(dimension, sigma, "full"), start)
    k = cma.compute_constants(dimension, population)
    best, waits, longest = np.full(dimension, 0.3), [], 0.0
    for _ in range(generations):
        solutions = [*(np.asarray(each) for each in theirs.ask()), *beside(theirs, best)]
        fitness = bowl(np.stack(solutions))
        moves = (np.stack(solutions) - ours.mean) / ours.sigma
        longest = max(longest, np.linalg.norm(moves[population:], axis=1).max(initial=0))
        before, ours = ours, cma.tell(ours, np.stack(solutions), fitness, population)
        theirs.tell(solutions, fitness.tolist())
        best = solutions[int(np.argmin(fitness))].copy()
        waits.append(np.allclose(ours.path_c, (1 - k.c_c) * before.path_c, rtol=1e-12, atol=0))

        np.testing.assert_allclose(ours.mean, theirs.mean, rtol=0, atol=1e-13)
        np.testing.assert_allclose(ours.sigma, theirs.sigma, rtol=1e-12)
        np.testing.assert_allclose(ours.covariance, theirs.sm.C, rtol=0, atol=1e-12)
        np.testing.assert_allclose(ours.path_sigma, theirs.adapt_sigma.ps, rtol=0, atol=1e-12)
        np.testing.assert_allclose(ours.path_c, theirs.pc, rtol=0, atol=1e-12)
    assert ours.generation == generations
    moved = np.abs(np.asarray(ours.covariance) - start).max()
    assert moved > 1e-3, "the comparison is empty if the covariance stands still"
    if sigma < 1:
        assert any(waits) and not all(waits), "this start was chosen to need both branches"
    if beside is far_away:
        assert longest > math.sqrt(dimension) + 2, "these solutions were chosen to be pulled back"


def test_a_diagonal_by_hand() -> None:
    """One generation in plain loops: the diagonal of what a whole covariance becomes, with other rates."""
    n, population = 4, 7
    k = cma.compute_constants(n, population, separable=True)
    variances = np.array([0.5, 2.0, 1.0, 3.0])
    search = replace(
        cma.start_search(n, 0.7, "diagonal"),
        covariance=variances,
        mean=np.array([0.1, -0.2, 0.3, 0.0]),
        path_sigma=np.array([0.3, 0.1, -0.2, 0.5]),
        path_c=np.array([-0.1, 0.4, 0.2, 0.3]),
        generation=3,
    )
    solutions = np.vstack([cma.ask(search, 1, 0, population), np.full((1, n), 0.2)])
    fitness = bowl(solutions)
    found = cma.tell(search, solutions, fitness, population)

    ranked = [(solutions[i] - search.mean) / 0.7 for i in np.argsort(fitness)]
    weights = [*k.weights[: k.parents], 0.0, *k.weights[k.parents :]]
    assert len(weights) == len(ranked) == 8
    move = sum(w * y for w, y in zip(k.weights[: k.parents], ranked, strict=False))
    path_sigma = (1 - k.c_sigma) * search.path_sigma + math.sqrt(
        k.c_sigma * (2 - k.c_sigma) * k.mu_eff
    ) * move / np.sqrt(variances)
    path_c = (1 - k.c_c) * search.path_c + math.sqrt(k.c_c * (2 - k.c_c) * k.mu_eff) * move
    expected = (1 - k.c_1 - k.c_mu * sum(weights)) * variances + k.c_1 * path_c**2
    for weight, y in zip(weights, ranked, strict=True):
        factor = n / (y**2 / variances).sum() if weight < 0 else 1
        expected = expected + k.c_mu * weight * factor * y**2
    growth = (np.linalg.norm(path_sigma) / k.chi - 1) * k.c_sigma / k.d_sigma
    np.testing.assert_allclose(found.covariance, expected, rtol=1e-8)
    np.testing.assert_allclose(found.path_sigma, path_sigma, rtol=1e-12)
    np.testing.assert_allclose(found.path_c, path_c, rtol=1e-12)
    np.testing.assert_allclose(found.mean, search.mean + 0.7 * move, rtol=1e-12)
    np.testing.assert_allclose(found.sigma, 0.7 * math.exp(growth), rtol=1e-12)
    assert found.generation == 4


def test_forms_agree_until_something_is_learnt() -> None:
    searches = [told(cma.start_search(6, 1.0, form), 1, beside=True) for form in FORMS]
    for search in searches[1:]:
        np.testing.assert_allclose(search.mean, searches[0].mean, rtol=1e-12)
        np.testing.assert_allclose(search.sigma, searches[0].sigma, rtol=1e-12)
        np.testing.assert_allclose(search.path_sigma, searches[0].path_sigma, rtol=1e-12)
    later = [told(cma.start_search(6, 1.0, form), 4) for form in FORMS]
    assert len({search.sigma for search in later}) == 3


def test_identity_learns_no_covariance_and_stays_small() -> None:
    search = told(cma.start_search(2304, 1.0, "identity"), 3, population=27, beside=True)
    assert (search.covariance, search.basis, search.scales) == (None, None, None)
    sizes = [np.size(getattr(search, f.name)) for f in fields(search)]
    assert sum(sizes) <= 3 * 2304 + 5
    diagonal = told(cma.start_search(2304, 1.0, "diagonal"), 3, population=27, beside=True)
    assert sum(np.size(getattr(diagonal, f.name)) for f in fields(diagonal)) <= 4 * 2304 + 5


@every_form
def test_only_the_order_of_the_fitness_matters(form: CovarianceForm) -> None:
    plain = told(cma.start_search(5, 1.0, form), 6, f=bowl, beside=True)
    grown = told(cma.start_search(5, 1.0, form), 6, f=lambda x: np.exp(bowl(x) / 50), beside=True)
    for f in fields(plain):
        assert np.array_equal(getattr(plain, f.name), getattr(grown, f.name)), f.name
    turned = told(cma.start_search(5, 1.0, form), 6, f=lambda x: -bowl(x), beside=True)
    assert not np.allclose(plain.mean, turned.mean)


@every_form
def test_of_equals_the_first_is_better(form: CovarianceForm) -> None:
    search = cma.start_search(5, 1.0, form)
    solutions = cma.ask(search, 0, 0, 6)
    equal = cma.tell(search, solutions, np.zeros(6), 6)
    ordered = cma.tell(search, solutions, np.arange(6.0), 6)
    assert equal.mean.tobytes() == ordered.mean.tobytes()
    assert not np.allclose(equal.mean, cma.tell(search, solutions, -np.arange(6.0), 6).mean)


def test_only_what_was_not_asked_for_is_pulled_back() -> None:
    search = cma.start_search(3, 1.0, "identity")
    limit = math.sqrt(3) + 2 * 3 / 5
    solutions = np.vstack([cma.ask(search, 0, 0, 2), [[100.0, 0, 0]]])
    found = cma.tell(search, solutions, np.array([1.0, 2.0, 0.0]), 2)  # of two, the best alone is a parent
    np.testing.assert_allclose(found.mean, [limit, 0, 0], rtol=1e-12)
    asked = cma.tell(search, solutions[[2, 1]], np.array([0.0, 1.0]), 2)
    np.testing.assert_allclose(asked.mean, [100, 0, 0], rtol=1e-12)
    near = cma.tell(search, np.vstack([solutions[:2], [[0.5, 0, 0]]]), np.array([1.0, 2.0, 0.0]), 2)
    np.testing.assert_allclose(near.mean, [0.5, 0, 0], rtol=1e-12)


def test_decompositions_are_those_of_their_generation() -> None:
    search = cma.start_search(192, 1.0, "full")
    for generation in range(1, 6):
        before, search = search, told(search, 1, seed=generation, population=27)
        assert search.covariance is not None and search.basis is not None and search.scales is not None
        assert (search.basis is before.basis) is (generation % 2 == 1)
        if generation % 2 == 0:
            again = (search.basis * search.scales**2) @ search.basis.T
            np.testing.assert_allclose(again, search.covariance, atol=1e-12)


# --- values, draws, progress


@dataclass(frozen=True)
class Richer(Search):
    name: str = "kept"


@every_form
def test_searches_are_values(form: CovarianceForm) -> None:
    search = Richer(**vars(cma.start_search(4, 1.0, form)), name="own")
    for _ in range(3):
        for f in fields(search):
            if isinstance(value := getattr(search, f.name), np.ndarray):
                value.setflags(write=False)
        solutions = cma.ask(search, 0, 0, 5)
        fitness = bowl(solutions)
        solutions.setflags(write=False)
        fitness.setflags(write=False)
        search = cma.tell(search, solutions, fitness, 5)
        assert type(search) is Richer and search.name == "own"
    assert search.generation == 3


@every_form
def test_draws_follow_from_seed_step_and_index(form: CovarianceForm) -> None:
    search = told(cma.start_search(6, 0.5, form), 3)
    draws = cma.ask(search, 7, 4, 5)
    assert draws.shape == (5, 6) and draws.dtype == np.float64
    np.testing.assert_allclose(cma.ask(search, 7, 4, 9)[:5], draws, rtol=1e-13)
    assert np.array_equal(cma.ask(replace(search, generation=99), 7, 4, 5), draws)
    others = [cma.ask(search, 7, 5, 5), cma.ask(search, 8, 4, 5), draws[::-1]]
    for other in others:
        assert not np.isclose(other, draws).any(axis=1)[[0, 1, 3, 4]].any()


@every_form
def test_draws_have_the_distribution_of_the_search(form: CovarianceForm) -> None:
    search = told(cma.start_search(3, 0.5, form), 12, population=6)
    covariance = np.eye(3) if search.covariance is None else np.asarray(search.covariance)
    covariance = np.diag(covariance) if covariance.ndim == 1 else covariance
    assert form == "identity" or np.abs(covariance - np.eye(3)).max() > 0.2
    draws = cma.ask(search, 11, 0, 20000)
    np.testing.assert_allclose(draws.mean(axis=0), search.mean, atol=0.04 * search.sigma)
    np.testing.assert_allclose(
        np.cov(draws.T) / search.sigma**2, covariance, atol=0.05 * np.abs(covariance).max()
    )


@every_form
@pytest.mark.parametrize(("dimension", "population"), [(1, 2), (2, 2), (2, 3), (3, 40), (9, 4)])
def test_nothing_breaks_down_without_a_direction(
    form: CovarianceForm, dimension: int, population: int
) -> None:
    """Fitness without any meaning: the variances stay positive and nothing overflows."""
    noise = np.random.default_rng(5)
    search = cma.start_search(dimension, 1.0, form)
    for step in range(300):
        solutions = cma.ask(search, 3, step, population)
        solutions = np.vstack([solutions, 1e3 * noise.normal(size=(1, dimension))])
        search = cma.tell(search, solutions, noise.normal(size=population + 1), population)
        if search.covariance is not None:
            matrix = search.covariance
            smallest = matrix.min() if matrix.ndim == 1 else np.linalg.eigvalsh(matrix).min()
            assert smallest > 0
        assert all(
            np.isfinite(getattr(search, f.name)).all()
            for f in fields(search)
            if getattr(search, f.name) is not None
        )


def test_progress_on_a_bowl_and_on_a_ridge() -> None:
    """All forms find the optimum of a bowl; where scales differ, those that learn them are far ahead."""

    def ridge(x: FloatArray) -> FloatArray:
        return np.asarray(np.square(x - 0.7) @ 10.0 ** np.arange(0, 6))

    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(6, 6)))[0]

    def reached(form: CovarianceForm, f: Any, generations: int) -> float:
        search = told(cma.start_search(6, 1.0, form), generations, population=9, f=f)
        return float(f(search.mean[None])[0])

    for form in FORMS:
        assert reached(form, lambda x: np.square(x - 0.7).sum(axis=1), 150) < 1e-10
    assert reached("full", ridge, 300) < 1e-10
    assert reached("diagonal", ridge, 300) < 1e-10
    assert reached("identity", ridge, 300) > 1e-3
    assert reached("full", lambda x: ridge(x @ turn), 300) < 1e-10
    assert reached("diagonal", lambda x: ridge(x @ turn), 300) > 1e-6


def test_a_covariance_that_rounding_made_singular() -> None:
    basis, scales = cma.decompose(np.array([[1.0, 1.0], [1.0, 1.0 - 1e-15]]))
    assert (scales > 0).all()
    np.testing.assert_allclose((basis * scales**2) @ basis.T, np.ones((2, 2)), atol=1e-12)
