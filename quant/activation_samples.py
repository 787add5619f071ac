"""Samples of activations: a few tokens of every batch."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..engine.model import FloatArray

TOKENS = 8  # per batch


class ActivationSamples:
    """A few tokens of every batch, for each tensor."""

    def __init__(self, seed: int) -> None:
        """Begin without tokens; the seed chooses them."""
        self._generator = np.random.default_rng(seed)
        self._rows: dict[str, list[FloatArray]] = {}

    def add(self, activations: Mapping[str, FloatArray]) -> None:
        """Add tokens of activations `[…, C]`, by name of the tensor."""
        for name, values in activations.items():
            rows = values.reshape(-1, values.shape[-1])
            chosen = np.sort(self._generator.permutation(len(rows))[:TOKENS])
            self._rows.setdefault(name, []).append(rows[chosen])

    def get(self, tensor: str) -> FloatArray:
        """Return the sample of a tensor, `[T, C]`."""
        return np.concatenate(self._rows[tensor])
