"""Addition of an integer pull-back graph to a bundle that has a float one."""

from __future__ import annotations

import numpy as np
import onnx

from ..engine.bundle.bundle import Bundle
from ..engine.bundle.create import folder_beside
from ..engine.bundle.manifest import GraphEntry
from ..engine.errors import ExportError
from ..engine.model import FloatArray, ImageArray, Outputs, Slopes, list_differentiable
from ..engine.runtime.network import Network
from ..engine.statistics.output_slopes import derive_entropy
from .integer_pull_back import build_integer_pull_back


def add_integer_pull_back(bundle: Bundle, precision: str, images: ImageArray) -> Bundle:
    """Add the pull-back graph of an int8 graph, and return the changed bundle.

    Args:
        bundle: with that graph, and with a pull-back graph of the fp32 graph.
        precision: of the int8 graph.
        images: uint8 `[N, H, W, 3]`, on which both gradients are compared, for the record.

    Raises:
        ExportError: the graph cannot be differentiated, or its outputs are not those of the int8 graph.
        OutputError: the bundle cannot be written.
    """
    tunables = list_differentiable(bundle.manifest.tunables)
    model = onnx.load(bundle.graph(precision), load_external_data=False)
    with folder_beside(bundle.path / precision) as folder:
        graph = folder / "pull-back.onnx"
        onnx.save(build_integer_pull_back(model, tunables), graph)
        with Network.open(bundle, precision) as network:
            outputs = network(images)
        slopes = Slopes(derive_entropy(outputs.logits), outputs.features)
        with Network(graph, bundle.info(precision, gradients=True)) as network:
            pulled = network.pull_back(images, {}, slopes)
        with Network.open(bundle, "fp32", gradients=True) as reference:
            expected = reference.pull_back(images, {}, slopes)
        difference = float(np.abs(pulled.logits - outputs.logits).max())
        if not difference <= 1e-3 * max(1.0, float(np.abs(outputs.logits).max())):
            raise ExportError(
                f"the pull-back graph of {precision} does not compute the logits of the {precision} graph: "
                f"they differ by up to {difference:.3g}; nothing was added, please report this model"
            )
        entry = GraphEntry(
            file="",
            opset=bundle.manifest.graphs[precision].opset,
            max_abs_difference=difference,
            reference=precision,
            record={"cosine_to_fp32": _compute_cosine(pulled, expected)},
        )
        return bundle.with_pull_back(precision, graph, entry)


def _compute_cosine(pulled: Outputs, expected: Outputs) -> float:
    """Return the cosine of the gradients with respect to all tunables; 0 where one is zero."""
    first, second = (_flatten(outputs) for outputs in (pulled, expected))
    lengths = float(np.linalg.norm(first) * np.linalg.norm(second))
    return float(first @ second) / lengths if lengths else 0.0


def _flatten(outputs: Outputs) -> FloatArray:
    assert outputs.gradients is not None
    return np.concatenate([outputs.gradients[name].ravel() for name in sorted(outputs.gradients)])
