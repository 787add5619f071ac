"""Export of a timm model to a bundle: create the model, build and verify the graph, write the manifest."""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import asdict, astuple, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import timm
import torch
from timm.data import resolve_model_data_config

from .._version import __version__
from ..data.class_names import read_class_names
from ..data.demo import DEMO_CLASSES
from ..engine.bundle import bundle as bundles
from ..engine.bundle.bundle import Bundle
from ..engine.bundle.create import check_writable, create, folder_beside
from ..engine.bundle.manifest import GraphEntry, Manifest
from ..engine.bundle.preprocessing import CROP_MODES, INTERPOLATIONS, Preprocessing
from ..engine.errors import ExportError
from ..engine.files import hash_file, to_npz
from .classes import find_imagenet_classes
from .demo_model import DEMO_MODEL
from .families import Family, read_family
from .image_format import ImageFormat
from .model_request import Request, create_model
from .pull_back import build_pull_back
from .signature import OPSET
from .verify import BATCHES, Parity, verify, verify_gradients

MAX_GRAPH_BYTES = 2**31 - 1  # one ONNX file without external data


@dataclass(frozen=True)
class ExportResult:
    """A new bundle, and how closely its graph follows PyTorch.

    Attributes:
        bundle: the bundle.
        parity: the largest differences.
        gradient_difference: largest difference of a gradient, relative to the largest gradient of its
            tunable; None without a pull-back graph.
        case_summary: the batches and tunables that were compared, in words.
    """

    bundle: Bundle
    parity: Parity
    case_summary: str
    gradient_difference: float | None = None


def export_model(request: Request, out: Path, *, overwrite: bool = False) -> ExportResult:
    """Export a model to a new bundle at `out`; nothing is written unless the graph is verified.

    Raises:
        ExportError: the model is unknown or cannot be exported, the weights do not fit, or the graph does not
            compute what PyTorch does.
        OutputError: `out` cannot be written, or something is in the way.
    """
    check_writable(out, overwrite=overwrite)
    model = create_model(request)
    _check_size(model)
    config = resolve_model_data_config(model)
    family = read_family(model, _read_image_format(request, config))
    norms = _select_norms(request, family)
    weight, bias = family.head
    manifest = Manifest(
        model=request.model,
        preprocessing=_read_preprocessing(config, family.image_size),
        classes=len(weight),
        norms=norms,
        **family.describe(norms),
        **_list_classes(request, len(weight)),
    )
    with folder_beside(out) as folder:
        graph = folder / bundles.GRAPH_FILE
        built = family.build_graph(norms)
        pull_back = build_pull_back(built, tuple(manifest.tunables)) if request.gradients else None
        _save_graph(built, graph)
        parity = verify(family, graph, manifest.info(weight, bias))
        manifest = replace(
            manifest,
            graphs={"fp32": GraphEntry(graph.name, OPSET, max(astuple(parity)))},
            provenance=_record_provenance(request, model, parity),
        )
        files: dict[str, Callable[[Path], object]] = {
            graph.name: graph.rename,
            "head.npz": lambda path: path.write_bytes(to_npz(weight=weight, bias=bias)),
        }
        difference = None
        if pull_back is not None:
            path = folder / bundles.PULL_BACK_FILE
            _save_graph(pull_back, path)
            entry = GraphEntry(path.name, OPSET, 0.0, record={"difference": "relative"})
            manifest = replace(manifest, pull_backs={"fp32": entry})
            difference = verify_gradients(family, graph, path, manifest.info(weight, bias))
            manifest = replace(manifest, pull_backs={"fp32": replace(entry, max_abs_difference=difference)})
            files[path.name] = path.rename
        bundle = create(out, manifest, files, overwrite=overwrite)
    cases = f"N = {', '.join(map(str, BATCHES))} and {family.case_summary}"
    return ExportResult(bundle, parity, cases, difference)


def _read_image_format(request: Request, config: dict[str, Any]) -> ImageFormat:
    """Return the requested size, or the one that the model was trained with, and the normalisation."""
    _, height, width = config["input_size"]
    size = (int(height), int(width)) if request.image_size is None else (request.image_size,) * 2
    return ImageFormat(size, tuple(config["mean"]), tuple(config["std"]))


def _read_preprocessing(config: dict[str, Any], size: tuple[int, int]) -> Preprocessing:
    mode, interpolation = config["crop_mode"], config["interpolation"]
    if size[0] != size[1]:
        raise ExportError(
            f"this model reads images of {size[0]} × {size[1]}; fozo prepares square ones only: give "
            "--image-size"
        )
    if mode not in CROP_MODES or interpolation not in INTERPOLATIONS:
        raise ExportError(
            f"images of this model are prepared by crop mode {mode!r} and interpolation "
            f"{interpolation!r}; fozo knows {CROP_MODES} and {INTERPOLATIONS}"
        )
    resize = int(np.floor(min(size) / config["crop_pct"]))
    return Preprocessing(size, resize, interpolation, mode)


def _list_classes(request: Request, classes: int) -> dict[str, Any]:
    if request.classes_file is not None:
        identifiers, names = read_class_names(request.classes_file, classes)
    elif request.model == DEMO_MODEL:
        identifiers = names = DEMO_CLASSES
    elif (imagenet := find_imagenet_classes(classes)) is not None:
        identifiers, names = imagenet
    else:
        return {"class_ids": None, "class_names": None}
    return {"class_ids": identifiers, "class_names": names}


def _check_size(model: Any) -> None:
    size = sum(4 * parameter.numel() for parameter in model.parameters())
    if size > MAX_GRAPH_BYTES:
        raise ExportError(
            f"the weights have {size / 2**30:.1f} GiB; an ONNX file holds less than 2 GiB, and bundles "
            "do not use external data: choose a smaller model"
        )


def _select_norms(request: Request, family: Family) -> dict[str, int]:
    unknown = [block for block in request.norms or () if not 0 <= block < family.blocks]
    if unknown:
        raise ExportError(
            f"{request.model} has blocks 0..{family.blocks - 1}, so the norms of block {unknown[0]} cannot "
            "be made tunable; give --norms as all, none, or blocks like 1-8"
        )
    return family.select_norms(request.norms)


def _save_graph(model: onnx.ModelProto, path: Path) -> None:
    onnx.checker.check_model(model)
    onnx.save(model, path)


def _record_provenance(request: Request, model: Any, parity: Parity) -> dict[str, Any]:
    """Return all that is needed to make the bundle again."""
    config = resolve_model_data_config(model)
    return {
        "weights": _describe_weights(request, model),
        "mean": list(config["mean"]),
        "std": list(config["std"]),
        "max_abs_difference": asdict(parity),
        "versions": {
            "fozo": __version__,
            "torch": torch.__version__,
            "timm": timm.__version__,
            "onnx": onnx.__version__,
            "onnxruntime": onnxruntime.__version__,
            "python": platform.python_version(),
        },
    }


def _describe_weights(request: Request, model: Any) -> str:
    file = request.weights_file
    if file is not None:
        return f"{file.name}, SHA-256 {hash_file(file)}"
    if request.random:
        return "random"
    return f"timm's pretrained, tag {model.pretrained_cfg.get('tag') or 'default'}"
