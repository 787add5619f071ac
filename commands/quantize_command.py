"""`fozo quantize`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ..engine.errors import InputError
from ..quant.settings import CALIBRATORS, Options
from .bundles import add_integer_graph, add_source
from .image_options import on_error_option, print_notes, reading_options, take_reading
from .option_types import BitNames
from .options import BUNDLE, CALIBRATION_IMAGES, FOLDER, HELD_OUT_IMAGES, QUIET, SOURCE_IMAGES, seed_option


@click.command()
@BUNDLE
@click.argument("folder", type=FOLDER, required=False)
@click.option(
    "--calibration-images",
    "images",
    type=click.IntRange(1),
    default=CALIBRATION_IMAGES,
    show_default=True,
    help="Number of images for calibration.",
)
@click.option(
    "--held-out-images",
    "held_out",
    type=click.IntRange(1),
    default=HELD_OUT_IMAGES,
    show_default=True,
    help="Number of other images on which the result is compared with fp32.",
)
@SOURCE_IMAGES
@click.option(
    "--bits",
    type=BitNames(),
    default="int8",
    show_default=True,
    help="Bits of weights and activations, each from 3 to 8, like w6a6; int8 is w8a8. The precision has this"
    " name. They lie in registers of 8 bits, so memory and speed are those of int8. w4 is for small files:"
    " weights of 4 bits, two in a byte, and activations in float.",
)
@click.option(
    "--calibrator",
    type=click.Choice(CALIBRATORS),
    help="How a channel's range follows from its extremes in the calibration batches; default: percentile."
    " Not for w4 and ResNets, which have no such ranges.",
)
@click.option(
    "--weight-bits",
    type=click.Choice(["8", "7"]),
    help="Bits of weights and attention keys in int8, and with other --bits of those that meet bytes, like"
    " pixels; default: 8, or 7 where this processor's kernels may overflow. Take 7 for x86 without VNNI.",
)
@click.option(
    "--keep-float",
    multiple=True,
    metavar="PATTERN",
    help="Layers to leave in float, like blocks.7.mlp.fc2 or '*.attn.*'; repeat it.",
)
@click.option(
    "--portable",
    is_flag=True,
    help="Add <precision>-qdq too, like int8-qdq: the same in standard operators, for other runtimes.",
)
@click.option(
    "--sensitivity", is_flag=True, help="Measure and print the loss of accuracy that each layer causes alone."
)
@seed_option("Seed of the choice of images and of prompts.")
@reading_options
@on_error_option(": left out of the choice, and counted.")
@click.option(
    "--force",
    is_flag=True,
    help="Add the graph even if it is less accurate or slower, if its outputs are finite.",
)
@QUIET
def quantize(
    bundle: Path,
    folder: Path | None,
    images: int,
    held_out: int,
    weight_bits: str | None,
    sensitivity: bool,
    source_images: int,
    on_error: str,
    quiet: bool,
    **options: Any,
) -> None:
    """Add a graph with integer kernels to a BUNDLE, from a FOLDER of clean images. Needs no PyTorch.

    The result is compared with fp32 on images that were not used for calibration. It is refused if it loses
    too much accuracy, for int8 more than one point, or is slower on this machine; the bundle then stays
    unchanged. A bundle may have graphs of several bits.

    \b
    Examples:
      fozo quantize bundle CLEAN_IMAGES
      fozo quantize bundle CLEAN_IMAGES --bits w6a6
      fozo quantize bundle CLEAN_IMAGES --sensitivity --keep-float 'blocks.0.*'
    """
    from ..engine.bundle.bundle import Bundle
    from ..engine.bundle.description import describe_bundle
    from ..engine.bundle.manifest import PORTABLE_SUFFIX

    try:
        from ..data.image_reader import ImageReader, describe_files
        from ..data.source import choose_images
        from ..quant.quantization import QuantizationError  # noqa: F401  (fails before the work)
    except ImportError as error:
        raise InputError(
            f'quantize needs onnx ({error}); install it with: pip install "fozo[quant]"'
        ) from error
    reader, skip = ImageReader(take_reading(options)), on_error == "skip"
    if folder is not None:  # fails before the work, not after it
        choose_images(folder, source_images, options["seed"], reader, skip=skip)
    settings = Options(weight_bits=None if weight_bits is None else int(weight_bits), **options)
    changed, report = add_integer_graph(
        *(Bundle.open(bundle), folder, images, held_out, settings, sensitivity, quiet),
        reader=reader,
        skip=skip,
    )
    click.echo(report)
    precision = settings.bits.name
    added = [precision, precision + PORTABLE_SUFFIX] if settings.portable else [precision]
    changed = add_source(
        changed, folder, source_images, settings.seed, added, quiet, reader=reader, skip=skip
    )
    print_notes(describe_files([reader]))
    click.echo(describe_bundle(changed))
