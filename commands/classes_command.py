"""`fozo classes`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from ..engine.errors import InputError
from .console import echo_json
from .head_options import read_context_file, resolve_templates, template_options
from .options import BUNDLE, FILE, WORKERS, json_option

if TYPE_CHECKING:
    from ..engine.bundle.bundle import Bundle


@click.command()
@BUNDLE
@click.argument("names", type=FILE, required=False)
@click.option("--as", "head", metavar="NAME", help="Name of the new head; one of this name is replaced.")
@template_options
@click.option(
    "--ids/--no-ids",
    default=None,
    help="Lines of NAMES begin with an identifier, such as the name of a class folder; or do not. Default:"
    " they do if all have a tab or begin with a WordNet identifier.",
)
@click.option(
    "--context",
    type=FILE,
    metavar="FILE",
    help="File with vectors that were learnt elsewhere and stand in front of every name instead of words:"
    " .npz or .safetensors with ctx [M, D], as CoOp's. The default template is then '{}.'",
)
@click.option("--default", is_flag=True, help="Use these classes where no --head is given.")
@WORKERS
@json_option("Print the heads as JSON.")
def classes(
    bundle: Path,
    names: Path | None,
    head: str | None,
    templates: tuple[str, ...],
    template_list: str | None,
    ids: bool | None,
    context: Path | None,
    default: bool,
    workers: int | None,
    as_json: bool,
) -> None:
    """Make classes from the NAMES in a text file, for a BUNDLE exported with --clip. Needs no PyTorch.

    NAMES has one class per line: a name, or an identifier, a tab and a name. The classes are stored in the
    bundle as a head, which commands choose with --head. Without NAMES, the heads of the bundle are listed.

    \b
    Examples:
      fozo classes clip pets.txt --template 'a photo of a {}, a type of pet.' --as pets
      fozo classes clip wnids.txt --templates imagenet-80 --as imagenet-ensemble --default
      fozo classes clip wnids.txt --context coop.npz --as coop
      fozo classes clip
    """
    from ..engine.bundle.bundle import Bundle
    from ..engine.runtime.text_encoder import require_text
    from ..engine.text.templates import DEFAULT_TEMPLATE

    opened = Bundle.open(bundle)
    require_text(opened)
    if names is None:
        _check_listing()
        _print_heads(opened, list(opened.manifest.heads), as_json)
        return
    if head is None:
        raise InputError(f"expected a name for the classes of {names}, found none; give one with --as NAME")
    texts = resolve_templates(templates, template_list, "{}." if context else DEFAULT_TEMPLATE)
    changed = _add_head(opened, names, head, texts, ids, context, default, workers)
    _print_heads(changed, [head], as_json)
    if not as_json:
        used = changed.manifest.head_name == head
        click.echo("It is the bundle's default." if used else f"Use it with --head {head}.")


def _check_listing() -> None:
    """Refuse options that have no effect without NAMES."""
    context = click.get_current_context()
    flags = [
        option.opts[0]
        for option in context.command.params
        if option.name not in ("bundle", "as_json")
        and context.get_parameter_source(option.name or "") is ParameterSource.COMMANDLINE
    ]
    if flags:
        raise InputError(f"expected NAMES, a file with the names of classes, with {flags[0]}, found none")


def _add_head(
    bundle: Bundle,
    names: Path,
    head: str,
    templates: tuple[str, ...],
    ids: bool | None,
    context: Path | None,
    default: bool,
    workers: int | None,
) -> Bundle:
    """Make a head, store it, and return the changed bundle."""
    from dataclasses import replace

    from ..data.class_names import read_names
    from ..engine.files import hash_file
    from ..engine.runtime.class_head import make_head

    identifiers, class_names = read_names(names, ids)
    vectors = None if context is None else read_context_file(context)
    made = make_head(bundle, class_names, templates, class_ids=identifiers, context=vectors, workers=workers)
    record: dict[str, Any] = {**made.record, "names": names.name}
    if context is not None:
        record |= {"context": context.name, "context_sha256": hash_file(context)}
    return bundle.with_head(head, replace(made, record=record), default=default)


def _print_heads(bundle: Bundle, heads: list[str], as_json: bool) -> None:
    from ..engine.bundle.head_description import describe_heads
    from ..engine.records import to_dict

    manifest = bundle.manifest
    if as_json:
        entries = {name: to_dict(manifest.heads[name]) for name in heads}
        document = {"bundle": str(bundle.path), "default": manifest.head_name, "heads": entries}
        echo_json(json.dumps(document, indent=1, ensure_ascii=False))
        return
    for line in describe_heads(manifest, heads):
        click.echo(line)
    longest = [manifest.heads[name].record.get("longest_text") for name in heads]
    if len(heads) == 1 and manifest.text is not None and isinstance(longest[0], int):
        click.echo(f"The longest text has {longest[0]} of at most {manifest.text.context_length} tokens.")
