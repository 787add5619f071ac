"""`fozo export`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..engine.errors import InputError
from .bundles import add_source, description, quantized
from .options import CALIBRATION_IMAGES, FILE, FOLDER, HELD_OUT_IMAGES, Blocks

if TYPE_CHECKING:
    from ..engine.bundle.bundle import Bundle


@click.command()
@click.option(
    "--model",
    default="vit_base_patch16_224",
    show_default=True,
    help="A class-token ViT, DeiT or DINOv2 of timm, a ResNet with batch norms, or fozo_demo_vit, which ships"
    " with fozo.",
)
@click.option(
    "--weights", type=FILE, help="Weights file (safetensors or state dict); default: timm's pretrained."
)
@click.option(
    "--pretrained",
    "origin",
    flag_value="pretrained",
    default="pretrained",
    help="Take timm's pretrained weights (the default).",
)
@click.option(
    "--random-weights", "origin", flag_value="random", help="Keep random weights: only to measure speed."
)
@click.option(
    "--source", type=FOLDER, help="Folder of clean images, for the source statistics that FOZO needs."
)
@click.option("--source-images", default=512, show_default=True, help="How many of them to use.")
@click.option(
    "--class-ids", type=FILE, help="Class identifiers, one per line; default: ImageNet's where they fit."
)
@click.option(
    "--num-classes", type=click.IntRange(1), help="Number of classes of the weights; default: the model's."
)
@click.option(
    "--image-size", type=click.IntRange(1), help="Side of the input in pixels; default: the model's."
)
@click.option(
    "--norms",
    type=Blocks(),
    default="all",
    show_default=True,
    help="Blocks whose norms methods may tune: all, none, or blocks counted from 0, like 1-8 or 0,2-5; in a"
    " ResNet over all stages.",
)
@click.option(
    "--seed",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Seed of the choice of source images.",
)
@click.option(
    "--int8/--no-int8",
    default=True,
    show_default=True,
    help="Add an int8 graph as well, if clean images are given (see fozo quantize).",
)
@click.option(
    "--out", type=click.Path(path_type=Path), default="bundle", show_default=True, help="The new bundle."
)
@click.option("--overwrite", is_flag=True, help="Replace a bundle that is already there.")
def export(
    model: str,
    weights: Path | None,
    origin: str,
    source: Path | None,
    source_images: int,
    class_ids: Path | None,
    num_classes: int | None,
    image_size: int | None,
    norms: tuple[int, ...] | None,
    seed: int,
    int8: bool,
    out: Path,
    overwrite: bool,
) -> None:
    """Export a timm model to a bundle: ONNX graphs, head, preprocessing, source statistics.

    The fp32 graph is compared with PyTorch before anything is written, the int8 graph with the fp32 graph
    before it is added.
    """
    try:
        from ..data.source import choose_images
        from ..export.exporter import Request, export_model
    except ImportError as error:
        raise InputError(
            f'export needs PyTorch and timm ({error}); install them with: pip install "fozo[export]"'
        ) from error
    if source is not None:
        choose_images(source, source_images, seed)  # fails before the export, not after it
    click.echo(f"Exporting {model} to {out} …")
    request = Request(model, weights, origin == "random", class_ids, num_classes, image_size, norms)
    result = export_model(request, out, overwrite=overwrite)
    parity = result.parity
    click.echo(
        f"Verified against PyTorch at {result.checked}: largest absolute difference "
        f"{parity.logits:.2g} in logits, {parity.features:.2g} in features."
    )
    bundle = result.bundle
    if source is not None or model == "fozo_demo_vit":
        bundle = add_source(bundle, source, source_images, seed)
        if int8:
            bundle = _add_int8(bundle, source, source_images, seed)
    else:
        click.echo(
            f"No source statistics yet: FOZO needs them. Compute them with: fozo source {out} CLEAN_IMAGES"
        )
        if int8 and "batch_statistics" not in bundle.manifest.tunables:
            click.echo(f"No int8 graph yet. Make one with: fozo quantize {out} CLEAN_IMAGES")
    click.echo(description(bundle))


def _add_int8(bundle: Bundle, folder: Path | None, source_images: int, seed: int) -> Bundle:
    """The bundle with an int8 graph, or as it is where that is refused."""
    from ..quant.quantizer import Options, QuantizationError

    try:
        bundle, report = quantized(bundle, folder, CALIBRATION_IMAGES, HELD_OUT_IMAGES, Options(seed=seed))
    except (QuantizationError, InputError) as error:
        click.echo(f"No int8 graph: {error}")
        return bundle
    click.echo(report)
    return add_source(bundle, folder, source_images, seed, ["int8"])
