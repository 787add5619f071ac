"""`fozo source`."""

from __future__ import annotations

from pathlib import Path

import click

from .bundles import add_source
from .options import BUNDLE, FOLDER, QUIET, SOURCE_IMAGES, seed_option


@click.command()
@BUNDLE
@click.argument("folder", type=FOLDER, required=False)
@SOURCE_IMAGES
@seed_option("Seed of the choice of images.")
@QUIET
def source(bundle: Path, folder: Path | None, source_images: int, seed: int, quiet: bool) -> None:
    """Compute the source statistics of a BUNDLE from a FOLDER of clean images. Needs no PyTorch.

    Every graph of the bundle computes its own statistics. The demonstration's bundle needs no FOLDER.
    """
    from ..engine.bundle.bundle import Bundle
    from ..engine.bundle.description import describe_bundle

    changed = add_source(Bundle.open(bundle), folder, source_images, seed, quiet=quiet)
    click.echo(describe_bundle(changed))
