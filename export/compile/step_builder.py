"""The interface of what puts a method into a graph: its first state, and a step as expressions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from .embedded_network import EmbeddedNetwork
from .tensor import ExpressionGraph, Tensor

# Values of a state by name, of a graph or as arrays. Every one keeps its shape from step to step.
Tensors = Mapping[str, Tensor]
Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class StepInputs:
    """Everything that a step reads.

    Attributes:
        graph: to append to.
        network: the network, over the images of the batch.
        state: of the method, by name.
        seed, step: of the method's random draws, int64 scalars.
    """

    graph: ExpressionGraph
    network: EmbeddedNetwork
    state: Tensors
    seed: Tensor
    step: Tensor


@dataclass(frozen=True)
class StepOutputs:
    """Everything that a step returns.

    Attributes:
        logits: float32 `[N, K]`.
        state: the next one, by name, of the same types and shapes.
        diagnostics: scalars that a person would plot, by name.
    """

    logits: Tensor
    state: Tensors
    diagnostics: Tensors


class StepBuilder(Protocol):
    """The builder of one method's step; it gets the bound method."""

    def create_state(self, method: Any, seed: int, /) -> Arrays:
        """Return the first state, without seed and step."""

    def build(self, method: Any, inputs: StepInputs, /) -> StepOutputs:
        """Append a step to the graph.

        Raises:
            ExportError: an option of the method has no counterpart in a graph.
        """


def to_integer(value: int) -> NDArray[np.int64]:
    """Return a count as it is stored in a state, an int64 scalar."""
    return np.asarray(value, np.int64)


def to_number(value: float) -> NDArray[np.float64]:
    """Return a number as it is stored in a state, a float64 scalar."""
    return np.asarray(value, np.float64)
