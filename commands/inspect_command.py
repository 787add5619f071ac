"""`fozo inspect`."""

from __future__ import annotations

from pathlib import Path

import click

from .options import BUNDLE, json_option


@click.command()
@BUNDLE
@json_option("Print the manifest.")
def inspect(bundle: Path, as_json: bool) -> None:
    """Describe a BUNDLE (default: ./bundle), after checking the hashes of all its files."""
    from ..engine.bundle.bundle import Bundle
    from ..engine.bundle.description import describe_bundle

    opened = Bundle.open(bundle)
    for name in opened.manifest.files:
        opened.file(name)
    click.echo(opened.manifest.to_json().decode().rstrip() if as_json else describe_bundle(opened))
