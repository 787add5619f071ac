"""The pull-back graph of an integer graph, for a bundle that has one of the float graph."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx

from ..engine.bundle.bundle import Bundle
from ..engine.bundle.manifest import GraphEntry
from ..engine.errors import ExportError
from ..engine.model import FloatArray, ImageArray, Outputs, Slopes, list_differentiable
from ..engine.runtime.network import Network
from ..engine.statistics.output_slopes import derive_entropy
from .integer_pull_back import build_integer_pull_back


def write_integer_pull_back(
    bundle: Bundle, graph: Path, precision: str, images: ImageArray, path: Path
) -> GraphEntry:
    """Write the pull-back graph of an integer graph to a file, and return what to record of it.

    Args:
        bundle: with a pull-back graph of the fp32 graph; it is not changed.
        graph: the integer graph.
        precision: of this graph.
        images: uint8 `[N, H, W, 3]`, on which both gradients are compared, for the record.
        path: of the new file.

    Raises:
        ExportError: the graph cannot be differentiated, or its outputs are not those of the integer graph.
    """
    tunables = list_differentiable(bundle.manifest.tunables)
    model = onnx.load(graph, load_external_data=False)
    onnx.save(build_integer_pull_back(model, tunables), path)
    with Network(graph, bundle.info("fp32")) as network:
        outputs = network(images)
    slopes = Slopes(derive_entropy(outputs.logits), outputs.features)
    with Network(path, bundle.info("fp32", gradients=True)) as network:
        pulled = network.pull_back(images, {}, slopes)
    with Network.open(bundle, "fp32", gradients=True) as reference:
        expected = reference.pull_back(images, {}, slopes)
    difference = float(np.abs(pulled.logits - outputs.logits).max())
    if not difference <= 1e-3 * max(1.0, float(np.abs(outputs.logits).max())):
        raise ExportError(
            f"the pull-back graph of {precision} does not compute the logits of the {precision} graph: "
            f"they differ by up to {difference:.3g}; nothing was added, please report this model"
        )
    return GraphEntry(
        file="",
        opset=bundle.manifest.graphs["fp32"].opset,
        max_abs_difference=difference,
        reference=precision,
        record={"cosine_to_fp32": _compute_cosine(pulled, expected)},
    )


def _compute_cosine(pulled: Outputs, expected: Outputs) -> float:
    """Return the cosine of the gradients with respect to all tunables; 0 where one is zero."""
    first, second = (_flatten(outputs) for outputs in (pulled, expected))
    lengths = float(np.linalg.norm(first) * np.linalg.norm(second))
    return float(first @ second) / lengths if lengths else 0.0


def _flatten(outputs: Outputs) -> FloatArray:
    assert outputs.gradients is not None
    return np.concatenate([outputs.gradients[name].ravel() for name in sorted(outputs.gradients)])
