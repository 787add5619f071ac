"""Grids, and the integer form of graphs, against the same arithmetic in NumPy and against the float graph."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fozo.engine.bundle.bundle import Bundle
from fozo.engine.model import FloatArray, ImageArray, Outputs
from fozo.engine.runtime.cpu import read_cpu_features
from fozo.engine.runtime.network import Network
from fozo.export.onnx_builder import OnnxBuilder

onnx = pytest.importorskip("onnx", reason="quantisation writes graphs with onnx")

import onnxruntime as ort  # noqa: E402
from fozo.quant.calibration import Range, calibrate  # noqa: E402
from fozo.quant.grid import make_signed_grid, make_unsigned_grid, quantise_weight  # noqa: E402
from fozo.quant.layer_integers import choose_integers  # noqa: E402
from fozo.quant.operators import count_executed_operators, count_integer_products  # noqa: E402
from fozo.quant.products import Product, find_products  # noqa: E402
from fozo.quant.quantizer import choose_weight_bits  # noqa: E402
from fozo.quant.settings import BitWidths  # noqa: E402
from fozo.quant.writer import DIALECTS, write_integer_graph  # noqa: E402

FLOAT = onnx.TensorProto.FLOAT
BITS = choose_weight_bits(read_cpu_features())[0]  # more would overflow in this processor's kernels
both_dialects = pytest.mark.parametrize("dialect", DIALECTS)


def write_integers(
    model: Any, products: list[Product], ranges: Any, dialect: str = "fused", bits: int = BITS
) -> Any:
    """Write the graph with weights and keys of some bits, and activations of 8."""
    layers = choose_integers(model, products, ranges, BitWidths(bits, 8, bits))
    return write_integer_graph(model, products, layers, dialect=dialect)


def between(low: Any, high: Any, channels: int = 16) -> Range:
    return Range(np.full(channels, low, np.float64), np.full(channels, high, np.float64))


# --- grids ---


@pytest.mark.parametrize("seed", range(20))
def test_values_within_the_limits_are_half_a_step_away(seed: int) -> None:
    generator = np.random.default_rng(seed)
    low, high = np.sort(generator.normal(size=(2, 24)), axis=0) * 10.0 ** generator.integers(-6, 6)
    for grid in (make_unsigned_grid(Range(low, high), outliers=False), make_signed_grid(Range(low, high))):
        x = np.concatenate([np.linspace(*grid.limits, 1001), [0.0]])
        smallest, largest = (-127, 127) if grid.signed else (0, 255)
        q = np.rint(x / grid.scale) + grid.zero
        assert smallest <= q.min() and q.max() <= largest
        dequantised = grid.scale * (q - grid.zero)
        assert np.abs(dequantised - x).max() <= 0.5001 * grid.scale
        assert dequantised[-1] == 0
        assert grid.scale == np.float32(grid.scale)
        # Of the range itself, half a step may be lost where zero was rounded to an integer.
        assert grid.limits[0] <= low.min() + 0.51 * grid.scale
        assert grid.limits[1] >= high.max() - 0.51 * grid.scale
        assert not grid.outliers


def test_grids_of_special_ranges() -> None:
    assert make_unsigned_grid(between(2, 5.1), outliers=False).zero == 0  # zero belongs to every grid
    assert make_unsigned_grid(between(2, 5.1), outliers=False).scale == pytest.approx(0.02)
    assert make_unsigned_grid(between(-5.1, -2), outliers=False).zero == 255
    constant = make_unsigned_grid(between(3, 3), outliers=False)
    assert constant.limits == pytest.approx((0, 3))
    assert make_signed_grid(between(-3, 1)).limits == pytest.approx((-3, 3))
    for grid in (
        make_unsigned_grid(between(0, 0), outliers=True),
        make_signed_grid(between(0, 0)),
        make_signed_grid(between(0, 1e-44)),
    ):
        assert np.isfinite(1 / np.float32(grid.scale))
        assert grid.zero == 0


@pytest.mark.parametrize(
    ("sizes", "outliers"),
    [
        ({}, ()),
        ({3: 1.9}, ()),  # not worth it
        ({3: 2.0}, (3,)),
        ({9: 100}, (9,)),
        ({9: 100, 2: 40}, (2, 9)),
        ({9: 100, 2: 90, 4: 80}, (2, 4, 9)),
        ({9: 100, 2: 1.5}, (9,)),
        (dict.fromkeys(range(8), 50), tuple(range(8))),
        (dict.fromkeys(range(9), 50), ()),  # too many
        ({**dict.fromkeys(range(8), 50), 9: 200}, (9,)),
    ],
)
def test_outlier_channels(sizes: dict[int, float], outliers: tuple[int, ...]) -> None:
    high = np.ones(32)
    high[list(sizes)] = list(sizes.values())
    for range_ in (Range(np.zeros(32), high), Range(-high, np.zeros(32))):
        grid = make_unsigned_grid(range_, outliers=True)
        assert grid.outliers == outliers
        rest = np.delete(high, outliers).max()
        assert grid.limits[1] - grid.limits[0] == pytest.approx(rest)
        assert make_unsigned_grid(range_, outliers=False).outliers == ()


@pytest.mark.parametrize("high", [[5.0, 4.0, 3.0], [5.0], []])
def test_channels_that_are_always_zero_do_not_set_the_grid(high: list[float]) -> None:
    """All but a few channels are dead: the few must not become outliers of a grid of nothing."""
    values = np.concatenate([high, np.zeros(32 - len(high))])
    grid = make_unsigned_grid(Range(np.zeros(32), values), outliers=True)
    assert grid.outliers == ()
    if high:
        assert grid.limits[1] == pytest.approx(max(high))


@pytest.mark.parametrize(("bits", "largest"), [(8, 127), (7, 63)])
def test_weights_are_half_a_step_away(bits: int, largest: int) -> None:
    generator = np.random.default_rng(bits)
    weight = generator.normal(size=(48, 20)).astype(np.float32) * 10.0 ** generator.integers(-4, 4, 20)
    weight[:, 7] = 0
    weight = weight.astype(np.float32)
    integers, scale = quantise_weight(weight, bits)
    assert integers.dtype == np.int8 and scale.dtype == np.float32
    assert scale.shape == (20,)
    assert (np.abs(integers.astype(int)).max(axis=0) == np.where(np.arange(20) == 7, 0, largest)).all()
    assert (np.abs(integers * scale.astype(np.float64) - weight) <= 0.5001 * scale).all()
    assert (np.abs(weight).max(axis=0) <= largest * scale * 1.0001).all()


# --- one product ---


def u8(x: FloatArray, low: float, high: float) -> tuple[FloatArray, np.float32]:
    """`(q - zero, scale)` of the asymmetric grid of a range that contains zero, saturating."""
    scale = np.float32((high - low) / 255)
    zero = np.rint(-low / scale)
    return np.clip(np.rint(x / scale) + zero, 0, 255) - zero, scale


def s8(x: FloatArray, largest: Any, top: int = 127) -> tuple[FloatArray, Any]:
    scale = np.float32(largest / top)
    return np.clip(np.rint(x / scale), -top - 1, top), scale


def run(model: Any, optimise: bool = True, **feed: Any) -> FloatArray:
    onnx.checker.check_model(model, full_check=False)
    options = ort.SessionOptions()
    options.log_severity_level = 3
    if not optimise:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    content = model.SerializeToString()
    session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    answer: FloatArray = session.run(None, feed)[0]
    return answer


def close(found: FloatArray, expected: FloatArray) -> None:
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


def linear(weight: FloatArray, bias: FloatArray | None) -> Any:
    b = OnnxBuilder()
    y = b.linear("x", weight.T, bias, "layer")
    b.node("Identity", [y], "end", output="y")
    width, outputs = weight.shape
    return b.model({"x": (FLOAT, ["N", 5, width])}, {"y": (FLOAT, ["N", 5, outputs])}, 20, "test")


@both_dialects
@pytest.mark.parametrize("bits", [7, pytest.param(8, marks=pytest.mark.skipif(BITS < 8, reason="overflows"))])
@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("outliers", [(), (4, 30)])
def test_a_linear_layer_is_this_arithmetic(
    dialect: str, bits: int, with_bias: bool, outliers: tuple[int, ...]
) -> None:
    generator = np.random.default_rng(3)
    weight = generator.normal(size=(48, 24)).astype(np.float32)
    bias = generator.normal(size=24).astype(np.float32) if with_bias else None
    low, high = np.full(48, -0.8), np.full(48, 1.7)
    x = generator.normal(0, 1, (3, 5, 48)).astype(np.float32)  # a part of it beyond the range
    for channel in outliers:
        low[channel], high[channel] = -90, 150
        x[..., channel] *= 70
    model = linear(weight, bias)
    (product,) = find_products(model)
    assert product.bias == ("layer.bias" if with_bias else None)
    integer = write_integers(model, [product], {"x": Range(low, high)}, dialect, bits)

    q, scale = u8(x, -0.8, 1.7)
    w, column = s8(weight, np.abs(weight).max(axis=0), 2 ** (bits - 1) - 1)
    expected = (q.astype(np.int64) @ w.astype(np.int64)) * (scale * column).astype(np.float64)
    if bias is not None:
        expected = expected + bias
    zero = np.rint(0.8 / scale)
    held = np.clip(x, scale * (0 - zero), scale * (255 - zero))
    for channel in outliers:
        excess = (x - held)[..., channel].astype(np.float64)
        assert np.abs(excess).max() > 20
        expected = expected + excess[..., None] * weight[channel]
    found = run(integer, x=x)
    close(found, expected)
    close(run(integer, optimise=False, x=x), expected)
    inside = np.clip(x, -0.8, 1.7)
    inside[..., list(outliers)] = x[..., list(outliers)]
    exact = inside @ weight + (0 if bias is None else bias)
    assert np.corrcoef(found.ravel(), exact.ravel())[0, 1] > 0.999


def attention() -> Any:
    b = OnnxBuilder()

    def heads(x: str, perm: list[int]) -> str:
        x = b.reshape(x, (0, 0, 2, 16), f"{x}/heads")
        return b.node("Transpose", [x], f"{x}/transpose", perm=perm)

    b.node("MatMul", [heads("q", [0, 2, 1, 3]), heads("k", [0, 2, 3, 1])], "scores", output="y")
    shape = (FLOAT, ["N", "T", 32])
    return b.model({"q": shape, "k": shape}, {"y": (FLOAT, ["N", 2, "T", "T"])}, 20, "test")


@both_dialects
def test_scores_are_this_arithmetic(dialect: str) -> None:
    generator = np.random.default_rng(4)
    q, k = generator.normal(size=(2, 3, 7, 32)).astype(np.float32)
    (product,) = find_products(attention())
    ranges = {"q": between(-2, 1.7, 32), "k": between(-1.5, 1.2, 32)}
    ranges["q"].high[5] = 1.9  # channels differ; the integers have one scale
    integer = write_integers(attention(), [product], ranges, dialect, 8)
    left, left_scale = u8(q, -2, 1.9)
    right, right_scale = s8(k, 1.5)

    def split(x: FloatArray) -> FloatArray:
        return x.reshape(3, 7, 2, 16).transpose(0, 2, 1, 3)

    expected = split(left) @ split(right).swapaxes(2, 3) * (float(left_scale) * float(right_scale))
    if dialect == "standard":
        close(run(integer, optimise=False, q=q, k=k), expected)
    if BITS == 8:
        close(run(integer, q=q, k=k), expected)


def test_bytes_are_integers_already(random_images: Callable[..., ImageArray]) -> None:
    generator = np.random.default_rng(5)
    weight = generator.normal(size=(96, 24)).astype(np.float32)
    b = OnnxBuilder()
    x = b.node("Cast", [b.reshape("images", (0, 32, 96), "rows")], "cast", to=FLOAT)
    b.node("Identity", [b.linear(x, weight.T, None, "patches")], "end", output="y")
    kinds = (onnx.TensorProto.UINT8, ["N", 32, 32, 3])
    model = b.model({"images": kinds}, {"y": (FLOAT, ["N", 32, 24])}, 20, "test")
    images = random_images(3)
    for dialect in DIALECTS:
        integer = write_integers(model, find_products(model), {}, dialect)
        assert not {"Cast", "QuantizeLinear"} & {node.op_type for node in integer.graph.node}
        w, scale = s8(weight, np.abs(weight).max(axis=0), 2 ** (BITS - 1) - 1)
        close(run(integer, images=images), images.reshape(3, 32, 96).astype(np.float64) @ w * scale)


# --- whole graphs ---


@pytest.fixture(scope="module")
def model(
    tmp_path_factory: pytest.TempPathFactory, randomised_vit: Callable[..., Any], save_graph: Any
) -> Any:
    """Return the graph of `bundle_path`, but with an outlier channel."""
    vit = randomised_vit(64, 3, 20, 64)
    mlp = vit.blocks[1].mlp
    mlp.fc1.weight.data[5] *= 200
    mlp.fc1.bias.data[5] *= 200
    mlp.fc2.weight.data[:, 5] /= 200
    path = tmp_path_factory.mktemp("outlier") / "model.onnx"
    save_graph(vit, path, norms=True)
    return onnx.load(path)


@pytest.fixture(scope="module")
def products(model: Any) -> list[Product]:
    return find_products(model)


@pytest.fixture(scope="module")
def ranges(model: Any, products: list[Product], random_images: Callable[..., ImageArray]) -> Any:
    operands = [o for p in products for o in (p.left, p.right) if o is not None and not o.is_bytes]
    batches = [random_images(4, seed=40 + i) for i in range(6)]
    return calibrate(model, {o.tensor for o in operands}, batches, width=64, prompt_bound=0.0625, norms=6)


@pytest.fixture(scope="module")
def written(model: Any, products: list[Product], ranges: Any) -> dict[str, Any]:
    return {d: write_integers(model, products, ranges, d) for d in DIALECTS}


@pytest.fixture
def opened(bundle_path: Path, tmp_path: Path) -> Callable[..., Network]:
    info = Bundle.open(bundle_path).info("fp32")

    def open_(model: Any, **options: Any) -> Network:
        onnx.save(model, tmp_path / "model.onnx")
        return Network(tmp_path / "model.onnx", info, **{"workers": 1, **options})

    return open_


def same(left: Outputs, right: Outputs) -> bool:
    return left.logits.tobytes() == right.logits.tobytes() and (
        left.features.tobytes() == right.features.tobytes()
    )


def furthest(left: Outputs, right: Outputs) -> float:
    return float(max(np.abs(left.logits - right.logits).max(), np.abs(left.features - right.features).max()))


def test_writing_is_deterministic_and_leaves_the_model(
    model: Any, products: list[Product], ranges: Any, written: dict[str, Any]
) -> None:
    before = model.SerializeToString(deterministic=True)
    for dialect in DIALECTS:
        again = write_integers(model, products, ranges, dialect)
        assert again.SerializeToString() == written[dialect].SerializeToString()
    assert model.SerializeToString(deterministic=True) == before


def test_operators_of_the_dialects(model: Any, products: list[Product], written: dict[str, Any]) -> None:
    fused, standard = (Counter(n.op_type for n in written[d].graph.node) for d in ("fused", "standard"))
    blocks = 3
    assert fused["MatMulIntegerToFloat"] == standard["MatMul"] - fused["MatMul"] == len(products)
    outliers = fused["Clip"]
    assert outliers >= 1
    assert fused["DequantizeLinear"] == 0
    assert standard["DequantizeLinear"] == 2 * len(products)
    assert fused["MatMul"] >= blocks + outliers
    assert fused["Gemm"] == standard["Gemm"] == 1
    assert {n.domain for n in written["standard"].graph.node} == {""}
    assert [o.domain for o in written["standard"].opset_import] == [""]
    assert {o.domain for o in written["fused"].opset_import} == {"", "com.microsoft"}
    onnx.checker.check_model(written["standard"], full_check=True)
    known = {schema.name for schema in onnx.defs.get_all_schemas() if schema.domain == ""}
    assert set(standard) <= known
    for integer in written.values():
        assert list(integer.graph.input) == list(model.graph.input)
        assert list(integer.graph.output) == list(model.graph.output)
        assert integer.ir_version == model.ir_version
        for names in ([n.name for n in integer.graph.node], [t.name for t in integer.graph.initializer]):
            assert len(set(names)) == len(names)


def test_float_weights_are_gone(model: Any, products: list[Product], written: dict[str, Any]) -> None:
    for integer in written.values():
        tensors = {tensor.name: tensor for tensor in integer.graph.initializer}
        used = {name for node in integer.graph.node for name in node.input}
        assert set(tensors) <= used
        assert not {product.weight for product in products} & set(tensors)
        matrices = {name for name, t in tensors.items() if len(t.dims) == 2 and t.data_type == FLOAT}
        assert {name for name in matrices if name.endswith(".weight")} == {"head.weight"}
        assert integer.ByteSize() < 0.4 * model.ByteSize()


def test_reshapes_and_transposes_run_on_integers(written: dict[str, Any]) -> None:
    graph = written["fused"].graph
    makers = {output: node for node in graph.node for output in node.output}
    moved = 0
    for node in graph.node:
        for name in node.input[:2] if node.op_type == "MatMulIntegerToFloat" else ():
            while name in makers and makers[name].op_type in ("Reshape", "Transpose"):
                name, moved = makers[name].input[0], moved + 1
            assert name == "images" or name.endswith(".weight/s8") or makers[name].op_type == "QuantizeLinear"
    assert moved == 3 * 3 * 2 + 3  # queries, keys and mixed values of three blocks; patches


@both_dialects
def test_every_integer_product_is_executed_as_such(
    dialect: str, written: dict[str, Any], products: list[Product], tmp_path: Path
) -> None:
    onnx.save(written[dialect], tmp_path / "model.onnx")
    assert count_integer_products(tmp_path / "model.onnx") == len(products)
    executed = count_executed_operators(tmp_path / "model.onnx")
    assert executed["MatMulNBits"] == executed["DequantizeLinear"] == executed["DynamicQuantizeMatMul"] == 0
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


def qdq(activation: bool) -> Any:
    """Build a product with int8 weights, and with a quantised activation or, by mistake, without."""
    b = OnnxBuilder()
    step, zero, weight = (
        onnx.numpy_helper.from_array(value, name)
        for value, name in (
            (np.float32(0.02), "step"),
            (np.uint8(128), "zero"),
            (np.random.default_rng(0).integers(-127, 128, (64, 64)).astype(np.int8), "weight"),
        )
    )
    x = "x"
    if activation:
        x = b.node("QuantizeLinear", ["x", "step", "zero"], "quantise")
        x = b.node("DequantizeLinear", [x, "step", "zero"], "dequantise")
    b.node("MatMul", [x, b.node("DequantizeLinear", ["weight", "step"], "weights")], "product", output="y")
    model = b.model({"x": (FLOAT, ["N", 64])}, {"y": (FLOAT, ["N", 64])}, 20, "test")
    model.graph.initializer.extend([step, zero, weight])
    return model


@pytest.mark.parametrize(("activation", "integers"), [(True, 1), (False, 0)])
def test_a_return_to_float_is_seen(activation: bool, integers: int, tmp_path: Path) -> None:
    onnx.save(qdq(activation), tmp_path / "model.onnx")
    assert count_integer_products(tmp_path / "model.onnx") == integers


def test_a_float_graph_has_no_integer_products(model: Any, tmp_path: Path) -> None:
    onnx.save(model, tmp_path / "model.onnx")
    assert count_integer_products(tmp_path / "model.onnx") == 0


def test_both_dialects_compute_the_same(
    model: Any,
    written: dict[str, Any],
    opened: Callable[..., Network],
    random_images: Callable[..., ImageArray],
) -> None:
    images = random_images(16, seed=77)
    for count in (0, 3):
        generator = np.random.default_rng(count)
        tunables = {
            "prompts": generator.normal(0, 0.1, (1, count, 64)).astype(np.float32),
            "norms": generator.normal(0, 0.05 if count else 0, (1, 6, 2, 64)).astype(np.float32),
        }
        fused, standard, exact = (
            opened(graph)(images, **tunables) for graph in (written["fused"], written["standard"], model)
        )
        # Where rounding tips a value onto the next integer, a step of the grid; mostly nothing.
        assert np.median(np.abs(fused.features - standard.features)) < 1e-5
        assert furthest(fused, standard) < 0.3 * furthest(fused, exact)
        cosines = (fused.features * exact.features).sum(-1) / (
            np.linalg.norm(fused.features, axis=-1) * np.linalg.norm(exact.features, axis=-1)
        )
        assert cosines.mean() > 0.998
        assert furthest(fused, exact) > 1e-3


@both_dialects
@pytest.mark.parametrize("rows", [0, 1, 9])
def test_results_do_not_depend_on_how_the_work_is_split(
    dialect: str,
    rows: int,
    written: dict[str, Any],
    opened: Callable[..., Network],
    random_images: Callable[..., ImageArray],
) -> None:
    """Nor on the other images of a batch: all scales are fixed. `rows` is R and S, 0 for no tunables."""
    images = random_images(9, seed=78)
    generator = np.random.default_rng(0)
    shapes = {"prompts": (3, 64), "norms": (6, 2, 64)}
    tunables = {
        name: generator.normal(0, size, (rows, *shapes[name])).astype(np.float32)
        for name, size in (("prompts", 0.3), ("norms", 0.05))
        if rows
    }
    with opened(written[dialect], micro_batch=64) as whole:
        expected = whole(images, **tunables)
        for index in (0, 4, 8):
            own = {name: array[index : index + 1] if rows > 1 else array for name, array in tunables.items()}
            alone = whole(images[index : index + 1], **own)
            assert alone.logits.tobytes() == expected.logits[index].tobytes()
            assert alone.features.tobytes() == expected.features[index].tobytes()
        for micro_batch in (1, 2, 4):
            for workers in (1, 2):
                with whole.rearrange(workers, micro_batch) as network:
                    assert same(network(images, **tunables), expected), (micro_batch, workers)


def test_some_products_stay_in_float(
    model: Any, products: list[Product], ranges: Any, opened: Callable[..., Network], tmp_path: Path
) -> None:
    images = np.zeros((1, 32, 32, 3), np.uint8)
    chosen = [product for product in products if product.name.startswith("blocks.1.mlp")]
    integer = write_integers(model, chosen, ranges)
    onnx.save(integer, tmp_path / "model.onnx")
    assert count_integer_products(tmp_path / "model.onnx") == 2
    tensors = {tensor.name for tensor in integer.graph.initializer}
    weights = {product.weight for product in products if product.weight}
    assert weights - tensors == {"blocks.1.mlp.fc1.weight", "blocks.1.mlp.fc2.weight"}
    nothing = write_integer_graph(model, [], {})
    assert list(nothing.graph.node) == list(model.graph.node)
    assert [opset.domain for opset in nothing.opset_import] == [""]
    assert same(opened(nothing)(images), opened(model)(images))
