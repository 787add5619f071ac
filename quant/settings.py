"""Options of a quantisation, in a module that loads neither NumPy nor ONNX."""

from __future__ import annotations

from dataclasses import dataclass

CALIBRATORS = ("percentile", "average", "minmax")
WEIGHT_BITS = (8, 7)


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
