"""TDA: a cache of confident images and one of uncertain ones correct the logits (CVPR 2024)."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, cast

import numpy as np
from numpy.typing import NDArray

from ..interface.method import Binding, Prediction, State, Step
from ..interface.method_options import option, validate
from ..interface.request import Request, Requests
from ..model import FloatArray, ImageArray, ModelInfo, Outputs
from ..statistics.class_memory import ClassMemory, normalise_features, read_width
from ..statistics.objective import entropy, softmax


@dataclass(frozen=True)
class TdaState(State):
    """Both caches.

    Attributes:
        positive: the most confident images of each class.
        negative: the least uncertain ones among images of middling entropy.
        possible: classes that are possible for each image of the negative cache, bool `[K, S, K]`.
    """

    positive: ClassMemory
    negative: ClassMemory
    possible: NDArray[np.bool_]


@dataclass(frozen=True)
class Tda:
    """TDA: similar images that were predicted with confidence raise the logit of their class.

    Images that were predicted with middling confidence lower the logits of the classes that were possible for
    them. An image enters the caches before it is predicted. Images of a batch are taken one after the other,
    so batches make no difference.
    """

    name: ClassVar[str] = "tda"

    positive: int = option(3, "confident images kept per class", low=0)
    weight: float = option(2.0, "α, weight of the confident images", low=0)
    sharpness: float = option(5.0, "β, how fast their weight falls with the distance", low=0)
    negative: int = option(2, "uncertain images kept per class", low=0)
    negative_weight: float = option(0.117, "weight of the uncertain images", low=0)
    negative_sharpness: float = option(1.0, "how fast their weight falls with the distance", low=0)
    entropy_low: float = option(0.2, "share of the entropy's unit above which an image is uncertain", low=0)
    entropy_high: float = option(0.5, "share of that unit below which an image is uncertain", low=0)
    entropy_unit: Literal["log2", "ln"] = option(
        "log2", "unit of these shares: the logarithm of K to base 2 (official code), or the natural one"
    )
    possible_above: float = option(
        0.03, "probability above which a class was possible for an uncertain image", low=0, high=1
    )

    def __post_init__(self) -> None:
        validate(self)

    @property
    def forwards(self) -> int:
        """Forwards that one step uses."""
        return 1

    def bind(self, model: ModelInfo) -> BoundTda:
        """Return the method bound to a model; any model will do."""
        return BoundTda(self, model)


@dataclass(frozen=True, eq=False)
class BoundTda(Binding[Tda]):
    """TDA on one model."""

    def init(self, seed: int) -> TdaState:
        """Return empty caches."""
        classes, width, options = self.model.classes, read_width(self.model), self.options
        return TdaState(
            step=0,
            seed=seed,
            positive=ClassMemory.create_empty(classes, options.positive, width),
            negative=ClassMemory.create_empty(classes, options.negative, width),
            possible=np.zeros((classes, options.negative, classes), bool),
        )

    def step(self, state: TdaState, images: ImageArray) -> Step[TdaState]:
        """Add each image to the caches, and predict it with them."""
        (outputs,) = yield Request(images)
        next_state = replace(
            state,
            step=state.step + 1,
            positive=state.positive.copy(),
            negative=state.negative.copy(),
            possible=state.possible.copy(),
        )
        return self._predict(next_state, self.correct_logits(next_state, outputs, update=True)), next_state

    def predict(self, state: TdaState, images: ImageArray) -> Requests[Prediction]:
        """Predict with the caches as they are."""
        (outputs,) = yield Request(images)
        return self._predict(state, self.correct_logits(state, outputs, update=False))

    def correct_logits(self, state: TdaState, outputs: Outputs, *, update: bool) -> FloatArray:
        """Return the corrected logits, float64 `[N, K]`; with `update`, add to the caches in place.

        What a new entry changes is added for its image and for those after it, so that the caches are read
        once for the whole batch.
        """
        features = normalise_features(outputs.features[:, -1], read_width(self.model))
        features = features.astype(state.positive.features.dtype, copy=False)
        logits = outputs.logits + self._compute_corrections(state, features)
        if update:
            probabilities, entropies = softmax(outputs.logits), entropy(outputs.logits)
            for index in range(len(features)):
                later, uncertainty = features[index:], float(entropies[index])
                label = int(outputs.logits[index].argmax())
                logits[index:, label] += self._store_confident(state.positive, label, later, uncertainty)
                if self._is_uncertain(uncertainty):
                    possible = self._find_possible(probabilities[index])
                    logits[index:] -= self._store_uncertain(state, label, later, uncertainty, possible)
        return logits

    @staticmethod
    def _predict(state: TdaState, logits: FloatArray) -> Prediction:
        return Prediction(
            logits.astype(np.float32),
            1,
            diagnostics={
                "entropy": float(entropy(logits).mean()),
                "confident": float(state.positive.counts.sum()),
                "uncertain": float(state.negative.counts.sum()),
            },
        )

    def _is_uncertain(self, uncertainty: float) -> bool:
        options, classes = self.options, self.model.classes
        unit = math.log2(classes) if options.entropy_unit == "log2" else math.log(classes)
        return options.entropy_low * unit < uncertainty < options.entropy_high * unit

    def _find_possible(self, probabilities: FloatArray) -> NDArray[np.bool_]:
        return (probabilities > self.options.possible_above) & (probabilities < 1)

    def _compute_corrections(self, state: TdaState, features: FloatArray) -> FloatArray:
        """Return what the caches add to the logits of images with features `[N, E]`, float64 `[N, K]`."""
        options = self.options
        labels, slots = np.nonzero(state.positive.used)
        corrections = np.zeros((len(features), len(state.positive.counts)))
        affinities = compute_affinities(features, state.positive.features[labels, slots], options.sharpness)
        np.add.at(corrections.T, labels, options.weight * affinities.T)
        entries = np.nonzero(state.negative.used)
        affinities = compute_affinities(
            features, state.negative.features[entries], options.negative_sharpness
        )
        penalties = affinities @ state.possible[entries].astype(np.float64)
        return cast(FloatArray, corrections - options.negative_weight * penalties)

    def _store_confident(
        self, memory: ClassMemory, label: int, features: FloatArray, uncertainty: float
    ) -> FloatArray | float:
        """Store the first of some features in place; return what that adds to the logit of its class.

        Args:
            memory: of confident images.
            label: predicted class of the first image.
            features: of this image and the later ones, `[N, E]`.
            uncertainty: entropy of its prediction.
        """
        slot, options = memory.find_slot(label, uncertainty), self.options
        if slot is None:
            return 0.0
        keys = np.stack([features[0], memory.features[label, slot]])
        new, old = compute_affinities(features, keys, options.sharpness).T
        replaces = slot < memory.counts[label]
        memory.store(label, slot, features[0], uncertainty)
        return cast(FloatArray, options.weight * (new - old if replaces else new))

    def _store_uncertain(
        self,
        state: TdaState,
        label: int,
        features: FloatArray,
        uncertainty: float,
        possible: NDArray[np.bool_],
    ) -> FloatArray | float:
        """Store the first of some features in place; return what that takes from the logits, `[N, K]`.

        Args:
            state: the caches.
            label: predicted class of the first image.
            features: of this image and the later ones, `[N, E]`.
            uncertainty: entropy of its prediction.
            possible: classes that are possible for it, `[K]`.
        """
        memory, options = state.negative, self.options
        slot = memory.find_slot(label, uncertainty)
        if slot is None:
            return 0.0
        keys = np.stack([features[0], memory.features[label, slot]])
        affinities = compute_affinities(features, keys, options.negative_sharpness)
        masks = np.stack([possible, state.possible[label, slot]])  # of a free slot, nothing is possible
        memory.store(label, slot, features[0], uncertainty)
        state.possible[label, slot] = possible
        return cast(FloatArray, options.negative_weight * (affinities * (1.0, -1.0)) @ masks)


def compute_affinities(features: FloatArray, keys: FloatArray, sharpness: float) -> FloatArray:
    """Return `exp(−β (1 − x · key))`, float64 `[N, M]`.

    Args:
        features: x, of length 1, `[N, E]`.
        keys: of length 1, `[M, E]`.
        sharpness: β.
    """
    return cast(FloatArray, np.exp(-sharpness * (1 - (features @ keys.T).astype(np.float64))))
