"""All of `METHODS` and some variants on networks that were really exported.

`fozo.testing.check_method` checks the contract of a method; everything else here is beyond it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from doubles import VIT_METHODS, list_needs, state_bits
from fozo.engine.bundle.bundle import Bundle
from fozo.engine.errors import BundleError, InputError, StateError
from fozo.engine.methods.align import Align
from fozo.engine.methods.bca import Bca
from fozo.engine.methods.cazo import Cazo
from fozo.engine.methods.deyo import Deyo
from fozo.engine.methods.eata import Eata
from fozo.engine.methods.elatta import Elatta
from fozo.engine.methods.eva0 import Eva0
from fozo.engine.methods.foa import Foa
from fozo.engine.methods.gauss import Gauss
from fozo.engine.methods.lame import Lame
from fozo.engine.methods.moments import MomentMatching
from fozo.engine.methods.pace import Pace
from fozo.engine.methods.pea import Pea
from fozo.engine.methods.pizo import Pizo
from fozo.engine.methods.quar import Quar
from fozo.engine.methods.sar import Sar
from fozo.engine.methods.t3a import T3a
from fozo.engine.methods.tda import Tda
from fozo.engine.methods.zoa import Zoa
from fozo.engine.model import ACTIVATION_KINDS, ActivationUse, ImageArray
from fozo.engine.registry import METHODS as ALL_METHODS
from fozo.engine.registry import (
    AnyMethod,
    Fozo,
    Prediction,
    Shift,
    get_options,
    list_common_options,
    method,
)
from fozo.engine.runtime.network import Network
from fozo.engine.streams.adapter import Adapter
from fozo.testing import check_method

MakeImages = Callable[..., ImageArray]

# Vision transformers have no batch norms to adapt: test_bn_adapt.py. Views: test_view_methods.py.
METHODS = {name: ALL_METHODS[name] for name in VIT_METHODS}

# Methods inside other methods: their forwards and predictions are partly the frozen network's.
WRAPPED: dict[str, AnyMethod] = {
    "shift-interval": method("shift", interval=4),
    "fozo-interval": method("fozo", interval=9),
    "fozo-guard": method("fozo", guard="rollback", guard_diversity=0.01),
    "zoa-guard": method("zoa", guard="warn"),
    "t3a-interval-guard": method("t3a", interval=8, guard="reset", guard_diversity=0.01),
    "shift-temperature": method("shift", temperature=1.5),
    "fozo-domains": method("fozo", domains=1, domains_threshold=0.0),
    "shift-guard": method(
        "shift",
        guard="stop",
        guard_shadow=2,
        guard_loss=0.0,
        guard_patience=0.0,
        guard_diversity=0.01,
        guard_jump=1.0,
        guard_pause=1,
        guard_pause_max=2,
    ),
    "quar-domains-guard": method(
        "quar", domains=3, domains_threshold=0.0, guard="rollback", guard_diversity=0.01
    ),
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
    "quar-local": Quar(branches="local", blocks=1, average="exponential"),
    "quar-global": Quar(branches="global", prior=0.0),
    "pea-few-blocks": Pea(least_weight=0.5, drift_limit=1.0, entropy_rise=0.0),
    "lame-window": Lame(neighbours=2, window=9),
    "lame-rbf": Lame(affinity="rbf", window=4),
    "lame-linear": Lame(affinity="linear"),
    "t3a-1": T3a(supports=1),
    "tda-wide": Tda(positive=1, entropy_low=0.0, entropy_high=1.0, negative_weight=1.0),
    "bca-network": Bca(logits="network", embedding_count=2.0, prior_above=0.0),
    "eva0-plain": Eva0(perturbation=0.05, loss="entropy", anchor_every=2, directions="rademacher"),
    "cazo-plain": Cazo(pairs=1, step_rule="plain", rate=1e-4, bias_correction="none", shift="none"),
    "elatta-previous": Elatta(start="previous", bound=5.0, sigma=1.0),
    "pace-small": Pace(
        population=3, dimension=8, sigma=0.2, settle_below=0.9, domain_threshold=0.0, domain_min_batch=2
    ),
    "gauss-slots": Gauss(slots=2, weight=0.5, mean="slots"),
    "gauss-soft": Gauss(labels="soft"),
    "gauss-classes": Gauss(labels="soft", covariance="classes"),
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
    "align-share": Align(gradient_share=0.3, update_images=1, window=9, tolerance=0),
    "align-every": Align(
        gradient_share=1, learn_every=2, update_images=1, window=9, tolerance=0, shift="source_mean"
    ),
    "align-both": Align(tune="both", update_images=1, tolerance=0),
    "align-prompts": Align(tune="prompts", prompts=1, update_images=5, window=9, tolerance=0),
    "eata-all": Eata(margin=1.0, similarity=1.0, fisher_weight=20.0),
    "eata-eta": Eata(margin=1.0, similarity=1.0, fisher_weight=0),
    "sar-all": Sar(margin=1.0, reset_below=0),
    "deyo-all": Deyo(margin=1.0, fall=-1.0, grid=2),
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
RANDOM = [
    name
    for name, each in VARIANTS.items()
    if isinstance(each, (Pizo, Eva0, Cazo, Pace, Elatta))
    or (getattr(each, "prompts", 0) and getattr(each, "tune", "prompts") != "norms")
    or name in ("deyo-all", "align-share")
]
SIZES = (7, 1, 2, 7, 7, 3)  # ragged, with a single image in the middle

every_method = pytest.mark.parametrize("name", VARIANTS)
unwrapped = pytest.mark.parametrize("name", [name for name in VARIANTS if name not in WRAPPED])
registered = pytest.mark.parametrize("name", METHODS)


@pytest.fixture(autouse=True)
def domains_of_few_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or else no batch here would be enough to check for a change."""
    monkeypatch.setattr("fozo.engine.wrappers.domain_states.IMAGES", 8)


@pytest.fixture(scope="module")
def stream(random_images: MakeImages) -> list[ImageArray]:
    """Read-only batches of `SIZES`."""
    return [random_images(size, seed=index) for index, size in enumerate(SIZES)]


@pytest.fixture(scope="module")
def special_networks(int8_bundle_path: Path) -> Iterator[dict[tuple[str, str], Network]]:
    """Open both graphs with gradients, and both with all activations."""
    everything: dict[str, dict[str, Any]] = {
        "gradients": {"gradients": True},
        "activations": {"activations": [ActivationUse(ACTIVATION_KINDS)]},
    }
    with contextlib.ExitStack() as stack:
        yield {
            (kind, precision): stack.enter_context(
                Network.open(int8_bundle_path, precision, workers=1, **options)
            )
            for kind, options in everything.items()
            for precision in ("fp32", "int8")
        }


@pytest.fixture
def network(
    networks: dict[int, Network], special_networks: dict[tuple[str, str], Network], name: str
) -> Network:
    """Return the network that a method needs."""
    kinds = [kind for kind, need in list_needs(VARIANTS[name]).items() if need]
    return special_networks[kinds[0], "fp32"] if kinds else networks[64]


@pytest.fixture(params=["fp32", "int8"])
def either_network(
    request: pytest.FixtureRequest,
    network: Network,
    int8_network: Network,
    special_networks: dict[tuple[str, str], Network],
    name: str,
) -> Network:
    """Return both, one after the other."""
    if request.param == "fp32":
        return network
    kinds = [kind for kind, need in list_needs(VARIANTS[name]).items() if need]
    return special_networks[kinds[0], "int8"] if kinds else int8_network


def run(adapter: Adapter, stream: list[ImageArray]) -> list[Prediction]:
    return [adapter.step(images) for images in stream]


def assert_identical(left: list[Prediction], right: list[Prediction]) -> None:
    for index, (a, b) in enumerate(zip(left, right, strict=True)):
        assert a.logits.tobytes() == b.logits.tobytes(), index
        assert (a.loss, a.forwards, dict(a.diagnostics)) == (b.loss, b.forwards, dict(b.diagnostics)), index


# --- the contract


@every_method
def test_the_contract_is_kept(either_network: Network, random_images: MakeImages, name: str) -> None:
    check_method(VARIANTS[name], either_network, random_images)


def test_every_common_option_is_checked() -> None:
    defaults = {option.name: option.default for option in list_common_options()}
    changed = {
        key
        for configured in WRAPPED.values()
        for key, value in get_options(configured).items()
        if key in defaults and value != defaults[key]
    }
    assert changed == defaults.keys()


# --- predictions and states


@every_method
def test_large_batches(either_network: Network, random_images: MakeImages, name: str) -> None:
    adapter = Adapter(either_network, VARIANTS[name])
    for batch in range(2):
        prediction = adapter.step(random_images(64, seed=batch))
        assert prediction.logits.shape[0] == 64
        assert np.isfinite(prediction.logits).all()
        assert name in WRAPPED or not prediction.frozen
        # Where no image is confident enough, these two save their second forward.
        assert name in (*WRAPPED, "deyo", "sar") or prediction.forwards == VARIANTS[name].forwards


@every_method
def test_methods_with_something_to_learn_change_what_they_predict(
    network: Network, stream: list[ImageArray], name: str
) -> None:
    frozen = run(Adapter(network, METHODS["no_adapt"]), stream)
    adapted = run(Adapter(network, VARIANTS[name]), stream)
    differs = [not np.array_equal(a.logits, b.logits) for a, b in zip(frozen, adapted, strict=True)]
    # Nothing is far from the source here, and no image confident enough: these four have variants that learn.
    assert any(differs) is (name not in ("no_adapt", "align", "eata", "sar", "deyo"))


@every_method
def test_images_may_be_views(network: Network, random_images: MakeImages, name: str) -> None:
    whole = random_images(12)
    mirrored = whole[:, :, ::-1]
    for view in (whole[::2], mirrored[:5]):
        assert not view.flags.c_contiguous
        left = run(Adapter(network, VARIANTS[name]), [view, view])
        right = run(Adapter(network, VARIANTS[name]), [np.ascontiguousarray(view)] * 2)
        assert_identical(left, right)


# --- seeds and checkpoints


@unwrapped
def test_other_seed(network: Network, stream: list[ImageArray], name: str) -> None:
    left, right = (run(Adapter(network, VARIANTS[name], seed=seed), stream) for seed in (5, 6))
    same = [a.logits.tobytes() == b.logits.tobytes() for a, b in zip(left, right, strict=True)]
    # Three methods predict the first batch before anything is drawn.
    if isinstance(VARIANTS[name], Zoa) or name in ("deyo-all", "align-share"):
        assert same[0] and not any(same[1:])
    else:
        assert not any(same) if name in RANDOM else all(same)


@registered
def test_adapter_open(bundle_path: Path, stream: list[ImageArray], name: str) -> None:
    opened = Adapter.open(bundle_path, method=name, workers=1)
    assert opened.method == METHODS[name]
    assert_identical(
        run(opened, stream),
        run(
            Adapter(Network.open(bundle_path, workers=1, **list_needs(VARIANTS[name])), METHODS[name]),
            stream,
        ),
    )


def test_checkpoints_belong_to_their_bundle(
    bundle_paths: dict[int, Path], int8_bundle_path: Path, stream: list[ImageArray], tmp_path: Path
) -> None:
    adapter = Adapter.open(bundle_paths[64], method="no_adapt", workers=1)
    adapter.save(tmp_path / "state.npz")
    with pytest.raises(StateError, match="another model"):
        Adapter.open(bundle_paths[192], method="no_adapt", workers=1).load(tmp_path / "state.npz")
    with pytest.raises(StateError, match="precision"):
        Adapter.open(int8_bundle_path, method="no_adapt", precision="int8").load(tmp_path / "state.npz")


NEED_NO_SOURCE = (
    "no_adapt",
    "shift_origin",
    "neo",
    "lame",
    "t3a",
    "bca",
    "eva0",
    "tent",
    "sar",
    "deyo",
    "tda",
    "gauss",
)


def test_methods_that_need_source_statistics_say_so(
    make_bundle: Callable[..., Bundle], stream: list[ImageArray], tmp_path: Path
) -> None:
    bundle = make_bundle(tmp_path / "plain", source=False)
    for name in METHODS:
        if name in NEED_NO_SOURCE:
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
            arrangement: dict[str, Any] = {"workers": workers, "micro_batch": micro_batch}
            with Network.open(path, precision, **list_needs(VARIANTS[name]), **arrangement) as network:
                adapter = Adapter(network, VARIANTS[name], seed=3)
                logits = [prediction.logits.tobytes() for prediction in run(adapter, stream)]
                seen[micro_batch, workers] = logits, state_bits(adapter.state)
    reference = seen[64, 1]
    different = [split for split, found in seen.items() if found != reference]
    assert not different


# --- classes


@every_method
def test_selecting_all_classes_changes_nothing(network: Network, stream: list[ImageArray], name: str) -> None:
    left, right = Adapter(network, VARIANTS[name]), Adapter(network.select(range(20)), VARIANTS[name])
    assert_identical(run(left, stream), run(right, stream))
    assert state_bits(left.state) == state_bits(right.state)


# Without a loss, the classes do not influence the state; in these four, they influence each other.
INDEPENDENT = [
    name
    for name, each in VARIANTS.items()
    if each.forwards <= 1 and not isinstance(each, (Lame, T3a, Tda, Gauss, Bca, Elatta))
]


@pytest.mark.parametrize("name", INDEPENDENT)
def test_selected_classes(network: Network, stream: list[ImageArray], name: str) -> None:
    indices = [17, 3, 4]
    selected = Adapter(network.select(indices), VARIANTS[name]).step(stream[0])
    complete = Adapter(network, VARIANTS[name]).step(stream[0])
    np.testing.assert_allclose(selected.logits, complete.logits[:, indices], rtol=1e-5, atol=1e-5)


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
