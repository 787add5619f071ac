"""Steps of a quantisation: calibrate, refine, write, check and add an integer graph."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime

from .._version import __version__
from ..data.loader import count_batches, load_batches
from ..data.source import SourceImages
from ..engine.bundle.bundle import Bundle
from ..engine.bundle.manifest import GraphEntry
from ..engine.errors import InputError
from ..engine.model import FloatArray, ImageArray
from ..engine.runtime.cpu import CpuFeatures, read_cpu_features
from ..engine.runtime.network import Network
from ..engine.runtime.onnx_file import check_graph_file
from .activation_samples import ActivationSamples
from .calibration import CALIBRATION_BATCH, Range, calibrate, observe_activations, require_batches
from .graph_comparison import Comparison, compare, measure_relative_time
from .layer_integers import LayerIntegers, choose_block_integers, choose_integers
from .operators import count_block_products, count_integer_products
from .products import Product, find_products
from .quantization_report import Report, list_refusals
from .refinement import plan_passes, refine_grids, refine_weights
from .sensitivity import LayerEffect, measure_layer_effects, record_effects
from .settings import CALIBRATORS, INT8, WEIGHT_BITS, WEIGHTS_ONLY, Bits, BitWidths, Options
from .weight_blocks import BLOCK_ROWS
from .writer import write_integer_graph

COMPARISON_BATCH = 32
SENSITIVITY_IMAGES = 64


def choose_weight_bits(cpu: CpuFeatures) -> tuple[int, str]:
    """Return the bits of the weights for a processor, and the reason in words."""
    best = f" with {cpu.features[0]}" if cpu.features else ""
    processor = f"{cpu.model}, {cpu.architecture}{best}"
    if cpu.full_int8:
        return 8, f"{processor}: kernels add in 32 bits"
    if cpu.full_int8 is None:
        return 7, f"{processor}: kernels that may add in 16 bits"
    return 7, f"{processor}: kernels add in 16 bits"


def choose_widths(bits: Bits, limit: int) -> BitWidths:
    """Return the bits of weights, activations and keys.

    Args:
        bits: as asked for.
        limit: bits of weights and keys whose products with bytes the processor can add in pairs; fewer bits
            of activations leave room for 8.
    """
    if bits in (INT8, WEIGHTS_ONLY):
        return BitWidths(limit, 8, limit)
    activations = bits.activations or 8
    return BitWidths(bits.weights, activations, limit if activations == 8 else activations)


class Quantizer:
    """Quantisation of one bundle, step by step.

    Attributes:
        bundle: receives the graph.
        options: options of the quantisation.
        weights_only: whether activations stay in float, except for pixels.
        calibrator: summary of the extremes of a channel; None where no ranges are measured.
        path: file of the fp32 graph.
        model: the fp32 graph.
        products: matrix products that become integer products.
        float_layers: names of the layers that stay in float on request.
        widths: bits of weights, activations and keys.
        pixel_bits: bits of the weights of the product that reads pixels, which are bytes; in int8
            also of all others and of keys.
        processor: this machine's processor, and the bits of weights that it can add, in words.
        ranges: of the activations, by name of the tensor; empty before calibration.
        layers: integers of the products, by name; empty before calibration.
        origin: number and origin of the calibration images; empty before calibration.
    """

    kind = "matrix products"
    always_float = "attention mix and classifier"
    comparisons = 1  # passes over the held-out images

    def __init__(self, bundle: Bundle, options: Options) -> None:
        """Read the fp32 graph of a bundle.

        Raises:
            BundleError: it cannot be read.
            InputError: an option does not fit the graph.
        """
        if options.calibrator not in (None, *CALIBRATORS):
            raise InputError(
                f"expected a calibrator out of {', '.join(CALIBRATORS)}, found {options.calibrator!r}"
            )
        self.bundle, self.options = bundle, options
        self.path = bundle.graph("fp32")
        check_graph_file(self.path)
        self.model = onnx.load(self.path, load_external_data=False)
        self.weights_only = options.bits == WEIGHTS_ONLY
        self.calibrator = self._choose_calibrator()
        self.products: list[Product] = []
        self.float_layers: tuple[str, ...] = ()
        self._choose_layers()
        self._choose_bits()
        self.ranges: dict[str, Range] = {}
        self.layers: dict[str, LayerIntegers] = {}
        self.origin = ""
        self._samples = ActivationSamples(options.seed)

    def _choose_calibrator(self) -> str | None:
        """Return the summary of extremes, or None where no ranges are measured."""
        if not self.weights_only:
            return self.options.calibrator or CALIBRATORS[0]
        self._refuse_calibrator("activations stay in float with --bits w4")
        return None

    def _refuse_calibrator(self, reason: str) -> None:
        if self.options.calibrator is not None:
            raise InputError(
                f"--calibrator {self.options.calibrator} has no effect, as {reason}: leave it out"
            )

    def _choose_layers(self) -> None:
        """Choose the layers that are to run on integers."""
        candidates = find_products(self.model)
        if self.weights_only:
            candidates = [product for product in candidates if product.weight is not None]
        names = [product.name for product in candidates]
        self.float_layers = tuple(select_layers(names, self.options.keep_float))
        self.products = [product for product in candidates if product.name not in self.float_layers]
        self._check_layers(len(self.products), len(candidates))

    def _check_layers(self, count: int, candidates: int) -> None:
        if not count:
            raise InputError(
                f"{self.bundle.manifest.model} has no layer left to compute with integers: all "
                f"{candidates} {self.kind} are kept in float; give --keep-float fewer layers"
            )

    def _choose_bits(self) -> None:
        asked = self.options.weight_bits
        if asked not in (None, *WEIGHT_BITS):
            raise InputError(f"expected weights of 8 or 7 bits, found {asked}")
        if self.options.portable and self.weights_only:
            raise InputError("--portable needs integer activations: leave it out, or ask for other --bits")
        bits, reason = choose_weight_bits(read_cpu_features())
        self.pixel_bits = asked or bits
        self.widths = choose_widths(self.options.bits, self.pixel_bits)
        self.processor = reason if self.pixel_bits == bits else f"{asked} bits asked for; {reason}"

    @property
    def passes(self) -> int:
        """Number of times that `refine` reads the images; 0 where nothing is refined."""
        return len(plan_passes(self.products, self.layers)) if self.options.bits != INT8 else 0

    def calibrate(self, images: SourceImages, on_batch: Callable[[int], None]) -> None:
        """Find the ranges of the activations, and choose integers that hold them.

        Raises:
            InputError: an image cannot be read, there are too few, or activations are not finite.
        """
        self.origin = f"{images.count} of {images.origin}"
        manifest = self.bundle.manifest
        if self.weights_only:
            require_batches(-(-images.count // CALIBRATION_BATCH))
            rows = self._find_single_rows(images)
            self.layers = choose_block_integers(self.model, self.products, self.pixel_bits, rows)
            on_batch(images.count)  # one image tells the rows; `refine` reads them all
            return
        operands = [o for p in self.products for o in (p.left, p.right) if o is not None and not o.is_bytes]
        with closing(load_batches(images.load, range(images.count), CALIBRATION_BATCH)) as batches:
            self.ranges = calibrate(
                self.model,
                {operand.tensor for operand in operands},
                batches,
                width=manifest.width,
                prompt_bound=manifest.prompt_bound,
                norms=len(manifest.norms),
                calibrator=self.calibrator or CALIBRATORS[0],
                seed=self.options.seed,
                on_batch=on_batch,
                on_activations=self._samples.add if self.options.bits != INT8 else None,
            )
        self.layers = choose_integers(self.model, self.products, self.ranges, self.widths, self.pixel_bits)
        self.layers = refine_grids(self.products, self.layers, self.ranges, self._samples, self.widths)

    def refine(self, images: SourceImages, on_batch: Callable[[int], None]) -> None:
        """Choose weights and biases that make up for errors of rounding; reads the images `passes` times."""

        def observe(tensors: Collection[str]) -> Iterator[tuple[int, dict[str, FloatArray]]]:
            with closing(load_batches(images.load, range(images.count), CALIBRATION_BATCH)) as batches:
                yield from self._observe(tensors, count_batches(batches, on_batch))

        self.layers = refine_weights(
            self.model, self.products, self.layers, observe, self.widths.weights, self.options.seed
        )

    def _observe(
        self, tensors: Collection[str], batches: Iterable[ImageArray]
    ) -> Iterator[tuple[int, dict[str, FloatArray]]]:
        manifest = self.bundle.manifest
        return observe_activations(
            *(self.model, tensors, batches, manifest.width, manifest.prompt_bound),
            norms=len(manifest.norms),
            seed=self.options.seed,
        )

    def _find_single_rows(self, images: SourceImages) -> set[str]:
        """Return the inputs of products that have one row per image."""
        inputs = {product.input for product in self.products}
        ((_, activations),) = self._observe(inputs, [images.load(0)[None]])
        return {name for name, values in activations.items() if values.shape[1] == 1}

    def write(self, path: Path, dialect: str) -> None:
        """Write the integer graph to a file, in one of `DIALECTS`."""
        onnx.save(write_integer_graph(self.model, self.products, self.layers, dialect=dialect), path)

    def check(self, graph: Path, images: SourceImages, on_batch: Callable[[int], None]) -> Report:
        """Compare the integer graph with the fp32 graph on held-out images, and judge it."""
        info = self.bundle.info("fp32")
        with Network(graph, info) as network, Network(self.path, info) as reference:
            comparison = self._compare(network, reference, images, on_batch)
            batch_comparison = self._compare_batches(network, reference, images, on_batch)
            batch = _load_first(images, COMPARISON_BATCH)
            executed, intended = self._count_layers(graph)
            seconds, ratio = measure_relative_time(network, reference, batch)
            report = Report(
                comparison=comparison,
                integer=executed,
                intended=intended,
                float_layers=self.float_layers,
                outlier_layers=self._count_outliers(),
                megabytes=(graph.stat().st_size / 1e6, self.path.stat().st_size / 1e6),
                milliseconds=1e3 * seconds,
                speedup=1 / ratio,
                weight_bits=self.options.bits.weights if self.weights_only else self.widths.weights,
                processor=self.processor,
                bits=self.options.bits,
                kind=self.kind,
                always_float=self.always_float,
                batch_comparison=batch_comparison,
            )
        return replace(report, refusals=list_refusals(report))

    def _compare(
        self,
        network: Network,
        reference: Network,
        images: SourceImages,
        on_batch: Callable[[int], None],
        **tunables: FloatArray,
    ) -> Comparison:
        with closing(load_batches(images.load, range(images.count), COMPARISON_BATCH)) as batches:
            answers = (
                (network(batch, **tunables), reference(batch, **tunables))
                for batch in count_batches(batches, on_batch)
            )
            return compare(answers, images.labels)

    def _compare_batches(
        self, network: Network, reference: Network, images: SourceImages, on_batch: Callable[[int], None]
    ) -> Comparison | None:
        """Compare the graphs with batch statistics, if they have these."""
        return None

    def _count_layers(self, graph: Path) -> tuple[int, int]:
        """Return how many layers ONNX Runtime computes as they were written, and how many were written."""
        blocks = count_block_products(graph) if self.weights_only else 0
        return count_integer_products(graph) + blocks, len(self.products)

    def _count_outliers(self) -> dict[str, int]:
        grids = {product.name: self.layers[product.name].left for product in self.products}
        counts = {name: len(grid.outliers) for name, grid in grids.items() if grid is not None}
        return {name: count for name, count in counts.items() if count}

    def measure_effects(self, images: SourceImages, on_layer: Callable[[int], None]) -> list[LayerEffect]:
        """Measure the loss of each layer on its own, on a few images."""
        sample = images.select(range(min(images.count, SENSITIVITY_IMAGES)))
        batch = _load_first(sample, sample.count)
        with Network(self.path, self.bundle.info("fp32")) as reference:
            return measure_layer_effects(
                self.model,
                self.products,
                self.layers,
                reference,
                batch,
                sample.labels,
                on_layer=on_layer,
            )

    def make_entry(self, report: Report) -> GraphEntry:
        """Return what the bundle is to record of a written graph, with the measurements of the report."""
        return GraphEntry(
            file="",
            opset=self.bundle.manifest.graphs["fp32"].opset,
            max_abs_difference=report.comparison.max_abs_difference,
            reference="fp32",
            record=self._make_record(report),
        )

    def _make_record(self, report: Report) -> dict[str, Any]:
        measurements = asdict(replace(report, effects=()))
        del measurements["effects"]
        if report.batch_comparison is None:
            del measurements["batch_comparison"]
        return {
            **self._describe_integers(),
            **({} if self.calibrator is None else {"calibrator": self.calibrator}),
            "calibration": self.origin,
            **measurements,
            "effects": record_effects(report.effects),
            "versions": {
                "fozo": __version__,
                "onnx": onnx.__version__,
                "onnxruntime": onnxruntime.__version__,
            },
        }

    def _describe_integers(self) -> dict[str, str]:
        weights, activations, keys = self.widths.weights, self.widths.activations, self.widths.keys
        if self.options.bits == INT8:
            return {
                "weights": f"int8 per channel, {weights} bits",
                "activations": "uint8 per tensor, int8 for attention keys",
            }
        if self.weights_only:
            return {
                "weights": f"int4 in blocks of {BLOCK_ROWS}; int8, {weights} bits, where pixels are read",
                "activations": "float32; pixels are bytes",
                "rounding": "weights compensate errors on the calibration images",
            }
        grids = "ends of grids by squared error; " if activations < 8 else ""
        return {
            "weights": f"int8 per channel, {weights} bits, {self.pixel_bits} where pixels are read",
            "activations": f"uint8 per tensor, {activations} bits; int8 for attention keys, {keys} bits",
            "rounding": f"{grids}weights compensate errors on the calibration images",
        }


def select_layers(layers: Sequence[str], patterns: Sequence[str]) -> list[str]:
    """Return the layers that any of the patterns names, in their order.

    Raises:
        InputError: a pattern names no layer.
    """
    matches = {pattern: fnmatch.filter(layers, pattern) for pattern in patterns}
    if unmatched := [pattern for pattern, names in matches.items() if not names]:
        raise InputError(
            f"no layer is called {unmatched[0]!r}; layers are called like {layers[1]} or {layers[-1]}"
        )
    selected = {name for names in matches.values() for name in names}
    return [name for name in layers if name in selected]


def _load_first(images: SourceImages, count: int) -> ImageArray:
    return np.stack([images.load(index) for index in range(min(count, images.count))])
