"""What every method must do: all of `METHODS` and some variants, on networks that were really exported."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import FrozenInstanceError, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_origin, get_type_hints

import numpy as np
import pytest
from doubles import state_bits, step_on
from fozo.engine.bundle.bundle import Bundle
from fozo.engine.errors import BundleError, InputError, StateError
from fozo.engine.methods.foa import Foa
from fozo.engine.methods.lame import Lame
from fozo.engine.methods.moments import MomentMatching
from fozo.engine.methods.pizo import Pizo
from fozo.engine.methods.t3a import T3a
from fozo.engine.methods.zoa import Zoa
from fozo.engine.model import FloatArray, ImageArray, ModelInfo, Outputs, Tunables
from fozo.engine.registry import METHODS as ALL_METHODS
from fozo.engine.registry import AnyMethod, Fozo, Prediction, Shift, State, describe, method
from fozo.engine.runtime.network import Network
from fozo.engine.state import iterate_values
from fozo.engine.streams.adapter import Adapter

MakeImages = Callable[..., ImageArray]

# Vision transformers have no batch norms to adapt: test_bn_adapt.py.
METHODS = {name: each for name, each in ALL_METHODS.items() if name != "bn_adapt"}

# Methods inside other methods: their forwards and predictions are partly the frozen network's.
WRAPPED: dict[str, AnyMethod] = {
    "shift-interval": method("shift", interval=4),
    "fozo-interval": method("fozo", interval=9),
    "fozo-guard": method("fozo", guard="rollback", guard_diversity=0.01),
    "zoa-guard": method("zoa", guard="warn"),
    "t3a-interval-guard": method("t3a", interval=8, guard="reset", guard_diversity=0.01),
    "fozo-domains": method("fozo", domains=1, domains_threshold=0.0),
    "moments-interval-domains-guard": method(
        "moments", interval=4, domains=3, domains_threshold=0.0, guard="rollback", guard_diversity=0.01
    ),
}
VARIANTS: dict[str, AnyMethod] = {
    **METHODS,
    **WRAPPED,
    "shift-inclusive": Shift(update="inclusive", gain=0.5),
    "shift-global": Shift(average="global"),
    "moments-lagged": MomentMatching(update="lagged", gain=0.5),
    "lame-window": Lame(neighbours=2, window=9),
    "lame-rbf": Lame(affinity="rbf", window=4),
    "lame-linear": Lame(affinity="linear"),
    "t3a-1": T3a(supports=1),
    "foa-diagonal": Foa(population=4, covariance="diagonal", loss_norm="mean_squared", window=9),
    "foa-full": Foa(population=3, prompts=1, covariance="full", shift_update="inclusive", output="clean"),
    "foa-shifted": Foa(population=2, entropy_on="shifted", loss_norm="l2_per_layer", loss_scale="per_image"),
    "fozo-samples": Fozo(samples=3),
    "fozo-mean": Fozo(output="mean", shift="source_mean", loss_scale="per_image"),
    "fozo-clean": Fozo(output="clean", shift="none", loss_norm="l2_groups"),
    "fozo-inclusive": Fozo(shift_update="inclusive", shift="origin", entropy_on="unshifted"),
    "fozo-0": Fozo(prompts=0),
    "fozo-1": Fozo(prompts=1, loss_norm="mean_squared", update_rate="previous"),
    "fozo-10": Fozo(prompts=10, loss_norm="l2_per_layer", schedule_loss="mean"),
    "zoa-domains": Zoa(domain_threshold=0.0, domain_min_batch=2, bank_limit=2, window=9),
    "zoa-official": Zoa(
        domain_threshold=0.0, domain_small_batches="skip", domain_min_batch=2, similarity="official"
    ),
    "pizo-both": Pizo(
        tune="both", first_block=0, update_images=5, directions="gaussian", diversity_weight=1.0
    ),
    "zoa-two-sided": Zoa(
        estimator="two_sided", samples=2, updates=2, domain_threshold=0.0, domain_min_batch=5, shift="none"
    ),
}
RANDOM = [name for name, each in VARIANTS.items() if isinstance(each, Pizo) or getattr(each, "prompts", 0)]
SIZES = (7, 1, 2, 7, 7, 3)  # ragged, with a single image in the middle

every_method = pytest.mark.parametrize("name", VARIANTS)
unwrapped = pytest.mark.parametrize("name", [name for name in VARIANTS if name not in WRAPPED])
registered = pytest.mark.parametrize("name", METHODS)


class Counting:
    """Counts the forwards that a method asks of a network, and withholds the right to write into arrays."""

    def __init__(self, network: Network) -> None:
        self.network, self.forwards = network, 0

    @property
    def info(self) -> ModelInfo:
        return self.network.info

    def __call__(self, images: ImageArray, **tunables: FloatArray) -> Outputs:
        self.forwards += 1
        return self._locked(self.network(images, **tunables))

    def candidates(self, images: ImageArray, tunables: Sequence[Tunables]) -> list[Outputs]:
        self.forwards += len(tunables)
        return [self._locked(outputs) for outputs in self.network.candidates(images, tunables)]

    @staticmethod
    def _locked(outputs: Outputs) -> Outputs:
        outputs.logits.setflags(write=False)
        outputs.features.setflags(write=False)
        return outputs


@pytest.fixture(autouse=True)
def domains_of_few_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or else no batch here would be enough to check for a change."""
    monkeypatch.setattr("fozo.engine.wrappers.domain_states.IMAGES", 8)


@pytest.fixture(scope="module")
def networks(bundle_paths: dict[int, Path]) -> Iterator[dict[int, Network]]:
    """By width, one worker each."""
    opened = {width: Network.open(path, workers=1) for width, path in bundle_paths.items()}
    yield opened
    for network in opened.values():
        network.close()


@pytest.fixture(scope="module")
def network(networks: dict[int, Network]) -> Network:
    return networks[64]


@pytest.fixture(scope="module")
def int8_network(int8_bundle_path: Path) -> Iterator[Network]:
    """The network of `network`, on integers."""
    with Network.open(int8_bundle_path, "int8", workers=1) as opened:
        yield opened


@pytest.fixture(params=["fp32", "int8"])
def either_network(request: pytest.FixtureRequest, network: Network, int8_network: Network) -> Network:
    """Both, one after the other."""
    return network if request.param == "fp32" else int8_network


@pytest.fixture(scope="module")
def stream(random_images: MakeImages) -> list[ImageArray]:
    """Read-only batches of `SIZES`."""
    return [random_images(size, seed=index) for index, size in enumerate(SIZES)]


def lock(state: State) -> State:
    """Makes the state's arrays read-only."""
    for _, value in iterate_values(state):
        if isinstance(value, np.ndarray):
            value.setflags(write=False)
    return state


def run(adapter: Adapter, stream: list[ImageArray]) -> list[Prediction]:
    return [adapter.step(images) for images in stream]


def assert_identical(left: list[Prediction], right: list[Prediction]) -> None:
    for index, (a, b) in enumerate(zip(left, right, strict=True)):
        assert a.logits.tobytes() == b.logits.tobytes(), index
        assert (a.loss, a.forwards, dict(a.diagnostics)) == (b.loss, b.forwards, dict(b.diagnostics)), index


# --- predictions and states


@every_method
def test_predictions_and_states(either_network: Network, stream: list[ImageArray], name: str) -> None:
    adapter = Adapter(either_network, VARIANTS[name])
    for index, images in enumerate(stream):
        prediction = adapter.step(images)
        assert prediction.logits.shape == (len(images), either_network.info.classes)
        assert prediction.logits.dtype == np.float32
        assert np.isfinite(prediction.logits).all()
        assert not prediction.frozen or name in WRAPPED
        assert prediction.probabilities.shape == prediction.logits.shape
        np.testing.assert_allclose(prediction.probabilities.sum(axis=1), 1, rtol=1e-12)
        assert prediction.loss is None or np.isfinite(prediction.loss)
        assert all(type(value) is float and np.isfinite(value) for value in prediction.diagnostics.values())
        assert all(np.isfinite(v).all() for _, v in iterate_values(adapter.state) if v is not None)
        assert (adapter.state.step, adapter.state.seed) == (index + 1, adapter.seed)
    assert adapter.frozen_batches == 0 or name in WRAPPED


@every_method
@pytest.mark.parametrize("size", [1, 2, 7, 64])
def test_batch_sizes(either_network: Network, random_images: MakeImages, name: str, size: int) -> None:
    adapter = Adapter(either_network, VARIANTS[name])
    for batch in range(4 if size < 64 else 2):
        prediction = adapter.step(random_images(size, seed=batch))
        assert prediction.logits.shape[0] == size
        assert np.isfinite(prediction.logits).all()
        assert not prediction.frozen or name in WRAPPED


@every_method
def test_methods_with_something_to_learn_change_what_they_predict(
    network: Network, stream: list[ImageArray], name: str
) -> None:
    frozen = run(Adapter(network, METHODS["no_adapt"]), stream)
    adapted = run(Adapter(network, VARIANTS[name]), stream)
    differs = [not np.array_equal(a.logits, b.logits) for a, b in zip(frozen, adapted, strict=True)]
    assert any(differs) is (name != "no_adapt")


@unwrapped
def test_forwards_are_counted(network: Network, stream: list[ImageArray], name: str) -> None:
    counting = Counting(network)
    configured = VARIANTS[name]
    state = configured.bind(counting.info).init(0)
    assert counting.forwards == 0
    for images in stream:
        before = counting.forwards
        prediction, state = step_on(counting, configured, state, images)
        assert counting.forwards - before == prediction.forwards == configured.forwards >= 1


@every_method
def test_nothing_that_is_passed_in_is_changed(network: Network, stream: list[ImageArray], name: str) -> None:
    """Images, states and the network's answers are read-only here, so an attempt would raise."""
    configured, counting = VARIANTS[name], Counting(network)
    state = lock(configured.bind(network.info).init(0))
    for images in stream:
        assert not images.flags.writeable
        pixels, before = images.tobytes(), state_bits(state)
        _, following = step_on(counting, configured, state, images)
        assert images.tobytes() == pixels
        assert state_bits(state) == before
        state = lock(following)


@every_method
def test_images_may_be_views(network: Network, random_images: MakeImages, name: str) -> None:
    whole = random_images(12)
    mirrored = whole[:, :, ::-1]
    for view in (whole[::2], mirrored[:5]):
        assert not view.flags.c_contiguous
        left = run(Adapter(network, VARIANTS[name]), [view, view])
        right = run(Adapter(network, VARIANTS[name]), [np.ascontiguousarray(view)] * 2)
        assert_identical(left, right)


# --- reset, seeds, resuming


@every_method
def test_reset_is_the_start_bit_for_bit(either_network: Network, stream: list[ImageArray], name: str) -> None:
    adapter = Adapter(either_network, VARIANTS[name])
    start = state_bits(adapter.state)
    first = run(adapter, stream)
    assert state_bits(adapter.state) != start
    adapter.reset()
    assert state_bits(adapter.state) == start
    assert adapter.frozen_batches == 0
    assert_identical(run(adapter, stream), first)


@every_method
def test_same_seed_same_results(network: Network, stream: list[ImageArray], name: str) -> None:
    left, right = (Adapter(network, VARIANTS[name], seed=5) for _ in range(2))
    np.random.seed(1)  # the global generator has no say
    first = run(left, stream)
    np.random.seed(2)
    assert_identical(first, run(right, stream))
    assert state_bits(left.state) == state_bits(right.state)


@unwrapped
def test_other_seed(network: Network, stream: list[ImageArray], name: str) -> None:
    left, right = (run(Adapter(network, VARIANTS[name], seed=seed), stream) for seed in (5, 6))
    same = [a.logits.tobytes() == b.logits.tobytes() for a, b in zip(left, right, strict=True)]
    if isinstance(VARIANTS[name], Zoa):  # the first batch is predicted before anything is drawn
        assert same[0] and not any(same[1:])
    else:
        assert not any(same) if name in RANDOM else all(same)


@every_method
def test_streams_on_one_network_do_not_meet(network: Network, stream: list[ImageArray], name: str) -> None:
    alone = run(Adapter(network, VARIANTS[name], seed=5), stream)
    adapter, other = (Adapter(network, VARIANTS[name], seed=seed) for seed in (5, 6))
    together = []
    for images in stream:
        other.step(images[::-1])
        together.append(adapter.step(images))
    assert_identical(alone, together)


@every_method
@pytest.mark.parametrize("cut", [0, 1, 4])
def test_resumed_equals_uninterrupted(
    bundle_path: Path, stream: list[ImageArray], tmp_path: Path, name: str, cut: int
) -> None:
    def start() -> Adapter:
        return Adapter(Network.open(bundle_path, workers=1), VARIANTS[name], seed=9)

    whole = start()
    expected = run(whole, stream)
    interrupted = start()
    run(interrupted, stream[:cut])
    interrupted.save(tmp_path / "state.npz")
    resumed = start()
    resumed.load(tmp_path / "state.npz")
    assert state_bits(resumed.state) == state_bits(interrupted.state)
    assert_identical(run(resumed, stream[cut:]), expected[cut:])
    assert state_bits(resumed.state) == state_bits(whole.state)


@registered
def test_adapter_open(bundle_path: Path, stream: list[ImageArray], name: str) -> None:
    opened = Adapter.open(bundle_path, method=name, workers=1)
    assert opened.method == METHODS[name]
    assert_identical(
        run(opened, stream), run(Adapter(Network.open(bundle_path, workers=1), METHODS[name]), stream)
    )


def test_checkpoints_belong_to_their_bundle(
    bundle_paths: dict[int, Path], int8_bundle_path: Path, stream: list[ImageArray], tmp_path: Path
) -> None:
    adapter = Adapter.open(bundle_paths[64], method="no_adapt", workers=1)
    adapter.save(tmp_path / "state.npz")
    with pytest.raises(StateError, match="identity"):
        Adapter.open(bundle_paths[192], method="no_adapt", workers=1).load(tmp_path / "state.npz")
    with pytest.raises(StateError, match="identity"):
        Adapter.open(int8_bundle_path, method="no_adapt", precision="int8").load(tmp_path / "state.npz")


def test_methods_that_need_source_statistics_say_so(
    make_bundle: Callable[..., Bundle], stream: list[ImageArray], tmp_path: Path
) -> None:
    bundle = make_bundle(tmp_path / "plain", source=False)
    for name in METHODS:
        if name in ("no_adapt", "shift_origin", "neo", "lame", "t3a"):
            run(Adapter.open(bundle.path, method=name, workers=1), stream)
        else:
            with pytest.raises(BundleError, match="fozo source"):
                Adapter.open(bundle.path, method=name, workers=1)


# --- how the work is split


SPLITS = [
    (name, width)
    for name in VARIANTS
    for width in (64, 192, 384)
    if name not in WRAPPED and (width == 64 or name in METHODS)
]
SPLITS_OF = [(*split, "fp32") for split in SPLITS] + [(name, 64, "int8") for name in METHODS]


@pytest.mark.parametrize(("name", "width", "precision"), SPLITS_OF)
def test_splitting_the_work_changes_no_bit(
    bundle_paths: dict[int, Path],
    int8_bundle_path: Path,
    random_images: MakeImages,
    name: str,
    width: int,
    precision: str,
) -> None:
    path = bundle_paths[width] if precision == "fp32" else int8_bundle_path
    stream = [random_images(size, seed=size) for size in (7, 1, 5)]
    seen: dict[tuple[int, int], Any] = {}
    for micro_batch in (1, 2, 3, 64):
        for workers in (1, 2):
            with Network.open(path, precision, workers=workers, micro_batch=micro_batch) as network:
                adapter = Adapter(network, VARIANTS[name], seed=3)
                logits = [prediction.logits.tobytes() for prediction in run(adapter, stream)]
                seen[micro_batch, workers] = logits, state_bits(adapter.state)
    reference = seen[64, 1]
    different = [split for split, found in seen.items() if found != reference]
    assert not different


@pytest.mark.parametrize("width", [64, 192, 384])
def test_an_image_does_not_notice_its_company(
    networks: dict[int, Network], random_images: MakeImages, width: int
) -> None:
    network = networks[width]
    images = random_images(9)
    prompts = np.random.default_rng(0).normal(size=(1, 3, width)).astype(np.float32)
    together = network(images, prompts=prompts)
    for index in range(9):
        alone = network(images[index : index + 1], prompts=prompts)
        np.testing.assert_allclose(alone.logits[0], together.logits[index], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(alone.features[0], together.features[index], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("micro_batch", [1, 2, 64])
@pytest.mark.parametrize("count", [0, 1, 3, 10])
def test_prompts_per_image(
    bundle_path: Path, random_images: MakeImages, count: int, micro_batch: int
) -> None:
    """`[N, P, D]` is each image with its own prompts."""
    images = random_images(5)
    prompts = np.random.default_rng(count).normal(size=(5, count, 64)).astype(np.float32)
    with Network.open(bundle_path, workers=1, micro_batch=micro_batch) as network:
        together = network(images, prompts=prompts)
        for index in range(5):
            alone = network(images[index : index + 1], prompts=prompts[index : index + 1])
            np.testing.assert_allclose(alone.logits[0], together.logits[index], rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(alone.features[0], together.features[index], rtol=1e-4, atol=1e-5)
        shared = network(images, prompts=np.ascontiguousarray(prompts[:1]))
        repeated = network(images, prompts=prompts[:1].repeat(5, axis=0))
        assert shared.logits.tobytes() == repeated.logits.tobytes()
        assert shared.features.tobytes() == repeated.features.tobytes()
        if count:
            assert not np.allclose(shared.logits[1:], together.logits[1:], atol=1e-3)


@pytest.mark.parametrize("micro_batch", [1, 2, 64])
def test_norms_per_image(either_network: Network, random_images: MakeImages, micro_batch: int) -> None:
    """`[N, M, 2, D]` is each image with its own norms: to the bit what it would get alone."""
    images = random_images(5)
    norms = np.random.default_rng(0).normal(0, 0.1, (5, 6, 2, 64)).astype(np.float32)
    network = either_network.rearrange(1, micro_batch)
    together = network(images, norms=norms)
    for index in range(5):
        alone = network(images[index : index + 1], norms=norms[index : index + 1])
        assert alone.logits.tobytes() == together.logits[index].tobytes()
        assert alone.features.tobytes() == together.features[index].tobytes()
    shared = network(images, norms=np.ascontiguousarray(norms[:1]))
    repeated = network(images, norms=norms[:1].repeat(5, axis=0))
    assert shared.logits.tobytes() == repeated.logits.tobytes()
    assert shared.features.tobytes() == repeated.features.tobytes()
    assert not np.allclose(shared.logits[1:], together.logits[1:], atol=1e-3)
    zeros = network(images, norms=np.zeros_like(norms[:1]))
    assert zeros.features.tobytes() == network(images).features.tobytes()


@pytest.mark.parametrize(
    "norms",
    [
        np.zeros((1, 6, 2, 64)),
        np.zeros((2, 6, 2, 64), np.float32),
        np.zeros((1, 5, 2, 64), np.float32),
        np.zeros((1, 6, 2), np.float32),
        np.zeros((0, 6, 2, 64), np.float32),
    ],
)
def test_norms_of_the_wrong_kind(network: Network, random_images: MakeImages, norms: FloatArray) -> None:
    with pytest.raises(InputError, match=r"norms of type float32 and shape \[1 or 3, 6, 2, 64\]"):
        network(random_images(3), norms=norms)


def test_candidates_are_separate_forwards(network: Network, random_images: MakeImages) -> None:
    images = random_images(5)
    generator = np.random.default_rng(0)
    prompts = [generator.normal(size=(rows, 3, 64)).astype(np.float32) for rows in (1, 5, 1)]
    for prompt, outputs in zip(
        prompts, network.candidates(images, [{"prompts": each} for each in prompts]), strict=True
    ):
        alone = network(images, prompts=prompt)
        assert outputs.logits.tobytes() == alone.logits.tobytes()
        assert outputs.features.tobytes() == alone.features.tobytes()


# --- classes


@every_method
def test_selecting_all_classes_changes_nothing(network: Network, stream: list[ImageArray], name: str) -> None:
    left, right = Adapter(network, VARIANTS[name]), Adapter(network.select(range(20)), VARIANTS[name])
    assert_identical(run(left, stream), run(right, stream))
    assert state_bits(left.state) == state_bits(right.state)


@every_method
def test_selected_classes(network: Network, stream: list[ImageArray], name: str) -> None:
    chosen = [17, 3, 4]
    adapter = Adapter(network.select(chosen), VARIANTS[name])
    first = adapter.step(stream[0])
    assert first.logits.shape == (7, 3)
    configured = VARIANTS[name]
    # Without a loss, the classes do not influence the state; in these two, they influence each other.
    if configured.forwards == 1 and not isinstance(configured, (Lame, T3a)):
        whole = Adapter(network, VARIANTS[name]).step(stream[0])
        np.testing.assert_allclose(first.logits, whole.logits[:, chosen], rtol=1e-5, atol=1e-5)


def test_selecting_twice(network: Network, random_images: MakeImages) -> None:
    images = random_images(4)
    once, twice = network.select([17, 3, 4, 9]), network.select([17, 3, 4, 9]).select([3, 0])
    assert twice(images).logits.tobytes() == np.ascontiguousarray(once(images).logits[:, [3, 0]]).tobytes()
    assert np.array_equal(twice.info.head_weight, network.info.head_weight[[9, 17]])
    assert len({each.info.identity for each in (network, once, twice)}) == 3


@pytest.mark.parametrize("classes", [[], [0, 0], [20], [-1], [[0, 1]]])
def test_impossible_selections(network: Network, classes: Any) -> None:
    with pytest.raises(InputError):
        network.select(classes)


# --- images that cannot be used


@registered
@pytest.mark.parametrize(
    "images",
    [
        np.zeros((0, 32, 32, 3), np.uint8),
        np.zeros((2, 32, 32, 3), np.float32),
        np.zeros((32, 32, 3), np.uint8),
        np.zeros((2, 3, 32, 32), np.uint8),
        np.zeros((2, 31, 32, 3), np.uint8),
        np.zeros((2, 32, 32, 4), np.uint8),
    ],
)
def test_wrong_images_leave_the_stream_as_it_was(
    network: Network, random_images: MakeImages, name: str, images: Any
) -> None:
    adapter = Adapter(network, METHODS[name])
    adapter.step(random_images(3))
    before = state_bits(adapter.state)
    with pytest.raises(InputError, match="expected images"):
        adapter.step(images)
    assert state_bits(adapter.state) == before
    assert adapter.frozen_batches == 0


# --- options


def kinds(name: str) -> Iterator[tuple[str, Any, dict[str, Any]]]:
    """Name, type and metadata of every option of a registered method."""
    configured = METHODS[name]
    hints = get_type_hints(type(configured))
    for f in fields(configured):
        yield f.name, hints[f.name], dict(f.metadata)


OPTIONS = [(name, *option) for name in METHODS for option in kinds(name)]


def invalid_values(hint: Any, metadata: dict[str, Any]) -> list[object]:
    if get_origin(hint) is Literal:
        return ["nonsense", "", None, 1, True, "BEST", []]
    if hint is bool:
        return ["nonsense", "", None, 1, 0.0, "2", []]
    common: list[object] = ["", "x", None, [], 1j, float("nan"), "nan", True]
    if hint is int:
        common += [1.5, 1.0, "1.5", "1e3"]
    if metadata["low"] is not None:
        common += [metadata["low"] - 1, str(metadata["low"] - 1), -float("inf")]
    if metadata["high"] is not None:
        common += [metadata["high"] + 1, float("inf"), "inf"]
    return common


def test_registry_names() -> None:
    assert METHODS
    for name in METHODS:
        assert re.fullmatch(r"[a-z][a-z0-9_]*", name)
        assert method(name) == METHODS[name]
    assert len({repr(each) for each in METHODS.values()}) == len(METHODS)


def test_unknown_method_and_option(bundle_path: Path) -> None:
    with pytest.raises(InputError, match="fozo"):
        method("fzoo")
    with pytest.raises(InputError, match="fozo"):
        Adapter.open(bundle_path, method="")
    for name in METHODS:
        with pytest.raises(InputError, match="no option 'promts'"):
            method(name, promts=3)
        with pytest.raises(InputError, match="no option 'promts'"):
            Adapter.open(bundle_path, method=name, promts=3)


@registered
def test_methods_are_frozen_values(name: str) -> None:
    configured = METHODS[name]
    assert is_dataclass(configured)
    assert hash(configured) == hash(replace(configured))
    assert configured == replace(configured)
    for f in fields(configured):
        with pytest.raises(FrozenInstanceError):
            setattr(configured, f.name, getattr(configured, f.name))
    with pytest.raises((FrozenInstanceError, TypeError)):
        configured.something = 1
    with pytest.raises(TypeError):
        ALL_METHODS[name] = configured  # type: ignore[index]


@registered
def test_states_are_frozen(network: Network, name: str) -> None:
    state = METHODS[name].bind(network.info).init(0)
    for f in fields(state):
        with pytest.raises(FrozenInstanceError):
            setattr(state, f.name, None)


@registered
def test_options_are_described(name: str) -> None:
    described = describe(METHODS[name])
    assert [option.name for option in described] == [f.name for f in fields(METHODS[name])]
    for option in described:
        assert option.help.strip() == option.help != ""
        assert option.kind in ("int", "float", "bool") or "|" in option.kind
        assert option.default == getattr(METHODS[name], option.name)


@pytest.mark.parametrize(
    ("name", "option", "hint", "metadata"), OPTIONS, ids=[f"{o[0]}-{o[1]}" for o in OPTIONS]
)
def test_options_are_validated(name: str, option: str, hint: Any, metadata: dict[str, Any]) -> None:
    for value in invalid_values(hint, metadata):
        with pytest.raises(InputError, match=option):
            method(name, **{option: value})
            pytest.fail(f"{name} accepted {option}={value!r}")
    with pytest.raises(InputError, match=option):
        replace(METHODS[name], **{option: object()})


@pytest.mark.parametrize(
    ("name", "option", "hint", "metadata"), OPTIONS, ids=[f"{o[0]}-{o[1]}" for o in OPTIONS]
)
def test_options_can_be_typed_as_text(name: str, option: str, hint: Any, metadata: dict[str, Any]) -> None:
    value = getattr(METHODS[name], option)
    assert method(name, **{option: str(value)}) == METHODS[name]
    for limit in (metadata["low"], metadata["high"]):
        if limit is not None:
            text = str(int(limit)) if hint is int else str(limit)
            floors = {"epsilon": {"epsilon_min": "0"}, "rate_max": {"rate_min": "0"}}.get(option, {})
            floor = {other: low for other, low in floors.items() if hasattr(METHODS[name], other)}
            changed = getattr(method(name, **{**floor, option: text}), option)
            assert changed == limit
            assert type(changed) is hint
