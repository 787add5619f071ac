"""Requests of `fozo export`: a model of timm, or a CLIP model of open_clip."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from ..engine.errors import InputError

if TYPE_CHECKING:
    from ..export.exporter import ExportResult

IMAGENET = "imagenet"  # stands for ImageNet's classes where a file is expected
_ONLY_TIMM = ("model", "num_classes", "image_size")
_ONLY_CLIP = ("activation", "templates", "template_list")


def check_clip_options(context: click.Context) -> None:
    """Refuse options that do not go with `--clip`, or only with it.

    Raises:
        InputError: one was given.
    """
    with_clip = context.params["clip"] is not None
    for parameter in context.command.params:
        name = parameter.name or ""
        if context.get_parameter_source(name) is not ParameterSource.COMMANDLINE:
            continue
        if with_clip and name in _ONLY_TIMM:
            raise InputError(f"{parameter.opts[0]} is for models of timm; leave it out with --clip")
        if not with_clip and name in _ONLY_CLIP:
            raise InputError(f"{parameter.opts[0]} goes with --clip NAME")


def explain_missing_package(error: ImportError, extra: str) -> InputError:
    """Return the error that says how to install what an export needs."""
    needs = "PyTorch and timm" if extra == "export" else "PyTorch and open_clip"
    return InputError(f'export needs {needs} ({error}); install them with: pip install "fozo[{extra}]"')


def export_timm_model(
    model: str, class_list: Path | None, options: dict[str, Any], out: Path, *, overwrite: bool
) -> ExportResult:
    """Export a model of timm.

    Args:
        model: its name.
        class_list: file of classes, `imagenet`, or None.
        options: further fields of the request.
        out: where the bundle shall be.
        overwrite: replace a bundle that is already there.
    """
    try:
        from ..export.download import announce_download
        from ..export.exporter import export_model
        from ..export.model_request import Request
    except ImportError as error:
        raise explain_missing_package(error, "export") from error
    imagenet = class_list is not None and str(class_list) == IMAGENET
    request = Request(
        model, classes_file=None if imagenet else class_list, imagenet_classes=imagenet, **options
    )
    if announcement := announce_download(request):
        click.echo(announcement)
    return export_model(request, out, overwrite=overwrite)


def export_clip_model(
    name: str,
    activation: str | None,
    templates: tuple[str, ...],
    class_list: Path | None,
    options: dict[str, Any],
    out: Path,
    *,
    overwrite: bool,
) -> ExportResult:
    """Export a CLIP model of open_clip.

    Args:
        name: its name.
        activation: activation of the weights, or None where they tell it.
        templates: texts with `{}` for the name of a class; none is the default.
        class_list: file of names, `imagenet`, or None.
        options: further fields of the request.
        out: where the bundle shall be.
        overwrite: replace a bundle that is already there.
    """
    try:
        from ..export.clip_exporter import export_clip
        from ..export.clip_source import ClipRequest
    except ImportError as error:
        raise explain_missing_package(error, "clip") from error
    imagenet = class_list is None or str(class_list) == IMAGENET
    classes = None if imagenet else class_list
    request = ClipRequest(name, activation=activation, classes_file=classes, templates=templates, **options)
    return export_clip(request, out, overwrite=overwrite)
