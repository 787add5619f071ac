"""Addition of an integer graph to a bundle: calibrate, write, check, and add or reject."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..data.source import SourceImages
from ..engine.bundle.bundle import Bundle, NewGraph
from ..engine.bundle.create import folder_beside
from ..engine.bundle.manifest import PORTABLE_SUFFIX
from ..engine.errors import FozoError
from .convolution_quantizer import make_quantizer
from .pull_back_addition import write_integer_pull_back
from .quantization_report import Report, list_inaccuracies
from .quantizer import Quantizer
from .sensitivity import group_products
from .settings import Options

GRADIENT_IMAGES = 8  # on which the gradients of both precisions are compared


class QuantizationError(FozoError):
    """The integer graph is no replacement for the fp32 graph; nothing was added to the bundle."""


def quantize(
    bundle: Bundle,
    images: SourceImages,
    held_out: SourceImages,
    options: Options,
    *,
    sensitivity: bool = False,
    progress: Callable[[str, int], AbstractContextManager[Callable[[int], None]]] | None = None,
) -> tuple[Bundle, Report]:
    """Add an integer graph to a bundle, unless it is refused.

    Args:
        bundle: with an fp32 graph; it is changed only at the end, in one step.
        images: clean images to calibrate with.
        held_out: other clean images, to judge the result by.
        options: options of the quantisation.
        sensitivity: measure the loss of each layer on its own, even if nothing is refused.
        progress: called with the title and length of each step; its context gives a function that is called
            as the step advances.

    Returns:
        The changed bundle, without source statistics of the new graph, and the report. A portable form of a
        replaced graph is gone unless `options.portable` makes a new one.

    Raises:
        QuantizationError: the result is refused, and `options.force` is not set, or gives numbers that are
            not finite; the bundle is as it was.
        InputError: too few images, an unreadable one, or an option that does not fit the graph.
        ExportError: the graph cannot be differentiated; the bundle is as it was.
        BundleError: the bundle cannot be read.
        OutputError: it cannot be written.
    """
    step = progress or _ignore_progress
    quantizer, precision = make_quantizer(bundle, options), options.bits.name
    target = bundle.path / precision  # inside the bundle: on its own file system
    with folder_beside(target):
        pass  # fails before the work if the bundle cannot be written
    with step("Calibrating", images.count) as advance:
        quantizer.calibrate(images, advance)
    if passes := quantizer.passes:
        with step("Making up for rounding", passes * images.count) as advance:
            quantizer.refine(images, advance)
    with folder_beside(target) as folder:
        graph = folder / "integer.onnx"
        quantizer.write(graph, "fused")
        with step("Comparing with fp32", quantizer.comparisons * held_out.count) as advance:
            report = quantizer.check(graph, held_out, advance)
        refused = is_refused(report, options)
        groups = len(group_products(quantizer.products))
        inaccurate = refused and any(list_inaccuracies(report.comparison, report.bits))
        if groups and (sensitivity or inaccurate):
            with step("Measuring each layer", groups) as advance:
                report = replace(report, effects=tuple(quantizer.measure_effects(held_out, advance)))
        if refused:
            raise QuantizationError(_explain_refusal(report))
        graphs, pull_backs = {precision: NewGraph(graph, quantizer.make_entry(report))}, {}
        if options.portable:
            with step("Comparing the portable graph with fp32", held_out.count) as advance:
                portable = _write_portable(quantizer, folder / "portable.onnx", held_out, advance)
            graphs[precision + PORTABLE_SUFFIX] = portable
        if bundle.manifest.pull_backs and not quantizer.weights_only:
            batch = np.stack([held_out.load(index) for index in range(min(held_out.count, GRADIENT_IMAGES))])
            path = folder / "pull-back.onnx"
            entry = write_integer_pull_back(bundle, graph, precision, batch, path)
            pull_backs[precision] = NewGraph(path, entry)
        bundle = bundle.with_graphs(graphs, pull_backs)
    return bundle, report


def _write_portable(
    quantizer: Quantizer, path: Path, held_out: SourceImages, on_batch: Callable[[int], None]
) -> NewGraph:
    """Write and check the graph in standard operators.

    Raises:
        QuantizationError: it is refused.
    """
    quantizer.write(path, "standard")
    report = quantizer.check(path, held_out, on_batch)
    if is_refused(report, quantizer.options):
        reasons = "; ".join(report.refusals)
        raise QuantizationError(f"the portable graph was refused: {reasons}; leave --portable out")
    return NewGraph(path, quantizer.make_entry(report))


def is_refused(report: Report, options: Options) -> bool:
    """Return true if a graph is not to be added: `force` takes any but one whose outputs are not finite."""
    return bool(report.refusals) and not (options.force and report.is_finite)


def _explain_refusal(report: Report) -> str:
    message = f"the {report.bits.name} graph was refused and not added: {'; '.join(report.refusals)}. "
    finite = report.is_finite
    force = "take the graph as it is with --force" if finite else "look for the fault in the model's weights"
    if not report.effects or not any(list_inaccuracies(report.comparison, report.bits)):
        return f"{message}{force[0].upper()}{force[1:]}"
    responsible = "; ".join(
        f"{effect.name} ({effect.comparison.signal_to_noise:.1f} dB, "
        f"{effect.comparison.agreement:.1f} % agreement)"
        for effect in report.effects[:3]
    )
    return (
        f"{message}The layers that lose most alone: {responsible}. Keep them in float with --keep-float, "
        f"give more images, or {force}"
    )


@contextmanager
def _ignore_progress(title: str, count: int) -> Iterator[Callable[[int], None]]:
    yield lambda advance: None
