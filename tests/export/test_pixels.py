"""Graphs with a tunable addend to the images, against PyTorch and against graphs without one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from clip_doubles import describe_family, make_clip, make_family
from export_doubles import SMALL
from fozo import ExportError, InputError
from fozo.engine.model import ModelInfo, list_differentiable
from fozo.engine.runtime.network import Network
from quant_doubles import CleanImages
from vit_doubles import MEAN, STD, VITS

torch = pytest.importorskip("torch", reason="export needs PyTorch")
timm = pytest.importorskip("timm", reason="export needs timm")

from fozo.export.clip_family import ClipFamily  # noqa: E402
from fozo.export.exporter import export_model  # noqa: E402
from fozo.export.families import Family  # noqa: E402
from fozo.export.image_format import ImageFormat  # noqa: E402
from fozo.export.model_request import Request  # noqa: E402
from fozo.export.pull_back import build_pull_back  # noqa: E402
from fozo.export.verify import verify, verify_gradients  # noqa: E402
from fozo.export.vit import VitFamily  # noqa: E402
from fozo.quant.quantization import quantize  # noqa: E402
from fozo.quant.settings import Options  # noqa: E402

MODELS = ["clip", "plain", "deit_distilled", "not_a_multiple", "rectangular_patch", "everything"]


def read_model(name: str, *, pixels: bool) -> Family:
    if name == "clip":
        plain, model = make_family(make_clip()), make_clip()
        return ClipFamily(model, replace(plain._format, pixels=pixels), plain._classifier[:, :24])
    model = VITS[name]()
    return VitFamily(model, ImageFormat(model.patch_embed.img_size, MEAN, STD, pixels))


def describe(family: Any, name: str) -> ModelInfo:
    norms = family.select_norms(None)
    if name == "clip":
        return describe_family(family, norms)
    fields, (weight, bias) = family.describe(norms), family.head
    names = ("layers", "width", "tokens", "prompt_bound")
    facts = {field: fields[field] for field in names}
    return ModelInfo(
        "vit",
        "",
        **facts,
        head_weight=weight,
        head_bias=bias,
        tunables=tuple(fields["tunables"]),
        norms=norms,
    )


def save(family: Family, path: Path) -> Path:
    onnx.save(family.build_graph(family.select_norms(None)), path)
    return path


@pytest.mark.parametrize("name", MODELS)
def test_graph_computes_what_pytorch_does(name: str, tmp_path: Path) -> None:
    family = read_model(name, pixels=True)
    info = describe(family, name)
    assert info.tunables[-1] == "pixels"
    parity = verify(family, save(family, tmp_path / "model.onnx"), info)
    assert 0 < parity.logits < 1e-4 * 10


@pytest.mark.parametrize("name", MODELS)
def test_zeros_change_no_bit(name: str, tmp_path: Path) -> None:
    families = [read_model(name, pixels=pixels) for pixels in (False, True)]
    paths = [save(family, tmp_path / f"{index}.onnx") for index, family in enumerate(families)]
    infos = [describe(family, name) for family in families]
    images = np.random.default_rng(0).integers(0, 256, (5, *families[0].image_size, 3), np.uint8)
    prompts = np.random.default_rng(1).normal(size=(1, 2, infos[0].width)).astype(np.float32)
    zeros = np.zeros((1, *families[0].image_size, 3), np.float32)
    with Network(paths[0], infos[0], workers=1) as plain, Network(paths[1], infos[1], workers=2) as tunable:
        expected = plain(images, prompts=prompts)
        for tunables in ({}, {"pixels": zeros}, {"pixels": np.repeat(zeros, 5, axis=0)}):
            outputs = tunable(images, prompts=prompts, **tunables)
            np.testing.assert_array_equal(outputs.logits, expected.logits)
            np.testing.assert_array_equal(outputs.features, expected.features)
            np.testing.assert_array_equal(outputs.embedding, expected.embedding)


def test_whole_levels_are_other_images(tmp_path: Path) -> None:
    """Adding whole levels is as good as other bytes, which end at 0 and 255."""
    family = read_model("plain", pixels=True)
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (4, *family.image_size, 3), np.uint8)
    levels = generator.integers(-200, 200, images.shape)
    with Network(save(family, tmp_path / "model.onnx"), describe(family, "plain"), workers=1) as network:
        expected = network(np.clip(images + levels, 0, 255).astype(np.uint8))
        outputs = network(images, pixels=(levels / 255).astype(np.float32))
        np.testing.assert_allclose(outputs.logits, expected.logits, atol=1e-5)
        shared = network(images, pixels=(levels[:1] / 255).astype(np.float32))
        np.testing.assert_allclose(shared.logits[0], expected.logits[0], atol=1e-5)
        assert np.abs(shared.logits[1:] - expected.logits[1:]).max() > 1e-2
        with pytest.raises(
            InputError, match=r"expected pixels of type float32 and shape \[1 or 4, 28, 28, 3\]"
        ):
            network(images, pixels=np.zeros((1, 28, 27, 3), np.float32))


@pytest.mark.parametrize("name", ["clip", "plain"])
def test_gradients_are_of_the_other_tunables(name: str, tmp_path: Path) -> None:
    family = read_model(name, pixels=True)
    info, path = describe(family, name), tmp_path / "pull-back.onnx"
    graph = family.build_graph(family.select_norms(None))
    assert list_differentiable(info.tunables) == ("prompts", "norms")
    onnx.save(build_pull_back(graph, list_differentiable(info.tunables)), path)
    assert verify_gradients(family, path, info) < 1e-3


def test_an_exported_model_and_its_int8_graph(tmp_path: Path, clean_images: CleanImages) -> None:
    request = Request("test_vit", random=True, image_size=SMALL, pixels=True, gradients=True)
    bundle = export_model(request, tmp_path / "bundle").bundle
    assert bundle.manifest.tunables["pixels"] == ("Q", SMALL, SMALL, 3)
    changed, report = quantize(bundle, clean_images(40, 0), clean_images(40, 1), Options(force=True))
    assert report.intended == 7 * 6  # not the patches
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (2, SMALL, SMALL, 3), np.uint8)
    with Network.open(changed, "int8", workers=1) as network, Network.open(changed, workers=1) as reference:
        plain = network(images)
        faint = np.full((1, SMALL, SMALL, 3), 0.02 / 255, np.float32)  # bytes would not show it
        assert not np.array_equal(network(images, pixels=faint).features, plain.features)
        strong = generator.uniform(-0.3, 0.3, images.shape).astype(np.float32)
        outputs, expected = (net(images, pixels=strong).features[:, -1] for net in (network, reference))
        cosine = (outputs * expected).sum() / np.linalg.norm(outputs) / np.linalg.norm(expected)
        assert cosine > 0.98


def test_residual_networks_have_none(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="only vision transformers have tunable pixels"):
        export_model(Request("resnet18", random=True, pixels=True), tmp_path / "bundle")
