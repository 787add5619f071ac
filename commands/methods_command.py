"""`fozo methods`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from .console import echo_json

if TYPE_CHECKING:
    from ..engine.registry import AnyMethod, Option

COMMON = "common"  # the name for the options that every method has


@click.command("methods")
@click.argument("name", required=False)
@click.option("--json", "form", flag_value="json", help="Print JSON.")
@click.option("--markdown", "form", flag_value="markdown", help="Print Markdown tables.")
def list_methods(name: str | None, form: str | None) -> None:
    """List all methods, or the options of the method NAME; then the options that every method has.

    fozo methods common lists only the latter.
    """
    from dataclasses import asdict

    from ..engine.registry import METHODS, describe, list_common_options, method

    selected = {} if name == COMMON else {name: method(name)} if name else dict(METHODS)
    options = {key: describe(value) for key, value in selected.items()}
    if form != "markdown" or name == COMMON:
        options[COMMON] = list_common_options()
    if form == "json":
        plain = {key: [asdict(option) for option in values] for key, values in options.items()}
        echo_json(json.dumps(plain, indent=1, ensure_ascii=False))
    elif form == "markdown":
        click.echo("| option | default | kind | meaning |\n|---|---|---|---|")
        for option in (option for values in options.values() for option in values):
            kind = option.kind.replace("|", ", ")
            click.echo(f"| `{option.name}` | `{option.default}` | {kind} | {option.help} |")
    else:
        for key, value in selected.items():
            about = next(iter((type(value).__doc__ or "").splitlines()), "")
            click.echo(f"{key:14s} {_describe_cost(value)} per batch. {about}{_describe_preset(value)}")
            _echo_options(options[key] if name else [])
        click.echo("\nEvery method has:")
        _echo_options(options[COMMON])


def _describe_cost(method: AnyMethod) -> str:
    """Return the forwards of a step, views, and its gradients if it is not forward-only."""
    from ..engine.registry import count_pull_backs, count_views

    forwards, pull_backs = f"{method.forwards} forward(s)", count_pull_backs(method)
    if count_views(method) > 1:
        return f"{forwards}, one for each view of an image,"
    if not pull_backs:
        return forwards
    both = f"{forwards} and {pull_backs:g}" if method.forwards else f"{pull_backs:g}"
    return f"{both} gradient(s), not forward-only,"


def _describe_preset(method: AnyMethod) -> str:
    """Return the options in which a registered method differs from the defaults of its class."""
    from ..engine.registry import get_options

    defaults = get_options(type(method)())
    changed = [f"{name}={value}" for name, value in get_options(method).items() if value != defaults[name]]
    return f" With {', '.join(changed)}." if changed else ""


def _echo_options(options: Sequence[Option]) -> None:
    for option in options:
        click.echo(f"  {option.name} = {option.default}  ({option.kind})\n      {option.help}")
