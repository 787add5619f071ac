"""The models people use, with timm's own structure and random parameters: exported, calibrated, adapted.

Blocks and pixels are as few as a test can afford; what makes a family (widths, heads, patches, tokens, names)
is timm's.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
from doubles import lend_network
from export_doubles import RANDOM
from fozo.engine.bundle.bundle import Bundle
from fozo.engine.model import ACTIVATION_KINDS, ActivationUse, ImageArray
from fozo.engine.registry import METHODS as ALL_METHODS
from fozo.engine.registry import count_views
from fozo.engine.registry import method as configure_method
from fozo.engine.runtime.network import Network
from fozo.engine.statistics.feature_statistics import compute_source_statistics
from fozo.engine.statistics.fisher_information import compute_fisher
from fozo.engine.streams.adapter import Adapter
from fozo.testing import add_views

torch = pytest.importorskip("torch", reason="export needs PyTorch")
timm = pytest.importorskip("timm", reason="export needs timm")

from fozo.export import exporter  # noqa: E402
from fozo.export.exporter import export_model  # noqa: E402
from fozo.export.model_request import Request  # noqa: E402
from fozo.export.verify import TOLERANCE  # noqa: E402
from timm.data import resolve_model_data_config  # noqa: E402

# bn_adapt needs batch norms, and stss texts: tests/engine/methods/test_clip_methods.py.
METHODS = {name: each for name, each in ALL_METHODS.items() if name not in ("bn_adapt", "stss")}
METHODS["zero"] = configure_method("zero", views=3)
BATCHES = (4, 1, 3)
SOURCE_IMAGES = 32


@dataclass(frozen=True)
class Model:
    """A model of timm, cut down.

    Attributes:
        name: timm's.
        size: pixels per side.
        tokens: of the graph, without prompts.
        width: of a token.
        classes: None is the model's own number.
        depth: blocks.
        readout: tokens that the head reads.
        options: further options of timm's.
    """

    name: str
    size: int
    tokens: int
    width: int
    classes: int | None = None
    depth: int = 2
    readout: int = 1
    options: dict[str, Any] = field(default_factory=dict)

    def create(self) -> Any:
        options = {} if self.classes is None else {"num_classes": self.classes}
        return randomise(
            timm.create_model(self.name, img_size=self.size, depth=self.depth, **options, **self.options)
        )


MODELS = [
    Model("vit_small_patch16_224", 96, 1 + 36, 384, classes=10),
    Model("vit_base_patch16_224", 64, 1 + 16, 768),
    Model("vit_large_patch16_224", 32, 1 + 4, 1024, classes=21),
    # As deep as ViT-L, and narrow.
    Model("vit_large_patch16_224", 32, 1 + 4, 64, depth=24, options={"embed_dim": 64, "num_heads": 4}),
    Model("vit_base_patch8_224", 24, 1 + 9, 768, classes=345),
    Model("vit_small_patch32_224", 160, 1 + 25, 384, classes=2),
    Model("vit_tiny_patch16_384", 384, 1 + 144, 192, classes=1, options={"patch_size": 32}),
    Model("vit_base_patch16_clip_224", 48, 1 + 9, 768, classes=512),
    Model("deit_tiny_patch16_224", 160, 1 + 100, 192, classes=100),
    Model("deit_small_distilled_patch16_224", 64, 2 + 16, 384, readout=2),
    Model("deit3_small_patch16_224", 64, 1 + 16, 384, classes=7),
    Model("vit_small_patch14_dinov2", 56, 1 + 16, 384, classes=12),
    Model("vit_small_patch14_reg4_dinov2", 70, 1 + 4 + 25, 384, classes=1000),
]


def randomise(model: Any) -> Any:
    """Randomise every parameter in place: fresh biases, scales and heads would hide mistakes."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if "norm" in name or "gamma" in name:
                parameter.copy_(0.2 * noise + (0.0 if name.endswith("bias") else 1.0))
            elif name.endswith("bias"):
                parameter.copy_(0.2 * noise)
            elif name.endswith("weight"):
                parameter.copy_(noise * parameter[0].numel() ** -0.5)
            else:  # tokens and positions
                parameter.copy_(0.5 * noise)
    return model.eval()


def images_of(model: Model, count: int, seed: int) -> ImageArray:
    """Random images, each with a colour and a contrast of its own."""
    generator = np.random.default_rng([seed, count])
    colours = generator.uniform(60, 195, (count, 1, 1, 3))
    noise = generator.normal(
        0, generator.uniform(5, 60, (count, 1, 1, 1)), (count, model.size, model.size, 3)
    )
    return np.clip(colours + noise, 0, 255).astype(np.uint8)


@dataclass(frozen=True)
class Case:
    """A model, the PyTorch module, and its bundle, which has source statistics."""

    model: Model
    module: Any
    bundle: Bundle


@pytest.fixture(scope="module", params=MODELS, ids=lambda model: f"{model.name}-{model.size}-{model.depth}")
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Case]:
    model: Model = request.param
    module, folder = model.create(), tmp_path_factory.mktemp("model")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exporter, "create_model", lambda request: (module, RANDOM))
        patch.setattr("fozo.export.verify.BATCHES", (1, 3))  # test_exporter.py runs larger ones
        bundle = export_model(Request(model.name, random=True, gradients=True), folder / "bundle").bundle
    clean = images_of(model, SOURCE_IMAGES, seed=1)
    with Network.open(bundle, workers=1, activations=[ActivationUse(ACTIVATION_KINDS)]) as network:
        statistics = compute_source_statistics(network, [clean[:20], clean[20:]])
    with Network.open(bundle, workers=1, gradients=True) as network:
        statistics = replace(statistics, fisher=compute_fisher(network, [clean[:8]]))
    yield Case(model, module, bundle.with_source("fp32", statistics, "random images"))
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def network(case: Case) -> Iterator[Network]:
    with Network.open(case.bundle, workers=1, gradients=True) as opened:
        yield opened


@pytest.fixture
def method_network(case: Case, network: Network, name: str) -> Iterator[Network]:
    """Open one with activations for a method that needs them."""
    with lend_network(network, case.bundle, METHODS[name]) as lent:
        yield lent


def test_the_graph_is_the_model(case: Case, network: Network) -> None:
    model, module, info = case.model, case.module, network.info
    images = images_of(model, 5, seed=2)
    config = resolve_model_data_config(module)
    mean, std = (torch.tensor(config[name]).view(1, 3, 1, 1) for name in ("mean", "std"))
    with torch.inference_mode():
        expected = module((torch.from_numpy(images).permute(0, 3, 1, 2) / 255 - mean) / std).numpy()
    found = network(images)
    classes = model.classes or 1000
    assert found.logits.shape == expected.shape == (5, classes)
    assert np.abs(found.logits - expected).max() <= TOLERANCE * max(1, np.abs(expected).max())
    assert np.ptp(found.logits, axis=0).max() > 0.01  # the images matter
    assert found.features.shape == (5, model.depth, model.readout * model.width)
    assert found.embedding is not None and found.embedding.shape == (5, 2, model.width)
    head = found.features[:, -1] @ info.head_weight.T + info.head_bias
    np.testing.assert_allclose(head, found.logits, rtol=1e-4, atol=1e-4)
    assert network.image_size == (model.size, model.size)
    assert (info.layers, info.width, info.tokens) == (model.depth, model.width, model.tokens)
    assert (info.classes, info.feature_width) == (classes, model.readout * model.width)
    assert list(info.norms) == [f"blocks.{i}.norm{k}" for i in range(model.depth) for k in (1, 2)]


@pytest.mark.parametrize("name", METHODS)
def test_every_method_adapts_it(case: Case, method_network: Network, name: str) -> None:
    adapter = Adapter(method_network, METHODS[name], seed=0)
    for step, count in enumerate(BATCHES):
        images = images_of(case.model, count, seed=3 + step)
        views = count_views(METHODS[name])
        prediction = adapter.step(images if views == 1 else add_views(images, views))
        assert prediction.logits.shape == (count, case.model.classes or 1000)
        assert prediction.logits.dtype == np.float32
        assert np.isfinite(prediction.logits).all()
        # The maps of pea multiply from block to block; those of 24 random blocks can overflow.
        assert not prediction.frozen or (name == "pea" and case.model.depth == 24)
        assert prediction.loss is None or np.isfinite(prediction.loss)
        np.testing.assert_allclose(prediction.probabilities.sum(axis=1), 1, rtol=1e-12)
        assert adapter.state.step == step + 1
