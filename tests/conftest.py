"""Shared fixtures: small networks with every parameter random, bundles of them on disk, and a stand-in."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from doubles import PROMPT_BOUND, StandIn
from fozo.data.source import SourceImages
from fozo.engine.bundle.bundle import Bundle
from fozo.engine.bundle.create import create
from fozo.engine.bundle.manifest import GraphEntry, Manifest
from fozo.engine.bundle.preprocessing import Preprocessing
from fozo.engine.files import to_npz
from fozo.engine.model import ACTIVATION_KINDS, ActivationUse, ImageArray
from fozo.engine.runtime.network import Network
from fozo.engine.statistics.feature_statistics import compute_source_statistics
from fozo.engine.statistics.fisher_information import compute_fisher
from fozo.export.pull_back import build_pull_back
from fozo.export.signature import OPSET
from fozo.export.vit_graph import build_vit_graph, list_vit_activations, select_vit_norms
from fozo.export.vit_model import read_vit
from fozo.quant.quantization import quantize
from fozo.quant.settings import Options
from timm.models.vision_transformer import VisionTransformer

MEAN, STD = (0.5, 0.45, 0.4), (0.5, 0.4, 0.3)  # differs per channel, so that an exchange would show

ALL_ACTIVATIONS = ActivationUse(ACTIVATION_KINDS)

torch.set_num_threads(1)


def _randomised_vit(width: int, depth: int, classes: int, seed: int, head_gain: float = 1.0) -> Any:
    """Return a timm ViT for 32 x 32 images in which no parameter is zero, one, or equal to another."""
    model = VisionTransformer(
        img_size=32, patch_size=8, embed_dim=width, depth=depth, num_heads=width // 16, num_classes=classes
    )
    generator = torch.Generator().manual_seed(seed)

    def normal(like: Any) -> Any:
        return torch.randn(like.shape, generator=generator)

    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = normal(parameter)
            if "norm" in name:
                parameter.copy_(0.2 * noise + (1.0 if name.endswith("weight") else 0.0))
            elif name.endswith("bias"):
                parameter.copy_(0.2 * noise)
            elif name in ("cls_token", "pos_embed"):
                parameter.copy_(0.5 * noise)
            else:
                parameter.copy_(noise / np.sqrt(parameter[0].numel()))
        model.head.weight.mul_(head_gain)
    return model.eval()


def _save_graph(model: Any, path: Path, *, norms: bool = False) -> None:
    vit = read_vit(model)
    graph = build_vit_graph(vit, MEAN, STD, select_vit_norms(vit) if norms else {})
    onnx.checker.check_model(graph)
    onnx.save(graph, path)


def _save_pull_back(model: Any, path: Path) -> None:
    vit = read_vit(model)
    graph = build_vit_graph(vit, MEAN, STD, select_vit_norms(vit))
    onnx.save(build_pull_back(graph, ("prompts", "norms")), path)


def _manifest(model: Any, name: str) -> Manifest:
    vit = read_vit(model)
    return Manifest(
        model=name,
        preprocessing=Preprocessing(vit.image_size, vit.image_size[0]),
        layers=len(vit.blocks),
        width=vit.width,
        tokens=vit.tokens,
        feature_width=vit.width,
        classes=len(vit.head.weight),
        prompt_bound=PROMPT_BOUND,
        tunables={"prompts": ("R", "P", vit.width), "norms": ("S", 2 * len(vit.blocks), 2, vit.width)},
        norms=select_vit_norms(vit),
        graphs={"fp32": GraphEntry("model.onnx", OPSET, 0.0)},
        pull_backs={"fp32": GraphEntry("pull-back.onnx", OPSET, 0.0)},
        activations=list_vit_activations(vit),
    )


def _random_images(count: int, seed: int = 0) -> ImageArray:
    """Read-only images: smooth ones, each with its own colour, contrast and noise."""
    generator = np.random.default_rng([seed, count])
    coarse = generator.uniform(0, 255, (count, 4, 4, 3))
    smooth = coarse.repeat(8, axis=1).repeat(8, axis=2) + generator.normal(0, 25, (count, 32, 32, 3))
    images = np.clip(smooth, 0, 255).astype(np.uint8)
    images.setflags(write=False)
    return images


def _clean_images(count: int, seed: int = 0, labels: Any = None) -> SourceImages:
    images = _random_images(count, seed)
    return SourceImages(count, lambda index: images[index], f"random images, seed {seed}", labels)


@pytest.fixture(scope="session", autouse=True)
def _no_user_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Nothing that was measured on this machine decides on a test, and no test leaves anything there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FOZO_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def randomised_vit() -> Callable[..., Any]:
    """`randomised_vit(width, depth, classes, seed, head_gain=1)`: a timm model for 32 x 32 images."""
    return _randomised_vit


def _add_source(bundle: Bundle, precision: str) -> Bundle:
    images = _random_images(40, seed=900)
    with Network.open(bundle, precision, activations=[ALL_ACTIVATIONS], workers=1) as network:
        statistics = compute_source_statistics(network, [images])
    with Network.open(bundle, precision, gradients=True, workers=1) as network:
        statistics = replace(statistics, fisher=compute_fisher(network, [images[:20], images[20:]]))
    return bundle.with_source(precision, statistics, "random images")


@pytest.fixture(scope="session")
def normalisation() -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and std per channel of everything exported here."""
    return MEAN, STD


@pytest.fixture(scope="session")
def save_graph() -> Callable[..., None]:
    """`save_graph(timm_model, path, norms=False)`: exports to ONNX without a bundle around it."""
    return _save_graph


@pytest.fixture(scope="session")
def random_images() -> Callable[..., ImageArray]:
    """`random_images(count, seed=0)`: read-only uint8 `[count, 32, 32, 3]`."""
    return _random_images


@pytest.fixture(scope="session")
def clean_images() -> Callable[..., SourceImages]:
    """`clean_images(count, seed=0, labels=None)`: the same images as something to calibrate with."""
    return _clean_images


@pytest.fixture(scope="session")
def make_bundle() -> Callable[..., Bundle]:
    """Return a function that writes a whole bundle: `make_bundle(path, width=64, depth=2, …)`."""

    def make(
        path: Path,
        width: int = 64,
        depth: int = 2,
        classes: int = 20,
        seed: int = 0,
        source: bool = True,
        head_gain: float = 1.0,
    ) -> Bundle:
        model = _randomised_vit(width, depth, classes, seed, head_gain)
        head = read_vit(model).head
        assert head.bias is not None
        content = to_npz(weight=head.weight, bias=head.bias)
        bundle = create(
            path,
            _manifest(model, f"random-{width}-{depth}-{seed}"),
            {
                "model.onnx": lambda target: _save_graph(model, target, norms=True),
                "pull-back.onnx": lambda target: _save_pull_back(model, target),
                "head.npz": lambda target: target.write_bytes(content),
            },
        )
        if not source:
            return bundle
        return _add_source(bundle, "fp32")

    return make


@pytest.fixture(scope="session")
def bundle_paths(
    tmp_path_factory: pytest.TempPathFactory, make_bundle: Callable[..., Bundle]
) -> dict[int, Path]:
    """Bundles by width; treat them as read-only, they are shared by the whole session."""
    folder = tmp_path_factory.mktemp("bundles")
    return {
        width: make_bundle(folder / f"w{width}", width=width, depth=depth, seed=width).path
        for width, depth in ((64, 3), (192, 2), (384, 2))
    }


@pytest.fixture(scope="session")
def bundle_path(bundle_paths: dict[int, Path]) -> Path:
    """Return the smallest of `bundle_paths`."""
    return bundle_paths[64]


@pytest.fixture(scope="session")
def int8_bundle_path(tmp_path_factory: pytest.TempPathFactory, bundle_path: Path) -> Path:
    """Return the smallest bundle with an int8 graph as well, and its source statistics."""
    path = tmp_path_factory.mktemp("int8") / "bundle"
    shutil.copytree(bundle_path, path)
    options = Options(force=True)
    bundle, _ = quantize(Bundle.open(path), _clean_images(40, 900), _clean_images(32, 901), options)
    return _add_source(bundle, "int8").path


@pytest.fixture
def stand_in() -> Callable[..., Any]:
    """`stand_in(classes=5, layers=2, width=3, seed=0, norms=None)`: a `doubles.StandIn`."""
    return StandIn
