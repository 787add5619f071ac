"""Pull-backs of integer graphs against those of the float graphs they were made from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from fozo.data.source import SourceImages
from fozo.engine.bundle.bundle import Bundle, NewGraph
from fozo.engine.errors import BundleError, ExportError
from fozo.engine.model import NORMS, FloatArray, ImageArray, Slopes
from fozo.engine.runtime.network import Network
from fozo.engine.statistics.output_slopes import derive_entropy
from fozo.export.pull_back import PullBackWriter
from fozo.export.pull_back_rules import RULES
from fozo.quant import pull_back_addition
from fozo.quant.integer_pull_back import pull_back_integer_product
from fozo.quant.quantization import quantize
from fozo.quant.settings import Options
from onnx import TensorProto, helper, numpy_helper
from quant_doubles import read_folder

Images = tuple[SourceImages, SourceImages]


def test_gradients_of_both_precisions_point_the_same_way(
    bundle: Bundle, images: Images, lenient: None, random_images: Callable[..., ImageArray]
) -> None:
    changed, _ = quantize(bundle, *images, Options())
    entry = changed.manifest.pull_backs["int8"]
    assert entry.reference == "int8" and 0.95 < entry.record["cosine_to_fp32"] < 1
    batch = random_images(4, seed=5)
    gradients = {}
    for precision in ("fp32", "int8"):
        with (
            Network.open(changed, precision) as plain,
            Network.open(changed, precision, gradients=True) as network,
        ):
            outputs = plain(batch)
            assert network(batch).logits.tobytes() == outputs.logits.tobytes()
            pulled = network.pull_back(batch, {}, Slopes(derive_entropy(outputs.logits), outputs.features))
            for name in ("logits", "features", "embedding"):
                assert getattr(pulled, name).tobytes() == getattr(outputs, name).tobytes()
            assert pulled.gradients is not None
            gradients[precision] = pulled.gradients[NORMS].ravel()
    first, second = gradients.values()
    assert first @ second > 0.95 * np.linalg.norm(first) * np.linalg.norm(second)
    assert not np.array_equal(first, second)


def test_portable_graph_has_no_pull_back(bundle: Bundle, images: Images, lenient: None) -> None:
    changed, _ = quantize(bundle, *images, Options(portable=True))
    with pytest.raises(BundleError, match="none for int8-qdq; use fp32 or int8"):
        Network.open(changed, "int8-qdq", gradients=True)


def test_another_int8_graph_takes_the_place_of_both_files(
    bundle: Bundle, images: Images, lenient: None
) -> None:
    first, _ = quantize(bundle, *images, Options())
    second, _ = quantize(first, *images, Options(weight_bits=7))
    names = [name for name in read_folder(second.path) if "int8" in name]
    assert len(names) == 2 and names.count(second.manifest.pull_backs["int8"].file) == 1
    assert first.manifest.pull_backs["int8"].file not in names


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ExportError("no rule; nothing was added")])
def test_a_pull_back_that_fails_leaves_the_old_graph_with_its_statistics(
    error: BaseException, bundle: Bundle, images: Images, lenient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _ = quantize(bundle, *images, Options(portable=True))
    statistics = bundle.source("fp32")
    assert statistics is not None
    first = first.with_source("int8", statistics, "tests")
    before = read_folder(first.path)

    def fail(*arguments: object) -> None:
        raise error

    monkeypatch.setattr(pull_back_addition, "build_integer_pull_back", fail)
    with pytest.raises(type(error)):
        quantize(first, *images, Options(weight_bits=7))
    assert read_folder(first.path) == before


def test_pull_back_of_a_missing_graph_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    new = NewGraph(tmp_path / "graph.onnx", bundle.manifest.pull_backs["fp32"])
    with pytest.raises(BundleError, match="no int9 graph"):
        bundle.with_graphs({}, {"int9": new})


@pytest.mark.parametrize("per_column", [True, False])
def test_product_with_integer_weights_goes_back_with_integers(per_column: bool) -> None:
    """y = a_scale (a − a_zero) (scale ∘ W); the slope of the real a is slope · (scale ∘ W)ᵀ, to 8 bits."""
    generator = np.random.default_rng(0)
    weights = generator.integers(-127, 128, (16, 24)).astype(np.int8)
    scale = generator.uniform(0.01, 0.1, 24 if per_column else ()).astype(np.float32)
    constants = {
        "weights": weights,
        "scale": scale,
        "a_scale": np.float32(0.05),
        "a_zero": np.uint8(7),
    }
    node = helper.make_node(
        "MatMulIntegerToFloat",
        ["a/u8", "weights", "a_scale", "scale", "a_zero", ""],
        ["logits"],
        name="product",
        domain="com.microsoft",
    )
    quantizer = helper.make_node("QuantizeLinear", ["a", "a_scale", "a_zero"], ["a/u8"], name="quantizer")
    graph = helper.make_graph(
        [quantizer, node],
        "test",
        [helper.make_tensor_value_info("a", TensorProto.FLOAT, ["N", 5, 16])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 5, 24])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    rules = {
        **RULES,
        "QuantizeLinear": lambda w, n, s: w.add_slope(n.input[0], s[0]),
        "MatMulIntegerToFloat": pull_back_integer_product,
    }
    writer = PullBackWriter(model, ["a"], rules, ())
    writer.add_slopes(model.graph.output[0])
    for item in reversed(model.graph.node):
        writer.differentiate(item)
    writer.add_output("a")
    session = onnxruntime.InferenceSession(writer.finish().SerializeToString())
    slopes = (generator.normal(size=(3, 5, 24)) * generator.uniform(1e-6, 1e3, (3, 5, 1))).astype(np.float32)
    slopes[1, 2] = 0
    a = generator.normal(size=(3, 5, 16)).astype(np.float32)
    (gradient,) = session.run(
        ["a_gradient"], {"a": a, "logits_slopes": slopes, "pull_back": np.asarray(True)}
    )
    exact = slopes.astype(np.float64) @ (weights * scale.astype(np.float64)).T
    assert not gradient[1, 2].any()
    largest = np.abs(slopes * scale).max(axis=-1, keepdims=True)
    bound = largest / 127 / 2 * np.abs(weights).sum(axis=1)  # half a step in every entry
    assert (np.abs(gradient - exact) <= 1.001 * bound).all()
    assert _relative_error(gradient, exact) < 0.01


def _relative_error(actual: FloatArray, expected: FloatArray) -> float:
    """Return the median over tokens of the error's length, relative to the gradient's."""
    lengths = np.linalg.norm(expected, axis=-1)
    errors = np.linalg.norm(actual - expected, axis=-1)[lengths > 0]
    return float(np.median(errors / lengths[lengths > 0]))


def test_graph_that_cannot_be_differentiated_says_so(bundle: Bundle) -> None:
    from fozo.quant.integer_pull_back import build_integer_pull_back

    model = onnx.load(bundle.graph("fp32"))
    next(node for node in model.graph.node if node.op_type == "Softmax").op_type = "Hardmax"
    with pytest.raises(ExportError, match="Hardmax"):
        build_integer_pull_back(model, (NORMS,))
