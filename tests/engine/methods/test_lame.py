"""LAME against docs/specification.md §9 and §12.6, and against loops written from the same text."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from doubles import RowNetwork, fallback_step_on, numbered_images, predict_on, step_on
from fozo.engine.methods.lame import Lame, compute_affinities, solve_assignments
from fozo.engine.model import FloatArray, ImageArray
from fozo.engine.registry import METHODS
from fozo.engine.streams.adapter import Adapter

StandIn = Callable[..., Any]
FEATURES = np.array([[1, 0], [0.9, 0.1], [0, 1], [0.1, 0.9], [0.6, 0.5]])
LOGITS = np.array([[2, 0, 0], [1.8, 0.2, 0], [0, 2, 0.5], [0.1, 1.5, 0.6], [0.5, 0.4, 0.6]])
PUBLISHED = np.array(
    [
        [0.9359477292, 0.0334794807, 0.0305727900],
        [0.9169406541, 0.0473487089, 0.0357106369],
        [0.0744679571, 0.8288281142, 0.0967039287],
        [0.1094813193, 0.7496426491, 0.1408760316],
        [0.6670847423, 0.2060497553, 0.1268655024],
    ]
)


def random_network(count: int, classes: int = 6, width: int = 8, seed: int = 0) -> RowNetwork:
    generator = np.random.default_rng(seed)
    return RowNetwork(
        generator.normal(size=(count, width)), logits=2 * generator.normal(size=(count, classes))
    )


def softmax_rows(scores: FloatArray) -> FloatArray:
    rows = []
    for row in scores:
        powers = [math.exp(value - max(row)) for value in row]
        rows.append([power / sum(powers) for power in powers])
    return np.array(rows)


def plain_affinities(features: FloatArray, kind: str, neighbours: int) -> FloatArray:
    n = len(features)
    unit = [row / math.sqrt(sum(value**2 for value in row)) for row in features]
    distance = [[math.sqrt(sum((unit[i] - unit[j]) ** 2)) for j in range(n)] for i in range(n)]
    nearest = [sorted((distance[i][j], j) for j in range(n) if j != i)[:neighbours] for i in range(n)]
    ties = np.zeros((n, n))
    width = sum(each[-1][0] for each in nearest if each) / n
    for i in range(n):
        for j in range(n):
            if i == j:
                continue
            if kind == "knn":
                ties[i, j] = (
                    (j in [index for _, index in nearest[i]]) + (i in [index for _, index in nearest[j]])
                ) / 2
            elif kind == "rbf":
                ties[i, j] = math.exp(-(distance[i][j] ** 2) / (2 * width**2))
            else:
                ties[i, j] = sum(unit[i] * unit[j])
    return ties


def plain_lame(
    features: FloatArray, logits: FloatArray, kind: str = "knn", neighbours: int = 5, limit: int = 100
) -> tuple[FloatArray, list[float]]:
    """Return the matrix Y and the energy of each iteration, with every logarithm where the text has it."""
    ties = plain_affinities(features, kind, neighbours)
    unary = -np.log(softmax_rows(logits) + 1e-10)
    y = softmax_rows(-unary)
    energies: list[float] = []
    for index in range(limit):
        pull = np.array([sum(ties[i, j] * y[j] for j in range(len(y))) for i in range(len(y))])
        y = softmax_rows(-unary + pull)
        energies.append(float(np.sum(unary * y - pull * y + y * np.log(np.maximum(y, 1e-20)))))
        if index > 1 and abs(energies[-1] - energies[-2]) <= 1e-8 * abs(energies[-2]):
            break
    return y, energies


def step(method: Lame, network: Any, given: ImageArray) -> Any:
    return step_on(network, method, method.bind(network.info).init(0), given)[0]


# --- published values


def test_published_values() -> None:
    probabilities = softmax_rows(LOGITS)
    ties = compute_affinities(FEATURES, "knn", 2)
    log_y, energies = solve_assignments(-np.log(probabilities + 1e-10), ties, 100, 1e-8)
    np.testing.assert_allclose(np.exp(log_y), PUBLISHED, rtol=0, atol=1e-9)
    assert len(energies) - 1 == 17
    prediction = step(Lame(neighbours=2), RowNetwork(FEATURES, logits=LOGITS), numbered_images(*range(5)))
    np.testing.assert_allclose(prediction.probabilities, PUBLISHED, rtol=0, atol=1e-6)
    assert prediction.diagnostics["iterations"] == 18
    assert prediction.diagnostics["energy"] == pytest.approx(energies[-1], abs=1e-6)


def test_defaults() -> None:
    assert METHODS["lame"] == Lame(neighbours=5, affinity="knn", max_iterations=100, tolerance=1e-8, window=0)


# --- against loops


@pytest.mark.parametrize("kind", ["knn", "rbf", "linear"])
@pytest.mark.parametrize("count", [2, 3, 5, 6, 7, 20, 64])
@pytest.mark.parametrize("neighbours", [1, 5, 10])
def test_against_loops(kind: Any, count: int, neighbours: int) -> None:
    network = random_network(count, seed=count)
    expected, energies = plain_lame(network.features, network.logits, kind, neighbours)
    np.testing.assert_allclose(
        compute_affinities(network.features, kind, neighbours),
        plain_affinities(network.features, kind, neighbours),
        atol=1e-12,
    )
    unary = -np.log(softmax_rows(network.logits) + 1e-10)
    log_y, found = solve_assignments(unary, compute_affinities(network.features, kind, neighbours), 100, 1e-8)
    assert len(found) == len(energies) > 2
    np.testing.assert_allclose(found, energies, rtol=1e-10)
    np.testing.assert_allclose(np.exp(log_y), expected, rtol=1e-8, atol=1e-12)
    prediction = step(Lame(affinity=kind, neighbours=neighbours), network, numbered_images(*range(count)))
    np.testing.assert_allclose(prediction.probabilities, expected, rtol=0, atol=1e-5)
    assert prediction.logits.dtype == np.float32


def test_iterations_are_limited() -> None:
    network = random_network(9)
    for limit in (1, 2, 3, 4):
        expected, _ = plain_lame(network.features, network.logits, limit=limit)
        prediction = step(Lame(max_iterations=limit), network, numbered_images(*range(9)))
        assert prediction.diagnostics["iterations"] == limit
        np.testing.assert_allclose(prediction.probabilities, expected, atol=1e-6)


def test_tolerance_ends_after_the_third_iteration_at_the_earliest() -> None:
    network = random_network(9)
    found = {
        tolerance: step(Lame(tolerance=tolerance), network, numbered_images(*range(9))).diagnostics[
            "iterations"
        ]
        for tolerance in (1e9, 1e-3, 1e-8, 0.0)
    }
    assert 3 == found[1e9] < found[1e-3] < found[1e-8] < found[0.0] <= 100


# --- invariants


@pytest.mark.parametrize("kind", ["knn", "rbf", "linear"])
def test_energy_never_rises(kind: Any) -> None:
    for seed in range(5):
        network = random_network(30, seed=seed)
        unary = -np.log(softmax_rows(network.logits))
        _, found = solve_assignments(unary, compute_affinities(network.features, kind, 5), 100, 0.0)
        energies = np.array(found)
        assert (np.diff(energies) <= 1e-9 * np.abs(energies[:-1])).all()
        assert energies[0] > energies[-1]


def test_without_ties_nothing_changes() -> None:
    probabilities = softmax_rows(LOGITS)
    log_y, energies = solve_assignments(-np.log(probabilities + 1e-10), np.zeros((5, 5)), 100, 1e-8)
    np.testing.assert_allclose(np.exp(log_y), probabilities, atol=1e-9)
    assert len(energies) == 3


@pytest.mark.parametrize("kind", ["knn", "rbf", "linear"])
def test_a_single_image_is_predicted_by_the_network_alone(kind: Any) -> None:
    network = random_network(4)
    for row in range(4):
        prediction = step(Lame(affinity=kind), network, numbered_images(row))
        expected = softmax_rows(network.logits[row : row + 1])
        np.testing.assert_allclose(prediction.probabilities, expected, atol=1e-6)
        np.testing.assert_allclose(prediction.logits, np.log(expected), atol=1e-5)


@pytest.mark.parametrize("kind", ["knn", "rbf", "linear"])
@pytest.mark.parametrize("count", [2, 7, 40])
def test_exchanged_images_exchange_predictions(kind: Any, count: int) -> None:
    network = random_network(count)
    order = np.arange(count)[::-1] if count == 2 else np.random.default_rng(1).permutation(count)
    straight = step(Lame(affinity=kind), network, numbered_images(*range(count)))
    exchanged = step(Lame(affinity=kind), network, numbered_images(*order))
    np.testing.assert_allclose(exchanged.logits, straight.logits[order], atol=1e-5)
    assert not np.allclose(exchanged.logits, straight.logits, atol=1e-2)


def test_only_directions_of_features_count() -> None:
    network = random_network(9)
    longer = RowNetwork(network.features * np.linspace(0.1, 30, 9)[:, None], logits=network.logits)
    left, right = (step(Lame(), each, numbered_images(*range(9))) for each in (network, longer))
    np.testing.assert_allclose(left.logits, right.logits, atol=1e-5)


def test_more_neighbours_than_images_are_all_others() -> None:
    features = random_network(4).features
    for neighbours in (3, 4, 5, 1000):
        assert compute_affinities(features, "knn", neighbours).tolist() == (1 - np.eye(4)).tolist()
    assert compute_affinities(features, "knn", 2).tolist() != (1 - np.eye(4)).tolist()


def test_of_equally_near_images_the_earlier_is_the_neighbour() -> None:
    corners = np.array([[1.0, 0], [0, 1.0], [-1.0, 0], [0, -1.0]])
    # 0 and 2 are equally near to 1 and 3, and these to 0 and 2: so the neighbours are 1, 0, 1, 0.
    assert compute_affinities(corners, "knn", 1).tolist() == [
        [0, 1, 0, 0.5],
        [1, 0, 0.5, 0],
        [0, 0.5, 0, 0],
        [0.5, 0, 0, 0],
    ]


@pytest.mark.parametrize("kind", ["knn", "rbf", "linear"])
def test_degenerate_features(kind: Any) -> None:
    """The same image several times, features of zero, and logits without any doubt."""
    for features in (np.ones((6, 3)), np.zeros((6, 3)), np.eye(6, 3)):
        logits = np.array([[500.0, 0, 0], [0, 500.0, 0], [0, 0, -500.0]] * 2)
        with np.errstate(all="raise", under="ignore"):
            prediction = step(
                Lame(affinity=kind), RowNetwork(features, logits=logits), numbered_images(*range(6))
            )
        assert np.isfinite(prediction.logits).all()
        np.testing.assert_allclose(prediction.probabilities.sum(axis=1), 1, rtol=1e-12)
        np.testing.assert_allclose(np.exp(prediction.logits).sum(axis=1), 1, rtol=1e-5)


def test_the_same_image_many_times_is_tied_fully() -> None:
    copies = np.ones((6, 3)) * [0.3, 0.7, 0.1]
    np.testing.assert_allclose(compute_affinities(copies, "rbf", 5), 1 - np.eye(6), atol=1e-2)
    np.testing.assert_allclose(compute_affinities(copies, "linear", 5), 1 - np.eye(6), atol=1e-12)


# --- the window


@pytest.mark.parametrize("sizes", [(1,) * 12, (2, 1, 4, 1, 3, 8, 1)])
@pytest.mark.parametrize("window", [1, 5, 9])
def test_window_is_the_joint_graph_of_the_last_images(sizes: tuple[int, ...], window: int) -> None:
    network, method = random_network(sum(sizes)), Lame(neighbours=3, window=window)
    state, first = method.bind(network.info).init(0), 0
    for size in sizes:
        joint = slice(max(0, first - max(0, window - size)), first + size)
        expected, _ = plain_lame(network.features[joint], network.logits[joint], neighbours=3)
        given = numbered_images(*range(first, first + size))
        before = predict_on(network, method, state, given)
        prediction, state = step_on(network, method, state, given)
        np.testing.assert_allclose(prediction.probabilities, expected[-size:], atol=1e-6)
        assert before.logits.tobytes() == prediction.logits.tobytes()
        assert prediction.diagnostics["images"] == joint.stop - joint.start
        first += size
        remembered = slice(max(0, first - window), first)
        assert np.array_equal(state.features, network.features[remembered].astype(np.float32))
        assert np.array_equal(state.logits, network.logits[remembered].astype(np.float32))


def test_without_a_window_nothing_is_remembered() -> None:
    network, method = random_network(9), Lame()
    initial = method.bind(network.info).init(3)
    first, state = step_on(network, method, initial, numbered_images(*range(9)))
    assert (state.step, state.seed, len(state.features), len(state.logits)) == (1, 3, 0, 0)
    again, _ = step_on(network, method, state, numbered_images(*range(9)))
    assert again.logits.tobytes() == first.logits.tobytes()


def test_one_forward(stand_in: StandIn) -> None:
    network, method = stand_in(), Lame(window=5)
    given = np.random.default_rng(0).integers(0, 256, (4, 2, 2, 3), dtype=np.uint8)
    state = method.bind(network.info).init(0)
    prediction, state = step_on(network, method, state, given)
    assert network.forwards == prediction.forwards == method.forwards == 1
    assert predict_on(network, method, state, given).forwards == 1
    assert network.forwards == 2


# --- inside the engine


def test_classes_are_selected_before_the_softmax(bundle_path: Path, random_images: Any) -> None:
    chosen, given = [17, 3, 4, 11], random_images(9)
    adapter = Adapter.open(bundle_path, method="lame", classes=chosen, workers=1)
    whole = Adapter.open(bundle_path, method="no_adapt", workers=1).network(given)
    expected, _ = plain_lame(whole.features[:, -1].astype(float), whole.logits[:, chosen].astype(float))
    np.testing.assert_allclose(adapter.step(given).probabilities, expected, atol=1e-5)


def test_resumed_with_a_window(bundle_path: Path, random_images: Any, tmp_path: Path) -> None:
    batches = [random_images(size, seed=size) for size in (3, 1, 2, 4)]
    whole, cut = (
        Adapter.open(bundle_path, method="lame", window=4, neighbours=2, workers=1) for _ in range(2)
    )
    expected = [whole.step(batch).logits.tobytes() for batch in batches]
    for batch in batches[:2]:
        cut.step(batch)
    cut.save(tmp_path / "state.npz")
    cut.reset()
    assert len(cut.state.logits) == 0  # type: ignore[attr-defined]
    cut.load(tmp_path / "state.npz")
    assert [cut.step(batch).logits.tobytes() for batch in batches[2:]] == expected[2:]


def test_a_broken_image_is_not_remembered() -> None:
    network, method = random_network(9), Lame(window=6)
    _, state = step_on(network, method, method.bind(network.info).init(0), numbered_images(0, 1, 2))
    network.features[4] = np.nan
    prediction, following = fallback_step_on(network, method, state, numbered_images(3, 4))
    assert prediction.fallback
    assert following == replace(state, step=2)
