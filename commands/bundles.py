"""What several commands do to bundles: describe them, and add source statistics or an int8 graph."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..engine.errors import InputError
from .progress import Progress

if TYPE_CHECKING:
    from ..data.source import SourceImages
    from ..engine.bundle.bundle import Bundle


def description(bundle: Bundle) -> str:
    """What a bundle is, for people."""
    m = bundle.manifest
    how = m.preprocessing
    resize = f"squash to {how.resize} ×" if how.crop_mode == "squash" else "resize shorter side to"
    resize += f" {how.resize} ({how.interpolation}), crop {how.size[0]} × {how.size[1]}"
    blocks = f"{m.layers} blocks of width {m.width}"
    if m.feature_widths:
        blocks = f"{m.layers} stages of width {', '.join(map(str, m.feature_widths))}"
    lines = [
        f"Bundle {bundle.path}: {m.model}, {blocks}, {m.classes} classes"
        + (f" ({m.class_ids[0]}, {m.class_ids[1]}, …)" if m.class_ids and len(m.class_ids) > 1 else ""),
        f"  images    {resize}; scaling and normalisation are inside the graph",
    ]
    for precision, graph in m.graphs.items():
        size = m.files[graph.file].bytes / 1e6
        lines.append(
            f"  {precision:9s} {graph.file}, {size:.1f} MB, opset {graph.opset}, at most "
            f"{graph.max_abs_difference:.2g} from {graph.reference}"
        )
        source = m.source.get(precision)
        lines.append(
            f"  source    {source.origin}" if source else "  source    none: fozo source BUNDLE CLEAN_IMAGES"
        )
    return "\n".join(lines)


def clean_images(bundle: Bundle, folder: Path | None, count: int, seed: int) -> SourceImages:
    """Clean images from a folder, or for the demonstration's model its own."""
    from ..data.source import demo_source, folder_source

    manifest = bundle.manifest
    if folder is not None:
        return folder_source(folder, manifest.preprocessing, count, seed, manifest.class_ids)
    if manifest.model == "fozo_demo_vit":
        return demo_source()
    raise InputError("expected a folder of clean images, found none; name one behind the bundle")


def add_source(
    bundle: Bundle,
    folder: Path | None,
    count: int,
    seed: int,
    precisions: Sequence[str] = (),
    quiet: bool = False,
) -> Bundle:
    """Source statistics of some of the graphs of a bundle, or of all."""
    from ..data.source import store_source

    images = clean_images(bundle, folder, count, seed)
    for precision in precisions or bundle.manifest.graphs:
        click.echo(f"Source statistics of {precision} from {images.origin} …")
        with Progress(images.count, quiet) as advance:
            bundle = store_source(bundle, precision, images, advance)
    return bundle


def quantized(
    bundle: Bundle,
    folder: Path | None,
    images: int,
    held_out: int,
    options: Any,
    sensitivity: bool = False,
    quiet: bool = False,
) -> tuple[Bundle, str]:
    """The bundle with an int8 graph, and the report on it; raises what `quantize` raises."""
    from ..quant.quantizer import quantize, split_images
    from ..quant.report import describe

    chosen = clean_images(bundle, folder, images + held_out, options.seed)
    calibration, rest = split_images(chosen, images, held_out, options.seed)

    @contextmanager
    def step(what: str, count: int) -> Iterator[Callable[[int], None]]:
        unit = "layers" if "layer" in what else "images"
        click.echo(f"{what}: {count} {unit} …")
        with Progress(count, quiet, unit) as advance:
            yield advance

    bundle, report = quantize(bundle, calibration, rest, options, sensitivity=sensitivity, progress=step)
    return bundle, describe(report)
