"""Int8 graphs, gradients and source statistics of CLIP models, whose classifier is an input."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clip_export_doubles import CONFIGURATION, make_state, register, write_names
from export_doubles import save_weights
from fozo.data.source import SourceImages
from fozo.engine.bundle.bundle import Bundle
from fozo.engine.model import Slopes
from fozo.engine.runtime.network import Network
from fozo.engine.runtime.source_statistics import (
    plan_fisher_batches,
    plan_source_batches,
    store_source,
)
from quant_doubles import CleanImages

onnx = pytest.importorskip("onnx", reason="quantisation reads and writes graphs with onnx")
pytest.importorskip("open_clip", reason="export of CLIP needs open_clip")

from fozo.export.clip_exporter import export_clip  # noqa: E402
from fozo.export.clip_source import ClipRequest  # noqa: E402
from fozo.quant.operators import count_integer_products  # noqa: E402
from fozo.quant.products import find_products  # noqa: E402
from fozo.quant.quantization import quantize  # noqa: E402
from fozo.quant.settings import Options  # noqa: E402

BLOCKS, EMBEDDING = 2, 80  # the embedding is wider than the tokens
WIDTH = CONFIGURATION["vision_cfg"]["width"]


@pytest.fixture(scope="module")
def clip_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clip")
    weights = save_weights(folder, make_state(embed_dim=EMBEDDING).state_dict())
    name = register(folder, "fozo-wide-clip", embed_dim=EMBEDDING)
    names = write_names(folder)
    request = ClipRequest(name, weights, activation="gelu", classes_file=names, gradients=True)
    return export_clip(request, folder / "bundle").bundle.path


@pytest.fixture
def bundle(clip_path: Path, tmp_path: Path) -> Bundle:
    """Copy the shared bundle, to write to it."""
    shutil.copytree(clip_path, tmp_path / "bundle")
    return Bundle.open(tmp_path / "bundle")


def test_projection_and_classifier_stay_in_float(clip_path: Path) -> None:
    model = onnx.load(Bundle.open(clip_path).graph("fp32"))
    names = [product.name for product in find_products(model)]
    assert len(names) == 1 + 7 * BLOCKS
    assert not [name for name in names if name.startswith(("projection", "head", "embedding"))]
    kept = {node.op_type for node in model.graph.node if node.name in ("projection", "normalise", "head")}
    assert kept == {"Gemm", "LpNormalization", "MatMul"}


@pytest.mark.usefixtures("lenient")
def test_an_int8_graph_is_added(
    bundle: Bundle, images: tuple[SourceImages, SourceImages], tmp_path: Path
) -> None:
    text = bundle.file("text.onnx").read_bytes()
    changed, report = quantize(bundle, *images, Options(portable=True), sensitivity=True)
    assert report.integer == report.intended == count_integer_products(changed.graph("int8")) == 15
    assert report.comparison.cosine_features > 0.99
    assert report.comparison.cosine_logits > 0.99
    assert len(report.effects) == 2 + 5 * BLOCKS  # the last block reads its queries apart
    assert list(changed.manifest.graphs) == ["fp32", "int8", "int8-qdq"]
    assert changed.file("text.onnx").read_bytes() == text
    pixels = np.stack([images[1].load(index) for index in range(8)])
    with Network.open(changed, "int8", workers=1, micro_batch=8) as network:
        whole = network(pixels)
        last = whole.features[:, -1]
        np.testing.assert_allclose(np.linalg.norm(last, axis=1), 1, atol=1e-6)
        np.testing.assert_allclose(last @ network.info.head_weight.T, whole.logits, atol=1e-5)
        for size in range(1, 8):
            split = network.rearrange(1, size)(pixels)
            np.testing.assert_array_equal(split.logits, whole.logits)
            np.testing.assert_array_equal(split.features, whole.features)
        other = network.with_classifier(network.info.head_weight[::-1].copy())(pixels)
        np.testing.assert_allclose(other.logits[:, ::-1], whole.logits, atol=1e-5)


@pytest.mark.usefixtures("lenient")
def test_the_int8_graph_has_gradients(bundle: Bundle, images: tuple[SourceImages, SourceImages]) -> None:
    changed, _ = quantize(bundle, *images, Options())
    record = changed.manifest.pull_backs["int8"].record
    assert record["cosine_to_fp32"] > 0.9
    pixels = np.stack([images[1].load(index) for index in range(3)])
    prompts = np.random.default_rng(0).normal(0, 0.1, (1, 2, WIDTH)).astype(np.float32)
    slopes: dict[str, Any] = {"entropy_weights": np.ones(3, np.float32)}
    gradients = []
    for precision in ("fp32", "int8"):
        with Network.open(changed, precision, gradients=True) as network:
            pulled = network.select([0, 3, 4]).pull_back(pixels, {"prompts": prompts}, Slopes(**slopes))
            assert pulled.gradients is not None
            gradients.append(pulled.gradients["prompts"].ravel())
    cosine = gradients[0] @ gradients[1] / np.linalg.norm(gradients[0]) / np.linalg.norm(gradients[1])
    assert cosine > 0.9


def test_source_statistics_have_padding(bundle: Bundle, clean_images: CleanImages) -> None:
    assert bundle.manifest.feature_widths == (WIDTH, WIDTH, EMBEDDING)
    images = clean_images(40)
    pixels = np.stack([images.load(index) for index in range(40)])
    plan, fisher_plan = plan_source_batches(bundle, 40), plan_fisher_batches(bundle, "fp32", 40)
    assert fisher_plan is not None
    changed = store_source(bundle, "fp32", [pixels[plan.order]], "random", [pixels[fisher_plan.order]])
    source = changed.source("fp32")
    assert source is not None
    assert source.mean.shape == source.std.shape == (BLOCKS + 1, EMBEDDING)
    for values in (source.mean, source.std):
        assert not values[:-1, WIDTH:].any()
    assert (source.std[:-1, :WIDTH] > 0).all()
    assert (source.std[-1] > 0).all()
    assert source.fisher is not None
    assert source.fisher.shape == (2 * BLOCKS, 2, WIDTH)
    assert (source.fisher > 0).any()
