"""The frozen network's answer in place of one that is not finite, inside of a graph."""

from __future__ import annotations

import numpy as np
import onnx

from ...engine.runtime.graph_contract import CLASSIFIER, IMAGES
from .embedded_network import LOGITS, PREFIX, EmbeddedNetwork, list_lengths
from .graph_names import copy_with_prefix, rename_values
from .tensor import ExpressionGraph, Tensor, where

FROZEN, ADAPTED = "frozen/", "adapted/"  # before the names of values in the two branches


def answer_with_fallback(network: EmbeddedNetwork, is_valid: Tensor, logits: Tensor) -> Tensor:
    """Return logits where they are valid, and else those of the frozen network, float32 `[N, K]`.

    The frozen network has nodes of its own and the same weights, and runs only if it is needed. An image for
    which it answers with numbers that are not finite gets zeros: no opinion.

    Args:
        network: after its `run`.
        is_valid: a boolean scalar.
        logits: float32 `[N, K]`.
    """
    frozen = copy_with_prefix(network.model, FROZEN)
    weights = {
        f"{FROZEN}{tensor.name}": f"{PREFIX}{tensor.name}" for tensor in network.model.graph.initializer
    }
    del frozen.graph.initializer[:]
    rename_values(frozen.graph, lambda name: weights.get(name, name))
    branch = ExpressionGraph(FROZEN)
    for value in frozen.graph.input:
        branch.rename(_find_feed(network, branch, value), value.name)
    branch.nodes.extend(frozen.graph.node)
    answer = Tensor(branch, f"{FROZEN}{LOGITS}", np.dtype(np.float32))
    is_finite = (answer * 0.0).sum(1, keep=True).equals(0.0)
    adapted = ExpressionGraph(ADAPTED)
    same = adapted.apply("Identity", [logits])
    return network.graph.choose(is_valid, (adapted, same), (branch, where(is_finite, answer, 0.0)))


def _find_feed(network: EmbeddedNetwork, branch: ExpressionGraph, value: onnx.ValueInfoProto) -> Tensor:
    """Return what an input of the frozen network gets; tunables are neutral."""
    name = value.name.removeprefix(FROZEN)
    if name == IMAGES:
        return network.images
    if name == CLASSIFIER:
        return Tensor(network.graph, f"{PREFIX}{CLASSIFIER}", np.dtype(np.float32))
    return branch.constant(np.zeros(list_lengths(value)), np.float32)
