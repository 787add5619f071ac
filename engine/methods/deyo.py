"""DeYO (ICLR 2024): entropy descent on images whose prediction depends on shapes. Not forward-only."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from ..interface.method import Binding, Prediction, State, Step
from ..interface.method_options import option, validate
from ..interface.request import Request, Requests
from ..model import NORMS, FloatArray, ImageArray, ModelInfo, Slopes
from ..search.gradient_steps import take_velocity_step
from ..search.tuned_norms import TunedNorms
from ..statistics.objective import entropy, softmax
from ..statistics.output_slopes import derive_entropy


@dataclass(frozen=True)
class DeyoState(State):
    """Tuned norms.

    Attributes:
        norms: float32 `[T, 2, D]`, addends to gain and bias.
        velocity: of the descent, float64, of this shape.
    """

    norms: FloatArray
    velocity: FloatArray


@dataclass(frozen=True)
class Deyo:
    """DeYO, as released.

    An image counts if its entropy is below a margin and the probability of its class falls by more than a
    threshold when its patches are shuffled. It weighs `exp(reference − entropy) + exp(fall)`.
    """

    name: ClassVar[str] = "deyo"

    first_block: int = option(0, "first block whose norms are tuned, from 0", low=0)
    frozen_last_blocks: int = option(3, "blocks at the end whose norms are not tuned", low=0)
    rate: float = option(0.001, "η", low=0)
    momentum: float = option(0.9, "share of the old velocity that is kept", low=0, high=0.999)
    margin: float = option(0.5, "entropy below which an image counts, as a share of ln K", low=0, high=1)
    reference: float = option(0.4, "entropy at which an image weighs 1, as a share of ln K", low=0, high=1)
    fall: float = option(
        0.2, "fall of the class's probability under shuffling above which an image counts", low=-1, high=1
    )
    grid: int = option(4, "patches per side that are shuffled", low=1)

    def __post_init__(self) -> None:
        validate(self)

    @property
    def forwards(self) -> int:
        """Forwards that one step uses."""
        return 2

    @property
    def pull_backs(self) -> int:
        """Computations of exact gradients that one step uses."""
        return 1

    def bind(self, model: ModelInfo) -> BoundDeyo:
        """Return the method bound to a model.

        Raises:
            BundleError: the bundle lacks tunable norms or a pull-back graph.
        """
        model.require_gradient(NORMS, self.name)
        norms = TunedNorms.select(model, self.first_block, self.frozen_last_blocks, self.name)
        return BoundDeyo(self, model, norms)


@dataclass(frozen=True, eq=False)
class BoundDeyo(Binding[Deyo]):
    """DeYO on one model.

    Attributes:
        norms: that are tuned.
    """

    norms: TunedNorms

    def init(self, seed: int) -> DeyoState:
        """Return unchanged norms."""
        return DeyoState(0, seed, self.norms.create_zeros(np.float32), self.norms.create_zeros())

    def step(self, state: DeyoState, images: ImageArray) -> Step[DeyoState]:
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
            (pulled,) = yield Request(images, [tunables], slopes)
            assert pulled.gradients is not None
            norms, velocity = take_velocity_step(
                state.norms,
                state.velocity,
                pulled.gradients[NORMS][self.norms.rows],
                options.rate,
                options.momentum,
            )
            next_state = replace(next_state, norms=norms, velocity=velocity)
        diagnostics = {"entropy": float(entropies.mean()), "counted": float(counted.mean())}
        pull_backs = int(counted.any())
        return Prediction(logits, forwards, diagnostics=diagnostics, pull_backs=pull_backs), next_state

    def predict(self, state: DeyoState, images: ImageArray) -> Requests[Prediction]:
        """Predict with the current norms."""
        (outputs,) = yield Request(images, [self.norms.build_tunables(state.norms)])
        return Prediction(outputs.logits, 1, diagnostics={"entropy": float(entropy(outputs.logits).mean())})


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
