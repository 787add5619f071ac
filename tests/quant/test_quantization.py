"""Int8 graphs that are added to bundles, or refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from doubles import real_data
from fozo.data.source import SourceImages, folder_source
from fozo.engine.bundle.bundle import Bundle
from fozo.engine.errors import FozoError, InputError, OutputError
from fozo.engine.model import ImageArray
from fozo.engine.runtime.network import Network
from quant_doubles import PRODUCTS, CleanImages, check_comparison, read_folder, set_relative_time

onnx = pytest.importorskip("onnx", reason="quantisation reads and writes graphs with onnx")

from fozo.quant import quantizer  # noqa: E402
from fozo.quant.graph_comparison import compare  # noqa: E402
from fozo.quant.operators import count_integer_products  # noqa: E402
from fozo.quant.products import find_products  # noqa: E402
from fozo.quant.quantization import QuantizationError, quantize  # noqa: E402
from fozo.quant.quantization_report import describe_report  # noqa: E402
from fozo.quant.settings import Options  # noqa: E402


@pytest.mark.usefixtures("lenient")
def test_an_int8_graph_is_added(
    bundle: Bundle, images: tuple[SourceImages, SourceImages], clean_images: CleanImages
) -> None:
    fp32 = bundle.graph("fp32").read_bytes()
    labels = np.random.default_rng(0).integers(0, 20, 40)
    steps: dict[str, int] = {}

    class Step:
        def __init__(self, what: str, count: int) -> None:
            self.what, self.count = what, count

        def __enter__(self) -> Callable[[int], None]:
            steps[self.what] = -self.count
            return self.advance

        def advance(self, count: int) -> None:
            steps[self.what] += count

        def __exit__(self, *error: object) -> None:
            return None

    held_out = replace(images[1], labels=None)
    changed, report = quantize(bundle, images[0], held_out, Options(), sensitivity=True, progress=Step)
    assert changed == Bundle.open(bundle.path)
    assert list(changed.manifest.graphs) == ["fp32", "int8"]
    assert set(changed.manifest.source) == {"fp32"}
    assert changed.graph("fp32").read_bytes() == fp32
    graph = changed.graph("int8")
    assert graph.name == f"model-int8-{changed.graph_sha256('int8')[:8]}.onnx"
    assert {p.name for p in bundle.path.iterdir()} == {"bundle.json", *changed.manifest.files}
    assert {p.name for p in bundle.path.parent.iterdir()} == {"bundle"}
    assert len(steps) == 3 and set(steps.values()) == {0}

    assert (report.integer, report.intended) == (count_integer_products(graph), PRODUCTS)
    assert report.integer == PRODUCTS
    assert (report.float_layers, report.refusals) == ((), ())
    assert (report.milliseconds, report.speedup) == (4, 2)
    assert report.megabytes == (graph.stat().st_size / 1e6, len(fp32) / 1e6)

    # What was measured, measured again.
    pixels = np.stack([images[1].load(i) for i in range(40)])
    with Network.open(changed, "int8", workers=1) as ours, Network.open(changed, workers=1) as theirs:
        a, b = ours(pixels), theirs(pixels)
    found = report.comparison
    check_comparison(found, a, b, None)
    assert found.cosine_features > 0.998
    assert compare([(a, b)], labels).accuracy == pytest.approx(100 * (a.logits.argmax(1) == labels).mean())

    entry = changed.manifest.graphs["int8"]
    assert (entry.reference, entry.opset) == ("fp32", bundle.manifest.graphs["fp32"].opset)
    assert entry.max_abs_difference == found.max_abs_difference
    record = entry.record
    assert record["calibration"] == "22 of random images, seed 31"
    assert record["calibrator"] == "percentile"
    assert record["comparison"]["images"] == 40
    assert len(record["effects"]) == len(report.effects)
    assert record["versions"]["onnx"] == onnx.__version__
    json.dumps(record, allow_nan=False)


@pytest.mark.usefixtures("lenient")
def test_the_portable_graph(bundle: Bundle, images: tuple[SourceImages, SourceImages]) -> None:
    changed, _ = quantize(bundle, *images, Options(portable=True))
    assert list(changed.manifest.graphs) == ["fp32", "int8", "int8-qdq"]
    portable = onnx.load(changed.graph("int8-qdq"))
    onnx.checker.check_model(portable, full_check=True)
    assert {node.domain for node in portable.graph.node} == {""}
    pixels = np.stack([images[1].load(i) for i in range(8)])
    with (
        Network.open(changed, "int8-qdq", workers=1) as ours,
        Network.open(changed, "int8", workers=1) as theirs,
    ):
        a, b = ours(pixels), theirs(pixels)
    assert np.median(np.abs(a.features - b.features)) < 1e-5
    np.testing.assert_allclose(a.logits, b.logits, atol=0.1)
    again, _ = quantize(changed, *images, Options(seed=1))
    assert list(again.manifest.graphs) == ["fp32", "int8"]  # the portable form was of the old one
    assert again.graph_sha256("int8") != changed.graph_sha256("int8")
    assert {p.name for p in bundle.path.iterdir()} == {"bundle.json", *again.manifest.files}


@pytest.mark.usefixtures("lenient")
def test_two_runs_give_the_same_graph(
    bundle: Bundle, images: tuple[SourceImages, SourceImages], tmp_path: Path
) -> None:
    shutil.copytree(bundle.path, tmp_path / "other")
    first, one = quantize(bundle, *images, Options(seed=3))
    second, two = quantize(Bundle.open(tmp_path / "other"), *images, Options(seed=3))
    assert first.graph_sha256("int8") == second.graph_sha256("int8")
    assert one == two
    assert first.sha256 == second.sha256


@pytest.mark.usefixtures("lenient")
def test_layers_stay_in_float(bundle: Bundle, images: tuple[SourceImages, SourceImages]) -> None:
    patterns = ("blocks.1.mlp.fc2", "*.attn/scores")
    changed, report = quantize(bundle, *images, Options(keep_float=patterns))
    kept = {"blocks.1.mlp.fc2", *(f"blocks.{i}.attn/scores" for i in range(3))}
    assert set(report.float_layers) == kept
    assert report.integer == report.intended == PRODUCTS - 4
    graph = onnx.load(changed.graph("int8")).graph
    names = {tensor.name for tensor in graph.initializer}
    assert "blocks.1.mlp.fc2.weight" in names and "blocks.0.mlp.fc2.weight" not in names
    assert all(name in describe_report(report) for name in kept)


@pytest.mark.usefixtures("lenient")
def test_only_the_patches_on_integers(bundle: Bundle, images: tuple[SourceImages, SourceImages]) -> None:
    _, report = quantize(bundle, *images, Options(keep_float=("blocks.*",)))
    assert report.integer == report.intended == 1


@pytest.mark.usefixtures("lenient")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (Options(keep_float=("*.fc2", "blocks.9.*")), r"no layer is called 'blocks.9.\*'.*blocks\.0\.attn"),
        (Options(keep_float=("*",)), "float"),
        (Options(calibrator="entropy"), "percentile, average, minmax, found 'entropy'"),
        (Options(weight_bits=9), "bits"),
    ],
)
def test_options_without_meaning(
    options: Options, message: str, bundle: Bundle, images: tuple[SourceImages, SourceImages]
) -> None:
    before = read_folder(bundle.path)
    with pytest.raises(InputError, match=message):
        quantize(bundle, *images, replace(options, force=True))
    assert read_folder(bundle.path) == before


@pytest.mark.parametrize("gate", ["slow", "inaccurate", "float"])
def test_a_refused_graph_is_added_only_by_force(
    gate: str, bundle: Bundle, images: tuple[SourceImages, SourceImages], monkeypatch: pytest.MonkeyPatch
) -> None:
    set_relative_time(monkeypatch, 2.0 if gate == "slow" else 0.5)
    monkeypatch.setattr(
        "fozo.quant.quantization_report.MIN_AGREEMENT", 101.0 if gate == "inaccurate" else 50.0
    )
    if gate == "float":
        monkeypatch.setattr(quantizer, "count_integer_products", lambda graph: 20)
    before = read_folder(bundle.path)
    with pytest.raises(QuantizationError, match=r"refused and not added.*--force") as caught:
        quantize(bundle, *images, Options())
    assert read_folder(bundle.path) == before
    assert {p.name for p in bundle.path.parent.iterdir()} == {"bundle"}
    message = str(caught.value)
    assert "\n" not in message
    assert {"slow": "slower", "inaccurate": "agrees", "float": "computes 20 of its 22"}[gate] in message
    assert ("--keep-float" in message) is (gate == "inaccurate")
    if gate == "inaccurate":
        assert "patch_embed.proj (" in message  # what loses most in this model
    changed, report = quantize(bundle, *images, Options(force=True))
    assert "int8" in changed.manifest.graphs
    assert len(report.refusals) == 1
    assert changed.manifest.graphs["int8"].record["refusals"] == list(report.refusals)


@pytest.mark.usefixtures("lenient")
def test_products_in_blocks_of_4_bits_are_no_integer_products(
    bundle: Bundle, images: tuple[SourceImages, SourceImages], monkeypatch: pytest.MonkeyPatch
) -> None:
    """ONNX Runtime can make float products of both kinds out of integer ones; only w4 asks for these."""
    monkeypatch.setattr(quantizer, "count_integer_products", lambda graph: 20)
    monkeypatch.setattr(quantizer, "count_block_products", lambda graph: 2)
    with pytest.raises(QuantizationError, match="computes 20 of its 22 integer products"):
        quantize(bundle, *images, Options())


@pytest.mark.usefixtures("lenient")
@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device")])
@pytest.mark.parametrize(
    "where", ["onnx.save", "fozo.engine.bundle.bundle.write_atomic", "compare", "calibrate"]
)
def test_what_goes_wrong_leaves_the_bundle(
    where: str,
    error: BaseException,
    bundle: Bundle,
    images: tuple[SourceImages, SourceImages],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = read_folder(bundle.path)

    def fail(*arguments: Any, **options: Any) -> None:
        if where == "fozo.engine.bundle.bundle.write_atomic" and isinstance(error, OSError):
            raise OutputError("No space left on device")
        raise error

    name = where if "." in where else f"fozo.quant.quantizer.{where}"
    monkeypatch.setattr(name, fail)
    expected = type(error) if isinstance(error, KeyboardInterrupt) or where == "calibrate" else OutputError
    with pytest.raises(expected):
        quantize(bundle, *images, Options(portable=True))
    monkeypatch.undo()
    assert {p.name for p in bundle.path.parent.iterdir()} == {"bundle"}
    after = read_folder(bundle.path)
    assert {name: after[name] for name in before} == before
    assert Bundle.open(bundle.path) == bundle
    assert where == "fozo.engine.bundle.bundle.write_atomic" or after == before


@pytest.mark.usefixtures("lenient")
def test_an_unreadable_image(bundle: Bundle, images: tuple[SourceImages, SourceImages]) -> None:
    def broken(index: int) -> ImageArray:
        if index == 17:
            raise InputError("cannot read 17.png")
        return images[0].load(index)

    before = read_folder(bundle.path)
    for part in (0, 1):
        both = list(images)
        both[part] = replace(both[part], load=broken)
        with pytest.raises(InputError, match=r"17\.png"):
            quantize(bundle, both[0], both[1], Options())
    assert read_folder(bundle.path) == before


@pytest.mark.usefixtures("fast")
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_weights_that_are_not_finite(
    bundle: Bundle, images: tuple[SourceImages, SourceImages], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the last layer: no calibrated tensor comes after it."""
    made = onnx.load(bundle.graph("fp32"))
    tensor = next(t for t in made.graph.initializer if t.name == "blocks.2.mlp.fc2.weight")
    values = onnx.numpy_helper.to_array(tensor).copy()
    values[3, 5] = np.nan
    tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    onnx.save(made, bundle.path / "model.onnx")
    monkeypatch.setattr(Bundle, "file", lambda self, name: self.path / name)
    with pytest.raises(FozoError):
        quantize(bundle, *images, Options())


@pytest.mark.usefixtures("fast")
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("force", [True, False])
def test_a_graph_that_is_not_finite_is_refused_even_by_force(
    value: float,
    force: bool,
    bundle: Bundle,
    images: tuple[SourceImages, SourceImages],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write = quantizer.write_integer_graph

    def spoil(*arguments: Any, **options: Any) -> Any:
        model = write(*arguments, **options)
        scale = next(t for t in model.graph.initializer if t.name == "blocks.2.mlp.fc2/right/scale")
        values = np.full(onnx.numpy_helper.to_array(scale).shape, value, np.float32)
        scale.CopyFrom(onnx.numpy_helper.from_array(values, scale.name))
        return model

    monkeypatch.setattr(quantizer, "write_integer_graph", spoil)
    before = read_folder(bundle.path)
    with pytest.raises(QuantizationError, match="not finite") as caught:
        quantize(bundle, *images, Options(force=force))
    assert "--force" not in str(caught.value)
    assert read_folder(bundle.path) == before


def test_vit_tiny_on_real_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = real_data("models", "vit_tiny_patch16_224.augreg_in21k_ft_in1k.safetensors")
    pytest.importorskip("timm", reason="the graph is exported from timm")
    from fozo.export.exporter import export_model
    from fozo.export.model_request import Request

    monkeypatch.setattr("fozo.export.verify.BATCHES", (1, 2))
    set_relative_time(monkeypatch, 0.5)
    bundle = export_model(
        Request("vit_tiny_patch16_224", weights, imagenet_classes=True), tmp_path / "bundle"
    ).bundle
    m = bundle.manifest
    source, val = (
        folder_source(real_data("imagenet", part), m.preprocessing, count, 0, m.class_ids)
        for part, count in (("source", 128), ("val", 400))
    )
    assert (source.count, val.count) == (128, 400)
    assert source.labels is not None and val.labels is not None
    changed, report = quantize(bundle, source, val, Options(force=True))
    found = report.comparison
    assert found.images == 400
    assert found.reference_accuracy is not None and found.reference_accuracy > 70
    assert found.loss is not None and abs(found.loss) <= 1.5
    assert found.cosine_features >= 0.995
    assert report.integer == report.intended == 1 + 12 * 7
    assert report.megabytes[0] < 0.4 * report.megabytes[1]
    assert len(find_products(onnx.load(changed.graph("fp32")))) == report.intended
