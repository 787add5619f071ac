"""`fozo source`."""

from __future__ import annotations

from pathlib import Path

import click

from .bundles import add_source, description
from .options import FOLDER


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("folder", type=FOLDER)
@click.option("--images", default=512, show_default=True, help="How many images to use.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of their choice.")
def source(bundle: Path, folder: Path, images: int, seed: int) -> None:
    """Compute the source statistics of a BUNDLE from a FOLDER of clean images. Needs no PyTorch.

    Every graph of the bundle gets its own, computed by that graph.
    """
    from ..engine.bundle.bundle import Bundle

    click.echo(description(add_source(Bundle.open(bundle), folder, images, seed)))
