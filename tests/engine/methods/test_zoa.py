"""ZOA: step and bank (docs/specification.md §12.5), padding, and changing domains."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from doubles import predict_on, state_bits, step_on
from fozo.engine.errors import BundleError
from fozo.engine.methods.zoa import Zoa, ZoaState
from fozo.engine.model import FloatArray, ImageArray, ModelInfo, Outputs, SourceStatistics, Tunables
from fozo.engine.runtime.network import Network
from fozo.engine.search import bank as banks
from fozo.engine.search.bank import Bank
from fozo.engine.statistics.activation_shift import compute_logit_offset
from fozo.engine.streams.adapter import Adapter

StandIn = Callable[..., Any]
NORMS = {f"blocks.{block}.norm{which}": 3 for block in range(4) for which in (1, 2)}
# Of bottlenecks with two stages; 5 and 4 channels in a tensor of width 7.
CONVOLUTIONAL = {"bn1": 6, "layer1.0.bn1": 5, "layer1.1.bn1": 5, "layer1.1.bn2": 4, "layer1.1.bn3": 7}
CONVOLUTIONAL |= {f"layer2.{block}.bn{which}": 7 for block in range(3) for which in (1, 2, 3)}
# Batches of 6 images are checked (0.4 apart within a domain, 1.9 across), and the bank fills up.
SMALL = Zoa(domain_min_batch=4, domain_threshold=1.0, bank_limit=2, rate=0.005)


def images(count: int, seed: int = 0, domain: int = 0) -> ImageArray:
    """Domains differ in brightness."""
    drawn = np.random.default_rng([seed, domain]).integers(0, 100, (count, 2, 2, 3)) + 50 * domain
    made = drawn.astype(np.uint8)
    made.setflags(write=False)
    return made


class Recording:
    """A stand-in as a network with batch statistics, which keeps what it is fed."""

    def __init__(self, network: Any, **changes: Any) -> None:
        self.network = network
        self.info = replace(network.info, **changes)
        self.fed: list[dict[str, FloatArray]] = []

    def __call__(self, images: ImageArray, **tunables: FloatArray) -> Outputs:
        self.fed.append(tunables)
        kept = {name: array for name, array in tunables.items() if name != "batch_statistics"}
        outputs: Outputs = self.network(images, **kept)
        return outputs

    def candidates(self, images: ImageArray, tunables: Sequence[Tunables]) -> list[Outputs]:
        return [self(images, **each) for each in tunables]


def learnt(network: Any, method: Zoa = SMALL, batches: int = 9) -> ZoaState:
    """Return the state after a few domains of two batches each."""
    state = method.bind(network.info).init(3)
    for batch in range(batches):
        _, state = step_on(network, method, state, images(6, batch, batch // 2 % 4))
    return state


# --- what zoa needs


def test_what_zoa_needs(stand_in: StandIn) -> None:
    with pytest.raises(BundleError, match="zoa tunes norms"):
        Zoa().bind(stand_in().info).init(0)
    with pytest.raises(BundleError, match="fozo source"):
        Zoa().bind(replace(stand_in(norms=NORMS).info, source=None)).init(0)


def test_graphs_without_an_embedding(stand_in: StandIn) -> None:
    class Blind(Recording):
        def __call__(self, images: ImageArray, **tunables: FloatArray) -> Outputs:
            return replace(super().__call__(images, **tunables), embedding=None)

    network = Blind(stand_in(norms=NORMS))
    with pytest.raises(BundleError, match="embedding"):
        step_on(network, Zoa(), Zoa().bind(network.info).init(0), images(4))


def test_size_of_the_state_for_vit_b(stand_in: StandIn) -> None:
    norms = {f"blocks.{block}.norm{which}": 768 for block in range(12) for which in (1, 2)}
    info = replace(stand_in(norms=norms).info, layers=12)
    state = Zoa().bind(info).init(0)
    assert state.bank.residual.shape == (24_576,)
    bank = state.bank
    for _ in range(40):
        bank = banks.save(bank, np.arange(32) * 768, 32, "compacted")
    arrays = [bank.coefficients, bank.entries, bank.residual, bank.similarity]
    channels = 8 * 768 * (2 + 2 + 1)  # domain, pool, center
    assert sum(array.nbytes for array in arrays) + channels <= 3.3e6


# --- padding, batch statistics


def test_padding_takes_no_part(stand_in: StandIn) -> None:
    """Values of narrow norms are fed in their place, and zeros, which the state does not have, elsewhere."""
    network = Recording(stand_in(norms=CONVOLUTIONAL))
    method = replace(SMALL, frozen_last_blocks=2)  # layer1.1 and layer2.0
    places = {2: 5, 3: 4, 5: 7, 6: 7}  # row of the tensor: channels
    state = learnt(network, method)
    assert state.bank.residual.shape == (2 * sum(places.values()),)
    adapted = np.zeros((9 + 5, 2, 7), bool)
    for row, width in places.items():
        adapted[row, :, :width] = True
    assert len(network.fed) == 18
    for fed in network.fed:
        assert fed["norms"].shape == (1, 14, 2, 7) and fed["norms"].dtype == np.float32
        assert not fed["norms"][0][~adapted].any()
    assert network.fed[-1]["norms"][0][adapted].all()
    bank = state.bank
    network.fed.clear()
    predict_on(network, method, state, images(2))
    effective = banks.compute_change(bank)
    np.testing.assert_array_equal(network.fed[0]["norms"][0][adapted], effective)  # gain, then bias


def test_tensors_are_gains_and_biases(stand_in: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(
        "fozo.engine.methods.zoa.save", lambda bank, tensors, *rest: seen.append(tensors) or bank
    )
    learnt(stand_in(norms=CONVOLUTIONAL), replace(SMALL, frozen_last_blocks=2), batches=3)
    assert [each.tolist() for each in seen] == [[0, 5, 10, 14, 18, 25, 32, 39]]


def test_batch_statistics_are_used_where_there_are_any(stand_in: StandIn) -> None:
    plain = Recording(stand_in(norms=NORMS))
    network = Recording(stand_in(norms=NORMS), tunables=("norms", "batch_statistics"))
    for each in (plain, network):
        state = learnt(each)
        predict_on(each, SMALL, state, images(3))
    assert not any("batch_statistics" in fed for fed in plain.fed)
    for fed in network.fed:
        assert fed["batch_statistics"].dtype == np.float32 and fed["batch_statistics"].tolist() == [1.0]


# --- the step


class Fixed:
    """A network that answers with the features of TV-1 whatever it is shown."""

    def __init__(self, info: ModelInfo) -> None:
        b, layer, d = np.ogrid[:4, :2, :3]
        self.features = np.sin(1 + b + 0.5 * layer + 0.25 * d)
        k, i = np.ogrid[:5, :3]
        source = SourceStatistics(
            0.1 * np.arange(6).reshape(2, 3), 0.5 + 0.05 * np.arange(6).reshape(2, 3), 9
        )
        self.info = replace(
            info, head_weight=np.cos(0.3 * k + 0.7 * i), head_bias=0.1 * np.arange(5), source=source
        )

    def __call__(self, images: ImageArray, **tunables: FloatArray) -> Outputs:
        logits = self.features[:, -1] @ self.info.head_weight.T + self.info.head_bias
        return Outputs(logits, self.features, np.ones((4, 2, 3)))

    def candidates(self, images: ImageArray, tunables: Sequence[Tunables]) -> list[Outputs]:
        return [self(images) for _ in tunables]


def test_published_loss(stand_in: StandIn) -> None:
    network = Fixed(stand_in(norms=NORMS).info)
    prediction, state = step_on(network, Zoa(), Zoa().bind(network.info).init(0), images(4))
    assert prediction.loss == pytest.approx(7.2564470135055865, abs=1e-8)
    assert prediction.diagnostics["discrepancy"] == pytest.approx(0.19614310167509538, abs=1e-8)
    second, _ = step_on(network, Zoa(), state, images(4))
    assert second.loss == prediction.loss  # of unshifted logits
    shift = [0.2330865537, 0.4513017922, 0.6663273338]
    np.testing.assert_allclose(
        second.logits - prediction.logits,
        np.tile(network.info.head_weight @ shift, (4, 1)),
        rtol=0,
        atol=1e-6,
    )


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, 2),
        ({"samples": 3}, 4),
        ({"estimator": "two_sided"}, 3),
        ({"estimator": "two_sided", "samples": 2, "updates": 3}, 15),
    ],
)
def test_forwards_are_counted(stand_in: StandIn, changes: dict[str, Any], expected: int) -> None:
    network, method = stand_in(norms=NORMS), replace(SMALL, **changes)
    state = method.bind(network.info).init(0)
    assert network.forwards == 0
    for count in range(1, 7):
        prediction, state = step_on(network, method, state, images(6, count, count // 2))
        assert network.forwards == count * expected
        assert prediction.forwards == method.forwards == expected


def test_prediction_precedes_the_update(stand_in: StandIn) -> None:
    network = stand_in(norms=NORMS)
    state = learnt(network)
    assert len(state.bank.entries) == 2
    for domain in (0, 2):
        outcomes = [
            step_on(network, replace(SMALL, rate=rate, mixture_rate=rate), state, images(6, 50, domain))
            for rate in (0.0, 0.5)
        ]
        assert outcomes[0][0].logits.tobytes() == outcomes[1][0].logits.tobytes()
        assert outcomes[0][1].bank.residual.tobytes() != outcomes[1][1].bank.residual.tobytes()


def test_without_rates_and_changes_nothing_is_learnt(stand_in: StandIn) -> None:
    network = stand_in(norms=NORMS)
    method = replace(SMALL, rate=0.0, mixture_rate=0.0)
    state = learnt(network)
    _, state = step_on(network, method, state, images(6, 20, 0))
    _, following = step_on(network, method, state, images(6, 21, 0))
    for name in ("residual", "coefficients", "entries"):
        assert getattr(following.bank, name).tobytes() == getattr(state.bank, name).tobytes()


def test_an_empty_bank_has_no_influence(stand_in: StandIn) -> None:
    network = stand_in(norms=NORMS)
    state = SMALL.bind(network.info).init(0)
    for batch in range(3):
        usual, following = step_on(network, SMALL, state, images(6, batch))
        moved = replace(state, bank=replace(state.bank, coefficients=state.bank.coefficients + 3))
        other, after = step_on(network, SMALL, moved, images(6, batch))
        assert usual.logits.tobytes() == other.logits.tobytes()
        assert following.bank.residual.tobytes() == after.bank.residual.tobytes()
        assert after.bank.coefficients.tobytes() == moved.bank.coefficients.tobytes()
        state = following
    assert state.bank.residual.any()


@pytest.mark.parametrize("estimator", ["one_sided", "two_sided"])
def test_no_perturbation_compares_equals(stand_in: StandIn, estimator: Any) -> None:
    network = stand_in(norms=NORMS)
    method = replace(SMALL, perturbation=0.0, mixture_perturbation=0.0, estimator=estimator)
    state = learnt(network)
    _, following = step_on(network, method, state, images(6, 9, 0))
    decay = 1 - SMALL.rate * SMALL.weight_decay
    np.testing.assert_allclose(following.bank.residual, decay * state.bank.residual, rtol=1e-6)
    np.testing.assert_allclose(
        following.bank.coefficients, state.bank.coefficients * (1 - 0.01 * 0.1), rtol=1e-12
    )


def test_each_batch_draws_anew(stand_in: StandIn) -> None:
    network = stand_in(norms=NORMS)
    method = replace(SMALL, weight_decay=0.0)
    state = method.bind(network.info).init(0)
    moves = []
    for batch in range(3):
        _, following = step_on(network, method, state, images(6, batch))
        moves.append(following.bank.residual - state.bank.residual)
        state = following
    correlations = np.corrcoef(np.sign(moves))
    np.fill_diagonal(correlations, 0)
    assert np.abs(correlations).max() < 0.9


def test_learning_lowers_the_loss(stand_in: StandIn) -> None:
    """Two-sided, with many samples, it is gradient descent."""
    network = stand_in(norms=NORMS)
    method = Zoa(samples=8, estimator="two_sided", rate=0.002, discrepancy_weight=5.0)
    state = method.bind(network.info).init(0)
    losses = []
    for _ in range(25):
        prediction, state = step_on(network, method, state, images(20))
        losses.append(prediction.loss or 0.0)
    assert losses[-1] < 0.8 * losses[0]


def test_a_permutation_of_the_images_permutes_the_logits(stand_in: StandIn) -> None:
    network = stand_in(norms=NORMS)
    order = np.random.default_rng(0).permutation(7)
    straight = permuted = SMALL.bind(network.info).init(0)
    for batch in range(6):
        given = images(7, batch, batch // 2)
        usual, straight = step_on(network, SMALL, straight, given)
        other, permuted = step_on(network, SMALL, permuted, given[order])
        np.testing.assert_allclose(other.logits, usual.logits[order], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(permuted.bank.residual, straight.bank.residual, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(permuted.bank.coefficients, straight.bank.coefficients, rtol=1e-5)


# --- domains


@pytest.mark.parametrize(
    ("changes", "power"),
    [
        ({}, 2),
        ({"domain_update": "once"}, 1),
        ({"samples": 3}, 4),
        ({"estimator": "two_sided"}, 3),
        ({"updates": 2}, 4),
    ],
)
def test_moving_average_of_the_domain(stand_in: StandIn, changes: dict[str, Any], power: int) -> None:
    """Every forward of the official code takes the batch in: 0.36 of it after two."""
    network, method = stand_in(norms=NORMS), replace(SMALL, domain_threshold=10.0, **changes)
    _, first = step_on(network, method, method.bind(network.info).init(0), images(6, 0))
    _, alone = step_on(network, method, method.bind(network.info).init(0), images(6, 1))
    _, second = step_on(network, method, first, images(6, 1))
    expected = 0.8**power * first.domain.statistics + (1 - 0.8**power) * alone.domain.statistics
    np.testing.assert_allclose(second.domain.statistics, expected, rtol=1e-12)


def test_a_new_domain(stand_in: StandIn) -> None:
    """The bank gets what was learnt; the running mean starts anew; the outputs still have the old shift."""
    network = stand_in(norms=NORMS)
    state = SMALL.bind(network.info).init(3)
    for batch in range(3):
        _, state = step_on(network, SMALL, state, images(6, batch))
    given = images(6, 4, 3)
    prediction, following = step_on(network, SMALL, state, given)
    assert prediction.diagnostics["domain_changed"] == 1 and prediction.diagnostics["bank"] == 1
    assert prediction.diagnostics["domain_distance"] > 1
    np.testing.assert_array_equal(
        following.bank.entries, state.bank.residual[None]
    )  # nothing else was in force
    norms = np.zeros((1, 8, 2, 3), np.float32)
    norms[0, 2:4] = state.bank.residual.reshape(2, 2, 3)
    outputs = network(given, norms=norms)
    np.testing.assert_allclose(following.center, outputs.features[:, -1].mean(axis=0), rtol=1e-12)
    assert state.center is not None
    stale = compute_logit_offset(network.info.head_weight, network.info.source.mean[-1] - state.center)
    np.testing.assert_allclose(prediction.logits, outputs.logits + stale, rtol=1e-12)
    fresh, other = step_on(network, replace(SMALL, shift_on_change="none"), state, given)
    np.testing.assert_allclose(fresh.logits, outputs.logits, rtol=1e-12)
    assert state_bits(other) == state_bits(following)


def test_a_new_domain_empties_the_window(stand_in: StandIn) -> None:
    network, method = stand_in(norms=NORMS), replace(SMALL, window=10)
    state = learnt(network, method, batches=2)
    assert len(state.window) == 10
    given = images(6, 2, 1)
    windowed, following = step_on(network, method, state, given)
    alone, _ = step_on(network, SMALL, state, given)
    assert windowed.diagnostics["domain_changed"] == 1
    assert windowed.loss == alone.loss
    assert len(following.window) == 6
    _, following = step_on(network, method, following, images(6, 3, 1))
    assert len(following.window) == 10


def test_small_batches_find_new_domains(stand_in: StandIn) -> None:
    network = stand_in(norms=NORMS)
    for rule, expected in (("accumulate", 2), ("skip", 0)):
        method = replace(SMALL, domain_min_batch=8, domain_small_batches=rule)
        state, changes = method.bind(network.info).init(0), 0.0
        for batch in range(36):
            prediction, state = step_on(network, method, state, images(1 + batch % 2, batch, batch // 12))
            changes += prediction.diagnostics["domain_changed"]
        assert changes == len(state.bank.entries) == expected


def test_predict_learns_nothing(stand_in: StandIn) -> None:
    network = stand_in(norms=NORMS)
    state = learnt(network)
    before, forwards = state_bits(state), network.forwards
    prediction = predict_on(network, SMALL, state, images(5, 30))
    assert (network.forwards - forwards, prediction.forwards) == (1, 1)
    assert state_bits(state) == before
    # A step predicts with the same norms and the same shift, before it learns.
    stepped, _ = step_on(network, SMALL, state, images(5, 30))
    assert prediction.logits.tobytes() == stepped.logits.tobytes()


def test_states_are_values(stand_in: StandIn) -> None:
    network = stand_in(norms=NORMS)
    state = learnt(network)
    for f in fields(state):
        value = getattr(state, f.name)
        if isinstance(value, np.ndarray):
            value.setflags(write=False)
    before = state_bits(state)
    outcomes = [step_on(network, SMALL, state, images(6, 40, 3))[1] for _ in range(2)]
    assert state_bits(outcomes[0]) == state_bits(outcomes[1]) != before == state_bits(state)


# --- on exported networks


@pytest.fixture(scope="module")
def network(bundle_path: Path) -> Iterator[Network]:
    with Network.open(bundle_path, workers=1) as opened:
        yield opened


def test_neutral_norms_are_the_plain_model(
    network: Network, random_images: Callable[..., ImageArray]
) -> None:
    given = random_images(9)
    state = Zoa().bind(network.info).init(0)
    prediction, _ = step_on(network, Zoa(), state, given)
    np.testing.assert_allclose(prediction.logits, network(given).logits, rtol=0, atol=1e-5)


def features(network: Network, bank: Bank, given: ImageArray) -> FloatArray:
    norms = np.zeros((1, len(network.info.norms), 2, network.info.width), np.float32)
    norms[0, 2:4] = banks.compute_change(bank).reshape(2, 2, -1)  # blocks.1 of three
    found: FloatArray = network(given, norms=norms).features
    return found


@pytest.mark.parametrize("rule", ["compacted", "official"])
def test_saving_and_removing_change_no_feature(
    network: Network, random_images: Callable[..., ImageArray], rule: Any
) -> None:
    given = random_images(9)
    width, generator = network.info.width, np.random.default_rng(0)
    bank = Bank(
        np.zeros(1), np.zeros((0, 4 * width), np.float32), np.zeros(4 * width, np.float32), np.zeros((0, 0))
    )
    plain = features(network, bank, given)
    for _ in range(6):
        change = generator.normal(0, 0.05, 4 * width).astype(np.float32)
        bank = replace(bank, residual=bank.residual + change)
        before = features(network, bank, given)
        bank = banks.save(bank, np.arange(4) * width, 3, rule)
        np.testing.assert_allclose(features(network, bank, given), before, rtol=0, atol=1e-5)
        smaller = banks.remove(bank, 0, rule)
        np.testing.assert_allclose(features(network, smaller, given), before, rtol=0, atol=1e-5)
        assert np.abs(before - plain).max() > 0.1
    assert len(bank.entries) == 3


def test_a_full_bank_resumes(
    bundle_path: Path, random_images: Callable[..., ImageArray], tmp_path: Path
) -> None:
    """A checkpoint of a state whose arrays have grown continues bit for bit."""
    method = Zoa(domain_min_batch=4, domain_threshold=0.0, bank_limit=2)
    with Network.open(bundle_path, workers=1) as opened:
        whole, resumed = (Adapter(opened, method, seed=4) for _ in range(2))
        for batch in range(5):
            whole.step(random_images(5, seed=batch))
        whole.step(random_images(2, seed=9))  # waits in the pool
        assert isinstance(whole.state, ZoaState)
        assert len(whole.state.bank.entries) == 2 and whole.state.domain.pool_images == 2
        whole.save(tmp_path / "state.npz")
        resumed.load(tmp_path / "state.npz")
        for batch in range(5, 8):
            left, right = (each.step(random_images(5, seed=batch)) for each in (whole, resumed))
            assert left.logits.tobytes() == right.logits.tobytes()
        assert isinstance(resumed.state, ZoaState)
        assert state_bits(whole.state) == state_bits(resumed.state)
