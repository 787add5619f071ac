"""An fp32 graph of a bundle becomes an int8 graph of the same bundle: calibrate, write, check, add."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime

from .._version import __version__
from ..data.loader import count_batches, load_batches
from ..data.source import SourceImages
from ..engine.bundle.bundle import Bundle
from ..engine.bundle.create import folder_beside
from ..engine.bundle.manifest import GraphEntry
from ..engine.errors import FozoError, InputError
from ..engine.model import ImageArray
from ..engine.runtime.cpu import CpuFeatures, read_cpu_features
from ..engine.runtime.network import Network
from ..engine.runtime.onnx_file import check_graph_file
from .calibration import CALIBRATION_BATCH, CASES, Range, calibrate
from .comparison import Comparison, compare, relative_time
from .names import CALIBRATORS
from .operators import integer_products
from .products import Product, find_products
from .report import Report, inaccuracies, refusals
from .sensitivity import LayerEffect, effect_records, group_products, layer_effects
from .writer import activation_grid, write_integer

PRECISION, PORTABLE = "int8", "int8-qdq"
COMPARISON_BATCH = 32
SENSITIVITY_IMAGES = 64


class QuantizationError(FozoError):
    """The int8 graph is no replacement for the fp32 graph; nothing was added to the bundle."""


@dataclass(frozen=True)
class Options:
    """Options of a quantisation.

    Attributes:
        calibrator: see `calibrate`.
        weight_bits: 8, 7, or None to choose by this machine's processor.
        keep_float: patterns of layers that stay in float, e.g. `blocks.7.mlp.fc2` or `*.mlp.fc2`.
        portable: add `int8-qdq` too, the same computation in standard operators.
        seed: of the prompts used for calibration, and of the split of the images.
        force: add the graph even if it is refused.
    """

    calibrator: str = "percentile"
    weight_bits: int | None = None
    keep_float: tuple[str, ...] = ()
    portable: bool = False
    seed: int = 0
    force: bool = False


def choose_weight_bits(cpu: CpuFeatures) -> tuple[int, str]:
    """Bits of the weights for a processor, and the reason in words."""
    best = f" with {cpu.features[0]}" if cpu.features else ""
    what = f"{cpu.model}, {cpu.architecture}{best}"
    if cpu.full_int8:
        return 8, f"{what}: kernels add in 32 bits"
    if cpu.full_int8 is None:
        return 7, f"{what}: kernels that may add in 16 bits"
    return 7, f"{what}: kernels add in 16 bits"


class Quantizer:
    """One quantisation: what is read once and used by several steps."""

    def __init__(self, bundle: Bundle, options: Options) -> None:
        """Reads the fp32 graph of a bundle.

        Raises:
            BundleError: it cannot be read.
            InputError: an option has no meaning.
        """
        if options.calibrator not in CALIBRATORS:
            raise InputError(
                f"expected a calibrator out of {', '.join(CALIBRATORS)}, found {options.calibrator!r}"
            )
        if "batch_statistics" in bundle.manifest.tunables:
            raise InputError(
                f"{bundle.manifest.model} is a convolutional network, and its convolutions stay in float: "
                "only vision transformers are quantised; use its fp32 graph"
            )
        self.bundle, self.options = bundle, options
        self.path = bundle.graph("fp32")
        check_graph_file(self.path)
        self.model = onnx.load(self.path, load_external_data=False)
        candidates = find_products(self.model)
        self.float_products = _select_products(candidates, options.keep_float)
        self.products = [product for product in candidates if product not in self.float_products]
        if not self.products:
            raise InputError(
                f"{bundle.manifest.model} has no layer left to compute with integers: all "
                f"{len(candidates)} products are kept in float"
            )
        if options.weight_bits not in (None, 7, 8):
            raise InputError(f"weights can have 7 or 8 bits, found {options.weight_bits}")
        bits, reason = choose_weight_bits(read_cpu_features())
        self.bits = options.weight_bits or bits
        self.processor = reason if self.bits == bits else f"{self.bits} bits asked for; {reason}"
        self.ranges: dict[str, Range] = {}
        self.origin = ""

    def calibrate(self, images: SourceImages, on_batch: Callable[[int], None]) -> None:
        """Finds the ranges of the activations.

        Raises:
            InputError: an image cannot be read, there are too few, or activations are not finite.
        """
        self.origin = f"{images.count} of {images.origin}"
        manifest = self.bundle.manifest
        operands = [o for p in self.products for o in (p.left, p.right) if o is not None and not o.is_bytes]
        with closing(load_batches(images.load, range(images.count), CALIBRATION_BATCH)) as batches:
            self.ranges = calibrate(
                self.model,
                {operand.tensor for operand in operands},
                batches,
                width=manifest.width,
                prompt_bound=manifest.prompt_bound,
                norms=len(manifest.norms),
                calibrator=self.options.calibrator,
                seed=self.options.seed,
                on_batch=on_batch,
            )

    def write(self, path: Path, dialect: str) -> None:
        """Writes the int8 graph."""
        integer = write_integer(
            self.model, self.products, self.ranges, dialect=dialect, weight_bits=self.bits
        )
        onnx.save(integer, path)

    def check(self, graph: Path, images: SourceImages, on_batch: Callable[[int], None]) -> Report:
        """Compares the int8 graph with the fp32 graph on held-out images, and judges it."""
        info = self.bundle.info("fp32")
        with Network(graph, info) as network, Network(self.path, info) as reference:
            comparison = self._compare(network, reference, images, on_batch)
            batch = _first(images, COMPARISON_BATCH)
            seconds, ratio = relative_time(network, reference, batch)
            report = Report(
                comparison=comparison,
                integer=integer_products(graph),
                intended=len(self.products),
                float_layers=tuple(product.name for product in self.float_products),
                outlier_layers=self._outlier_layers(),
                megabytes=(graph.stat().st_size / 1e6, self.path.stat().st_size / 1e6),
                milliseconds=1e3 * seconds,
                speedup=1 / ratio,
                weight_bits=self.bits,
                processor=self.processor,
            )
        return replace(report, refusals=refusals(report))

    def _compare(
        self, network: Network, reference: Network, images: SourceImages, on_batch: Callable[[int], None]
    ) -> Comparison:
        with closing(load_batches(images.load, range(images.count), COMPARISON_BATCH)) as batches:
            answers = ((network(batch), reference(batch)) for batch in count_batches(batches, on_batch))
            return compare(answers, images.labels)

    def _outlier_layers(self) -> dict[str, int]:
        counts = {
            p.name: len(activation_grid(p, self.ranges).outliers)
            for p in self.products
            if not p.left.is_bytes
        }
        return {name: count for name, count in counts.items() if count}

    def effects(self, images: SourceImages, on_layer: Callable[[int], None]) -> list[LayerEffect]:
        """Measure what single layers lose on a few images."""
        few = images.select(range(min(images.count, SENSITIVITY_IMAGES)))
        batch = _first(few, few.count)
        with Network(self.path, self.bundle.info("fp32")) as reference:
            return layer_effects(
                self.model,
                self.products,
                self.ranges,
                reference,
                batch,
                few.labels,
                weight_bits=self.bits,
                on_layer=on_layer,
            )

    def add(self, bundle: Bundle, graph: Path, precision: str, report: Report) -> Bundle:
        """Moves a graph that was written into the bundle, with what was measured."""
        entry = GraphEntry(
            file="",
            opset=bundle.manifest.graphs["fp32"].opset,
            max_abs_difference=report.comparison.max_abs_difference,
            reference="fp32",
            record=self._record(report),
        )
        return bundle.with_graph(precision, graph, entry)

    def _record(self, report: Report) -> dict[str, Any]:
        measured = asdict(replace(report, effects=()))
        del measured["effects"]
        return {
            "weights": f"int8 per channel, {self.bits} bits",
            "activations": "uint8 per tensor, int8 for attention keys",
            "calibrator": self.options.calibrator,
            "calibration": self.origin,
            **measured,
            "effects": effect_records(report.effects),
            "versions": {
                "fozo": __version__,
                "onnx": onnx.__version__,
                "onnxruntime": onnxruntime.__version__,
            },
        }


def quantize(
    bundle: Bundle,
    images: SourceImages,
    held_out: SourceImages,
    options: Options,
    *,
    sensitivity: bool = False,
    progress: Callable[[str, int], AbstractContextManager[Callable[[int], None]]] | None = None,
) -> tuple[Bundle, Report]:
    """Adds an int8 graph to a bundle, unless it is refused.

    Args:
        bundle: with an fp32 graph; it is changed only at the end.
        images: clean images to calibrate with.
        held_out: other clean images, to judge the result by.
        options: how.
        sensitivity: measure what each layer loses alone, even if nothing is refused.
        progress: gives a context for a step `(what, how many)`, whose value is called as it advances.

    Returns:
        The changed bundle, without source statistics of the new graph, and the report.

    Raises:
        QuantizationError: the result is refused, and `options.force` is not set; the bundle is as it was.
        InputError: too few images, an unreadable one, or an option without meaning.
        BundleError: the bundle cannot be read.
        OutputError: it cannot be written.
    """
    step = progress or _silent
    quantizer = Quantizer(bundle, options)
    place = bundle.path / PRECISION  # inside the bundle: on its own file system
    with folder_beside(place):
        pass  # what cannot be written is found out before the work
    with step("Calibrating", images.count) as advance:
        quantizer.calibrate(images, advance)
    with folder_beside(place) as folder:
        graph, portable = folder / "int8.onnx", folder / "portable.onnx"
        quantizer.write(graph, "fused")
        with step("Comparing with fp32", held_out.count) as advance:
            report = quantizer.check(graph, held_out, advance)
        refused = report.refusals and not options.force
        if sensitivity or (refused and any(inaccuracies(report.comparison))):
            groups = len(group_products(quantizer.products))
            with step("Measuring each layer", groups) as advance:
                report = replace(report, effects=tuple(quantizer.effects(held_out, advance)))
        if refused:
            raise QuantizationError(_refusal(report))
        if options.portable:
            quantizer.write(portable, "standard")
            with step("Comparing the portable graph with fp32", held_out.count) as advance:
                also = quantizer.check(portable, held_out, advance)
            if also.refusals and not options.force:
                raise QuantizationError(
                    f"the portable graph was refused: {'; '.join(also.refusals)}; leave --portable out"
                )
        bundle = quantizer.add(bundle, graph, PRECISION, report)
        if options.portable:
            bundle = quantizer.add(bundle, portable, PORTABLE, also)
    return bundle, report


def _refusal(report: Report) -> str:
    message = f"the int8 graph was refused and not added: {'; '.join(report.refusals)}. "
    if any(inaccuracies(report.comparison)):
        responsible = "; ".join(
            f"{effect.name} ({effect.comparison.signal_to_noise:.1f} dB, "
            f"{effect.comparison.agreement:.1f} % agreement)"
            for effect in report.effects[:3]
        )
        message += (
            f"The layers that lose most alone: {responsible}. Keep them in float with --keep-float, give "
            "more images, or take the graph as it is with --force"
        )
    else:
        message += "Take it as it is with --force"
    return message


def split_images(
    images: SourceImages, calibration: int, held_out: int, seed: int
) -> tuple[SourceImages, SourceImages]:
    """Images to calibrate with and others to judge by, at random with a seed.

    Where there are not enough for both, half of them are for calibration.

    Raises:
        InputError: there are too few to calibrate with.
    """
    needed = CALIBRATION_BATCH * len(CASES)
    enough = images.count >= calibration + held_out
    count = calibration if enough else min(calibration, images.count // 2)
    if calibration < needed:
        raise InputError(f"calibration takes at least {needed} images, {calibration} were asked for")
    if count < needed:
        raise InputError(
            f"quantisation needs at least {needed} images for calibration and as many to judge the result "
            f"by, found {images.count} in all; give it more clean images"
        )
    order = np.random.default_rng(seed).permutation(images.count)
    return images.select(np.sort(order[:count])), images.select(np.sort(order[count:][:held_out]))


def _select_products(products: Sequence[Product], patterns: Sequence[str]) -> list[Product]:
    matches = {pattern: fnmatch.filter([p.name for p in products], pattern) for pattern in patterns}
    if nothing := [pattern for pattern, names in matches.items() if not names]:
        raise InputError(
            f"no layer is called {nothing[0]!r}; layers are called like {products[1].name} or "
            f"{products[-1].name}"
        )
    names = {name for matched in matches.values() for name in matched}
    return [product for product in products if product.name in names]


def _first(images: SourceImages, count: int) -> ImageArray:
    return np.stack([images.load(index) for index in range(min(count, images.count))])


@contextmanager
def _silent(what: str, count: int) -> Iterator[Callable[[int], None]]:
    yield lambda advance: None
