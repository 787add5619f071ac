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

    The hashes of all files are checked, and every graph is loaded once, as predict and adapt load it.
    """
    from ..engine.bundle.bundle import Bundle
    from ..engine.bundle.description import describe_bundle
    from ..engine.runtime.network import Network
    from ..engine.runtime.onnx_file import check_graph_file

    opened = Bundle.open(bundle)
    for name in opened.manifest.files:
        opened.file(name)
    for precision in opened.manifest.graphs:
        Network.open(opened, precision, workers=1).close()
    for graph in opened.manifest.pull_backs.values():
        check_graph_file(opened.file(graph.file))
    if as_json:
        echo_json(opened.manifest.to_json().decode().rstrip())
    else:
        click.echo(describe_bundle(opened))
