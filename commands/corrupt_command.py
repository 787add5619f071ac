"""`fozo corrupt`."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..engine.bundle.preprocessing import INTERPOLATIONS
from ..engine.errors import InputError
from .image_options import on_error_option, print_notes, reading_options, take_reading
from .options import CORRUPTIONS, FOLDER, FROST_TEXTURES, QUIET, SEVERITIES, seed_option
from .progress import Progress

if TYPE_CHECKING:
    from ..eval.datasets.corrupt_dataset import Work


@click.command()
@click.argument("clean", type=FOLDER, metavar="CLEAN_DIR")
@click.argument("out", type=FOLDER, metavar="OUT_DIR")
@CORRUPTIONS
@SEVERITIES
@FROST_TEXTURES
@seed_option("Seed of the corruptions; fozo adapt --generate-from with the same seed sees the same pixels.")
@click.option(
    "--resize",
    type=click.IntRange(1),
    default=256,
    show_default=True,
    help="Length in pixels to which the shorter side of a clean image is resized first.",
)
@click.option(
    "--size",
    type=click.IntRange(1),
    default=224,
    show_default=True,
    help="Side in pixels of the square that is then cut from its middle.",
)
@click.option(
    "--interpolation",
    type=click.Choice(INTERPOLATIONS),
    default="bilinear",
    show_default=True,
    help="Filter for resizing.",
)
@click.option(
    "--format",
    type=click.Choice(["jpeg", "png"]),
    default="jpeg",
    show_default=True,
    help="Format of the files; png is lossless and several times as large.",
)
@click.option(
    "--quality",
    type=click.IntRange(1, 100),
    help="JPEG quality; default: 85, as ImageNet-C was published.",
)
@click.option(
    "--processes",
    type=click.IntRange(1),
    help="Number of processes; default: one per processor. Results do not depend on it.",
)
@reading_options
@on_error_option(": no copy of it is written.")
@QUIET
def corrupt(
    clean: Path,
    out: Path,
    corruptions: tuple[str, ...] | None,
    quality: int | None,
    processes: int | None,
    frost_textures: Path | None,
    on_error: str,
    quiet: bool,
    **options: Any,
) -> None:
    """Write corrupted copies of the images in CLEAN_DIR, one folder per class, to OUT_DIR.

    OUT_DIR gets ImageNet-C's layout. The corruptions are fozo's own, with the published parameters. They
    are not the official files, and every result on them says so. Repeat an interrupted command to
    continue it.

    \b
    Examples:
      fozo corrupt CLEAN_DIR OUT_DIR
      fozo corrupt CLEAN_DIR OUT_DIR --severities 1-5 --frost-textures DIR
      fozo adapt --dataset imagenet-c --data OUT_DIR
    """
    from ..data.image_reader import ImageReader, describe_files
    from ..engine.runtime.cpu import count_cpus
    from ..eval.datasets.corrupt_dataset import PUBLISHED_QUALITY, Recipe, list_default_corruptions, prepare

    names = corruptions or list_default_corruptions(frost_textures)
    if quality is not None and options["format"] != "jpeg":
        raise InputError("--quality goes with --format jpeg; leave it out")
    if frost_textures is not None and "frost" not in names:
        raise InputError(
            "--frost-textures would have no effect: frost is not among the corruptions; leave it out"
        )
    quality = PUBLISHED_QUALITY if quality is None else quality
    reader = ImageReader(take_reading(options))
    recipe = Recipe(names, quality=quality, textures=frost_textures, reading=reader.reading, **options)
    work = prepare(clean, out, recipe, reader, skip=on_error == "skip")
    print_notes(describe_files([reader]))
    click.echo(
        f"{len(work.targets):,} images, {len(names)} corruption{'s' * (len(names) > 1)}, severity "
        f"{', '.join(map(str, work.recipe.severities))}: {work.files:,} files"
    )
    if corruptions is None and frost_textures is None:
        click.echo("Without frost, which needs its textures: --frost-textures DIR")
    count = _write(work, processes or count_cpus(), quiet)
    existing = f"; {work.files - count:,} were there already" if count < work.files else ""
    click.echo(f"{out}: {count:,} files written{existing}. Generated, not the official ImageNet-C.")


def _write(work: Work, processes: int, quiet: bool) -> int:
    """Write the missing files and return how many there were."""
    from ..eval.datasets.corrupt_dataset import write

    new, done, step = 0, 0, len(work.recipe.corruptions)
    try:
        with Progress(work.files, quiet, "files") as advance, closing(write(work, processes)) as counts:
            for count in counts:
                new, done = new + count, done + step
                advance(step)
    except BaseException:
        click.echo(
            f"Incomplete: {done:,} of {work.files:,} files are in {work.out}; repeat the command to continue"
        )
        raise
    return new
