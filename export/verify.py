"""Verification of an exported graph: PyTorch and the graph compute the same images and tunables."""

from __future__ import annotations

from dataclasses import astuple, dataclass, replace
from pathlib import Path

import numpy as np

from ..engine.errors import ExportError
from ..engine.model import FloatArray, ModelInfo, Outputs, Slopes, list_differentiable
from ..engine.runtime.network import Network
from .families import Family

BATCHES = (1, 2, 3, 17)
# Relative to the largest magnitude of the output: float32 through a few hundred operators.
TOLERANCE = 1e-4
# Of gradients, relative to the largest: two passes, and sums over tokens.
GRADIENT_TOLERANCE = 1e-3


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


def verify_gradients(family: Family, graph: Path, info: ModelInfo) -> float:
    """Run a pull-back graph and PyTorch's autograd on random images, tunables and slopes.

    Returns:
        Largest difference of a gradient, relative to the largest gradient of its tunable.

    Raises:
        ExportError: the difference is larger than rounding explains, or the family has no gradients.
    """
    generator = np.random.default_rng(1)
    worst = 0.0
    info = replace(info, gradients=list_differentiable(info.tunables))
    with Network(graph, info, workers=1) as network:
        for batch in (1, 3):
            images = generator.integers(0, 256, (batch, *network.image_size, 3), dtype=np.uint8)
            for case, tunables in family.draw_cases(batch, info.norms, generator):
                if any(len(values) > 1 for values in tunables.values()):
                    continue  # gradients are for tunables that all images share
                outputs = network(images, **tunables)
                reference = family.compute_reference(images, tunables, info.norms)
                _compare_outputs(outputs, reference, f"N = {batch}, {case}, with the pull-back graph")
                slopes = _draw_slopes(info, batch, generator)
                expected = family.compute_reference_gradients(images, tunables, info.norms, slopes)
                actual = network.pull_back(images, tunables, slopes).gradients
                assert actual is not None
                for tunable, gradient in expected.items():
                    if gradient.size and tunable in actual:
                        case = f"the gradient of {tunable}, N = {batch}, {case}"
                        worst = max(worst, _compare_gradients(actual[tunable], gradient, case))
    return worst


def _draw_slopes(info: ModelInfo, batch: int, generator: np.random.Generator) -> Slopes:
    logits = generator.normal(size=(batch, info.classes))
    features = generator.normal(size=(batch, info.layers, info.feature_width))
    weights = generator.normal(size=batch)
    return Slopes(*(values.astype(np.float32) for values in (logits, features, weights)))


def _compare_gradients(actual: FloatArray, expected: FloatArray, case: str) -> float:
    """Return the largest difference relative to the largest gradient; raise if rounding cannot explain it."""
    size = float(np.abs(expected).max())
    difference = float(np.abs(actual - expected).max()) / size if size else float(np.abs(actual).max())
    if not difference <= GRADIENT_TOLERANCE:
        raise ExportError(
            f"the pull-back graph does not compute what PyTorch's autograd does: {case} differs by "
            f"{difference:.3g} of its largest value; nothing was written, please report this model, or "
            "export it without --gradients"
        )
    return difference


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
