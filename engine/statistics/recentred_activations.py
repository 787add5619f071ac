"""The activations that a method re-centres, among those of a network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from ..model import RECENTRING, Activation, ActivationUse, FloatArray, ModelInfo, Outputs, Tunables
from .feature_statistics import ChannelMoments


@dataclass(frozen=True, eq=False)
class RecentredActivations:
    """Channels of the tunable `recentring` that a method sets.

    Attributes:
        activations: that they belong to, in order.
        channels: their indices, int64 `[C]`.
        count: number of channels of all activations of the network.
        source: moments of these channels on clean images.
    """

    activations: tuple[Activation, ...]
    channels: NDArray[np.int64]
    count: int
    source: ChannelMoments

    @staticmethod
    def select(model: ModelInfo, use: ActivationUse, user: str) -> RecentredActivations:
        """Return the activations of some kinds and blocks.

        Raises:
            BundleError: the network has none, or the bundle no source statistics of them.
        """
        selected = model.require_activations(use, user)
        source = model.require_source(user)
        assert source.activation_mean is not None and source.activation_std is not None
        widths = [activation.width for activation in model.activations]
        is_selected = np.repeat([activation in selected for activation in model.activations], widths)
        channels = np.flatnonzero(is_selected)
        mean = source.activation_mean[channels].astype(np.float64)
        variance = np.square(source.activation_std[channels].astype(np.float64))
        return RecentredActivations(tuple(selected), channels, sum(widths), ChannelMoments(mean, variance))

    def read_moments(self, outputs: Outputs) -> ChannelMoments:
        """Return the moments of these channels over all tokens of a batch."""
        assert outputs.activation_moments is not None
        return ChannelMoments.of_images(outputs.activation_moments[:, :, self.channels])

    def build_tunables(self, slope: FloatArray, intercept: FloatArray) -> Tunables:
        """Return what to feed so that these channels x become `slope · x + intercept`, `[C]` each."""
        values = np.zeros((1, 2, self.count), np.float32)
        values[0, 0, self.channels] = slope - 1
        values[0, 1, self.channels] = intercept
        return {RECENTRING: values}


def map_to_source(
    moments: ChannelMoments,
    source: ChannelMoments,
    strength: FloatArray | float,
    limit: float,
    epsilon: float,
) -> tuple[FloatArray, FloatArray]:
    """Return slope and intercept of `(1 − λ) x + λ [(x − µ) r + µ_S]`, float64 `[C]` each.

    Here `r = min(σ_S / (σ + ε), limit)`.

    Args:
        moments: µ and σ² of the images so far.
        source: µ_S and σ_S² of clean images.
        strength: λ, one for all channels or one of each.
        limit: largest r.
        epsilon: ε.

    >>> def describe(mean, std):
    ...     return ChannelMoments(np.array([mean]), np.array([std**2]))
    >>> slope, intercept = map_to_source(describe(5.0, 2.0), describe(1.0, 3.0), 1.0, 3.0, 0.0)
    >>> slope.tolist(), intercept.tolist()  # 5 becomes 1, and 7 becomes 4
    ([1.5], [-6.5])
    """
    floor = np.finfo(np.float64).tiny  # where ε is 0
    ratio = np.sqrt(source.variance) / np.maximum(np.sqrt(moments.variance) + epsilon, floor)
    ratio = np.minimum(ratio, limit)
    slope = 1 + strength * (ratio - 1)
    intercept = strength * (source.mean - ratio * moments.mean)
    return cast(FloatArray, slope), cast(FloatArray, intercept)
