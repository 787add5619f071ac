"""`fozo export`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..engine.bundle.preprocessing import CROP_MODES, INTERPOLATIONS
from ..engine.errors import InputError
from ..engine.names import ACTIVATIONS
from ..quant.settings import Options
from .bundles import add_integer_graph, add_source
from .export_requests import (
    check_clip_options,
    explain_missing_package,
    export_clip_model,
    export_timm_model,
)
from .head_options import resolve_templates, template_options
from .image_options import on_error_option, print_notes, reading_options, take_reading
from .option_types import Blocks, Channels
from .options import (
    CALIBRATION_IMAGES,
    FILE,
    FOLDER,
    HELD_OUT_IMAGES,
    PATH,
    QUIET,
    SOURCE_IMAGES,
    out_option,
    overwrite_option,
    seed_option,
)

if TYPE_CHECKING:
    from ..data.image_reader import ImageReader
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
    "--clip",
    metavar="NAME",
    help="Export a CLIP model of open_clip instead, such as ViT-B-16: image and text graphs, and classes made"
    " from names; needs --weights. Or fozo_demo_clip, a tiny CLIP trained on digits, which ships with fozo."
    " See docs/clip.md.",
)
@click.option(
    "--activation",
    type=click.Choice(ACTIVATIONS),
    help="With --clip: activation that the weights were trained with, where the file does not tell it.",
)
@template_options
@click.option(
    "--weights",
    type=PATH,
    help="Weights file: safetensors, a checkpoint of PyTorch, or Google's .npz, with names of timm or, for"
    " ViT and DeiT, of Hugging Face's transformers; or a folder that these have saved. Default: timm's"
    " pretrained.",
)
@click.option(
    "--weights-key",
    metavar="NAME",
    help="Dictionary of the checkpoint that holds the weights, such as model_ema, or the prefix of their"
    " names; default: what fits the model.",
)
@click.option(
    "--pretrained",
    "origin",
    flag_value="pretrained",
    default="pretrained",
    help="Use timm's pretrained weights (the default).",
)
@click.option(
    "--random-weights", "origin", flag_value="random", help="Use random weights: only to measure speed."
)
@click.option("--source", type=FOLDER, help="Folder of clean images for source statistics, which FOZO needs.")
@SOURCE_IMAGES
@click.option(
    "--classes",
    "class_list",
    type=FILE,
    metavar="FILE|imagenet",
    help="File with the identifiers of the classes, one per line, or imagenet for ImageNet's; default:"
    " ImageNet's for timm's own weights, else none. With --clip: names of the classes; default: ImageNet's.",
)
@click.option(
    "--num-classes", type=click.IntRange(1), help="Number of classes of the weights; default: the model's."
)
@click.option(
    "--image-size",
    type=click.IntRange(1),
    help="Side of the input in pixels; default: the model's. Position embeddings of weights for another size"
    " are resampled.",
)
@click.option(
    "--mean",
    type=Channels(),
    help="Mean of the images that the weights were trained with, scaled to 0..1: one number, or one per"
    " channel like 0.485,0.456,0.406. Default, also of the next four: preprocessor_config.json"
    " beside --weights, or else timm's for this model.",
)
@click.option("--std", type=Channels(), help="Standard deviation of these images, likewise.")
@click.option(
    "--crop-pct",
    type=click.FloatRange(0, 1, min_open=True),
    help="Part of the resized image's side that the crop keeps, as in timm.",
)
@click.option("--crop-mode", type=click.Choice(CROP_MODES), help="How images are cropped, as in timm.")
@click.option(
    "--interpolation", type=click.Choice(INTERPOLATIONS), help="Filter with which images are resized."
)
@click.option(
    "--norms",
    type=Blocks(),
    default="all",
    show_default=True,
    help="Blocks whose norms methods may tune: all, none, or blocks counted from 0, like 1-8 or 0,2-5; in a"
    " ResNet, counted over all stages.",
)
@seed_option("Seed of the choice of source images.")
@reading_options
@on_error_option(": left out of the choice, and counted.")
@click.option(
    "--int8/--no-int8",
    default=True,
    show_default=True,
    help="Add an int8 graph too, if clean images are given (see fozo quantize).",
)
@click.option(
    "--gradients",
    is_flag=True,
    help="Add a graph of exact gradients, for the methods that are not forward-only (align, tent, …).",
)
@click.option(
    "--pixels",
    is_flag=True,
    help="Let methods add to the pixels, too, which fozo tune --method bar and blackvip need; vision"
    " transformers only.",
)
@out_option("bundle", "Folder of the new bundle.", PATH)
@overwrite_option("Replace an existing bundle.")
@QUIET
def export(
    model: str,
    clip: str | None,
    activation: str | None,
    templates: tuple[str, ...],
    template_list: str | None,
    weights: Path | None,
    origin: str,
    source: Path | None,
    source_images: int,
    weights_key: str | None,
    class_list: Path | None,
    num_classes: int | None,
    image_size: int | None,
    norms: tuple[int, ...] | None,
    seed: int,
    int8: bool,
    gradients: bool,
    pixels: bool,
    out: Path,
    overwrite: bool,
    on_error: str,
    quiet: bool,
    **images: Any,
) -> None:
    """Export a timm model, or a CLIP model of open_clip, to a bundle: ONNX graphs, head, preprocessing.

    The fp32 graph is compared with PyTorch before anything is written, the int8 graph with the fp32 graph
    before it is added.
    """
    from ..engine.bundle.description import describe_bundle

    try:
        from ..data.demo import DEMO_CLIP, DEMO_MODEL
        from ..data.image_reader import ImageReader, describe_files
        from ..data.source import choose_images
        from ..export.image_format import ImageOptions
    except ImportError as error:
        raise explain_missing_package(error, "export") from error
    reader, skip = ImageReader(take_reading(images)), on_error == "skip"
    check_clip_options(click.get_current_context())
    if source is not None:  # fails before the export, not after it
        choose_images(source, source_images, seed, reader, skip=skip)
    click.echo(f"Exporting {clip or model} to {out} …")
    common = {
        "weights": weights,
        "random": origin == "random",
        "norms": norms,
        "gradients": gradients,
        "pixels": pixels,
        "weights_key": weights_key,
        "images": ImageOptions(**images),
    }
    if clip is not None:
        texts = resolve_templates(templates, template_list)
        result = export_clip_model(clip, activation, texts, class_list, common, out, overwrite=overwrite)
    else:
        sizes = {"num_classes": num_classes, "image_size": image_size}
        result = export_timm_model(model, class_list, {**common, **sizes}, out, overwrite=overwrite)
    parity = result.parity
    click.echo(
        f"Verified against PyTorch at {result.case_summary}: largest absolute difference "
        f"{parity.logits:.2g} in logits, {parity.features:.2g} in features."
    )
    if result.text is not None:
        click.echo(
            "Verified against open_clip: embeddings of texts differ by at most "
            f"{result.text.difference:.2g}, and {result.text.texts} texts have the same tokens."
        )
    for note in result.notes:
        click.echo(f"Note: {note}.")
    if result.gradient_difference is not None:
        click.echo(
            "Gradients verified against PyTorch's autograd: largest difference "
            f"{result.gradient_difference:.2g} of the largest gradient."
        )
    bundle = result.bundle
    if source is not None or bundle.manifest.model in (DEMO_MODEL, DEMO_CLIP):
        bundle = add_source(bundle, source, source_images, seed, quiet=quiet, reader=reader, skip=skip)
        if int8:
            bundle = _add_int8(bundle, source, source_images, seed, quiet, reader, skip=skip)
        print_notes(describe_files([reader]))
    else:
        click.echo(
            f"No source statistics yet: FOZO needs them. Compute them with: fozo source {out} CLEAN_IMAGES"
        )
        if int8:
            click.echo(f"No int8 graph yet. Make one with: fozo quantize {out} CLEAN_IMAGES")
    click.echo(describe_bundle(bundle))


def _add_int8(
    bundle: Bundle,
    folder: Path | None,
    source_images: int,
    seed: int,
    quiet: bool,
    reader: ImageReader,
    *,
    skip: bool,
) -> Bundle:
    """Add an int8 graph, or return the bundle unchanged where that is refused."""
    from ..quant.quantization import QuantizationError

    try:
        bundle, report = add_integer_graph(
            *(bundle, folder, CALIBRATION_IMAGES, HELD_OUT_IMAGES, Options(seed=seed)),
            quiet=quiet,
            reader=reader,
            skip=skip,
        )
    except (QuantizationError, InputError) as error:
        click.echo(f"No int8 graph: {error}")
        return bundle
    click.echo(report)
    return add_source(bundle, folder, source_images, seed, ["int8"], quiet, reader=reader, skip=skip)
