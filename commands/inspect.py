"""`fozo inspect`."""

from __future__ import annotations

from pathlib import Path

import click

from .bundles import description
from .options import BUNDLE, json_option


@click.command()
@BUNDLE
@json_option("Print the manifest.")
def inspect(bundle: Path, as_json: bool) -> None:
    """Show what a BUNDLE is, after checking the hashes of all its files."""
    from ..engine.bundle.bundle import Bundle

    opened = Bundle.open(bundle)
    for name in opened.manifest.files:
        opened.file(name)
    click.echo(opened.manifest.to_json().decode().rstrip() if as_json else description(opened))
