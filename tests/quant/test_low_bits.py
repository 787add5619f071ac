"""Graphs of 3 to 8 bits: their levels, their integer products, and the commands that add them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fozo.data.source import SourceImages
from fozo.engine.bundle.bundle import Bundle
from fozo.engine.errors import BundleError, InputError
from fozo.engine.model import FloatArray
from fozo.engine.runtime.cpu import CpuFeatures
from fozo.engine.runtime.network import Network
from fozo.export.onnx_builder import OnnxBuilder
from quant_doubles import PRODUCTS, ignore_progress, set_relative_time

onnx = pytest.importorskip("onnx", reason="quantisation reads and writes graphs with onnx")

import onnxruntime as ort  # noqa: E402
from fozo.quant import quantizer  # noqa: E402
from fozo.quant.calibration import Range  # noqa: E402
from fozo.quant.grid import Grid  # noqa: E402
from fozo.quant.layer_integers import choose_integers  # noqa: E402
from fozo.quant.operators import count_block_products, count_integer_products  # noqa: E402
from fozo.quant.products import find_products  # noqa: E402
from fozo.quant.quantization import quantize  # noqa: E402
from fozo.quant.quantization_report import describe_report, list_refusals  # noqa: E402
from fozo.quant.quantizer import Quantizer, choose_widths  # noqa: E402
from fozo.quant.settings import Bits, BitWidths, Options, parse_bits  # noqa: E402
from fozo.quant.writer import DIALECTS, write_integer_graph  # noqa: E402

FLOAT = onnx.TensorProto.FLOAT
ALL_BITS = range(3, 9)


def run(model: Any, outputs: list[str], feed: dict[str, Any]) -> list[Any]:
    """Run a model as it is and return some of its tensors, integers inside it included."""
    onnx.checker.check_model(model, full_check=False)
    inferred = onnx.ModelProto()
    inferred.CopyFrom(model)
    declared = {value.name for value in model.graph.output}
    kinds = {"u8": onnx.TensorProto.UINT8, "s8": onnx.TensorProto.INT8}
    for name in outputs:
        if name not in declared:
            kind = kinds[name.split("/")[-1]]
            inferred.graph.output.append(onnx.helper.make_tensor_value_info(name, kind, None))
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(inferred.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return list(session.run(outputs, feed))


def make_linear(weight: FloatArray, bias: FloatArray) -> Any:
    b = OnnxBuilder()
    b.node("Identity", [b.linear("x", weight.T, bias, "layer")], "end", output="y")
    width, outputs = weight.shape
    return b.model({"x": (FLOAT, ["N", width])}, {"y": (FLOAT, ["N", outputs])}, 20, "test")


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("weight_bits", ALL_BITS)
@pytest.mark.parametrize("activation_bits", ALL_BITS)
def test_one_product_is_exactly_this_arithmetic(weight_bits: int, activation_bits: int, dialect: str) -> None:
    """Steps are powers of two, so that floats hold every number that occurs."""
    generator = np.random.default_rng(10 * weight_bits + activation_bits)
    top, largest = 2**activation_bits - 1, 2 ** (weight_bits - 1) - 1
    sums_fit = weight_bits + activation_bits < 16  # in processors that add two products in 16 bits
    q = generator.integers(-largest, largest + 1, (48, 24))
    q[0] = largest
    weight = (q * 2.0**-5).astype(np.float32)
    bias = (generator.integers(-64, 64, 24) / 8).astype(np.float32)
    zero = top // 3
    x = generator.normal(0, 0.2 * top, (300, 48)).astype(np.float32)
    x[:, 0], x[0], x[1] = 0, 1e6, -1e6  # beyond both ends
    low, high = np.full(48, -zero / 4), np.full(48, (top - zero) / 4)
    model = make_linear(weight, bias)
    (product,) = find_products(model)
    layers = choose_integers(
        model, [product], {"x": Range(low, high)}, BitWidths(weight_bits, activation_bits)
    )
    integer = write_integer_graph(model, [product], layers, dialect=dialect)

    integers = np.clip(np.rint(x.astype(np.float64) * 4) + zero, 0, top).astype(np.int64)
    product_sum = (integers - zero) @ q
    expected = product_sum.astype(np.float64) / 4 * 2.0**-5 + bias
    found, levels = run(integer, ["y", "x/u8"], {"x": x})
    np.testing.assert_array_equal(levels, integers)
    assert len(np.unique(levels)) == int(levels.max()) + 1 == 2**activation_bits
    if sums_fit or dialect == "standard":
        np.testing.assert_array_equal(found, expected.astype(np.float32))


@pytest.mark.parametrize("bits", ALL_BITS)
def test_levels_and_integer_operators_of_a_network(
    bits: int, bundle: Bundle, images: tuple[SourceImages, SourceImages], tmp_path: Path
) -> None:
    made = Quantizer(bundle, Options(bits=Bits(bits, bits)))
    made.calibrate(images[0], ignore_progress)
    if made.passes:
        made.refine(images[0], ignore_progress)
    for dialect in DIALECTS:
        made.write(tmp_path / f"{dialect}.onnx", dialect)
        assert count_integer_products(tmp_path / f"{dialect}.onnx") == PRODUCTS
    model = onnx.load(tmp_path / "fused.onnx")
    tensors = {node.output[0] for node in model.graph.node if node.op_type in ("QuantizeLinear", "Clip")}
    grids = sorted(name for name in tensors if name.endswith(("/u8", "/s8")))
    assert len(grids) >= 3 * 6
    pixels = np.stack([images[1].load(index) for index in range(8)])
    generator = np.random.default_rng(0)
    feed = {  # beyond all that calibration has seen
        "images": pixels,
        "prompts": generator.normal(0, 3, (1, 3, 64)).astype(np.float32),
        "norms": generator.normal(0, 1, (1, 6, 2, 64)).astype(np.float32),
    }
    for name, values in zip(grids, run(model, grids, feed), strict=True):
        levels = np.unique(values)
        if name.endswith("/s8"):
            largest = 2 ** (made.widths.keys - 1) - 1
            assert -largest - (bits == 8) <= levels.min() and levels.max() <= largest
        else:
            assert levels.max() <= 2**bits - 1
        assert 2 ** (bits - 1) <= len(levels) <= 2**bits
    weights = {
        t.name: onnx.numpy_helper.to_array(t).astype(int)
        for t in model.graph.initializer
        if t.name.endswith(".weight/s8")
    }
    largest = 2 ** (made.widths.weights - 1) - 1
    assert len(weights) == PRODUCTS - 3
    for name, values in weights.items():
        if "patch" in name:
            assert np.abs(values).max() == 2 ** (made.pixel_bits - 1) - 1
        else:
            assert np.abs(values).max() == largest


def test_bits_of_keys() -> None:
    assert choose_widths(Bits(8, 8), 8) == BitWidths(8, 8, 8)
    assert choose_widths(Bits(8, 8), 7) == BitWidths(7, 8, 7)
    assert choose_widths(Bits(4, 8), 7) == BitWidths(4, 8, 7)
    assert choose_widths(Bits(8, 6), 7) == BitWidths(8, 6, 6)


def test_names() -> None:
    assert parse_bits("w8a8").name == "int8"
    assert parse_bits("int8") == Bits()
    assert parse_bits("w6a6").name == "w6a6"
    assert parse_bits("w4a8") == Bits(4, 8)
    assert parse_bits("w4").name == "w4"
    for text in ("w2a4", "w9a8", "w6", "w4a", "int4", "w6a6 ", "a6w6"):
        with pytest.raises(ValueError, match=text.strip()):
            parse_bits(text)


@pytest.mark.usefixtures("lenient")
def test_several_precisions_in_a_bundle(bundle: Bundle, images: tuple[SourceImages, SourceImages]) -> None:
    changed = bundle
    for bits in (Bits(), Bits(6, 6), Bits(4, 8)):
        changed, report = quantize(
            changed, *images, Options(bits=bits, portable=bits.weights == 6, force=True)
        )
        assert report.integer == report.intended == PRODUCTS
        assert report.bits == bits
    assert list(changed.manifest.graphs) == ["fp32", "int8", "w6a6", "w6a6-qdq", "w4a8"]
    record = changed.manifest.graphs["w4a8"].record
    assert record["weights"].startswith("int8 per channel, 4 bits")
    assert record["bits"] == {"weights": 4, "activations": 8}
    pixels = np.stack([images[1].load(index) for index in range(8)])
    outputs = {}
    for precision in changed.manifest.graphs:
        with Network.open(changed, precision, workers=1) as network:
            outputs[precision] = network(pixels).features
    errors = {name: float(np.square(values - outputs["fp32"]).mean()) for name, values in outputs.items()}
    assert 0 < errors["int8"] < errors["w6a6"]
    assert np.median(np.abs(outputs["w6a6"] - outputs["w6a6-qdq"])) < 1e-5
    with pytest.raises(BundleError, match="has no w5a5 graph, it has: fp32, int8, w6a6, w6a6-qdq, w4a8"):
        Network.open(changed, "w5a5")


@pytest.mark.parametrize("bits", ["int8", "w8a7", "w7a8", "w6a6", "w4a8", "w4"])
@pytest.mark.parametrize("weight_bits", [7, None])
def test_no_sum_of_two_products_overflows_16_bits(
    bits: str,
    weight_bits: int | None,
    bundle: Bundle,
    images: tuple[SourceImages, SourceImages],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With 7 bits asked for, and on processors that add so: weights, those of pixels too, and keys."""
    if weight_bits is None:
        monkeypatch.setattr(quantizer, "read_cpu_features", lambda: CpuFeatures("Old", "x86_64", ("avx2",)))
    made = Quantizer(bundle, Options(bits=parse_bits(bits), weight_bits=weight_bits))
    made.calibrate(images[0], ignore_progress)
    made.write(tmp_path / "integers.onnx", "fused")
    graph = onnx.load(tmp_path / "integers.onnx").graph
    constants = {t.name: onnx.numpy_helper.to_array(t).astype(int) for t in graph.initializer}
    limits = {node.output[0]: abs(constants[node.input[2]]) for node in graph.node if node.op_type == "Clip"}
    makers = {output: node for node in graph.node for output in node.output}
    products = [node for node in graph.node if node.op_type == "MatMulIntegerToFloat"]
    assert len(products) == (1 if bits == "w4" else PRODUCTS)
    for product in products:
        left, right = product.input[:2]
        while left in makers and left not in limits and makers[left].op_type != "QuantizeLinear":
            left = makers[left].input[0]
        while right in makers and right not in limits:
            assert makers[right].op_type in ("Reshape", "Transpose")
            right = makers[right].input[0]
        largest = limits[right] if right in limits else abs(constants[right]).max()
        assert 2 * limits.get(left, 255) * largest < 2**15, product.name


def test_keys_of_7_bits_have_searched_ends(
    bundle: Bundle, images: tuple[SourceImages, SourceImages], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keys follow activations, also with 7 bits, which int8 has on some processors."""
    calls: list[int] = []

    def search(range_: Range, sample: FloatArray, bits: int) -> Grid:
        calls.append(bits)
        return Grid(0.125, 0, signed=True, bits=bits)

    monkeypatch.setattr("fozo.quant.refinement.search_signed_grid", search)
    for bits, count in ((Bits(8, 7), 3), (Bits(4, 8), 0)):
        calls.clear()
        made = Quantizer(bundle, Options(bits=bits))
        made.calibrate(images[0], ignore_progress)
        assert calls == [7] * count
        keys = [layer.right for layer in made.layers.values() if layer.right is not None]
        assert len(keys) == 3
        assert all((grid.scale == 0.125) == (count > 0) for grid in keys)
        rounding = made._describe_integers()["rounding"]
        assert rounding.startswith("ends of grids") == (count > 0)


def test_passes_share_the_memory(
    bundle: Bundle, images: tuple[SourceImages, SourceImages], monkeypatch: pytest.MonkeyPatch
) -> None:
    """More passes over the images lead to the same integers."""
    layers = []
    for size in (2**29, 2 * 8 * 256**2):
        monkeypatch.setattr("fozo.quant.refinement.PASS_BYTES", size)
        made = Quantizer(bundle, Options(bits=Bits(5, 5)))
        made.calibrate(images[0], ignore_progress)
        assert (made.passes == 1) == (size == 2**29)
        seen: list[int] = []
        made.refine(images[0], seen.append)
        assert sum(seen) == made.passes * images[0].count
        layers.append(made.layers)
    for name, layer in layers[0].items():
        if layer.weight is not None:
            np.testing.assert_array_equal(layer.weight, layers[1][name].weight)


@pytest.mark.usefixtures("fast")
def test_refined_integers_are_better_than_nearest_ones(
    bundle: Bundle, images: tuple[SourceImages, SourceImages], tmp_path: Path
) -> None:
    def measure(prepare: Callable[[Quantizer], None]) -> float:
        made = Quantizer(bundle, Options(bits=Bits(4, 4)))
        made.calibrate(images[0], ignore_progress)
        prepare(made)
        made.write(tmp_path / "graph.onnx", "fused")
        return made.check(tmp_path / "graph.onnx", images[1], ignore_progress).comparison.signal_to_noise

    def take_nearest(made: Quantizer) -> None:
        made.layers = choose_integers(made.model, made.products, made.ranges, made.widths, made.pixel_bits)

    nearest = measure(take_nearest)
    searched = measure(lambda made: None)
    refined = measure(lambda made: made.refine(images[0], ignore_progress))
    assert nearest < searched < refined


@pytest.mark.usefixtures("lenient")
def test_weights_of_4_bits(bundle: Bundle, images: tuple[SourceImages, SourceImages]) -> None:
    changed, report = quantize(bundle, *images, Options(bits=parse_bits("w4"), force=True))
    assert list(changed.manifest.graphs) == ["fp32", "w4"]
    graph = changed.graph("w4")
    products = PRODUCTS - 3  # attention scores have no weight
    assert report.integer == report.intended == products
    assert (count_block_products(graph), count_integer_products(graph)) == (products - 1, 1)
    assert report.megabytes[0] < 0.35 * report.megabytes[1]
    assert "4-bit weights in blocks" in describe_report(report)
    assert "calibrator" not in changed.manifest.graphs["w4"].record
    pixels = np.stack([images[1].load(index) for index in range(6)])
    with Network.open(changed, workers=1) as network:
        expected = network(pixels).features
    with (
        Network.open(changed, "w4", workers=1, micro_batch=1) as single,
        Network.open(changed, "w4", workers=2, micro_batch=4) as several,
    ):
        outputs = single(pixels), several(pixels)
    for name in ("logits", "features", "embedding"):
        assert getattr(outputs[0], name).tobytes() == getattr(outputs[1], name).tobytes()
    assert np.square(outputs[0].features - expected).mean() < 0.02 * np.square(expected).mean()
    with pytest.raises(InputError, match="--portable needs integer activations"):
        Quantizer(bundle, Options(bits=parse_bits("w4"), portable=True))


def test_calibration_of_4_bit_weights(bundle: Bundle, images: tuple[SourceImages, SourceImages]) -> None:
    """It counts its images, needs as many as any other, and has no ranges to summarise."""
    w4 = Options(bits=parse_bits("w4"))
    made, counts = Quantizer(bundle, w4), []
    made.calibrate(images[0], counts.append)
    assert sum(counts) == images[0].count
    assert made.calibrator is None and Quantizer(bundle, Options()).calibrator == "percentile"
    with pytest.raises(InputError, match=r"at least 5 batches of 4 images.*found 4; give it more"):
        Quantizer(bundle, w4).calibrate(images[0].select(range(16)), ignore_progress)
    with pytest.raises(InputError, match="--calibrator minmax has no effect, as activations stay in float"):
        Quantizer(bundle, replace(w4, calibrator="minmax"))


def test_activations_of_4_bit_weights_must_be_finite(
    bundle: Bundle, images: tuple[SourceImages, SourceImages]
) -> None:
    made = Quantizer(bundle, Options(bits=parse_bits("w4")))
    made.calibrate(images[0], ignore_progress)
    tensor = next(t for t in made.model.graph.initializer if t.name == "blocks.1.attn.key.weight")
    values = onnx.numpy_helper.to_array(tensor).copy()
    values[3, 5] = np.nan
    tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    with pytest.raises(InputError, match="non-finite values on the calibration images; check the weights"):
        made.refine(images[0], ignore_progress)


def test_larger_files_of_4_bit_weights_are_refused(
    bundle: Bundle, images: tuple[SourceImages, SourceImages], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Time is no reason to refuse them."""
    set_relative_time(monkeypatch, 1.5)
    made = Quantizer(bundle, Options(bits=parse_bits("w4")))
    made.calibrate(images[0], ignore_progress)
    made.write(tmp_path / "w4.onnx", "fused")
    report = made.check(tmp_path / "w4.onnx", images[1], ignore_progress)
    assert not any("slower" in reason for reason in report.refusals)
    larger = replace(report, megabytes=(2.0, 1.0), refusals=())
    assert "its file is not smaller than that of fp32" in list_refusals(larger)
