"""Options of a quantisation, in a module that loads neither NumPy nor ONNX."""

from __future__ import annotations

import re
from dataclasses import dataclass

CALIBRATORS = ("percentile", "average", "minmax")
WEIGHT_BITS = (8, 7)


@dataclass(frozen=True)
class Bits:
    """Bits that are asked for.

    Attributes:
        weights: of a weight, 3 to 8.
        activations: of an activation, 3 to 8; None leaves activations in float, where weights have 4 bits.
    """

    weights: int = 8
    activations: int | None = 8

    @property
    def name(self) -> str:
        """The precision of a graph with these bits: `int8`, or like `w6a6` or `w4`."""
        if self == INT8:
            return "int8"
        return f"w{self.weights}" if self.activations is None else f"w{self.weights}a{self.activations}"

    @property
    def smallest(self) -> int:
        """The smaller of both numbers."""
        return min(self.weights, self.activations or self.weights)


INT8 = Bits()
WEIGHTS_ONLY = Bits(4, None)


def parse_bits(text: str) -> Bits:
    """Return the bits that a text like `int8`, `w6a6` or `w4` names.

    Raises:
        ValueError: it has another form, or a number outside of 3 to 8.
    """
    for bits in (INT8, WEIGHTS_ONLY):
        if text == bits.name:
            return bits
    found = re.fullmatch(r"w([3-8])a([3-8])", text)
    if found is None:
        raise ValueError(text)
    return Bits(int(found[1]), int(found[2]))


@dataclass(frozen=True)
class BitWidths:
    """Bits of the integers of a graph, each in a register of 8.

    Attributes:
        weights: of weights, per output channel and symmetric.
        activations: of activations, per tensor.
        keys: of the keys of attention, which are signed and stand where weights do.
    """

    weights: int
    activations: int = 8
    keys: int = 8


@dataclass(frozen=True)
class Options:
    """Options of a quantisation.

    Attributes:
        bits: of weights and activations.
        calibrator: see `calibrate`; None takes `CALIBRATORS[0]`. Other graphs than those of transformers with
            integer activations have no ranges to summarise, and take None only.
        weight_bits: 8, 7, or None to choose by this machine's processor: of weights and keys that meet bytes,
            as all do with 8 and 8 `bits`, and those of pixels do always.
        keep_float: patterns of layers that stay in float, e.g. `blocks.7.mlp.fc2` or `*.mlp.fc2`.
        portable: add `<precision>-qdq` too, like `int8-qdq`: the same computation in standard operators.
        seed: of the prompts used for calibration, and of the split of the images.
        force: add the graph even if it is refused.
    """

    bits: Bits = INT8
    calibrator: str | None = None
    weight_bits: int | None = None
    keep_float: tuple[str, ...] = ()
    portable: bool = False
    seed: int = 0
    force: bool = False
