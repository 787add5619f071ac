"""Bundles of residual networks: manifest, source statistics, methods, export."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from export_doubles import RANDOM
from fozo.data.loader import count_batches, load_batches
from fozo.data.source import SourceImages
from fozo.engine.bundle.bundle import Bundle
from fozo.engine.errors import BundleError, ExportError
from fozo.engine.registry import method as fozo_method
from fozo.engine.runtime.network import Network
from fozo.engine.runtime.source_statistics import plan_source_batches, store_source
from fozo.engine.statistics.feature_statistics import Moments
from fozo.engine.statistics.objective import compute_discrepancy
from fozo.engine.streams.adapter import Adapter
from resnet_doubles import CLASSES, assert_close, compute_reference, draw_images

torch = pytest.importorskip("torch", reason="export needs PyTorch")
timm = pytest.importorskip("timm", reason="export needs timm")

from fozo.export import exporter, resnet  # noqa: E402
from fozo.export.exporter import export_model  # noqa: E402
from fozo.export.model_request import Request  # noqa: E402
from fozo.export.resnet_graph import build_resnet_graph  # noqa: E402


@pytest.fixture(scope="module")
def bundle(model: Any, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """`model` as an exported bundle for images of 64 pixels, without source statistics."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exporter, "create_model", lambda request: (model, RANDOM))
        path = tmp_path_factory.mktemp("resnet") / "bundle"
        return export_model(Request("small", image_size=64), path).bundle


def clean(count: int) -> SourceImages:
    images = draw_images(count, seed=9)
    return SourceImages(count, lambda index: images[index], "somewhere")


def test_what_a_bundle_says(bundle: Bundle) -> None:
    manifest = Bundle.open(bundle.path).manifest
    assert manifest == bundle.manifest
    assert (manifest.layers, manifest.feature_width, manifest.classes) == (4, 48, CLASSES)
    assert manifest.feature_widths == (16, 24, 32, 48)
    assert (manifest.width, manifest.tokens) == (48, 4)
    assert manifest.tunables == {"norms": (1, 10, 2, 12), "batch_statistics": (1,)}
    assert manifest.preprocessing.size == (64, 64)
    info = bundle.info("fp32")
    assert info.feature_widths == manifest.feature_widths
    assert info.tunables == ("norms", "batch_statistics")
    with Network.open(bundle, workers=1) as net:
        features = net(draw_images(3)).features
    for layer, width in enumerate(manifest.feature_widths):
        assert np.all(features[:, layer, width:] == 0)
        assert features[:, layer, width // 2 : width].any()


@pytest.mark.parametrize(
    "widths", [[16, 24, 32], [16, 24, 32, 49], [0, 24, 32, 48], "no", None, [16, 24, 32, "x"]]
)
def test_widths_that_make_no_sense(widths: Any, bundle: Bundle, tmp_path: Path) -> None:
    raw = json.loads((bundle.path / "bundle.json").read_bytes())
    raw["feature_widths"] = widths
    (tmp_path / "bundle.json").write_text(json.dumps(raw))
    with pytest.raises(BundleError, match=r"bundle\.json: feature_widths.*expected .*, found "):
        Bundle.open(tmp_path)


@pytest.mark.parametrize(("count", "used", "batches"), [(40, 40, [40]), (64, 64, [64]), (135, 128, [64, 64])])
def test_source_statistics_are_those_of_normalised_batches(
    count: int, used: int, batches: list[int], model: Any, bundle: Bundle, tmp_path: Path
) -> None:
    images, sizes = clean(count), list[int]()
    stored = add_source(copied(bundle, tmp_path), "fp32", images, sizes.append)
    assert sizes == batches
    source = stored.info("fp32").source
    assert source is not None and source.images == used
    origin = stored.manifest.source["fp32"].origin
    assert origin.startswith("somewhere; ")
    assert f"{used} of them in batches of {batches[0]}, normalised with the statistics of their" in origin
    order = np.random.default_rng(0).permutation(count)[:used]
    chosen = np.stack([images.load(int(index)) for index in order])
    expected = np.concatenate(
        [compute_reference(model, chosen[start : start + 64], 1.0).features for start in range(0, used, 64)]
    )
    assert_close(source.mean, expected.mean(axis=0), "mean")
    assert_close(source.std, expected.std(axis=0, ddof=1), "std")
    widths = stored.info("fp32").feature_widths
    assert compute_discrepancy(Moments.of(expected), source, "mean_squared", widths) < 1e-6


def add_source(
    bundle: Bundle, precision: str, images: SourceImages, on_batch: Callable[[int], None] = lambda count: None
) -> Bundle:
    plan = plan_source_batches(bundle, images.count)
    with closing(load_batches(images.load, plan.order, plan.batch_size)) as batches:
        return store_source(bundle, precision, count_batches(batches, on_batch), images.origin + plan.remark)


def copied(bundle: Bundle, folder: Path) -> Bundle:
    shutil.copytree(bundle.path, folder / "bundle")
    return Bundle.open(folder / "bundle")


@pytest.mark.parametrize("method", ["fozo", "foa"])
def test_methods_that_tune_prompts_say_what_is_missing(method: str, bundle: Bundle, tmp_path: Path) -> None:
    stored = add_source(copied(bundle, tmp_path), "fp32", clean(40))
    with pytest.raises(
        BundleError, match=f"{method} tunes prompts, and the graph of small has no such input"
    ):
        Adapter.open(stored.path, method=method, workers=1)


@pytest.mark.parametrize("method", ["shift", "shift_origin", "neo", "zoa"])
def test_methods_that_need_no_prompts(method: str, bundle: Bundle, tmp_path: Path) -> None:
    stored = add_source(copied(bundle, tmp_path), "fp32", clean(64))
    adapter = Adapter.open(stored.path, method=method, workers=1)
    for size in (8, 1, 3):
        prediction = adapter.step(draw_images(size, seed=size))
        assert np.isfinite(prediction.logits).all() and not prediction.frozen


@pytest.mark.parametrize("method", ["bn_adapt", "zoa"])
def test_a_state_for_each_domain(method: str, bundle: Bundle, tmp_path: Path) -> None:
    """Of which the first one, and so its answer, is as if the others had not been."""
    stored = add_source(copied(bundle, tmp_path), "fp32", clean(64))
    images = draw_images(64)
    with Network.open(stored.path, workers=1) as opened:
        adapter = Adapter(opened, fozo_method(method, domains=2))
        plain = Adapter(opened, fozo_method(method))
        found = [adapter.step(each) for each in (images, images // 4, images // 4, images)]
        plain.step(images)
        plain.restore(
            replace(plain.snapshot(), method=replace(plain.state, step=5))
        )  # two steps at each of the two changes
        expected = plain.step(images)
    assert [each.diagnostics["domain_changed"] for each in found] == [0, 1, 0, 1]
    assert [each.forwards / adapter.method.forwards for each in found] == [1, 2, 1, 2]
    assert found[-1].logits.tobytes() == expected.logits.tobytes()


def test_norms_of_blocks_that_are_not_there(
    model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporter, "create_model", lambda request: (model, RANDOM))
    with pytest.raises(ExportError, match=r"has blocks 0\.\.4"):
        export_model(Request("small", image_size=64, norms=(5,)), tmp_path / "bundle")


def test_a_wrong_graph_is_not_written(model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error that only batch statistics show: the running ones are right."""

    def perturbed(*arguments: Any) -> onnx.ModelProto:
        graph = build_resnet_graph(*arguments)
        (stages,) = (node for node in graph.graph.node if node.op_type == "If")
        general = next(a.g for a in stages.attribute if a.name == "then_branch")
        norm = next(n for n in general.node if n.name == "stages/general/layer3.0.bn2")
        next(a for a in norm.attribute if a.name == "epsilon").f = 0.05
        return graph

    monkeypatch.setattr(exporter, "create_model", lambda request: (model, RANDOM))
    monkeypatch.setattr(resnet, "build_resnet_graph", perturbed)
    with pytest.raises(ExportError, match=r"does not compute what PyTorch does: .*batch_statistics = 0"):
        export_model(Request("small", image_size=64), tmp_path / "bundle")
    assert not list(tmp_path.iterdir())


def test_models_of_timm_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through the whole exporter, with timm's own preprocessing, at another image size."""
    monkeypatch.setattr("fozo.export.verify.BATCHES", (1, 2))
    result = export_model(Request("resnet18", random=True, image_size=64, num_classes=5), tmp_path / "bundle")
    manifest = result.bundle.manifest
    assert manifest.feature_widths == (64, 128, 256, 512)
    assert len(manifest.norms) == 16
    how = manifest.preprocessing
    assert (how.size, how.resize, how.interpolation) == ((64, 64), 67, "bicubic")
    assert "batch" in result.case_summary
