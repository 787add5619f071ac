"""QuAR against PyTorch with hooks on a timm model, on an edited int8 graph, and its options one by one.

The reference keeps every batch and weighs all of them anew in each step; it shares no code with the engine.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from doubles import predict_on, step_on
from fozo.engine.bundle.bundle import Bundle
from fozo.engine.errors import BundleError, InputError
from fozo.engine.methods.quar import PRODUCTS, Quar
from fozo.engine.model import ActivationUse, ImageArray
from fozo.engine.registry import METHODS
from fozo.engine.runtime.network import Network
from fozo.engine.streams.adapter import Adapter
from fozo.engine.streams.pool import Pool
from recentring_doubles import EditedGraph

MakeImages = Callable[..., ImageArray]

WIDTH, DEPTH, SEED = 64, 3, 64  # of the smallest shared bundle
SIZES = (12, 12, 1, 12, 5, 12, 12, 2, 1, 12, 12, 12, 7)


@dataclass
class Batches:
    """Values `[N, T, C]` of one place in the network, batch by batch."""

    source: tuple[Any, Any]
    values: list[Any] = field(default_factory=list)

    def moments(self, quar: Quar) -> tuple[Any, Any]:
        """Mean and variance of the mixture of the clean images and all batches."""
        count = len(self.values)
        if not count:
            return self.source[0], self.source[1] ** 2
        if quar.average == "cumulative":
            weights = [quar.prior / (count + quar.prior)] + [1 / (count + quar.prior)] * count
        else:
            weights = [(1 - quar.rate) ** count]
            weights += [quar.rate * (1 - quar.rate) ** (count - 1 - index) for index in range(count)]
        assert sum(weights) == pytest.approx(1)
        means = [self.source[0], *(batch.mean(dim=(0, 1)) for batch in self.values)]
        squares = [self.source[1] ** 2 + self.source[0] ** 2]
        squares += [(batch**2).mean(dim=(0, 1)) for batch in self.values]
        mean = sum(weight * entry for weight, entry in zip(weights, means, strict=True))
        square = sum(weight * entry for weight, entry in zip(weights, squares, strict=True))
        return mean, square - mean**2

    def recentre(self, x: Any, strength: float, quar: Quar) -> Any:
        mean, variance = self.moments(quar)
        ratio = self.source[1] / (torch.sqrt(torch.clamp(variance, min=0)) + quar.epsilon)
        ratio = torch.where(ratio > quar.limit, torch.full_like(ratio, quar.limit), ratio)
        return (1 - strength) * x + strength * ((x - mean) * ratio + self.source[0])


class Reference:
    """QuAR on a timm model in float64, with hooks in front of its linear layers."""

    def __init__(self, model: Any, normalisation: Any, quar: Quar, clean: ImageArray) -> None:
        self.model, self.quar = model.double(), quar
        self.mean, self.std = (torch.tensor(values).view(1, 3, 1, 1) for values in normalisation)
        self.recorded: dict[str, Any] = {}
        self.places: dict[str, Batches] = {}
        self.moving = False
        for index in range(DEPTH):
            block = model.blocks[index]
            for name in ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2"):
                layer = block.get_submodule(name)
                layer.register_forward_pre_hook(self.make_hook(f"{index}.{name}", index, name))
        self.begin(clean)

    def begin(self, clean: ImageArray) -> None:
        """Measure clean images, and start."""
        last = self.run(clean)
        for name, values in self.recorded.items():
            flat = values.flatten(0, 1)
            self.places[name] = Batches((flat.mean(0), flat.std(0, unbiased=False)))
        self.last = Batches((last.mean(0), last.std(0)))
        self.moving = self.quar.branches != "global"

    def make_hook(self, key: str, index: int, name: str) -> Any:
        def hook(module: Any, inputs: Any) -> Any:
            (x,) = inputs
            # Of the last block, the class token alone is computed behind queries.
            is_cut = index == DEPTH - 1 and name != "attn.qkv"
            self.recorded[key] = x[:, :1] if is_cut else x
            if not self.moving or index < DEPTH - self.quar.blocks:
                return None
            return (self.places[key].recentre(x, self.quar.local_strength, self.quar),)

        return hook

    def run(self, images: ImageArray) -> Any:
        pixels = torch.from_numpy(images.copy()).permute(0, 3, 1, 2).double() / 255
        with torch.no_grad():
            return self.model.forward_features((pixels - self.mean) / self.std)[:, 0]

    def step(self, images: ImageArray) -> Any:
        last = self.run(images)
        for key, values in self.recorded.items():
            self.places[key].values.append(values)
        self.last.values.append(last[:, None])
        if self.quar.branches != "local":
            last = self.last.recentre(last, self.quar.global_strength, self.quar)
        return self.apply_head(last)

    def apply_head(self, last: Any) -> Any:
        with torch.no_grad():
            return self.model.head(last).numpy()


class IntegerReference(Reference):
    """The same on a copy of the int8 graph whose maps are inputs."""

    def __init__(self, path: Path, quar: Quar, clean: ImageArray) -> None:
        self.quar, bundle = quar, Bundle.open(path)
        products = [item for item in bundle.manifest.activations if item.kind in PRODUCTS]
        self.graph, self.head = EditedGraph(bundle, "int8", products), bundle.info("int8")
        self.recorded, self.places, self.moving = {}, {}, False
        self.begin(clean)

    def run(self, images: ImageArray) -> Any:
        maps = {}
        for item in self.graph.activations:
            if self.moving and item.block >= DEPTH - self.quar.blocks:
                move = partial(
                    self.places[item.tensor].recentre, strength=self.quar.local_strength, quar=self.quar
                )
                intercept = move(torch.zeros(item.width, dtype=torch.float64))
                slope = move(torch.ones(item.width, dtype=torch.float64)) - intercept
                maps[item.tensor] = slope.numpy(), intercept.numpy()
        outputs = self.graph.run(images, maps)
        self.recorded = {
            item.tensor: torch.from_numpy(outputs[item.tensor]) for item in self.graph.activations
        }
        return torch.from_numpy(outputs["features"][:, -1]).double()

    def apply_head(self, last: Any) -> Any:
        return last.numpy() @ self.head.head_weight.T.astype(np.float64) + self.head.head_bias


@pytest.mark.parametrize(
    "quar",
    [
        Quar(),
        Quar(branches="local", blocks=2, prior=0.0),
        Quar(branches="global"),
        Quar(average="exponential"),
        Quar(blocks=1, average="exponential", rate=0.4, local_strength=1.0, limit=1.01, epsilon=0.1),
        Quar(local_strength=0.2, global_strength=0.3, prior=2.5),
    ],
    ids=["default", "local", "global", "exponential", "clamped", "weak"],
)
def test_against_hooks_in_pytorch(
    bundle_path: Path, random_images: MakeImages, randomised_vit: Any, normalisation: Any, quar: Quar
) -> None:
    model = randomised_vit(WIDTH, DEPTH, 20, SEED)
    reference = Reference(model, normalisation, quar, random_images(40, seed=900))
    uses = [] if quar.activations is None else [quar.activations]
    with Network.open(bundle_path, activations=uses, workers=1) as network:
        adapter = Adapter(network, quar)
        for index, size in enumerate(SIZES):
            # A corruption: darker, and from the fifth batch on of less contrast.
            images = (random_images(size, seed=index) * (0.5 if index < 5 else 0.25)).astype(np.uint8)
            expected = reference.step(images)
            np.testing.assert_allclose(adapter.step(images).logits, expected, rtol=1e-4, atol=1e-4)
        assert adapter.frozen_batches == 0


@pytest.mark.parametrize(
    "quar", [Quar(), Quar(average="exponential", local_strength=1.0, limit=1.01)], ids=["default", "strong"]
)
def test_against_an_edited_int8_graph(int8_bundle_path: Path, random_images: MakeImages, quar: Quar) -> None:
    """The map stands in front of the integers; the last bits of its values may move one of them by a step."""
    reference = IntegerReference(int8_bundle_path, quar, random_images(40, seed=900))
    with Network.open(int8_bundle_path, "int8", activations=[quar.activations], workers=1) as network:
        adapter = Adapter(network, quar)
        for number, size in enumerate(SIZES):
            images = random_images(size, seed=number) // (2 if number < 5 else 4)
            expected, logits = reference.step(images), adapter.step(images).logits
            np.testing.assert_allclose(logits, expected, atol=0.02)
            assert np.abs(logits - expected).mean() < 0.005 * np.abs(network(images).logits - expected).mean()
        assert adapter.frozen_batches == 0


def test_defaults() -> None:
    assert METHODS["quar"] == Quar(
        branches="both",
        blocks=4,
        local_strength=0.5,
        global_strength=1.0,
        average="cumulative",
        rate=0.1,
        limit=3.0,
        epsilon=1e-6,
        prior=1.0,
    )
    assert METHODS["quar"].activations == ActivationUse(PRODUCTS, 4)  # type: ignore[attr-defined]
    assert Quar(branches="global").activations is None


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_without_strength_it_is_the_network_bit_for_bit(
    int8_bundle_path: Path, random_images: MakeImages, precision: str
) -> None:
    quar = Quar(branches="local", local_strength=0.0)
    with (
        Network.open(int8_bundle_path, precision, workers=1) as plain,
        Network.open(int8_bundle_path, precision, activations=[quar.activations], workers=1) as network,
    ):
        adapter = Adapter(network, quar)
        for index in range(3):
            images = random_images(5, seed=index)
            assert adapter.step(images).logits.tobytes() == plain(images).logits.tobytes()


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_the_size_of_batches_has_no_influence_on_the_moments(
    int8_bundle_path: Path, random_images: MakeImages, precision: str
) -> None:
    """With equal weights: single images and one batch give the same moments of what was not moved."""
    quar, images = Quar(prior=0.0, local_strength=0.0), random_images(24)
    with Network.open(int8_bundle_path, precision, activations=[quar.activations], workers=1) as network:
        together, alone = Adapter(network, quar), Adapter(network, quar)
        together.step(images)
        for index in range(24):
            alone.step(images[index : index + 1])
    for name in ("local", "last"):
        left, right = (getattr(adapter.snapshot().method, name) for adapter in (together, alone))
        np.testing.assert_allclose(left.mean, right.mean, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(left.variance, right.variance, rtol=1e-4, atol=1e-5)


def test_moments_start_at_those_of_clean_images(bundle_path: Path, random_images: MakeImages) -> None:
    """The first batch is predicted with the local branch at rest, up to ε."""
    with Network.open(bundle_path, activations=[Quar().activations], workers=1) as network:
        images, quar = random_images(6), Quar(branches="local")
        prediction, _ = step_on(network, quar, quar.bind(network.info).init(0), images)
        np.testing.assert_allclose(prediction.logits, network(images).logits, rtol=1e-4, atol=1e-4)
        state = Quar().bind(network.info).init(0)
        np.testing.assert_allclose(
            predict_on(network, Quar(), state, images).logits, network(images).logits, rtol=1e-4, atol=1e-4
        )


@pytest.mark.parametrize("quar", [Quar("global", prior=0.0), Quar("global", average="exponential", rate=1.0)])
def test_a_single_image_is_not_mapped_by_its_own_moments(
    quar: Quar, bundle_path: Path, random_images: MakeImages
) -> None:
    with Network.open(bundle_path, workers=1) as network:
        for seed in range(3):
            adapter, images = Adapter(network, quar), random_images(1, seed=seed)
            np.testing.assert_array_equal(adapter.step(images).logits, network(images).logits)
            mapped = adapter.step(random_images(4, seed=seed)).logits
            assert not np.allclose(mapped, network(random_images(4, seed=seed)).logits, atol=1e-3)


def test_streams_of_a_pool_are_those_alone(bundle_path: Path, random_images: MakeImages) -> None:
    with Network.open(bundle_path, activations=[Quar().activations], workers=1) as network:
        alone = [Adapter(network, Quar()) for _ in range(3)]
        pool = Pool(network)
        for stream in range(3):
            pool.open(f"stream {stream}", "quar")
        for index in range(4):
            batches = {f"stream {n}": random_images(1 + n, seed=10 * index + n) for n in range(3)}
            predictions = pool.step(batches)
            for adapter, (name, images) in zip(alone, batches.items(), strict=True):
                assert predictions[name].logits.tobytes() == adapter.step(images).logits.tobytes()


def test_a_state_that_starts_late_learns_as_a_fresh_one(bundle_path: Path, random_images: MakeImages) -> None:
    """A new domain goes on counting steps; its first batch must weigh as any first one."""
    quar, images = Quar(), random_images(8, seed=1)
    with Network.open(bundle_path, activations=[quar.activations], workers=1) as network:
        fresh = quar.bind(network.info).init(0)
        states = [step_on(network, quar, state, images)[1] for state in (fresh, replace(fresh, step=200))]
    for name in ("local", "last"):
        moments = [getattr(state, name) for state in states]
        np.testing.assert_array_equal(moments[0].mean, moments[1].mean)
        np.testing.assert_array_equal(moments[0].variance, moments[1].variance)
    assert [state.step for state in states] == [1, 201]


def test_networks_opened_for_fewer_activations_are_refused(bundle_path: Path) -> None:
    for use in (ActivationUse(PRODUCTS, 1), ActivationUse(("qkv",)), ActivationUse(("output",))):
        with (
            Network.open(bundle_path, activations=[use], workers=1) as network,
            pytest.raises(BundleError, match=r"activations=\[method.activations\]|offers none"),
        ):
            Quar(blocks=2).bind(network.info)
    uses = [ActivationUse(("output",)), ActivationUse((*PRODUCTS, "output"))]
    with Network.open(bundle_path, activations=uses, workers=1) as network:
        bound = Quar(blocks=2).bind(network.info)
    assert bound.local is not None
    assert {(item.kind, item.block) for item in bound.local.activations} == {
        (kind, block) for kind in PRODUCTS for block in (1, 2)
    }


def test_networks_opened_without_activations_are_refused(
    bundle_path: Path, random_images: MakeImages
) -> None:
    with Network.open(bundle_path, workers=1) as network:
        with pytest.raises(BundleError, match=r"re-centres activations .* opened without activations"):
            Quar().bind(network.info)
        Adapter(network, Quar(branches="global")).step(random_images(3))


def test_bundles_of_earlier_versions_say_what_to_do(
    make_bundle: Callable[..., Bundle], tmp_path: Path
) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    path = bundle.path / "bundle.json"
    (content := path.read_text()).index('"has_activations": true')
    path.write_text(content.replace('"has_activations": true', '"has_activations": false'))
    with pytest.raises(BundleError, match=r"source statistics of activations.*fozo source BUNDLE DIR"):
        Adapter.open(bundle.path, method="quar", workers=1)
    manifest = replace(Bundle.open(bundle.path).manifest, activations=())
    path.write_bytes(manifest.to_json())
    with pytest.raises(BundleError, match=r"earlier version of fozo.*fozo export"):
        Adapter.open(bundle.path, method="quar", workers=1)


def test_gradients_and_activations_are_two_networks(bundle_path: Path) -> None:
    with pytest.raises(InputError, match="separately"):
        Network.open(bundle_path, gradients=True, activations=[ActivationUse(PRODUCTS)])


@pytest.mark.parametrize(
    "options", [{"branches": "none"}, {"blocks": 0}, {"local_strength": 1.1}, {"rate": -0.1}, {"limit": -1.0}]
)
def test_options_out_of_range(options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(options))):
        Quar(**options)
