"""Request of an export, and the PyTorch model that it asks for."""

from __future__ import annotations

import difflib
import hashlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import timm
import torch
from timm.models import load_model_config_from_hf, parse_model_name

from ..data.demo import DEMO_MODEL
from ..engine.errors import ExportError, reason
from ..engine.ordinary_files import read_json
from .clip_models import check_activation, check_classifier, describe_activation
from .demo_model import DEMO_WEIGHTS, create_demo_model
from .families import takes_image_size
from .image_format import ImageOptions
from .weights import LoadedWeights, load_weights
from .weights_fit import describe_resampling


@dataclass(frozen=True)
class Request:
    """Request of an export: a model and its options.

    Attributes:
        model: a timm model name, `hf-hub:` or `local-dir:` with a place, or the name of the demo model.
        weights: a file; None takes timm's pretrained weights (or the shipped ones of the demo model).
        random: keep the random initial weights instead: for speed measurements and tests.
        classes_file: identifiers of the classes, one per line; None takes ImageNet's for timm's own weights.
        num_classes: number of classes; None is the model's own.
        image_size: side of the square input in pixels; None is the model's own.
        norms: blocks, counted from 0 (in residual networks over all stages), whose norms become tunable;
            None is all of them.
        gradients: add a pull-back graph, which methods that are not forward-only need.
        pixels: make an addend to the images tunable, too.
        imagenet_classes: name the classes as ImageNet's, whatever the weights are.
        weights_key: dictionary of the file that holds the weights, or prefix of their names; None takes what
            fits.
        images: preparation of images where it differs from timm's configuration.
    """

    model: str
    weights: Path | None = None
    random: bool = False
    classes_file: Path | None = None
    num_classes: int | None = None
    image_size: int | None = None
    norms: tuple[int, ...] | None = None
    gradients: bool = False
    pixels: bool = False
    imagenet_classes: bool = False
    weights_key: str | None = None
    images: ImageOptions = field(default_factory=ImageOptions)

    @property
    def weights_file(self) -> Path | None:
        """The file that weights are read from, or None where there is none."""
        if self.random:
            return None
        return self.weights or (DEMO_WEIGHTS if self.model == DEMO_MODEL else None)


def create_model(request: Request) -> tuple[Any, LoadedWeights]:
    """Create the PyTorch model in eval mode, and say where its weights come from.

    Raises:
        ExportError: timm does not know it, its weights are unavailable or do not fit, or they are not those
            of a classifier.
    """
    _check_together(request)
    file = request.weights_file
    if request.model == DEMO_MODEL:
        model = create_demo_model()
    else:
        model = _create_timm_model(request, pretrained=file is None and not request.random)
    if file is not None:
        weights = load_weights(model, file, request.weights_key, resample=request.image_size is not None)
        note = describe_activation(model)
        weights = replace(weights, notes=(*weights.notes, *([note] if note else [])))
    elif request.random:
        weights = LoadedWeights("random")
    else:
        check_activation(request.model, model)
        weights = _describe_pretrained(request, model)
    if not request.random and request.classes_file is None:
        check_classifier(request.model, model)
    return model.eval(), weights


def _check_together(request: Request) -> None:
    """Refuse options that exclude each other or have no effect."""
    if request.weights is not None and request.random:
        raise ExportError(
            f"expected random weights or those of {request.weights}, found both; leave one of them out"
        )
    if request.weights_key is not None and request.weights is None:
        raise ExportError("--weights-key goes with --weights FILE")
    if request.imagenet_classes and request.classes_file is not None:
        raise ExportError(f"expected ImageNet's classes or those of {request.classes_file}; choose one")
    if request.model == DEMO_MODEL and (request.num_classes, request.image_size) != (None, None):
        raise ExportError(
            f"{DEMO_MODEL} has a fixed image size and number of classes; leave --image-size and "
            "--num-classes out"
        )


def _create_timm_model(request: Request, pretrained: bool) -> Any:
    name, architecture = request.model, _find_architecture(request.model)
    if not timm.is_model(architecture):
        similar = difflib.get_close_matches(name, timm.list_models(), 5)
        hint = f"did you mean {', '.join(similar)}?" if similar else "timm.list_models() lists all models"
        raise ExportError(f"timm {timm.__version__} has no model {architecture!r}; {hint}")
    options: dict[str, Any] = {"num_classes": request.num_classes}
    if takes_image_size(architecture):
        options["img_size"] = request.image_size
    options = {key: value for key, value in options.items() if value is not None}
    try:
        model = timm.create_model(name, pretrained=pretrained, **options)
    except Exception as error:  # downloads and architectures fail in many ways
        raise ExportError(
            f"timm cannot create {name} with {options}: {reason(error)}; without a "
            "network, give the weights as a file with --weights"
        ) from error
    classes = model.pretrained_cfg.get("num_classes")
    if pretrained and model.num_classes != classes:
        raise ExportError(
            f"timm's pretrained {name} has {classes} classes, not {model.num_classes}: its classifier would "
            "be random; give weights that have one with --weights"
        )
    return model


def _find_architecture(name: str) -> str:
    """Return the name of a model's architecture, which a place on the hub or a folder says in a file.

    Raises:
        ExportError: the name has another form, or the file cannot be read.
    """
    try:
        source, place = parse_model_name(name)
        if source == "hf-hub":
            return str(load_model_config_from_hf(place)[1])
        if source == "local-dir":
            return str(read_json(Path(place, "config.json"))["architecture"])
        return str(place)
    except Exception as error:  # downloads and damaged files fail in many ways
        raise ExportError(
            f"cannot find the model {name!r}: {reason(error)}; expected a name of timm, hf-hub:OWNER/NAME, "
            "or local-dir:FOLDER with a config.json that timm has written"
        ) from error


def _describe_pretrained(request: Request, model: Any) -> LoadedWeights:
    config = model.pretrained_cfg
    source, place = parse_model_name(request.model)
    own = source == "local-dir" or (source == "hf-hub" and not place.startswith("timm/"))
    described = f"timm's pretrained, tag {config.get('tag') or 'default'}"
    if source is not None:
        described = f"{source}:{Path(place).name if source == 'local-dir' else place}"
    notes: tuple[str, ...] = ()
    size, side = config["input_size"][-1], request.image_size
    if side is not None and side != size and hasattr(model, "pos_embed"):
        notes = (describe_resampling(size, side),)
    return LoadedWeights(described, _hash_tensors(model), own_classes=own, notes=notes)


def _hash_tensors(model: Any) -> str:
    """Return the SHA-256 of all names and values of a model's tensors, in order of the names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
