"""Gaussian classes from the stream, as OGA (CVPR 2025 workshops) or DOTA (NeurIPS 2025) learn them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np

from ..errors import InputError
from ..interface.method import Binding, Prediction, State, Step
from ..interface.method_options import option, validate
from ..interface.request import Request, Requests
from ..model import FloatArray, ImageArray, ModelInfo, Outputs
from ..statistics.class_memory import ClassMemory, normalise_features, read_width
from ..statistics.gaussian_classes import (
    compute_means,
    compute_precision,
    scatter_by_probability,
    score_classes,
)
from ..statistics.objective import entropy, log_softmax, softmax

LARGEST_SCATTER = 2**27  # numbers: 1 GB


@dataclass(frozen=True)
class MemoryState(State):
    """Features with hard labels.

    Attributes:
        memory: the most confident images of each class.
        precision: inverse of the covariance that the classes share, float64 `[E, E]`.
    """

    memory: ClassMemory
    precision: FloatArray


@dataclass(frozen=True)
class MixtureState(State):
    """Gaussians of which every image belongs to all, with its probabilities.

    Attributes:
        counts: images of each class, in probabilities, float64 `[K]`.
        means: of each class, float64 `[K, E]`.
        scatter: sum of the squared deviations, float64 `[1, E, E]`, or of each class `[K, E, E]`.
    """

    counts: FloatArray
    means: FloatArray
    scatter: FloatArray


@dataclass(frozen=True)
class Gauss:
    """Classes are Gaussians with one covariance, learnt from the images of the stream; one forward.

    With hard labels (OGA), the most confident images of each class are kept, and the density of the Gaussians
    multiplies the network's probabilities. With soft labels (DOTA), every image counts for all classes with
    its probabilities, nothing is kept, and scores are added to the logits.
    """

    name: ClassVar[str] = "gauss"

    labels: Literal["hard", "soft"] = option(
        "hard", "labels of images: the likeliest class, of confident ones (OGA), or probabilities (DOTA)"
    )
    slots: int = option(8, "hard: images kept per class, those of lowest entropy", low=2)
    weight: float = option(0.05, "hard: weight of the log-density beside the network's logits", low=0)
    mean: Literal["images", "slots"] = option(
        "images", "hard: divisor of a class's mean: its images, or its slots, in use or not (official code)"
    )
    covariance: Literal["shared", "classes"] = option(
        "shared",
        "soft: one covariance for all images, or one per class, averaged (paper; needs K E² numbers)",
    )
    variance: float = option(0.004, "soft: σ², variance of each class at the start", low=0)
    ridge: float = option(1e-4, "soft: ε, share of the identity in the covariance", low=1e-9, high=1)
    gain: float = option(0.005, "soft: ρ, weight of the scores per image and class", low=0)
    gain_limit: float = option(0.2, "soft: η, largest weight of the scores", low=0)

    def __post_init__(self) -> None:
        validate(self)

    @property
    def forwards(self) -> int:
        """Forwards that one step uses."""
        return 1

    def bind(self, model: ModelInfo) -> BoundMemory | BoundMixture:
        """Return the method bound to a model; any model will do.

        Raises:
            InputError: covariances of single classes would take too much memory.
        """
        width = read_width(model)
        first_means = normalise_features(model.head_weight, width)
        if self.labels == "hard":
            return BoundMemory(self, model, first_means)
        if self.covariance == "classes" and model.classes * width**2 > LARGEST_SCATTER:
            raise InputError(
                f"gauss: covariances of {model.classes} single classes take "
                f"{8e-9 * model.classes * width**2:.1f} GB; use covariance=shared"
            )
        return BoundMixture(self, model, first_means)


@dataclass(frozen=True, eq=False)
class BoundMemory(Binding[Gauss]):
    """Gaussians of confident images, on one model.

    Attributes:
        first_means: rows of the head, scaled to length 1, float64 `[K, E]`.
    """

    first_means: FloatArray

    def init(self, seed: int) -> MemoryState:
        """Return an empty memory."""
        classes, width = self.first_means.shape
        memory = ClassMemory.create_empty(classes, self.options.slots, width)
        return MemoryState(0, seed, memory, compute_precision(memory, self.first_means))

    def step(self, state: MemoryState, images: ImageArray) -> Step[MemoryState]:
        """Add the images to the memory, then predict them."""
        (outputs,) = yield Request(images)
        next_state = self.add_images(state, outputs)
        return self._predict(next_state, outputs), next_state

    def predict(self, state: MemoryState, images: ImageArray) -> Requests[Prediction]:
        """Predict with the memory as it is."""
        (outputs,) = yield Request(images)
        return self._predict(state, outputs)

    def add_images(self, state: MemoryState, outputs: Outputs) -> MemoryState:
        """Return the state with the images of a batch."""
        features = normalise_features(outputs.features[:, -1], self.first_means.shape[1])
        labels, entropies = outputs.logits.argmax(axis=1), entropy(outputs.logits)
        memory, changed = state.memory.copy(), False
        for label, feature, uncertainty in zip(labels, features, entropies, strict=True):
            slot = memory.find_slot(int(label), float(uncertainty))
            if slot is not None:
                memory.store(int(label), slot, feature, float(uncertainty))
                changed = True
        next_state = replace(state, step=state.step + 1)
        if not changed:
            return next_state
        return replace(next_state, memory=memory, precision=compute_precision(memory, self._means(memory)))

    def compute_logits(self, state: MemoryState, outputs: Outputs) -> FloatArray:
        """Return log-probabilities up to a constant, float64 `[N, K]`."""
        means = self._means(state.memory)
        features = normalise_features(outputs.features[:, -1], means.shape[1])
        scores = score_classes(features, means, state.precision)
        return log_softmax(outputs.logits) + log_softmax(self.options.weight * scores)

    def _means(self, memory: ClassMemory) -> FloatArray:
        return compute_means(memory, self.first_means, by_slots=self.options.mean == "slots")

    def _predict(self, state: MemoryState, outputs: Outputs) -> Prediction:
        logits = self.compute_logits(state, outputs)
        diagnostics = {
            "entropy": float(entropy(logits).mean()),
            "remembered": float(state.memory.counts.sum()),
        }
        return Prediction(logits.astype(np.float32), 1, diagnostics=diagnostics)


@dataclass(frozen=True, eq=False)
class BoundMixture(Binding[Gauss]):
    """Gaussians of all images, on one model.

    Attributes:
        first_means: rows of the head, scaled to length 1, float64 `[K, E]`.
    """

    first_means: FloatArray

    def init(self, seed: int) -> MixtureState:
        """Return Gaussians around the rows of the head, each of the weight of one image."""
        classes, width = self.first_means.shape
        per_class = self.options.covariance == "classes"
        scatter = self.options.variance * np.eye(width)
        return MixtureState(
            step=0,
            seed=seed,
            counts=np.ones(classes),
            means=self.first_means,
            scatter=np.stack([scatter] * classes) if per_class else classes * scatter[None],
        )

    def step(self, state: MixtureState, images: ImageArray) -> Step[MixtureState]:
        """Predict the images, then learn from them."""
        (outputs,) = yield Request(images)
        return self._predict(state, outputs), self.add_images(state, outputs)

    def predict(self, state: MixtureState, images: ImageArray) -> Requests[Prediction]:
        """Predict with the Gaussians as they are."""
        (outputs,) = yield Request(images)
        return self._predict(state, outputs)

    def add_images(self, state: MixtureState, outputs: Outputs) -> MixtureState:
        """Return the state with the images of a batch; deviations are those from the means before it."""
        features = normalise_features(outputs.features[:, -1], state.means.shape[1])
        probabilities = softmax(outputs.logits)
        if self.options.covariance == "shared":
            added = scatter_by_probability(features, probabilities, state.means)[None]
        else:
            added = np.zeros_like(state.scatter)
            for label, mean in enumerate(state.means):
                deviations = features - mean
                added[label] = (probabilities[:, label, None] * deviations).T @ deviations
        counts = state.counts + probabilities.sum(axis=0)
        sums = state.counts[:, None] * state.means + probabilities.T @ features
        return MixtureState(state.step + 1, state.seed, counts, sums / counts[:, None], state.scatter + added)

    def compute_logits(self, state: MixtureState, outputs: Outputs) -> FloatArray:
        """Return the network's logits with the scores of the Gaussians, float64 `[N, K]`."""
        options, width = self.options, state.means.shape[1]
        shared = options.covariance == "shared"
        divisors = state.counts.sum(keepdims=True) if shared else state.counts
        covariance = (state.scatter / divisors[:, None, None]).mean(axis=0)
        precision = np.linalg.inv((1 - options.ridge) * covariance + options.ridge * np.eye(width))
        features = normalise_features(outputs.features[:, -1], width)
        gain = min(options.gain * float(state.counts.mean()), options.gain_limit)
        return outputs.logits + gain * score_classes(features, state.means, precision)

    def _predict(self, state: MixtureState, outputs: Outputs) -> Prediction:
        logits = self.compute_logits(state, outputs)
        diagnostics = {
            "entropy": float(entropy(logits).mean()),
            "images": float(state.counts.sum() - len(state.counts)),
        }
        return Prediction(logits.astype(np.float32), 1, diagnostics=diagnostics)
