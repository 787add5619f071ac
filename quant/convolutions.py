"""Convolutions of a residual network: where they are, and the ranges of their inputs and outputs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from ..engine.errors import InputError
from ..engine.model import BATCH_STATISTICS, NORMS, FloatArray, ImageArray
from ..engine.runtime.graph_contract import IMAGES

PERCENTILE = 90.0  # of the extremes of batches, as for matrix products
NOISE = 0.02  # standard deviation of the addends to gains and biases
SAMPLE_STEP = 4  # in rows and columns
SAMPLE_VALUES = 2048  # per batch


@dataclass
class ConvolutionRanges:
    """Extremes of one convolution, one entry per batch.

    Attributes:
        low, high: of its input.
        sizes: largest absolute value of each output channel, `[C]`.
        samples: a few values of its input.
    """

    low: list[float] = field(default_factory=list)
    high: list[float] = field(default_factory=list)
    sizes: list[FloatArray] = field(default_factory=list)
    samples: list[FloatArray] = field(default_factory=list)

    @property
    def limits(self) -> tuple[float, float]:
        """Lowest and highest value of the input; rare values are beyond them."""
        low, high = np.percentile(self.low, 100 - PERCENTILE), np.percentile(self.high, PERCENTILE)
        return float(low), float(high)


def list_graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """Yield a graph and the branches inside it."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from list_graphs(attribute.g)


def list_convolutions(model: onnx.ModelProto) -> dict[str, int]:
    """Return the weights of all convolutions, and how many nodes read each: one, or one in each branch."""
    counts: dict[str, int] = {}
    for graph in list_graphs(model.graph):
        for node in graph.node:
            if node.op_type == "Conv":
                counts[node.input[1]] = counts.get(node.input[1], 0) + 1
    return counts


def find_first_convolution(model: onnx.ModelProto) -> str:
    """Return the weight of the convolution that reads the pixels."""
    makers = {output: node for node in model.graph.node for output in node.output}

    def comes_from_images(tensor: str) -> bool:
        while (node := makers.get(tensor)) is not None and node.op_type in ("Sub", "Cast", "Transpose"):
            tensor = node.input[0]
        return tensor == IMAGES

    weight: str = next(
        node.input[1]
        for graph in list_graphs(model.graph)
        for node in graph.node
        if node.op_type == "Conv" and comes_from_images(node.input[0])
    )
    return weight


def measure_convolutions(
    model: onnx.ModelProto, batches: Iterable[ImageArray], seed: int, threads: int = 0
) -> dict[str, ConvolutionRanges]:
    """Measure ranges by name of the weight, in the plain network and with batch statistics and changed norms.

    Args:
        model: the graph of a residual network, in float.
        batches: uint8 `[N, H, W, 3]`.
        seed: of the changes of norms, and of the samples.
        threads: of the runtime; 0 takes all cores.

    Raises:
        InputError: values are not finite.
    """
    generator = np.random.default_rng(seed)
    sessions = [(_open_session(model, general, threads), general) for general in (False, True)]
    inputs = {value.name: value.type.tensor_type.shape.dim for value in model.graph.input}
    ranges = {weight: ConvolutionRanges() for weight in list_convolutions(model)}
    for images in batches:
        for (session, weights), general in sessions:
            feed = {IMAGES: images, BATCH_STATISTICS: np.full(1, general, np.float32)}
            if NORMS in inputs:
                shape = (1, *(axis.dim_value for axis in inputs[NORMS][1:]))
                noise = general * NOISE * generator.normal(size=shape)
                feed[NORMS] = noise.astype(np.float32)
            results = iter(session.run(None, feed))
            for weight in weights:
                _add(ranges[weight], weight, [next(results) for _ in range(4)], generator)
    return ranges


def _add(
    ranges: ConvolutionRanges, weight: str, values: list[FloatArray], generator: np.random.Generator
) -> None:
    low, high, sizes, sample = values
    if not np.isfinite([*low.ravel(), *high.ravel(), *sizes.ravel()]).all():
        raise InputError(f"{weight} meets non-finite values on the calibration images; check the weights")
    ranges.low.append(float(low.ravel()[0]))
    ranges.high.append(float(high.ravel()[0]))
    ranges.sizes.append(sizes.ravel())
    ranges.samples.append(generator.choice(sample.ravel(), SAMPLE_VALUES))


def _open_session(
    model: onnx.ModelProto, general: bool, threads: int
) -> tuple[ort.InferenceSession, list[str]]:
    """Open a session that returns four tensors for each convolution, and the weights of these in order."""
    observed = onnx.ModelProto()
    observed.CopyFrom(model)
    graph = observed.graph
    nodes = list(_take_branches(graph.node, general))
    del graph.node[:], graph.output[:]
    weights = []
    constants = {"spatial": [0, 2, 3], "start": [0, 0], "end": [2**31, 2**31], "axes": [2, 3]}
    constants["steps"] = [SAMPLE_STEP, SAMPLE_STEP]
    for name, numbers in constants.items():
        graph.initializer.append(numpy_helper.from_array(np.asarray(numbers, np.int64), f"observed/{name}"))
    for node in [node for node in nodes if node.op_type == "Conv"]:
        weights.append(node.input[1])
        x, y, prefix = node.input[0], node.output[0], f"observed/{len(weights)}"
        slices = [f"observed/{name}" for name in ("start", "end", "axes", "steps")]
        nodes += [
            helper.make_node("ReduceMin", [x], [f"{prefix}/low"], keepdims=0),
            helper.make_node("ReduceMax", [x], [f"{prefix}/high"], keepdims=0),
            helper.make_node("Abs", [y], [f"{prefix}/absolute"]),
            helper.make_node("ReduceMax", [f"{prefix}/absolute", "observed/spatial"], [f"{prefix}/sizes"]),
            helper.make_node("Slice", [x, *slices], [f"{prefix}/sample"]),
        ]
        for result in ("low", "high", "sizes", "sample"):
            name = f"{prefix}/{result}"
            graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    graph.node.extend(nodes)
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    content = observed.SerializeToString()
    return ort.InferenceSession(content, options, providers=["CPUExecutionProvider"]), weights


def _take_branches(nodes: Iterable[onnx.NodeProto], general: bool) -> Iterator[onnx.NodeProto]:
    """Yield the nodes with one branch of each `If` in its place."""
    for node in nodes:
        if node.op_type != "If":
            yield node
            continue
        branches = {attribute.name: attribute.g for attribute in node.attribute}
        branch = branches["then_branch" if general else "else_branch"]
        yield from branch.node
        for inner, outer in zip(branch.output, node.output, strict=True):
            yield helper.make_node("Identity", [inner.name], [outer])
