"""Options that choose the classes of a bundle, or make some from names."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..engine.errors import InputError
from .options import Decorator

if TYPE_CHECKING:
    from ..engine.bundle.bundle import Bundle
    from ..engine.bundle.head import Head
    from ..engine.model import FloatArray

HEAD = click.option(
    "--head",
    metavar="NAME",
    help="Classes to predict among, for bundles that make them from texts (fozo classes); default: the"
    " bundle's.",
)


def template_options(command: Decorator) -> Decorator:
    """Add the options that say from which templates classes are made."""
    decorators = (
        click.option(
            "--template",
            "templates",
            multiple=True,
            metavar="TEXT",
            help="Text with {} for the name of a class; repeat it to average over several. Default:"
            " 'a photo of a {}.'",
        ),
        click.option(
            "--templates",
            "template_list",
            metavar="FILE|imagenet-7|imagenet-80",
            help="File with templates, one per line, or the 7 or 80 published for CLIP on ImageNet.",
        ),
    )
    for decorator in reversed(decorators):
        command = decorator(command)
    return command


def resolve_templates(
    templates: tuple[str, ...], template_list: str | None, default: str | None = None
) -> tuple[str, ...]:
    """Return the templates of both options, or the default one; none of them gives none.

    Raises:
        InputError: both are given, or the file cannot be read.
    """
    from ..data.text_lists import read_entries
    from ..engine.text.imagenet_templates import PRESETS

    if templates and template_list is not None:
        raise InputError("expected --template or --templates, found both; choose one")
    if template_list is None:
        return templates or (() if default is None else (default,))
    if template_list in PRESETS:
        return PRESETS[template_list]
    return tuple(line for _, line in read_entries(Path(template_list), "list of templates"))


def read_context_file(path: Path) -> FloatArray:
    """Return learnt vectors, float32 `[M, D]`, from a file of NumPy or safetensors.

    Raises:
        InputError: the file cannot be read, or has no such vectors.
    """
    if path.suffix == ".safetensors":
        from ..export.safetensors_context import read_safetensors_context

        return read_safetensors_context(path)
    from ..data.context_file import read_context

    return read_context(path)


def make_named_classes(
    bundle: Bundle,
    names: str | None,
    templates: tuple[str, ...],
    template_list: str | None,
    workers: int | None,
) -> Head | None:
    """Return classes made from names that are separated by commas, or None if none are given.

    Raises:
        InputError: templates are given without names, or something cannot be used.
        BundleError: the bundle has no text side.
    """
    from ..engine.runtime.class_head import make_head
    from ..engine.text.templates import DEFAULT_TEMPLATE

    if names is None:
        if templates or template_list is not None:
            raise InputError("--template and --templates go with --names; a head has its own")
        return None
    texts = resolve_templates(templates, template_list, DEFAULT_TEMPLATE)
    return make_head(bundle, [name.strip() for name in names.split(",")], texts, workers=workers)
