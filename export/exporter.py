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
from ..engine import bundle as bundles
from ..engine.arrays import to_npz
from ..engine.bundle import Bundle, GraphEntry, Manifest
from ..engine.errors import ExportError, reason
from ..engine.files import sha256_of
from ..engine.model import ModelInfo
from ..engine.preprocessing import CROP_MODES, INTERPOLATIONS, Preprocessing
from .classes import imagenet_classes, read_classes
from .demo import DEMO_MODEL, DEMO_WEIGHTS, demo_model
from .graph import OPSET, block_norms, build_graph
from .verify import Parity, verify
from .vit import Vit, read_vit
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
        norms: blocks, counted from 0, whose norms become tunable; None is all of them.
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
    """A new bundle, and how closely its graph follows PyTorch."""

    bundle: Bundle
    parity: Parity


def export_model(request: Request, out: Path, *, overwrite: bool = False) -> Exported:
    """Exports a model to a new bundle at `out`; nothing is written unless the graph is verified.

    Raises:
        ExportError: the model is unknown or cannot be exported, the weights do not fit, or the graph does not
            compute what PyTorch does.
        OutputError: `out` cannot be written, or something is in the way.
    """
    bundles.check_writable(out, overwrite=overwrite)
    model = create_model(request)
    _check_size(model)
    vit = read_vit(model)
    config = resolve_model_data_config(model)
    how = _preprocessing(config, vit)
    norms = _tunable_norms(request, vit)
    mean, std = tuple(config["mean"]), tuple(config["std"])
    bound = float(np.sqrt(6 / (3 * vit.patch_size[0] * vit.patch_size[1] + vit.width)))
    manifest = Manifest(
        model=request.model,
        preprocessing=how,
        layers=len(vit.blocks),
        width=vit.width,
        tokens=vit.tokens,
        feature_width=vit.readout * vit.width,
        classes=len(vit.head.weight),
        prompt_bound=bound,
        tunables={
            "prompts": ("R", "P", vit.width),
            **({"norms": ("S", len(norms), 2, vit.width)} if norms else {}),
        },
        norms=dict.fromkeys(norms, vit.width),
        **_classes(request, len(vit.head.weight)),
    )
    head, bias = vit.head, vit.head_bias
    with bundles.folder_beside(out) as folder:
        graph = folder / bundles.GRAPH_FILE
        _save_graph(vit, mean, std, norms, graph)
        info = ModelInfo(
            name=request.model,
            identity="",
            layers=manifest.layers,
            width=vit.width,
            tokens=vit.tokens,
            prompt_bound=bound,
            head_weight=head.weight,
            head_bias=bias,
            tunables=tuple(manifest.tunables),
            norms=manifest.norms,
        )
        parity = verify(model, graph, info, mean, std)
        entry = GraphEntry(graph.name, OPSET, max(astuple(parity)))
        manifest = _with_record(manifest, request, model, entry, parity)
        files: dict[str, Callable[[Path], object]] = {
            graph.name: graph.rename,
            "head.npz": lambda path: path.write_bytes(to_npz(weight=head.weight, bias=bias)),
        }
        return Exported(bundles.create(out, manifest, files, overwrite=overwrite), parity)


def create_model(request: Request) -> Any:
    """The PyTorch model in eval mode.

    Raises:
        ExportError: timm does not know it, or its weights cannot be had.
    """
    options = {
        key: value
        for key, value in (("num_classes", request.num_classes), ("img_size", request.image_size))
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


def _preprocessing(config: dict[str, Any], vit: Vit) -> Preprocessing:
    mode, interpolation = config["crop_mode"], config["interpolation"]
    if vit.image_size[0] != vit.image_size[1]:
        raise ExportError(
            f"this model reads images of {vit.image_size[0]} × {vit.image_size[1]}; fozo prepares "
            "square ones only: give --image-size"
        )
    if mode not in CROP_MODES or interpolation not in INTERPOLATIONS:
        raise ExportError(
            f"images of this model are prepared by crop mode {mode!r} and interpolation "
            f"{interpolation!r}; fozo knows {CROP_MODES} and {INTERPOLATIONS}"
        )
    resize = int(np.floor(min(vit.image_size) / config["crop_pct"]))
    return Preprocessing(vit.image_size, resize, interpolation, mode)


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


def _tunable_norms(request: Request, vit: Vit) -> tuple[str, ...]:
    if request.norms is None:
        return block_norms(vit)
    unknown = [block for block in request.norms if not 0 <= block < len(vit.blocks)]
    if unknown:
        raise ExportError(
            f"{request.model} has blocks 0..{len(vit.blocks) - 1}, so the norms of block {unknown[0]} cannot "
            "be made tunable; give --norms as all, none, or blocks like 1-8"
        )
    return block_norms(vit, request.norms)


def _save_graph(
    vit: Vit, mean: tuple[float, ...], std: tuple[float, ...], norms: tuple[str, ...], path: Path
) -> None:
    model = build_graph(vit, mean, std, norms)
    onnx.checker.check_model(model)
    onnx.save(model, path)


def _with_record(
    manifest: Manifest, request: Request, model: Any, entry: GraphEntry, parity: Parity
) -> Manifest:
    """The manifest with its graph and with what a person would need to make the bundle again."""
    file, config = request.weights_file, resolve_model_data_config(model)
    if file is not None:
        weights = f"{file.name}, SHA-256 {sha256_of(file)}"
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
