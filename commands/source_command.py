"""`fozo source`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .bundles import add_source
from .head_options import HEAD
from .image_options import on_error_option, print_notes, reading_options, take_reading
from .options import BUNDLE, FOLDER, QUIET, SOURCE_IMAGES, seed_option


@click.command()
@BUNDLE
@click.argument("folder", type=FOLDER, required=False)
@SOURCE_IMAGES
@seed_option("Seed of the choice of images.")
@HEAD
@reading_options
@on_error_option(": left out of the choice, and counted.")
@QUIET
def source(
    bundle: Path,
    folder: Path | None,
    source_images: int,
    seed: int,
    head: str | None,
    on_error: str,
    quiet: bool,
    **reading: Any,
) -> None:
    """Compute the source statistics of a BUNDLE from a FOLDER of clean images. Needs no PyTorch.

    Every graph of the bundle computes its own statistics. The demonstration's bundle needs no FOLDER.
    """
    from ..data.image_reader import ImageReader, describe_files
    from ..engine.bundle.bundle import Bundle
    from ..engine.bundle.description import describe_bundle

    opened = Bundle.open(bundle, head)
    reader, skip = ImageReader(take_reading(reading)), on_error == "skip"
    changed = add_source(opened, folder, source_images, seed, quiet=quiet, reader=reader, skip=skip)
    print_notes(describe_files([reader]))
    click.echo(describe_bundle(changed))
