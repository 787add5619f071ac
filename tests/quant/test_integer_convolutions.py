"""Residual networks on integers: exact convolutions, all branches, batch statistics, and bundles."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from export_doubles import RANDOM
from fozo.data.source import SourceImages
from fozo.engine.bundle.bundle import Bundle
from fozo.engine.errors import InputError
from fozo.engine.runtime.network import Network
from quant_doubles import ignore_progress, set_relative_time
from resnet_doubles import ONE, RESNETS, draw_addends, draw_images, make_resnet, open_network

onnx = pytest.importorskip("onnx", reason="quantisation writes graphs with onnx")
torch = pytest.importorskip("torch", reason="the graphs are made from models of PyTorch")
timm = pytest.importorskip("timm", reason="the graphs are made from models of timm")

import onnxruntime  # noqa: E402
from fozo.export import exporter  # noqa: E402
from fozo.export.exporter import export_model  # noqa: E402
from fozo.export.model_request import Request  # noqa: E402
from fozo.quant.convolution_quantizer import make_quantizer  # noqa: E402
from fozo.quant.convolution_writer import choose_input_grid, write_integer_convolutions  # noqa: E402
from fozo.quant.convolutions import (  # noqa: E402
    ConvolutionRanges,
    find_first_convolution,
    list_convolutions,
    list_graphs,
    measure_convolutions,
)
from fozo.quant.operators import count_executed_operators, count_integer_convolutions  # noqa: E402
from fozo.quant.quantization import quantize  # noqa: E402
from fozo.quant.quantization_report import describe_report, list_refusals  # noqa: E402
from fozo.quant.settings import Bits, BitWidths, Options, parse_bits  # noqa: E402

FLOAT = onnx.TensorProto.FLOAT


def make_convolution(weight: Any, stride: int) -> Any:
    window = {"kernel_shape": weight.shape[2:], "strides": [stride] * 2, "pads": [1] * 4}
    node = onnx.helper.make_node("Conv", ["x", "w.weight"], ["y"], name="w", **window)
    kinds = [onnx.helper.make_tensor_value_info(name, FLOAT, None) for name in "xy"]
    stored = [onnx.numpy_helper.from_array(weight, "w.weight")]
    graph = onnx.helper.make_graph([node], "convolution", kinds[:1], kinds[1:], stored)
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=9)


@pytest.mark.parametrize("bits", range(3, 9))
@pytest.mark.parametrize("stride", [1, 2])
def test_one_convolution_is_exactly_this_arithmetic(bits: int, stride: int) -> None:
    """Steps are powers of two, so that no output lies between two integers by accident of rounding."""
    generator = np.random.default_rng(bits)
    top, largest = 2**bits - 1, 2 ** (min(bits, 7) - 1) - 1
    q = generator.integers(-largest, largest + 1, (5, 3, 3, 3))
    q[:, 0, 0, 0] = largest
    weight = (q / 8).astype(np.float32)
    x = generator.normal(0.1 * top, 0.3 * top, (2, 3, 9, 9)).astype(np.float32)
    sizes = 127 * 2.0 ** generator.integers(-1, 2, 5)
    high = float(top - top // 3)
    ranges = ConvolutionRanges([-float(top // 3)], [high], [sizes], [np.linspace(-(top // 3), high, 2048)])
    grid = choose_input_grid(ranges, bits)
    assert grid.bits == bits
    widths = BitWidths(min(bits, 7), bits)
    scales = np.abs(weight).max(axis=(1, 2, 3)) / largest if bits >= 7 else None
    integer = write_integer_convolutions(
        make_convolution(weight, stride), {"w.weight": ranges}, {"w.weight": widths}
    )
    constants = {t.name: onnx.numpy_helper.to_array(t) for t in integer.graph.initializer}
    integers = constants["w.weight/s8"].astype(np.int64)
    assert np.abs(integers).max() <= largest
    if scales is not None:
        np.testing.assert_array_equal(integers, q)
    session = onnxruntime.InferenceSession(integer.SerializeToString(), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"x": x})

    levels = np.clip(np.rint(x.astype(np.float64) / grid.scale) + grid.zero, 0, top) - grid.zero
    padded = np.pad(levels, ((0, 0), (0, 0), (1, 1), (1, 1))).astype(np.int64)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))[:, :, ::stride, ::stride]
    sums = np.einsum("nchwij,mcij->nmhw", windows, integers)
    factor = grid.scale * constants["w.weight/scale"].astype(np.float64)
    outputs = np.clip(np.rint(sums * factor[:, None, None]), -128, 127)
    expected = outputs * constants["w.weight/output/scale"][:, None, None].astype(np.float64)
    difference = np.abs(found - expected) / constants["w.weight/output/scale"][:, None, None]
    assert (difference < 1e-3).mean() > 0.98  # the rest lies halfway, and the kernel's factor is a float32
    assert difference.max() < 1.001


@pytest.mark.parametrize("family", ["bottleneck", "basic", "deep_stem", "resnext"])
def test_all_branches_are_on_integers(family: str, tmp_path: Path) -> None:
    with open_network(RESNETS[family](), tmp_path, micro_batch=32) as reference:
        model = onnx.load(next(tmp_path.glob("*.onnx")))
        ranges = measure_convolutions(model, [draw_images(16, seed=seed) for seed in range(6)], 0)
        counts = list_convolutions(model)
        assert set(counts.values()) == {1, 2}
        first = find_first_convolution(model)
        assert next(tensor.dims[1] for tensor in model.graph.initializer if tensor.name == first) == 3
        images = draw_images(16, seed=99)
        noise: dict[str, list[float]] = {"plain": [], "batch statistics": [], "norms": []}
        for bits in range(8, 2, -1):
            integer = write_integer_convolutions(
                model, ranges, dict.fromkeys(counts, BitWidths(min(bits, 7), bits))
            )
            onnx.checker.check_model(integer)
            assert {node.domain for graph in list_graphs(integer.graph) for node in graph.node} == {""}
            onnx.save(integer, tmp_path / "integer.onnx")
            operators = count_executed_operators(tmp_path / "integer.onnx")
            assert operators["QLinearConv"] == sum(counts.values())
            assert not {"Conv", "FusedConv"} & set(operators)
            cases: dict[str, dict[str, Any]] = {
                "plain": {},
                "batch statistics": {"batch_statistics": ONE},
                "norms": {"norms": 0.1 * draw_addends(reference.info, 1)},
            }
            with Network(tmp_path / "integer.onnx", reference.info, workers=1) as network:
                for case, tunables in cases.items():
                    a, b = network(images, **tunables).features, reference(images, **tunables).features
                    noise[case].append(float(np.square(a - b).sum() / np.square(b).sum()))
        for case, values in noise.items():
            assert values[0] < 0.05, case
            for two_bits_apart in (values[::2], values[1::2]):
                assert two_bits_apart == sorted(two_bits_apart), case


def test_levels_of_inputs(tmp_path: Path) -> None:
    with open_network(make_resnet(), tmp_path):
        model = onnx.load(next(tmp_path.glob("*.onnx")))
    ranges = measure_convolutions(model, [draw_images(16, seed=seed) for seed in range(3)], 0)
    for bits in range(3, 9):
        widths = dict.fromkeys(list_convolutions(model), BitWidths(min(bits, 7), bits))
        integer = write_integer_convolutions(model, ranges, widths)
        kinds = Counter(node.op_type for graph in list_graphs(integer.graph) for node in graph.node)
        assert kinds["Clip"] == (kinds["QLinearConv"] if bits < 8 else 0)
        tops = {
            int(onnx.numpy_helper.to_array(t))
            for t in integer.graph.initializer
            if t.name.endswith("/input/largest")
        }
        assert tops == ({2**bits - 1} if bits < 8 else set())


def clean(count: int, seed: int) -> SourceImages:
    images = draw_images(count, seed=seed)
    return SourceImages(count, lambda index: images[index], "somewhere")


@pytest.fixture
def residual_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bundle:
    monkeypatch.setattr(exporter, "create_model", lambda request: (make_resnet(), RANDOM))
    set_relative_time(monkeypatch, 0.5)
    return export_model(Request("small", image_size=64), tmp_path / "bundle").bundle


def test_bundles_of_residual_networks(residual_bundle: Bundle) -> None:
    changed, images = residual_bundle, (clean(64, 1), clean(32, 2))
    for bits in (Bits(), Bits(6, 6)):
        changed, report = quantize(changed, *images, Options(bits=bits, force=True))
        assert report.integer == report.intended == count_integer_convolutions(changed.graph(bits.name))
        assert "39 of 39 convolutions" in describe_report(report)
    assert list(changed.manifest.graphs) == ["fp32", "int8", "w6a6"]
    record = changed.manifest.graphs["w6a6"].record
    assert "calibrator" not in record and record["always_float"] == "batch norms, sums and classifier"
    assert report.batch_comparison is not None
    assert record["batch_comparison"]["agreement"] == report.batch_comparison.agreement
    pixels = np.stack([images[1].load(index) for index in range(32)])
    with Network.open(changed, "w6a6", workers=1) as network, Network.open(changed, workers=1) as reference:
        left, right = (net(pixels, batch_statistics=ONE) for net in (network, reference))
    same = 100 * (left.logits.argmax(1) == right.logits.argmax(1)).mean()
    assert report.batch_comparison.agreement == pytest.approx(same)
    assert f"in batch  {same:.2f} % the same class, with batch statistics" in describe_report(report)
    worse = replace(report, batch_comparison=replace(report.batch_comparison, agreement=3.0))
    broken = replace(report, batch_comparison=replace(report.batch_comparison, cosine_logits=float("nan")))
    assert report.is_finite and not broken.is_finite
    (reason,) = set(list_refusals(worse)) - set(list_refusals(report))
    assert reason.startswith("with batch statistics, it agrees with fp32 on 3.0 % of 32 held-out images")
    a, b = left.features, right.features
    assert np.square(a - b).sum() < 0.15 * np.square(b).sum()
    _, report = quantize(changed, *images, Options(keep_float=("layer2.*",), force=True))
    assert report.integer == report.intended < 39
    assert all(name.startswith("layer2.") for name in report.float_layers)


def test_batches_of_the_comparison_mix_classes(residual_bundle: Bundle) -> None:
    """Images lie in order of their classes, and statistics of a batch of few classes are unusual."""
    seen: list[int] = []
    counts: list[int] = []
    pixels = draw_images(64, seed=3)

    def load(index: int) -> Any:
        seen.append(index)
        return pixels[index]

    made = make_quantizer(residual_bundle, Options())
    with Network.open(residual_bundle, workers=1) as network:
        comparison = made._compare_batches(
            network, network, SourceImages(64, load, "somewhere"), counts.append
        )
    assert comparison is not None and comparison.agreement == 100 and sum(counts) == 64
    assert sorted(seen) == list(range(64))
    assert all(8 < sum(index < 32 for index in half) < 24 for half in (seen[:32], seen[32:]))


@pytest.mark.parametrize("bits", [Bits(), Bits(6, 8)])
def test_weights_of_7_bits(bits: Bits, residual_bundle: Bundle, tmp_path: Path) -> None:
    """With at most 64, no sum of two products with bytes needs more than 16 bits, pixels included."""
    made = make_quantizer(residual_bundle, Options(bits=bits, weight_bits=7))
    made.calibrate(clean(32, 1), ignore_progress)
    made.write(tmp_path / "integers.onnx", "fused")
    model = onnx.load(tmp_path / "integers.onnx")
    constants = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    weights = {n.input[3] for g in list_graphs(model.graph) for n in g.node if n.op_type == "QLinearConv"}
    assert len(weights) == len(list_convolutions(onnx.load(residual_bundle.graph("fp32"))))
    assert max(int(np.abs(constants[name].astype(int)).max()) for name in weights) == 63


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (Options(bits=parse_bits("w4")), "--bits w4 has no kernel"),
        (Options(portable=True), "--portable is not needed"),
        (Options(calibrator="minmax"), "--calibrator minmax has no effect, as ranges of convolutions"),
        (Options(keep_float=("*",)), "all 20 convolutions are kept in float"),
        (Options(keep_float=("blocks.*",)), "no layer is called 'blocks.*'"),
    ],
)
def test_options_that_do_not_fit(options: Options, message: str, residual_bundle: Bundle) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        make_quantizer(residual_bundle, options)
