"""Export of a timm model to a bundle: create the model, build and verify the graph, write the manifest."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ..data.class_names import Labels, read_class_names
from ..data.demo import DEMO_CLASSES, DEMO_MODEL
from ..engine.bundle.bundle import Bundle
from ..engine.bundle.create import check_writable, create, folder_beside
from ..engine.bundle.manifest import Manifest
from ..engine.errors import ExportError
from ..engine.files import to_npz
from .classes import find_imagenet_classes, read_own_labels
from .families import read_family
from .hugging_face_images import FilePreparation, read_preparation
from .hugging_face_labels import read_class_labels
from .image_format import read_image_format, read_preprocessing, resolve_images
from .image_graphs import MAX_GRAPH_BYTES, Writers, choose_norms, list_versions, write_image_graphs
from .model_request import Request, create_model
from .verify import Parity
from .weights import LoadedWeights
from .weights_files import locate_weights

_DUPLICATES = (
    "; as some are equal, class folders of labelled images cannot be told by them: name the folders with "
    "--classes FILE, or with --class-ids when you evaluate"
)


@dataclass(frozen=True)
class TextParity:
    """Agreement of the text side with open_clip.

    Attributes:
        difference: largest absolute difference of an entry of a unit-length embedding.
        texts: number of texts whose tokens are the same.
    """

    difference: float
    texts: int


@dataclass(frozen=True)
class ExportResult:
    """A new bundle, and how closely its graph follows PyTorch.

    Attributes:
        bundle: the bundle.
        parity: the largest differences.
        gradient_difference: largest difference of a gradient, relative to the largest gradient of its
            tunable; None without a pull-back graph.
        case_summary: the batches and tunables that were compared, in words.
        notes: what a reader should check, in sentences.
        text: agreement of the text side; None where the classes are part of the graph.
    """

    bundle: Bundle
    parity: Parity
    case_summary: str
    gradient_difference: float | None = None
    notes: tuple[str, ...] = ()
    text: TextParity | None = None


def export_model(request: Request, out: Path, *, overwrite: bool = False) -> ExportResult:
    """Export a model to a new bundle at `out`; nothing is written unless the graph is verified.

    Raises:
        ExportError: the model is unknown or cannot be exported, the weights do not fit, or the graph does not
            compute what PyTorch does.
        OutputError: `out` cannot be written, or something is in the way.
    """
    check_writable(out, overwrite=overwrite)
    if request.weights is not None:
        request = replace(request, weights=locate_weights(request.weights))
    prepared = read_preparation(request.weights, request.images)
    model, weights = create_model(request)
    _check_size(model)
    images, side = request.images, request.image_size
    if prepared is not None:
        images, side = prepared.combine(images), prepared.side if side is None else side
    config = resolve_images(model, images)
    family = read_family(model, read_image_format(config, side, pixels=request.pixels))
    if prepared is not None and request.image_size is None:
        prepared.check_side(family.image_size)
    norms = choose_norms(family, request.norms, request.model)
    weight, bias = family.head
    manifest = Manifest(
        model=_name_model(request, model),
        preprocessing=read_preprocessing(config, family.image_size),
        classes=len(weight),
        norms=norms,
        **family.describe(norms),
        **_list_classes(request, model, weights, len(weight)),
    )
    with folder_beside(out) as folder:
        graphs = write_image_graphs(family, manifest, folder, gradients=request.gradients)
        provenance = _record_provenance(request, model, config, weights, graphs.parity, prepared)
        files: Writers = {
            **graphs.files,
            "head.npz": lambda path: path.write_bytes(to_npz(weight=weight, bias=bias)),
        }
        manifest = replace(graphs.manifest, provenance=provenance)
        bundle = create(out, manifest, files, overwrite=overwrite)
    notes = _list_notes(request, weights, manifest, prepared)
    return ExportResult(bundle, graphs.parity, graphs.case_summary, graphs.gradient_difference, notes)


def _list_classes(request: Request, model: Any, weights: LoadedWeights, classes: int) -> dict[str, Any]:
    """Return identifiers and names of the classes: those asked for, or those that the weights surely have."""
    labels: tuple[Labels | None, Labels] | None = None
    if request.classes_file is not None:
        labels = read_class_names(request.classes_file, classes)
    elif request.imagenet_classes:
        labels = find_imagenet_classes(classes)
        if labels is None:
            raise ExportError(
                f"this model has {classes} classes, and none of ImageNet's sets has so many; give their "
                "names with --classes FILE"
            )
    elif weights.settings is not None:
        labels = read_class_labels(weights.settings, classes)
    elif request.model == DEMO_MODEL and request.weights is None:
        labels = DEMO_CLASSES, DEMO_CLASSES
    elif not weights.own_classes:
        labels = find_imagenet_classes(classes)
    elif not request.random and request.weights is None:
        labels = read_own_labels(model.pretrained_cfg, classes)
    identifiers, names = labels or (None, None)
    return {"class_ids": identifiers, "class_names": names}


def _check_size(model: Any) -> None:
    size = sum(4 * parameter.numel() for parameter in model.parameters())
    if size > MAX_GRAPH_BYTES:
        raise ExportError(
            f"the weights have {size / 2**30:.1f} GiB; an ONNX file holds less than 2 GiB, and bundles "
            "do not use external data: choose a smaller model"
        )


def _name_model(request: Request, model: Any) -> str:
    """Return the name of the model for tables; a folder on this machine is none."""
    return (
        str(model.pretrained_cfg["architecture"]) if request.model.startswith("local-dir:") else request.model
    )


def _record_provenance(
    request: Request,
    model: Any,
    config: dict[str, Any],
    weights: LoadedWeights,
    parity: Parity,
    prepared: FilePreparation | None,
) -> dict[str, Any]:
    """Return all that is needed to make the bundle again."""
    return {
        "weights": weights.description,
        "weights_sha256": weights.sha256,
        "weights_key": weights.key,
        "timm_tag": getattr(model, "pretrained_cfg", {}).get("tag") or "",
        "mean": list(config["mean"]),
        "std": list(config["std"]),
        "crop_pct": config["crop_pct"],
        "options": sorted(request.images.given),
        "image_settings": prepared.file if prepared else "",
        "image_settings_sha256": prepared.sha256 if prepared else "",
        "notes": list(weights.notes),
        "max_abs_difference": asdict(parity),
        "versions": list_versions(),
    }


def _list_notes(
    request: Request, weights: LoadedWeights, manifest: Manifest, prepared: FilePreparation | None
) -> tuple[str, ...]:
    """Return what a reader of the export should check, in sentences."""
    notes = list(weights.notes)
    if prepared is not None:
        notes.append(prepared.describe(request.images))
    elif request.weights is not None and not {"mean", "std"} & request.images.given.keys():
        notes.append(
            "the file does not tell how its images were prepared, so mean, std, crop and interpolation are "
            "those of timm's configuration; if the training differed, give --mean, --std, --crop-pct and "
            "--interpolation"
        )
    is_named = request.classes_file is not None or request.imagenet_classes
    if manifest.class_names is not None and weights.settings is not None and not is_named:
        notes.append(
            f"the classes are named by id2label in {weights.settings.name}, which lies beside the weights"
            f"{_DUPLICATES if manifest.class_ids is None else ''}"
        )
    elif manifest.class_ids is None and not request.random:
        notes.append(
            "the classes have no names, because the weights may be of any; name them with --classes FILE, or "
            "as ImageNet's with --classes imagenet"
        )
    return tuple(notes)
