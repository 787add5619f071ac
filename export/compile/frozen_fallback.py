"""The frozen network's answer in place of one that is not finite, inside of a graph."""

from __future__ import annotations

from .chunked_network import append_network
from .embedded_network import LOGITS, OUTPUT_AXES, PREFIX, EmbeddedNetwork
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
    feeds = {
        name: network.choose_feed(name, value)
        for value in frozen.graph.input
        for name in [value.name.removeprefix(FROZEN)]
    }
    rows = network.count.reshape()
    answer = append_network(branch, frozen.graph, FROZEN, feeds, rows, {LOGITS: OUTPUT_AXES[LOGITS]})[LOGITS]
    is_finite = (answer * 0.0).sum(1, keep=True).equals(0.0)
    adapted = ExpressionGraph(ADAPTED)
    same = adapted.apply("Identity", [logits])
    return network.graph.choose(is_valid, (adapted, same), (branch, where(is_finite, answer, 0.0)))
