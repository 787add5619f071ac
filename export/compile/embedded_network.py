"""The network of a bundle in a larger graph, where it runs once over the rows of all candidates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx

from ...engine.errors import ExportError
from ...engine.model import NORMS, ModelInfo
from ...engine.runtime.graph_contract import ACTIVATION_MOMENTS, CLASSIFIER, IMAGES
from .chunked_network import Feed, append_network
from .graph_names import copy_with_prefix
from .row_norms import separate_gains
from .tensor import ExpressionGraph, Tensor, concatenate

PREFIX = "network/"  # before the names of the network's values
FEATURES, LOGITS = "features", "logits"
OUTPUT_AXES = {LOGITS: 2, FEATURES: 3, ACTIVATION_MOMENTS: 3}


@dataclass(frozen=True)
class GraphOutputs:
    """Outputs of one forward in a graph, float32.

    Attributes:
        logits: `[N, K]`.
        features: `[N, L, F]`.
        activation_moments: `[N, 2, C]`; None if the network has none.
    """

    logits: Tensor
    features: Tensor
    activation_moments: Tensor | None = None


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

        The weights are there once: there are as many rows as images of all candidates, and a loop goes
        through them.

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
        self.graph.initializers |= {tensor.name: tensor for tensor in prefixed.graph.initializer}
        feeds = {name: self.choose_feed(name, value, candidates) for name, value in inputs.items()}
        if NORMS in feeds and feeds[NORMS].repeats:
            separate_gains(self.graph, prefixed.graph, self.info.width)
        rows = (self.count * len(candidates)).reshape()
        results = {name: axes for name, axes in OUTPUT_AXES.items() if name in self._list_outputs()}
        outputs = append_network(self.graph, prefixed.graph, PREFIX, feeds, rows, results)
        shares = [split_rows(outputs[name], len(candidates)) for name in results]
        return [GraphOutputs(*tensors) for tensors in zip(*shares, strict=True)]

    def _list_outputs(self) -> set[str]:
        return {value.name for value in self.model.graph.output}

    def choose_feed(
        self, name: str, value: onnx.ValueInfoProto, candidates: Sequence[Mapping[str, Tensor]] = ()
    ) -> Feed:
        """Return values for an input of the network: tunables of all candidates, else neutral ones."""
        if name == IMAGES:
            return Feed(self.images, repeats=True)
        if name == CLASSIFIER:
            return Feed(self.graph.constant(self.info.head_weight, np.float32), repeats=False)
        neutral = self.graph.constant(np.zeros(list_lengths(value)), np.float32)
        if not any(name in candidate for candidate in candidates):
            return Feed(neutral, repeats=False)
        values = [self._repeat(candidate.get(name) or neutral) for candidate in candidates]
        return Feed(concatenate(values), repeats=True)

    def _repeat(self, values: Tensor) -> Tensor:
        """Return values for each image, `[N, …]`."""
        return values.expand(concatenate([self.count, values.shape(1, 99)]))


def split_rows(rows: Tensor, count: int) -> list[Tensor]:
    """Return the rows in `count` equal shares."""
    if count == 1:
        return [rows]
    names = [f"{rows.name}.{index}" for index in range(count)]
    node = onnx.helper.make_node("Split", [rows.name], names, name=f"{rows.name}/split", axis=0)
    node.attribute.append(onnx.helper.make_attribute("num_outputs", count))
    rows.graph.nodes.append(node)
    return [Tensor(rows.graph, name, rows.dtype) for name in names]


def list_lengths(value: onnx.ValueInfoProto) -> list[int]:
    """Return the shape of a neutral value: the first axis 1, others as declared, 0 where they are dynamic."""
    axes = [axis.dim_value for axis in value.type.tensor_type.shape.dim]
    return [1, *axes[1:]]
