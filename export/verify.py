"""The exported graph against PyTorch: the same images and tunables through both, before it is kept."""

from __future__ import annotations

from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np

from ..engine.errors import ExportError
from ..engine.model import FloatArray, ModelInfo, Outputs
from ..engine.runtime.network import Network
from .family import Family

BATCHES = (1, 2, 3, 17)
# Relative to the largest magnitude of the output: float32 through a few hundred operators.
TOLERANCE = 1e-4


@dataclass(frozen=True)
class Parity:
    """Largest absolute differences between the graph and PyTorch, over all cases that were run."""

    logits: float
    features: float
    embedding: float

    def worst(self, other: Parity) -> Parity:
        """The larger of each."""
        pairs = zip(astuple(self), astuple(other), strict=True)
        return Parity(*(max(pair) for pair in pairs))


def verify(family: Family, graph: Path, info: ModelInfo) -> Parity:
    """Runs graph and PyTorch on random images, batches of 1, 2, 3 and 17, without and with tunables.

    Raises:
        ExportError: a difference is larger than rounding explains, or the outputs are not finite.
    """
    generator = np.random.default_rng(0)
    worst = Parity(0.0, 0.0, 0.0)
    with Network(graph, info, workers=1, micro_batch=max(BATCHES)) as network:
        for batch in BATCHES:
            images = generator.integers(0, 256, (batch, *network.image_size, 3), dtype=np.uint8)
            for case, tunables in family.cases(batch, info.norms, generator):
                expected = family.reference(images, tunables, info.norms)
                worst = worst.worst(_parity(network(images, **tunables), expected, f"N = {batch}, {case}"))
    return worst


def _parity(found: Outputs, expected: Outputs, case: str) -> Parity:
    assert found.embedding is not None and expected.embedding is not None
    return Parity(
        _difference("logits", case, found.logits, expected.logits),
        _difference("features", case, found.features, expected.features),
        _difference("embedding moments", case, found.embedding, expected.embedding),
    )


def _difference(what: str, case: str, found: FloatArray, expected: FloatArray) -> float:
    """The largest absolute difference, if rounding explains it."""
    if not (np.isfinite(found).all() and np.isfinite(expected).all()):
        raise ExportError(
            f"the model answers random images with non-finite {what} at {case}; check its weights"
        )
    difference = float(np.abs(found - expected).max())
    if difference > TOLERANCE * max(1.0, float(np.abs(expected).max())):
        raise ExportError(
            f"the exported graph does not compute what PyTorch does: {what} differ by up to {difference:.3g} "
            f"at {case}; nothing was written, please report this model"
        )
    return difference
