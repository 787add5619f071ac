"""Quantisation of a residual network: its convolutions run on integers, in all branches."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import onnx

from ..data.loader import count_batches, load_batches
from ..data.source import SourceImages
from ..engine.bundle.bundle import Bundle
from ..engine.errors import InputError
from ..engine.model import BATCH_STATISTICS
from ..engine.runtime.network import Network
from .convolution_writer import write_integer_convolutions
from .convolutions import ConvolutionRanges, find_first_convolution, list_convolutions, measure_convolutions
from .graph_comparison import Comparison
from .operators import count_integer_convolutions
from .quantizer import Quantizer, select_layers
from .settings import BitWidths, Options

BATCH = 32  # enough for statistics of a batch


def make_quantizer(bundle: Bundle, options: Options) -> Quantizer:
    """Return the quantisation of a bundle that fits its kind of network; raises as `Quantizer` does."""
    residual = BATCH_STATISTICS in bundle.manifest.tunables
    return ConvolutionQuantizer(bundle, options) if residual else Quantizer(bundle, options)


class ConvolutionQuantizer(Quantizer):
    """Quantisation of a residual network, step by step. Weights are rounded to the nearest integer.

    Attributes:
        convolutions: weights of the convolutions that become integer ones, and how many nodes read each.
        convolution_ranges: of these, by name of the weight; empty before calibration.
    """

    kind = "convolutions"
    always_float = "batch norms, sums and classifier"
    comparisons = 2

    def _choose_layers(self) -> None:
        if self.weights_only or self.options.portable:
            problem = "--portable is not needed: they use standard operators anyway"
            if self.weights_only:
                problem = "--bits w4 has no kernel for them; --bits w4a8 computes with weights of 4 bits"
            raise InputError(f"{self.bundle.manifest.model} has convolutions, and {problem}")
        counts = list_convolutions(self.model)
        names = {weight.removesuffix(".weight"): weight for weight in counts}
        self.float_layers = tuple(select_layers(list(names), self.options.keep_float))
        self.convolutions = {
            weight: counts[weight] for name, weight in names.items() if name not in self.float_layers
        }
        self.convolution_ranges: dict[str, ConvolutionRanges] = {}
        self._check_layers(len(self.convolutions), len(counts))

    def _choose_calibrator(self) -> None:
        self._refuse_calibrator("ranges of convolutions are found in another way")

    def calibrate(self, images: SourceImages, on_batch: Callable[[int], None]) -> None:
        """Find the ranges of the convolutions, without and with batch statistics.

        Raises:
            InputError: an image cannot be read, or values are not finite.
        """
        self.origin = f"{images.count} of {images.origin}"
        with closing(load_batches(images.load, range(images.count), BATCH)) as batches:
            self.convolution_ranges = measure_convolutions(
                self.model, count_batches(batches, on_batch), self.options.seed
            )

    def write(self, path: Path, dialect: str) -> None:
        """Write the integer graph to a file; there is one dialect."""
        first = find_first_convolution(self.model)
        pixels = BitWidths(self.pixel_bits)
        bits = {weight: pixels if weight == first else self.widths for weight in self.convolutions}
        onnx.save(write_integer_convolutions(self.model, self.convolution_ranges, bits), path)

    def _compare_batches(
        self, network: Network, reference: Network, images: SourceImages, on_batch: Callable[[int], None]
    ) -> Comparison | None:
        order = np.random.default_rng(self.options.seed).permutation(images.count)
        shuffled = images.select(order.tolist())  # in order, a batch has few classes, and unusual statistics
        statistics = {BATCH_STATISTICS: np.ones(1, np.float32)}
        return self._compare(network, reference, shuffled, on_batch, **statistics)

    def _count_layers(self, graph: Path) -> tuple[int, int]:
        return count_integer_convolutions(graph), sum(self.convolutions.values())

    def _describe_integers(self) -> dict[str, str]:
        weights, activations = self.widths.weights, self.widths.activations
        return {
            "weights": f"int8 per channel, {weights} bits, {self.pixel_bits} where pixels are read",
            "activations": f"uint8 per tensor, {activations} bits; outputs per channel, 8 bits",
        }
