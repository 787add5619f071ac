"""The network of a bundle in a larger graph: all forwards of a step are one call over a larger batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx

from ...engine.errors import ExportError
from ...engine.model import ModelInfo
from ...engine.runtime.graph_contract import CLASSIFIER, IMAGES
from .graph_names import copy_with_prefix
from .tensor import ExpressionGraph, Tensor, concatenate

PREFIX = "network/"  # before the names of the network's values
FEATURES, LOGITS = "features", "logits"


@dataclass(frozen=True)
class GraphOutputs:
    """Outputs of one forward in a graph: logits float32 `[N, K]` and features float32 `[N, L, F]`."""

    logits: Tensor
    features: Tensor


@dataclass
class EmbeddedNetwork:
    """A network in a graph, which one call of `run` puts there.

    Attributes:
        graph: the graph around it.
        model: the network's own graph.
        info: the model behind it.
        images: uint8 `[N, H, W, 3]`.
        domains: operator sets that the network needs, by domain; filled by `run`.
    """

    graph: ExpressionGraph
    model: onnx.ModelProto
    info: ModelInfo
    images: Tensor
    domains: dict[str, int] = field(default_factory=dict)

    @property
    def count(self) -> Tensor:
        """N, int64 `[1]`."""
        return self.images.shape(0, 1)

    def run(self, candidates: Sequence[Mapping[str, Tensor]]) -> list[GraphOutputs]:
        """Append the network over the images, once for each set of tunables.

        The weights are there once: the batch holds the images as often as there are candidates.

        Args:
            candidates: tunables by name, float32, the first axis 1 or N; those not given are neutral.

        Raises:
            ExportError: it is there already, or there is no such tunable.
        """
        if self.domains:
            raise ExportError("a step runs its network once; give it all candidates together")
        prefixed = copy_with_prefix(self.model, PREFIX)
        self.domains |= {entry.domain: entry.version for entry in prefixed.opset_import}
        inputs = {value.name.removeprefix(PREFIX): value for value in prefixed.graph.input}
        unknown = {name for candidate in candidates for name in candidate} - inputs.keys()
        if unknown:
            raise ExportError(f"{self.info.name} has no tunable {', '.join(sorted(unknown))}")
        for name, value in inputs.items():
            self._connect(name, value, candidates)
        self.graph.nodes.extend(prefixed.graph.node)
        self.graph.initializers |= {tensor.name: tensor for tensor in prefixed.graph.initializer}
        logits = self._split(LOGITS, len(candidates))
        features = self._split(FEATURES, len(candidates))
        return [GraphOutputs(*pair) for pair in zip(logits, features, strict=True)]

    def _connect(
        self, name: str, value: onnx.ValueInfoProto, candidates: Sequence[Mapping[str, Tensor]]
    ) -> None:
        """Give an input of the network its value."""
        if name == IMAGES:
            tensor = concatenate([self.images] * len(candidates))
        elif name == CLASSIFIER:
            tensor = self.graph.constant(self.info.head_weight, np.float32)
        elif not any(name in candidate for candidate in candidates):
            tensor = self.graph.constant(np.zeros(list_lengths(value)), np.float32)
        else:
            neutral = np.zeros(list_lengths(value))
            values = [
                candidate.get(name) or self.graph.constant(neutral, np.float32) for candidate in candidates
            ]
            tensor = concatenate([self._repeat(value) for value in values])
        self.graph.rename(tensor, PREFIX + name)

    def _repeat(self, values: Tensor) -> Tensor:
        """Return values for each image, `[N, …]`."""
        return values.expand(concatenate([self.count, values.shape(1, 99)]))

    def _split(self, name: str, count: int) -> list[Tensor]:
        outputs = Tensor(self.graph, PREFIX + name, np.dtype(np.float32))
        if count == 1:
            return [outputs]
        names = [f"{outputs.name}.{index}" for index in range(count)]
        node = onnx.helper.make_node("Split", [outputs.name], names, name=f"{outputs.name}/split", axis=0)
        node.attribute.append(onnx.helper.make_attribute("num_outputs", count))
        self.graph.nodes.append(node)
        return [Tensor(self.graph, output, outputs.dtype) for output in names]


def list_lengths(value: onnx.ValueInfoProto) -> list[int]:
    """Return the shape of a neutral value: the first axis 1, others as declared, 0 where they are dynamic."""
    axes = [axis.dim_value for axis in value.type.tensor_type.shape.dim]
    return [1, *axes[1:]]
