"""Graphs of a bundle's images: built, verified against PyTorch, and written to a folder."""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass, replace
from pathlib import Path

import onnx
import onnxruntime
import timm
import torch

from .._version import __version__
from ..engine.bundle import bundle as bundles
from ..engine.bundle.manifest import GraphEntry, Manifest
from ..engine.errors import ExportError
from ..engine.model import list_differentiable
from .families import Family
from .pull_back import build_pull_back
from .signature import OPSET
from .verify import BATCHES, Parity, verify, verify_gradients

MAX_GRAPH_BYTES = 2**31 - 1  # one ONNX file without external data
# What writes each file of a bundle to a given path, by name of the file.
Writers = dict[str, Callable[[Path], object]]


@dataclass(frozen=True)
class ImageGraphs:
    """Graphs that were written and verified.

    Attributes:
        manifest: with their entries.
        files: writers of their files.
        parity: the largest differences to PyTorch.
        gradient_difference: largest difference of a gradient, relative to the largest gradient of its
            tunable; None without a pull-back graph.
        case_summary: the batches and tunables that were compared, in words.
    """

    manifest: Manifest
    files: Writers
    parity: Parity
    gradient_difference: float | None
    case_summary: str


def write_image_graphs(family: Family, manifest: Manifest, folder: Path, *, gradients: bool) -> ImageGraphs:
    """Build, write and verify the graph of a family, and with `gradients` its pull-back graph.

    Args:
        family: the model.
        manifest: without graphs.
        folder: receives the files.
        gradients: whether to make a pull-back graph.

    Raises:
        ExportError: a graph does not compute what PyTorch does.
    """
    weight, bias = family.head
    graph = folder / bundles.GRAPH_FILE
    built = family.build_graph(manifest.norms)
    pull_back = build_pull_back(built, list_differentiable(manifest.tunables)) if gradients else None
    save_graph(built, graph)
    parity = verify(family, graph, manifest.info(weight, bias))
    manifest = replace(manifest, graphs={"fp32": GraphEntry(graph.name, OPSET, max(astuple(parity)))})
    files: Writers = {graph.name: graph.rename}
    difference = None
    if pull_back is not None:
        path = folder / bundles.PULL_BACK_FILE
        save_graph(pull_back, path)
        entry = GraphEntry(path.name, OPSET, 0.0, record={"difference": "relative"})
        difference = verify_gradients(family, path, manifest.info(weight, bias))
        manifest = replace(manifest, pull_backs={"fp32": replace(entry, max_abs_difference=difference)})
        files[path.name] = path.rename
    cases = f"N = {', '.join(map(str, BATCHES))} and {family.case_summary}"
    return ImageGraphs(manifest, files, parity, difference, cases)


def choose_norms(family: Family, blocks: Sequence[int] | None, model: str) -> dict[str, int]:
    """Return the norms of some blocks, or of all if that is None.

    Args:
        family: the model.
        blocks: counted from 0.
        model: name of the model, for messages.

    Raises:
        ExportError: there is no such block.
    """
    unknown = [block for block in blocks or () if not 0 <= block < family.blocks]
    if unknown:
        raise ExportError(
            f"{model} has blocks 0..{family.blocks - 1}, so the norms of block {unknown[0]} cannot "
            "be made tunable; give --norms as all, none, or blocks like 1-8"
        )
    return family.select_norms(blocks)


def save_graph(model: onnx.ModelProto, path: Path) -> None:
    """Check a graph and write it to a file."""
    onnx.checker.check_model(model)
    onnx.save(model, path)


def list_versions() -> dict[str, str]:
    """Return the versions of everything that an export depends on."""
    return {
        "fozo": __version__,
        "torch": torch.__version__,
        "timm": timm.__version__,
        "onnx": onnx.__version__,
        "onnxruntime": onnxruntime.__version__,
        "python": platform.python_version(),
    }
