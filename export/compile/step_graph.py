"""A step of a method as one ONNX graph: images and state in, predictions and the next state out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from ..._version import __version__
from ...engine.errors import ExportError
from ...engine.interface.method import AnyBoundMethod
from ...engine.methods.fozo import BoundFozo
from ...engine.methods.moments import BoundMomentMatching
from ...engine.methods.no_adapt import BoundNoAdapt
from ...engine.methods.pizo import BoundPizo
from ...engine.methods.quar import BoundQuar
from ...engine.methods.shift import BoundShift
from ...engine.runtime.graph_contract import IMAGES
from .embedded_network import LOGITS, EmbeddedNetwork
from .fozo_step import FozoStep
from .frozen_fallback import answer_with_fallback
from .pizo_step import PizoStep
from .quar_step import QuarStep
from .shift_steps import MomentsStep, NoAdaptStep, ShiftStep
from .step_builder import StepBuilder, StepInputs, StepOutputs
from .tensor import ExpressionGraph, Tensor, where

BUILDERS: Mapping[type, StepBuilder] = {
    BoundNoAdapt: NoAdaptStep(),
    BoundShift: ShiftStep(),
    BoundMomentMatching: MomentsStep(),
    BoundQuar: QuarStep(),
    BoundFozo: FozoStep(),
    BoundPizo: PizoStep(),
}
STATE, NEXT_STATE, DIAGNOSTIC = "state.", "next_state.", "diagnostic."  # beginnings of names
VALID = "valid"
SEED, STEP, IDENTITY = "seed", "step", "identity"


@dataclass(frozen=True)
class StepGraph:
    """A step, and the state that it begins with.

    Attributes:
        model: the step: `images` and `state.*` to `logits`, `next_state.*`, `diagnostic.*` and `valid`, which
            is false if the state is of another step or something is not finite. The frozen network has then
            answered, and nothing was learnt.
        init: a graph without inputs that returns the first `state.*`.
        state: the first state by name, without `state.`.
        diagnostics: names of the diagnostics.
    """

    model: onnx.ModelProto
    init: onnx.ModelProto
    state: Mapping[str, NDArray[Any]]
    diagnostics: tuple[str, ...]


def build_step(
    network: onnx.ModelProto,
    method: AnyBoundMethod,
    seed: int,
    identity: int,
    batch: int | None = None,
) -> StepGraph:
    """Return a step of a bound method on a network.

    Args:
        network: the graph of the bundle that the method is bound to.
        method: random directions come from the generator `philox`.
        seed: of the first state.
        identity: number of this step, which its states have.
        batch: images of every step; None: any number.

    Raises:
        ExportError: the method or one of its options has no counterpart in a graph.
    """
    builder = find_builder(method)
    first = {
        IDENTITY: np.asarray(identity, np.int64),
        SEED: np.asarray(seed, np.int64),
        STEP: np.asarray(0, np.int64),
        **{name: np.asarray(array) for name, array in builder.create_state(method, seed).items()},
    }
    graph = ExpressionGraph()
    image_axes = [axis.dim_value for axis in _find(network.graph.input, IMAGES).type.tensor_type.shape.dim]
    count: int | str = "N" if batch is None else batch
    images = Tensor(graph, IMAGES, np.dtype(np.uint8))
    state = {name: Tensor(graph, f"{STATE}{name}", array.dtype) for name, array in first.items()}
    embedded = EmbeddedNetwork(graph, network, method.model, images)
    method_state = {name: tensor for name, tensor in state.items() if name not in (IDENTITY, SEED, STEP)}
    outputs = builder.build(method, StepInputs(graph, embedded, method_state, state[SEED], state[STEP]))
    valid = _are_finite([outputs.logits, *outputs.state.values()]) & state[IDENTITY].equals(identity)
    logits = answer_with_fallback(embedded, valid, outputs.logits)
    values = {LOGITS: logits, **_finish_state(state, outputs, valid)}
    values |= {f"{DIAGNOSTIC}{name}": value.cast(np.float32) for name, value in outputs.diagnostics.items()}
    values[VALID] = valid
    results = {name: graph.rename(value, name) for name, value in values.items()}
    shapes: dict[str, tuple[int | str, ...]] = {
        LOGITS: (count, method.model.classes),
        **{f"{NEXT_STATE}{name}": array.shape for name, array in first.items()},
    }
    infos = [_describe(name, tensor.dtype, shapes.get(name, ())) for name, tensor in results.items()]
    inputs = [_describe(IMAGES, np.dtype(np.uint8), (count, *image_axes[1:]))]
    inputs += [_describe(f"{STATE}{name}", array.dtype, array.shape) for name, array in first.items()]
    model = make_model(graph, inputs, infos, embedded.domains, method.name)
    return StepGraph(model, build_init(first, embedded.domains), first, tuple(outputs.diagnostics))


def find_builder(method: AnyBoundMethod) -> StepBuilder:
    """Return the builder of a method.

    Raises:
        ExportError: there is none, or the classes in use add something to the images.
    """
    if method.model.image_prompt is not None:
        raise ExportError(
            f"the classes in use of {method.model.name} add something learnt to the images (bar, blackvip or "
            "bpt --visual), which a compiled step does not; choose others with --head"
        )
    if type(method) not in BUILDERS:
        raise ExportError(
            f"{method.name} cannot be compiled as it is; expected no_adapt, shift, shift_origin, neo, "
            "moments, quar, fozo or pizo, without the common options interval, domains, guard and temperature"
        )
    return BUILDERS[type(method)]


def build_init(state: Mapping[str, NDArray[Any]], domains: Mapping[str, int]) -> onnx.ModelProto:
    """Return a graph without inputs whose outputs are a state."""
    graph = ExpressionGraph()
    for name, array in state.items():
        tensor = numpy_helper.from_array(array, "")
        node = helper.make_node("Constant", [], [f"{STATE}{name}"], name=name, value=tensor)
        graph.nodes.append(node)
    infos = [_describe(f"{STATE}{name}", array.dtype, array.shape) for name, array in state.items()]
    return make_model(graph, [], infos, {"": domains[""]}, "init")


def make_model(
    graph: ExpressionGraph,
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    domains: Mapping[str, int],
    name: str,
) -> onnx.ModelProto:
    """Return the model of a graph."""
    proto = helper.make_graph(graph.nodes, name, inputs, outputs, list(graph.initializers.values()))
    opsets = [helper.make_opsetid(domain, version) for domain, version in domains.items()]
    model = helper.make_model(proto, opset_imports=opsets, producer_name="fozo", producer_version=__version__)
    model.ir_version = helper.find_min_ir_version_for(
        [opset for opset in opsets if opset.domain in ("", "ai.onnx")]
    )
    return model


def _finish_state(state: Mapping[str, Tensor], outputs: StepOutputs, valid: Tensor) -> dict[str, Tensor]:
    """Return the next state; of a step that is not valid, the old one, one step later."""
    values = {IDENTITY: state[IDENTITY], SEED: state[SEED], STEP: state[STEP] + 1}
    values |= {name: where(valid, value, state[name]) for name, value in outputs.state.items()}
    return {f"{NEXT_STATE}{name}": value for name, value in values.items()}


def _are_finite(tensors: list[Tensor]) -> Tensor:
    """Return whether all numbers are finite; times zero, others are not zero."""
    products = [(tensor * 0.0).sum().cast(np.float64) for tensor in tensors if tensor.dtype.kind == "f"]
    total = products[0]
    for product in products[1:]:
        total = total + product
    return total.equals(0.0)


def _find(values: Any, name: str) -> onnx.ValueInfoProto:
    return next(value for value in values if value.name == name)


def _describe(name: str, dtype: np.dtype[Any], shape: tuple[int | str, ...]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(dtype), shape)
