"""The diagonal variant of PEA against PyTorch with hooks behind the blocks, and on an edited int8 graph."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from doubles import predict_on, step_on
from fozo.engine.bundle.bundle import Bundle
from fozo.engine.errors import BundleError, InputError
from fozo.engine.methods.pea import Pea
from fozo.engine.model import ActivationUse, ImageArray
from fozo.engine.registry import METHODS
from fozo.engine.runtime.network import Network
from fozo.engine.streams.adapter import Adapter
from recentring_doubles import EditedGraph

MakeImages = Callable[..., ImageArray]

WIDTH, DEPTH, SEED = 64, 3, 64  # of the smallest shared bundle
SIZES = (12, 12, 1, 12, 5, 12, 12, 2, 1, 12, 12, 12, 7)
CHANGE = 8  # batch with which another corruption begins


class Reference:
    """PEA block by block in float64; it writes down which blocks were replaced, and where it was reset."""

    def __init__(self, model: Any, normalisation: Any, pea: Pea, clean: ImageArray) -> None:
        self.model, self.pea = model.double(), pea
        self.mean, self.std = (torch.tensor(values).view(1, 3, 1, 1) for values in normalisation)
        self.before: list[Any] = [None] * DEPTH
        self.after: list[Any] = [None] * DEPTH
        self.maps: list[Any] = [None] * DEPTH
        for index, block in enumerate(model.blocks):
            block.register_forward_hook(self.make_hook(index))
        self.begin(clean)

    def begin(self, clean: ImageArray) -> None:
        """Measure clean images, and start."""
        tokens = self.run(clean)[0]
        self.source = []
        for index in range(DEPTH):
            x = self.before[index].flatten(0, 1)
            self.source.append((x.mean(0), x.std(0, unbiased=False)))
        self.clean = [(x.mean(0), x.var(0)) for x in tokens]
        self.replaced: list[tuple[int, int]] = []
        self.resets: list[int] = []
        self.forget()

    def forget(self) -> None:
        self.running: list[Any] = [None] * DEPTH
        self.drift: list[Any] = [None] * DEPTH
        self.entropy: float | None = None

    def make_hook(self, index: int) -> Any:
        def hook(module: Any, inputs: Any, output: Any) -> Any:
            # The class token is all that leaves the last block.
            self.before[index] = output[:, :1] if index == DEPTH - 1 else output
            if self.maps[index] is not None:
                weight, mean, variance = self.maps[index]
                source_mean, source_std = self.source[index]
                scale = torch.sqrt((source_std**2 + self.pea.epsilon) / (variance + self.pea.epsilon))
                aligned = (output - mean) * scale + source_mean
                output = output + weight * (aligned - output)
            self.after[index] = output
            return output

        return hook

    def run(self, images: ImageArray) -> tuple[list[Any], Any]:
        """Return the class token behind each block and the following norm, and the logits."""
        pixels = torch.from_numpy(images.copy()).permute(0, 3, 1, 2).double() / 255
        with torch.no_grad():
            logits = self.model((pixels - self.mean) / self.std)
            norms = [*(block.norm1 for block in list(self.model.blocks)[1:]), self.model.norm]
            return [norm(x)[:, 0] for norm, x in zip(norms, self.after, strict=True)], logits

    def compute_moments(self) -> list[Any]:
        return [(x.mean(dim=(0, 1)), x.var(dim=(0, 1), unbiased=False)) for x in self.before]

    def step(self, number: int, images: ImageArray) -> Any:
        self.maps = [None] * DEPTH
        tokens, _ = self.run(images)
        distances = []
        for x, (mean, variance) in zip(tokens, self.clean, strict=True):
            distances.append(float(torch.dist(x.mean(0), mean)))
            if len(x) > 1:
                distances[-1] += float(torch.dist(x.var(0), variance))
        low, high = min(distances), max(distances)
        weights = [(distance - low) / (high - low) for distance in distances]
        plain = self.compute_moments()
        varies = [len(images) > 1 or index < DEPTH - 1 for index in range(DEPTH)]  # else a single token
        running = [
            plain[index] if entry is None and varies[index] else entry
            for index, entry in enumerate(self.running)
        ]
        self.maps = [
            (weight, *entry) if weight >= self.pea.least_weight and entry is not None else None
            for weight, entry in zip(weights, running, strict=True)
        ]
        _, logits = self.run(images)
        for index, (mean, variance) in enumerate(self.compute_moments()):
            if weights[index] >= self.pea.least_weight and varies[index]:
                self.update(number, index, mean, variance)
        self.watch(number, logits)
        return logits.numpy()

    def update(self, number: int, index: int, mean: Any, variance: Any) -> None:
        if self.running[index] is None:
            self.running[index], self.drift[index] = (mean, variance), 0.0
            return
        old_mean, old_variance = self.running[index]
        drift, share = float((mean - old_mean).abs().mean()), self.pea.average_rate
        average = share * drift + (1 - share) * self.drift[index]
        self.drift[index] = average
        if average > 1e-6 and drift > self.pea.drift_limit * average:
            self.running[index] = mean, variance
            self.replaced.append((number, index))
        else:
            m = self.pea.rate
            self.running[index] = (1 - m) * old_mean + m * mean, (1 - m) * old_variance + m * variance

    def watch(self, number: int, logits: Any) -> None:
        entropy = float(torch.special.entr(logits.softmax(1)).sum(1).mean())
        if self.entropy is not None and entropy > self.entropy + self.pea.entropy_rise:
            self.resets.append(number)
            self.forget()
        share = self.pea.average_rate
        self.entropy = entropy if self.entropy is None else share * entropy + (1 - share) * self.entropy


class IntegerReference(Reference):
    """The same on a copy of the int8 graph whose maps are inputs."""

    def __init__(self, path: Path, pea: Pea, clean: ImageArray) -> None:
        self.pea, bundle = pea, Bundle.open(path)
        outputs = [item for item in bundle.manifest.activations if item.kind == "output"]
        self.graph = EditedGraph(bundle, "int8", outputs)
        self.maps = [None] * DEPTH
        self.begin(clean)

    def run(self, images: ImageArray) -> tuple[list[Any], Any]:
        maps = {}
        for index, item in enumerate(self.graph.activations):
            if self.maps[index] is not None:
                weight, mean, variance = self.maps[index]
                source_mean, source_std = self.source[index]
                scale = torch.sqrt((source_std**2 + self.pea.epsilon) / (variance + self.pea.epsilon))
                slope = 1 - weight + weight * scale
                maps[item.tensor] = slope.numpy(), (weight * (source_mean - mean * scale)).numpy()
        outputs = self.graph.run(images, maps)
        self.before = [torch.from_numpy(outputs[item.tensor]) for item in self.graph.activations]
        features = torch.from_numpy(outputs["features"]).double()
        return list(features.unbind(dim=1)), torch.from_numpy(outputs["logits"])


def corrupt(images: ImageArray, number: int) -> ImageArray:
    """Darken images; from `CHANGE` on, only their blue channel remains."""
    changed = images // 2
    if number >= CHANGE:
        changed[..., :2] = 0
    return changed


@pytest.mark.parametrize(
    "pea",
    [
        Pea(),
        Pea(drift_limit=1.5, rate=0.3),
        Pea(entropy_rise=0.02, average_rate=0.5),
        Pea(least_weight=0.6, average_rate=0.5, epsilon=0.1),
    ],
    ids=["default", "drift", "reset", "few-blocks"],
)
def test_against_hooks_in_pytorch(
    bundle_path: Path, random_images: MakeImages, randomised_vit: Any, normalisation: Any, pea: Pea
) -> None:
    model = randomised_vit(WIDTH, DEPTH, 20, SEED)
    reference = Reference(model, normalisation, pea, random_images(40, seed=900))
    with Network.open(bundle_path, activations=[pea.activations], workers=1) as network:
        adapter = Adapter(network, pea)
        for number, size in enumerate(SIZES):
            images = corrupt(random_images(size, seed=number), number)
            expected = reference.step(number, images)
            np.testing.assert_allclose(adapter.step(images).logits, expected, rtol=2e-4, atol=2e-4)
        assert adapter.frozen_batches == 0
        assert adapter.state.resets == len(reference.resets)  # type: ignore[attr-defined]
    # The second batch always replaces the first one: its drift is 5 times an average that began at 0.
    assert any(number == 1 for number, _ in reference.replaced) is (pea.average_rate < 0.25)
    if pea.drift_limit * pea.average_rate >= 1:
        assert not reference.replaced
    if pea.drift_limit < 4:
        assert any(number > 1 for number, _ in reference.replaced)
    if pea.entropy_rise < 1:
        assert reference.resets


def test_defaults() -> None:
    assert METHODS["pea"] == Pea(
        rate=0.02,
        drift_limit=4.0,
        average_rate=0.2,
        least_weight=0.001,
        entropy_rise=1.0,
        epsilon=1e-5,
    )
    assert METHODS["pea"].activations == ActivationUse(("output",))  # type: ignore[attr-defined]


def test_before_the_first_batch_it_is_the_network(bundle_path: Path, random_images: MakeImages) -> None:
    with Network.open(bundle_path, activations=[Pea().activations], workers=1) as network:
        state, images = Pea().bind(network.info).init(0), random_images(4)
        assert predict_on(network, Pea(), state, images).logits.tobytes() == network(images).logits.tobytes()
        prediction, _ = step_on(network, Pea(), state, images)
        assert not np.allclose(prediction.logits, network(images).logits, atol=1e-2)


@pytest.mark.parametrize("pea", [Pea(), Pea(drift_limit=1.5, rate=0.3)], ids=["default", "drift"])
def test_against_an_edited_int8_graph(int8_bundle_path: Path, random_images: MakeImages, pea: Pea) -> None:
    """The map stands in front of the integers; the last bits of its values may move one of them by a step."""
    reference = IntegerReference(int8_bundle_path, pea, random_images(40, seed=900))
    with Network.open(int8_bundle_path, "int8", activations=[pea.activations], workers=1) as network:
        adapter = Adapter(network, pea)
        for number, size in enumerate(SIZES):
            images = corrupt(random_images(size, seed=number), number)
            expected, logits = reference.step(number, images), adapter.step(images).logits
            np.testing.assert_allclose(logits, expected, atol=0.02)
            assert np.abs(logits - expected).mean() < 0.005 * np.abs(network(images).logits - expected).mean()
        assert adapter.frozen_batches == 0


def test_networks_opened_without_activations_are_refused(bundle_path: Path) -> None:
    with (
        Network.open(bundle_path, workers=1) as network,
        pytest.raises(BundleError, match="pea re-centres activations"),
    ):
        Pea().bind(network.info)


@pytest.mark.parametrize("name", ["rate", "drift_limit", "average_rate", "least_weight", "entropy_rise"])
def test_options_out_of_range(name: str) -> None:
    options: dict[str, Any] = {name: -0.1}
    with pytest.raises(InputError, match=name):
        Pea(**options)


@pytest.mark.parametrize("sizes", [(1, 1, 1), (4, 1, 4)])
def test_a_single_image_tells_nothing_of_the_last_block(
    bundle_path: Path, random_images: MakeImages, sizes: tuple[int, ...]
) -> None:
    """Its class token has no variance, and its mean would take the place of the moments."""
    pea = Pea(least_weight=0.0)  # every block is moved
    with Network.open(bundle_path, activations=[pea.activations], workers=1) as network:
        adapter = Adapter(network, pea)
        last = slice(-WIDTH, None)
        for number, size in enumerate(sizes):
            before = adapter.state.moments
            adapter.step(random_images(size, seed=number))
            after = adapter.state.moments
            changed = bool((after.variance[last] != before.variance[last]).any())
            assert changed is (size > 1)
            assert (after.variance[last] > 0).all()
            assert (after.mean[:WIDTH] != before.mean[:WIDTH]).any()  # other blocks learn from its tokens
