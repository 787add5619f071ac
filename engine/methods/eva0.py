"""EVA-0: a perturbation of its own for every image, and an entropy that growing logits cannot lower.

From arXiv 2605.18867 the sources are the abstract and a description by others; there is no code. The pair
of probes, the mean of their logits as the answer, the common scale, the clipped gradient, anchors and bounds
are as described there. The formulas of the loss and of anchor directions are inferred. No published figure
has been reproduced with this file.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from ..interface.method import Binding, Prediction, State, Step
from ..interface.method_options import option, validate
from ..interface.request import Request, Requests
from ..model import NORMS, FloatArray, ImageArray, ModelInfo
from ..search.gradient_steps import compute_length, compute_rms
from ..search.spsa import draw_signs
from ..search.tuned_norms import TunedNorms
from ..statistics.objective import entropy

TINY = 1e-12


@dataclass(frozen=True)
class Eva0State(State):
    """Tuned norms.

    Attributes:
        norms: w, addends to gain and bias, float32 `[T, 2, D]`.
        images: number of images so far, by which anchor directions take turns.
    """

    norms: FloatArray
    images: int = 0


@dataclass(frozen=True)
class Eva0:
    """EVA-0 on gains and biases of norms, without source statistics; unverified.

    Every image is seen at `w ± µ u_i`, with a direction u_i of its own. Batches may have any size: the
    gradient is a mean over images, and its length is bounded.
    """

    name: ClassVar[str] = "eva0"

    first_block: int = option(1, "first block whose norms are tuned, from 0", low=0)
    frozen_last_blocks: int = option(
        3, "number of last blocks whose norms stay frozen; fewer if none would be left to adapt", low=0
    )
    directions: Literal["gaussian", "rademacher"] = option(
        "gaussian", "entries of the directions: normal, or random signs; the sources leave it open"
    )
    perturbation: float = option(
        0.001, "µ, size of the perturbation; the source tries 0.001 and 0.003", low=0
    )
    rate: float = option(5e-4, "η; the source tries 0.0001 and 0.0005", low=0)
    clip: float = option(1.0, "largest L2 norm of the gradient; a longer one is shortened to it", low=0)
    retention: float = option(0.999, "share of w that an update keeps (weight decay)", low=0, high=1)
    largest_rms: float = option(0.05, "largest root mean square of w; a larger one is scaled to it", low=0)
    anchor_every: int = option(
        4, "one image in this many is perturbed towards w = 0 instead of at random; 0: none", low=0
    )
    loss: Literal["scale_free", "entropy"] = option(
        "scale_free", "entropy of logits that both probes bring to one length, or of the logits as they are"
    )

    def __post_init__(self) -> None:
        validate(self)

    @property
    def forwards(self) -> int:
        """Forwards that one step uses."""
        return 2

    def bind(self, model: ModelInfo) -> BoundEva0:
        """Return the method bound to a model.

        Raises:
            BundleError: the graph has no tunable norms, or its images depend on each other.
        """
        model.require_tunable(NORMS, self.name)
        model.require_separate_images(self.name)
        norms = TunedNorms.select(model, self.first_block, self.frozen_last_blocks, self.name)
        return BoundEva0(self, model, norms)


@dataclass(frozen=True, eq=False)
class BoundEva0(Binding[Eva0]):
    """EVA-0 on one model.

    Attributes:
        norms: that are tuned.
    """

    norms: TunedNorms

    def init(self, seed: int) -> Eva0State:
        """Return unchanged norms."""
        return Eva0State(0, seed, self.norms.create_zeros(np.float32))

    def step(self, state: Eva0State, images: ImageArray) -> Step[Eva0State]:
        """Answer with the mean of both probes, then take a step along the mean of the images' gradients."""
        options = self.options
        directions = self._draw_directions(state, len(images))
        moves = np.float32(options.perturbation) * directions
        pair = [self.norms.build_tunables(state.norms + sign * moves) for sign in (1, -1)]
        plus, minus = yield Request(images, pair)
        differences = _compute_losses(plus.logits, minus.logits, options.loss)
        scale = 2 * options.perturbation * len(images)
        slopes = differences / scale if options.perturbation else np.zeros(len(images))
        gradient = np.einsum("n,n...->...", slopes, directions)
        norms = self._descend(state.norms, gradient)
        logits = (plus.logits + minus.logits) / 2
        diagnostics = {
            "entropy": float(entropy(logits).mean()),
            "gradient": compute_length(gradient),
            "size": compute_rms(norms),
        }
        next_state = Eva0State(state.step + 1, state.seed, norms, state.images + len(images))
        return Prediction(logits, 2, diagnostics=diagnostics), next_state

    def predict(self, state: Eva0State, images: ImageArray) -> Requests[Prediction]:
        """Predict with the current norms, unperturbed."""
        (outputs,) = yield Request(images, [self.norms.build_tunables(state.norms)])
        return Prediction(outputs.logits, 1, diagnostics={"entropy": float(entropy(outputs.logits).mean())})

    def _draw_directions(self, state: Eva0State, count: int) -> FloatArray:
        """Draw a direction for each image, float32 `[N, T, 2, D]`.

        Of an anchor image it is `−r ⊙ w` with r uniform in [0, 1), scaled to a root mean square of 1.
        """
        options = self.options
        generator = np.random.default_rng([state.seed, state.step + 1, 0])
        shape = (count, *state.norms.shape)
        if options.directions == "gaussian":
            directions = generator.standard_normal(shape, np.float32)
        else:
            directions = draw_signs(generator, shape)
        if options.anchor_every and state.norms.any():
            numbers = state.images + np.arange(count)
            for index in np.flatnonzero(numbers % options.anchor_every == options.anchor_every - 1):
                anchor = -generator.random(state.norms.shape, np.float32) * state.norms
                directions[index] = anchor / np.float32(max(compute_rms(anchor), TINY))
        return directions

    def _descend(self, norms: FloatArray, gradient: FloatArray) -> FloatArray:
        """Return the norms after one bounded step, float32."""
        options = self.options
        length = compute_length(gradient)
        if length > options.clip:
            gradient = gradient * (options.clip / length)
        values = options.retention * norms.astype(np.float64) - options.rate * gradient
        size = compute_rms(values)
        if size > options.largest_rms:
            values *= options.largest_rms / size
        return values.astype(np.float32)


def _compute_losses(plus: FloatArray, minus: FloatArray, loss: str) -> FloatArray:
    """Return the difference of each image's losses at both ends, float64 `[N]`.

    Without a scale, `H(softmax(z s / |z|))` with s the mean of both lengths, the same at both ends.
    """
    if loss == "scale_free":
        lengths = [np.linalg.norm(z.astype(np.float64), axis=1, keepdims=True) for z in (plus, minus)]
        common = (lengths[0] + lengths[1]) / 2
        plus, minus = (
            z * (common / np.maximum(length, TINY)) for z, length in zip((plus, minus), lengths, strict=True)
        )
    return entropy(plus) - entropy(minus)
