"""Request of an export, and the PyTorch model that it asks for."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm

from ..engine.errors import ExportError, reason
from .demo_model import DEMO_MODEL, DEMO_WEIGHTS, create_demo_model
from .families import takes_image_size
from .weights import load_weights


@dataclass(frozen=True)
class Request:
    """Request of an export: a model and its options.

    Attributes:
        model: a timm model name, or the name of the demo model.
        weights: a file; None takes timm's pretrained weights (or the shipped ones of the demo model).
        random: keep the random initial weights instead: for speed measurements and tests.
        classes_file: identifiers of the classes, one per line; None takes ImageNet's where the number fits.
        num_classes: number of classes; None is the model's own.
        image_size: side of the square input in pixels; None is the model's own.
        norms: blocks, counted from 0 (in residual networks over all stages), whose norms become tunable;
            None is all of them.
        gradients: add a pull-back graph, which methods that are not forward-only need.
    """

    model: str
    weights: Path | None = None
    random: bool = False
    classes_file: Path | None = None
    num_classes: int | None = None
    image_size: int | None = None
    norms: tuple[int, ...] | None = None
    gradients: bool = False

    @property
    def weights_file(self) -> Path | None:
        """The file that weights are read from, or None where there is none."""
        if self.random:
            return None
        return self.weights or (DEMO_WEIGHTS if self.model == DEMO_MODEL else None)


def create_model(request: Request) -> Any:
    """Create the PyTorch model in eval mode.

    Raises:
        ExportError: timm does not know it, or its weights are unavailable or do not fit.
    """
    if request.weights is not None and request.random:
        raise ExportError(
            f"expected random weights or those of {request.weights}, found both; leave one of them out"
        )
    options = {"num_classes": request.num_classes}
    if takes_image_size(request.model):
        options["img_size"] = request.image_size
    options = {name: value for name, value in options.items() if value is not None}
    file = request.weights_file
    if request.model != DEMO_MODEL:
        model = _create_timm_model(request.model, pretrained=file is None and not request.random, **options)
    elif options:
        raise ExportError(
            f"{DEMO_MODEL} has a fixed image size and number of classes; leave --image-size and "
            "--num-classes out"
        )
    else:
        model = create_demo_model()
    if file is not None:
        load_weights(model, file)
    return model.eval()


def _create_timm_model(name: str, **options: Any) -> Any:
    if not timm.is_model(name):
        similar = difflib.get_close_matches(name, timm.list_models(), 5)
        hint = f"did you mean {', '.join(similar)}?" if similar else "timm.list_models() lists all models"
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
