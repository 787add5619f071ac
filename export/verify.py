"""Verification of an exported graph: PyTorch and the graph compute the same images and tunables."""

from __future__ import annotations

from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np

from ..engine.errors import ExportError
from ..engine.model import FloatArray, ModelInfo, Outputs
from ..engine.runtime.network import Network
from .families import Family

BATCHES = (1, 2, 3, 17)
# Relative to the largest magnitude of the output: float32 through a few hundred operators.
TOLERANCE = 1e-4


@dataclass(frozen=True)
class Parity:
    """Largest absolute differences between the graph and PyTorch, over all cases that were run."""

    logits: float
    features: float
    embedding: float

    def maximum(self, other: Parity) -> Parity:
        """Return the larger difference of each output."""
        pairs = zip(astuple(self), astuple(other), strict=True)
        return Parity(*(max(pair) for pair in pairs))


def verify(family: Family, graph: Path, info: ModelInfo) -> Parity:
    """Run graph and PyTorch on random images, batches of 1, 2, 3 and 17, without and with tunables.

    Raises:
        ExportError: a difference is larger than rounding explains, or the outputs are not finite.
    """
    generator = np.random.default_rng(0)
    parity = Parity(0.0, 0.0, 0.0)
    with Network(graph, info, workers=1, micro_batch=max(BATCHES)) as network:
        for batch in BATCHES:
            images = generator.integers(0, 256, (batch, *network.image_size, 3), dtype=np.uint8)
            for case, tunables in family.draw_cases(batch, info.norms, generator):
                expected = family.compute_reference(images, tunables, info.norms)
                outputs = network(images, **tunables)
                parity = parity.maximum(_compare_outputs(outputs, expected, f"N = {batch}, {case}"))
    return parity


def _compare_outputs(actual: Outputs, expected: Outputs, case: str) -> Parity:
    assert actual.embedding is not None and expected.embedding is not None
    return Parity(
        _compare_arrays("logits", case, actual.logits, expected.logits),
        _compare_arrays("features", case, actual.features, expected.features),
        _compare_arrays("embedding moments", case, actual.embedding, expected.embedding),
    )


def _compare_arrays(output: str, case: str, actual: FloatArray, expected: FloatArray) -> float:
    """Return the largest absolute difference; raise if rounding does not explain it."""
    if not (np.isfinite(actual).all() and np.isfinite(expected).all()):
        raise ExportError(
            f"the model answers random images with non-finite {output} at {case}; check its weights"
        )
    difference = float(np.abs(actual - expected).max())
    if difference > TOLERANCE * max(1.0, float(np.abs(expected).max())):
        raise ExportError(
            f"the exported graph does not compute what PyTorch does: {output} differ by up to "
            f"{difference:.3g} at {case}; nothing was written, please report this model"
        )
    return difference
