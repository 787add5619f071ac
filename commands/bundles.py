"""Steps with a progress bar that several commands share: source statistics and integer graphs of bundles."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .progress import Progress

if TYPE_CHECKING:
    from ..data.image_reader import ImageReader
    from ..data.source import SourceImages
    from ..engine.bundle.bundle import Bundle
    from ..engine.model import ImageArray
    from ..engine.runtime.source_statistics import SourcePlan
    from ..quant.settings import Options


def add_source(
    bundle: Bundle,
    folder: Path | None,
    count: int,
    seed: int,
    precisions: Sequence[str] = (),
    quiet: bool = False,
    *,
    reader: ImageReader,
    skip: bool,
) -> Bundle:
    """Add source statistics to some graphs of a bundle, or to all, and return the changed bundle."""
    from ..data.source import clean_images
    from ..engine.runtime.source_statistics import plan_fisher_batches, plan_source_batches, store_source

    images = clean_images(bundle, folder, count, seed, reader, skip=skip)
    plan = plan_source_batches(bundle, images.count)
    for precision in precisions or bundle.manifest.graphs:
        fisher_plan = plan_fisher_batches(bundle, precision, images.count)
        origin = images.origin + plan.remark + (fisher_plan.remark if fisher_plan else "")
        title = f"Source statistics of {precision} from {images.origin} …"
        batches, fisher_batches = _show_batches(images, plan, title, quiet), None
        if fisher_plan:
            title = f"Fisher information of {precision}: {len(fisher_plan.order)} gradients …"
            fisher_batches = _show_batches(images, fisher_plan, title, quiet)
        bundle = store_source(bundle, precision, batches, origin, fisher_batches)
    return bundle


def _show_batches(images: SourceImages, plan: SourcePlan, title: str, quiet: bool) -> Iterator[ImageArray]:
    """Yield the batches of a plan, below a title and with a progress bar."""
    from ..data.loader import count_batches, load_batches

    click.echo(title)
    loading = closing(load_batches(images.load, plan.order, plan.batch_size))
    with Progress(len(plan.order), quiet) as advance, loading as batches:
        yield from count_batches(batches, advance)


def add_integer_graph(
    bundle: Bundle,
    folder: Path | None,
    calibration_images: int,
    held_out_images: int,
    options: Options,
    sensitivity: bool = False,
    quiet: bool = False,
    *,
    reader: ImageReader,
    skip: bool,
) -> tuple[Bundle, str]:
    """Add an integer graph and return the changed bundle with a report; raise as `quantize` does."""
    from ..data.source import clean_images
    from ..quant.image_split import split_images
    from ..quant.quantization import quantize
    from ..quant.quantization_report import describe_report

    images = clean_images(
        bundle, folder, calibration_images + held_out_images, options.seed, reader, skip=skip
    )
    calibration, held_out = split_images(images, calibration_images, held_out_images, options.seed)

    @contextmanager
    def show_step(title: str, count: int) -> Iterator[Callable[[int], None]]:
        unit = "layers" if "layer" in title else "images"
        click.echo(f"{title}: {count} {unit} …")
        with Progress(count, quiet, unit) as advance:
            yield advance

    changed, report = quantize(
        bundle, calibration, held_out, options, sensitivity=sensitivity, progress=show_step
    )
    return changed, describe_report(report) + describe_removed(bundle, changed)


def describe_removed(bundle: Bundle, changed: Bundle) -> str:
    """Return further lines of a report, one for each graph that a bundle has no longer."""
    removed = [name for name in bundle.manifest.graphs if name not in changed.manifest.graphs]
    return "".join(
        f"\n  removed   {name}, the portable form of the replaced graph; --portable makes a new one"
        for name in removed
    )
