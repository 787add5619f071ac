"""DeYO (ICLR 2024): entropy descent on images whose prediction depends on shapes. Not forward-only."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from ..interface.method import Prediction, Step
from ..interface.method_options import option
from ..interface.request import Request
from ..model import FloatArray, ImageArray, ModelInfo, Slopes
from ..statistics.objective import entropy, softmax
from ..statistics.output_slopes import derive_entropy
from .norm_descent import DescentState, NormDescent, NormDescentBinding


@dataclass(frozen=True)
class Deyo(NormDescent):
    """DeYO, as released.

    An image counts if its entropy is below a margin and the probability of its class falls by more than a
    threshold when its patches are shuffled. It weighs `exp(reference − entropy) + exp(fall)`.
    """

    name: ClassVar[str] = "deyo"

    frozen_last_blocks: int = option(3, "blocks at the end whose norms are not tuned", low=0)
    margin: float = option(0.5, "entropy below which an image counts, as a share of ln K", low=0, high=1)
    reference: float = option(0.4, "entropy at which an image weighs 1, as a share of ln K", low=0, high=1)
    fall: float = option(
        0.2, "fall of the class's probability under shuffling above which an image counts", low=-1, high=1
    )
    grid: int = option(4, "patches per side that are shuffled", low=1)

    @property
    def forwards(self) -> int:
        """Forwards that one step uses."""
        return 2

    def bind(self, model: ModelInfo) -> BoundDeyo:
        """Return the method bound to a model.

        Raises:
            BundleError: the bundle lacks tunable norms or a pull-back graph.
        """
        return BoundDeyo(self, model, self.select_norms(model))


@dataclass(frozen=True, eq=False)
class BoundDeyo(NormDescentBinding[Deyo]):
    """DeYO on one model."""

    def step(self, state: DescentState, images: ImageArray) -> Step[DescentState]:
        """Predict, compare with shuffled patches, and take a step for the images that count."""
        options, tunables = self.options, self.norms.build_tunables(state.norms)
        (outputs,) = yield Request(images, [tunables])
        logits = outputs.logits
        entropies, scale = entropy(logits), math.log(self.model.classes)
        counted = entropies < options.margin * scale
        falls = np.zeros(len(images))
        forwards = 1
        if counted.any():
            shuffled = shuffle_patches(images[counted], options.grid, state.seed, state.step)
            (again,) = yield Request(shuffled, [tunables])
            forwards = 2
            falls[counted] = _compute_falls(logits[counted], again.logits)
            counted &= falls > options.fall
        next_state = replace(state, step=state.step + 1)
        if counted.any():
            weights = np.exp(options.reference * scale - entropies) + np.exp(falls)
            weights = np.where(counted, weights, 0) / counted.sum()
            slopes = Slopes(weights[:, None] * derive_entropy(logits))
            gradient = yield from self.pull_back(state.norms, images, slopes)
            next_state = self.descend(next_state, gradient)
        diagnostics = {"entropy": float(entropies.mean()), "counted": float(counted.mean())}
        pull_backs = int(counted.any())
        return Prediction(logits, forwards, diagnostics=diagnostics, pull_backs=pull_backs), next_state


def shuffle_patches(images: ImageArray, grid: int, seed: int, step: int) -> ImageArray:
    """Return images whose patches are in random order, another one for each image.

    Rows and columns that do not fill a patch stay where they are; the official code resizes instead.

    Args:
        images: uint8 `[N, H, W, 3]`.
        grid: patches per side.
        seed: of the random order.
        step: of the stream.
    """
    count, (height, width) = len(images), (side // grid for side in images.shape[1:3])
    generator = np.random.default_rng([seed, step + 1, 0])
    order = np.argsort(generator.random((count, grid * grid)), axis=1)
    cut = images[:, : grid * height, : grid * width]
    patches = cut.reshape(count, grid, height, grid, width, 3).swapaxes(2, 3)
    patches = patches.reshape(count, grid * grid, height, width, 3)[np.arange(count)[:, None], order]
    result: ImageArray = images.copy()
    mixed = patches.reshape(count, grid, grid, height, width, 3).swapaxes(2, 3)
    result[:, : grid * height, : grid * width] = mixed.reshape(cut.shape)
    return result


def _compute_falls(logits: FloatArray, shuffled: FloatArray) -> FloatArray:
    """Return by how much the probability of the predicted class falls, `[N]`."""
    predicted = logits.argmax(axis=1)[:, None]
    before, after = (np.take_along_axis(softmax(values), predicted, 1)[:, 0] for values in (logits, shuffled))
    falls: FloatArray = before - after
    return falls
