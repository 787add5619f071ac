"""`fozo inspect`."""

from __future__ import annotations

from pathlib import Path

import click

from .console import echo_json
from .options import BUNDLE, json_option


@click.command()
@BUNDLE
@json_option("Print the manifest.")
def inspect(bundle: Path, as_json: bool) -> None:
    """Describe a BUNDLE (default: ./bundle), after checking that it can be used.

    The hashes of all files are checked, and every graph is loaded once, as predict and adapt load it;
    so are those with gradients.
    """
    from ..engine.bundle.bundle import Bundle
    from ..engine.bundle.description import describe_bundle
    from ..engine.runtime.network import Network
    from ..engine.runtime.text_encoder import TextEncoder

    opened = Bundle.open(bundle)
    for name in opened.manifest.files:
        opened.file(name)
    for precision in opened.manifest.graphs:
        Network.open(opened, precision, workers=1).close()
    for precision in opened.manifest.pull_backs:
        Network.open(opened, precision, gradients=True, workers=1).close()
    if opened.manifest.text is not None:
        TextEncoder.open(opened, workers=1).close()
    if as_json:
        echo_json(opened.manifest.to_json().decode().rstrip())
    else:
        click.echo(describe_bundle(opened))
