"""`fozo corrupt`."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..engine.bundle.preprocessing import INTERPOLATIONS
from ..engine.errors import InputError
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
    help="Processes that run at the same time; default: as many as processors. Results do not depend on it.",
)
@QUIET
def corrupt(
    clean: Path,
    out: Path,
    corruptions: tuple[str, ...] | None,
    quality: int | None,
    processes: int | None,
    frost_textures: Path | None,
    quiet: bool,
    **options: Any,
) -> None:
    """Corrupt the images of CLEAN_DIR, one folder per class, into OUT_DIR, laid out as ImageNet-C is.

    The corruptions are fozo's own, from the published parameters: not the official files, and every result on
    them says so. Interrupted, the same command goes on where it was.

    \b
    Examples:
      fozo corrupt CLEAN_DIR OUT_DIR
      fozo corrupt CLEAN_DIR OUT_DIR --severities 1-5 --frost-textures DIR
      fozo adapt --dataset imagenet-c --data OUT_DIR
    """
    from ..engine.runtime.cpu import available_cpus
    from ..eval.datasets.corrupt_dataset import PUBLISHED_QUALITY, Recipe, prepare
    from ..eval.datasets.domain import IMAGENET_C

    left_out = () if corruptions or frost_textures else ("frost",)
    chosen = corruptions or tuple(name for name in IMAGENET_C if name not in left_out)
    if quality is not None and options["format"] != "jpeg":
        raise InputError("--quality goes with --format jpeg; leave it out")
    if frost_textures is not None and "frost" not in chosen:
        raise InputError(
            "--frost-textures would do nothing: frost is not among the corruptions; leave it out"
        )
    recipe = Recipe(
        chosen, quality=PUBLISHED_QUALITY if quality is None else quality, textures=frost_textures, **options
    )
    work = prepare(clean, out, recipe)
    click.echo(
        f"{len(work.targets):,} images, {len(chosen)} corruptions, severity "
        f"{', '.join(map(str, work.recipe.severities))}: {work.files:,} files"
    )
    if left_out:
        click.echo("Without frost, which needs its textures: --frost-textures DIR")
    new = _write(work, processes or available_cpus(), quiet)
    kept = f"; {work.files - new:,} were there already" if new < work.files else ""
    click.echo(f"{out}: {new:,} files written{kept}. Generated, not the official ImageNet-C.")


def _write(work: Work, processes: int, quiet: bool) -> int:
    from ..eval.datasets.corrupt_dataset import write

    new, done, each = 0, 0, len(work.recipe.corruptions)
    try:
        with Progress(work.files, quiet, "files") as advance, closing(write(work, processes)) as written:
            for count in written:
                new, done = new + count, done + each
                advance(each)
    except BaseException:
        click.echo(
            f"Incomplete: {done:,} of {work.files:,} files are in {work.out}; repeat the command to go on"
        )
        raise
    return new
