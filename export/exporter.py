"""A timm model becomes a bundle: build, read, write the graph, verify it, describe it."""

from __future__ import annotations

import difflib
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
from ..data.demo import DEMO_CLASSES
from ..engine.bundle import bundle as bundles
from ..engine.bundle.bundle import Bundle
from ..engine.bundle.create import check_writable, create, folder_beside
from ..engine.bundle.manifest import GraphEntry, Manifest
from ..engine.bundle.preprocessing import CROP_MODES, INTERPOLATIONS, Preprocessing
from ..engine.errors import ExportError, reason
from ..engine.files import hash_file, to_npz
from .classes import imagenet_classes, read_classes
from .demo import DEMO_MODEL, DEMO_WEIGHTS, demo_model
from .family import Family, read_family
from .graph import OPSET
from .verify import BATCHES, Parity, verify
from .weights import load_weights

MAX_GRAPH_BYTES = 2**31 - 1  # one ONNX file without external data


@dataclass(frozen=True)
class Request:
    """What to export.

    Attributes:
        model: a timm model name, or the name of the demo model.
        weights: a file; None takes timm's pretrained weights (or the shipped ones of the demo model).
        random: keep the random initial weights instead: for speed measurements and tests.
        classes_file: identifiers of the classes, one per line; None takes ImageNet's where the number fits.
        num_classes: number of classes; None is the model's own.
        image_size: side of the square input in pixels; None is the model's own.
        norms: blocks, counted from 0 (in residual networks over all stages), whose norms become tunable;
            None is all of them.
    """

    model: str
    weights: Path | None = None
    random: bool = False
    classes_file: Path | None = None
    num_classes: int | None = None
    image_size: int | None = None
    norms: tuple[int, ...] | None = None

    @property
    def weights_file(self) -> Path | None:
        """The file that weights are read from, or None where there is none."""
        if self.random:
            return None
        return self.weights or (DEMO_WEIGHTS if self.model == DEMO_MODEL else None)


@dataclass(frozen=True)
class Exported:
    """A new bundle, and how closely its graph follows PyTorch.

    Attributes:
        bundle: the bundle.
        parity: the largest differences.
        checked: what was compared, in words.
    """

    bundle: Bundle
    parity: Parity
    checked: str


def export_model(request: Request, out: Path, *, overwrite: bool = False) -> Exported:
    """Exports a model to a new bundle at `out`; nothing is written unless the graph is verified.

    Raises:
        ExportError: the model is unknown or cannot be exported, the weights do not fit, or the graph does not
            compute what PyTorch does.
        OutputError: `out` cannot be written, or something is in the way.
    """
    check_writable(out, overwrite=overwrite)
    model = create_model(request)
    _check_size(model)
    config = resolve_model_data_config(model)
    family = read_family(model, _image_size(request, config), tuple(config["mean"]), tuple(config["std"]))
    how = _preprocessing(config, family.image_size)
    norms = _tunable_norms(request, family)
    weight, bias = family.head
    manifest = Manifest(
        model=request.model,
        preprocessing=how,
        classes=len(weight),
        norms=norms,
        **family.facts(norms),
        **_classes(request, len(weight)),
    )
    with folder_beside(out) as folder:
        graph = folder / bundles.GRAPH_FILE
        _save_graph(family, norms, graph)
        parity = verify(family, graph, manifest.info(weight, bias))
        entry = GraphEntry(graph.name, OPSET, max(astuple(parity)))
        manifest = _with_record(manifest, request, model, entry, parity)
        files: dict[str, Callable[[Path], object]] = {
            graph.name: graph.rename,
            "head.npz": lambda path: path.write_bytes(to_npz(weight=weight, bias=bias)),
        }
        bundle = create(out, manifest, files, overwrite=overwrite)
    return Exported(bundle, parity, f"N = {', '.join(map(str, BATCHES))} and {family.checked}")


def create_model(request: Request) -> Any:
    """The PyTorch model in eval mode.

    Raises:
        ExportError: timm does not know it, or its weights cannot be had.
    """
    # A residual network reads images of any size, and its constructor takes none.
    size = None if timm.models.is_model_in_modules(request.model, ["resnet"]) else request.image_size
    options = {
        key: value
        for key, value in (("num_classes", request.num_classes), ("img_size", size))
        if value is not None
    }
    file = request.weights_file
    if request.weights is not None and request.random:
        raise ExportError(f"weights are either random or those of {request.weights}, not both")
    if request.model == DEMO_MODEL and options:
        raise ExportError(f"{DEMO_MODEL} has a fixed image size and number of classes")
    if request.model == DEMO_MODEL:
        model: Any = demo_model()
    else:
        model = _timm_model(request.model, pretrained=file is None and not request.random, **options)
    if file is not None:
        load_weights(model, file)
    return model.eval()


def _timm_model(name: str, **options: Any) -> Any:
    if not timm.is_model(name):
        similar = difflib.get_close_matches(name, timm.list_models(), 5)
        hint = f"did you mean {', '.join(similar)}?" if similar else "timm.list_models() lists what there is"
        raise ExportError(f"timm {timm.__version__} has no model {name!r}; {hint}")
    try:
        model = timm.create_model(name, **options)
    except Exception as error:  # downloads and architectures fail in many ways
        raise ExportError(
            f"timm cannot create {name} with {options}: {reason(error)}; without a network, give the weights "
            "as a file with --weights"
        ) from error
    classes = model.pretrained_cfg.get("num_classes")
    if options["pretrained"] and model.num_classes != classes:
        raise ExportError(
            f"timm's pretrained {name} has {classes} classes, not {model.num_classes}: its classifier would "
            "be random; give weights that have one with --weights"
        )
    return model


def _image_size(request: Request, config: dict[str, Any]) -> tuple[int, int]:
    """Height and width that were asked for, or that the model was trained with."""
    if request.image_size is not None:
        return request.image_size, request.image_size
    _, height, width = config["input_size"]
    return int(height), int(width)


def _preprocessing(config: dict[str, Any], size: tuple[int, int]) -> Preprocessing:
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


def _classes(request: Request, classes: int) -> dict[str, Any]:
    if request.classes_file is not None:
        identifiers, names = read_classes(request.classes_file, classes)
    elif request.model == DEMO_MODEL:
        identifiers = names = DEMO_CLASSES
    elif (known := imagenet_classes(classes)) is not None:
        identifiers, names = known
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


def _tunable_norms(request: Request, family: Family) -> dict[str, int]:
    unknown = [block for block in request.norms or () if not 0 <= block < family.blocks]
    if unknown:
        raise ExportError(
            f"{request.model} has blocks 0..{family.blocks - 1}, so the norms of block {unknown[0]} cannot "
            "be made tunable; give --norms as all, none, or blocks like 1-8"
        )
    return family.norms(request.norms)


def _save_graph(family: Family, norms: dict[str, int], path: Path) -> None:
    model = family.graph(norms)
    onnx.checker.check_model(model)
    onnx.save(model, path)


def _with_record(
    manifest: Manifest, request: Request, model: Any, entry: GraphEntry, parity: Parity
) -> Manifest:
    """The manifest with its graph and with what a person would need to make the bundle again."""
    file, config = request.weights_file, resolve_model_data_config(model)
    if file is not None:
        weights = f"{file.name}, SHA-256 {hash_file(file)}"
    else:
        weights = (
            "random"
            if request.random
            else f"timm's pretrained, tag {model.pretrained_cfg.get('tag') or 'default'}"
        )
    versions = {
        "fozo": __version__,
        "torch": torch.__version__,
        "timm": timm.__version__,
        "onnx": onnx.__version__,
        "onnxruntime": onnxruntime.__version__,
        "python": platform.python_version(),
    }
    return replace(
        manifest,
        graphs={"fp32": entry},
        provenance={
            "weights": weights,
            "mean": list(config["mean"]),
            "std": list(config["std"]),
            "max_abs_difference": asdict(parity),
            "versions": versions,
        },
    )
