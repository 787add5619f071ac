"""T3A: class prototypes from confident features of the stream take the head's place (NeurIPS 2021)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, cast

import numpy as np
from numpy.typing import NDArray

from ..interface.method import Binding, Prediction, State, Step, variable_length_array
from ..interface.method_options import option, validate
from ..interface.request import Request, Requests
from ..model import FloatArray, ImageArray, ModelInfo, Outputs
from ..statistics.objective import entropy

TINY_NORM = 1e-12
HEAD_ROWS = 1024  # rows of the head classified at a time: [K, K] of a large head would not fit in memory


@dataclass(frozen=True)
class T3aState(State):
    """The supports of each class, and the prototypes made of them.

    Attributes:
        prototypes: of each class the sum of its supports, of length 1, or 0 where it has none;
            float32 `[K, F]`.
        supports: features that stand for a class, of length 1, in order of arrival, float32 `[S, F]`; the
            first ones are rows of the head.
        labels: their classes, int64 `[S]`.
        entropies: of the head's prediction for each of them, in nats, float64 `[S]`.
    """

    prototypes: FloatArray
    supports: FloatArray = variable_length_array()
    labels: NDArray[np.int64] = variable_length_array()
    entropies: FloatArray = variable_length_array()


@dataclass(frozen=True)
class T3a:
    """T3A as FOA's authors ran it: every image of the stream is a candidate for the class that the head says.

    The current batch joins the supports before it is predicted. All but the supports of lowest entropy are
    discarded for good. Logits are products with the image's feature as it is, so they grow with its length,
    and probabilities are overconfident. Where classes come from texts, they are cosines times the model's
    logit scale. A class without supports has the logit 0.

    Batches may have any size. Memory is up to `supports` times that of the head.
    """

    name: ClassVar[str] = "t3a"

    supports: int = option(20, "supports kept per class, those of lowest entropy", low=1)

    def __post_init__(self) -> None:
        validate(self)

    @property
    def forwards(self) -> int:
        """Forwards that one step uses."""
        return 1

    def bind(self, model: ModelInfo) -> BoundT3a:
        """Return the method bound to a model; any model will do."""
        return BoundT3a(self, model)


@dataclass(frozen=True, eq=False)
class BoundT3a(Binding[T3a]):
    """T3A on one model."""

    def init(self, seed: int) -> T3aState:
        """Return the rows of the head as first supports, each of the class that the head predicts."""
        weight = self.model.head_weight
        labels, entropies = _classify_rows(weight, self.model.head_bias, self.model.logit_scale)
        mask = select_lowest_entropy(entropies, labels, self.options.supports)
        labels, supports = labels[mask], _normalise_rows(weight[mask])
        prototypes = np.zeros(weight.shape, np.float32)
        classes, sums = compute_prototypes(supports, labels, np.arange(len(labels)))
        prototypes[classes] = sums
        return T3aState(
            step=0,
            seed=seed,
            prototypes=prototypes,
            supports=supports,
            labels=labels,
            entropies=entropies[mask],
        )

    def step(self, state: T3aState, images: ImageArray) -> Step[T3aState]:
        """Add the images to the supports, and predict them with the resulting prototypes."""
        (outputs,) = yield Request(images)
        next_state = self._add_supports(state, outputs)
        return self._predict(next_state, outputs), next_state

    def predict(self, state: T3aState, images: ImageArray) -> Requests[Prediction]:
        """Predict with the prototypes as they are."""
        (outputs,) = yield Request(images)
        return self._predict(state, outputs)

    def _add_supports(self, state: T3aState, outputs: Outputs) -> T3aState:
        labels = np.concatenate([state.labels, outputs.logits.argmax(axis=1)])
        entropies = np.concatenate([state.entropies, entropy(outputs.logits)])
        mask = select_lowest_entropy(entropies, labels, self.options.supports)
        old, new = np.flatnonzero(mask[: len(state.labels)]), mask[len(state.labels) :]
        if not new.any():  # then all old ones stay, too
            return replace(state, step=state.step + 1)
        labels = labels[mask]
        supports = np.empty((len(labels), state.supports.shape[1]), np.float32)
        # Tens of megabytes: written where they belong, without a copy in between (mode "raise" makes one).
        np.take(state.supports, old, axis=0, out=supports[: len(old)], mode="clip")
        supports[len(old) :] = _normalise_rows(outputs.features[new, -1])
        changed = np.zeros(len(state.prototypes), bool)
        changed[labels[len(old) :]] = True
        classes, sums = compute_prototypes(supports, labels, np.flatnonzero(changed[labels]))
        prototypes = state.prototypes.copy()
        prototypes[classes] = sums
        return T3aState(state.step + 1, state.seed, prototypes, supports, labels, entropies[mask])

    def _predict(self, state: T3aState, outputs: Outputs) -> Prediction:
        products = outputs.features[:, -1] @ state.prototypes.T
        logits = (self.model.logit_scale * products).astype(np.float32, copy=False)
        return Prediction(
            logits,
            1,
            diagnostics={"entropy": float(entropy(logits).mean()), "supports": float(len(state.labels))},
        )


def select_lowest_entropy(entropies: FloatArray, labels: NDArray[np.int64], count: int) -> NDArray[np.bool_]:
    """Return a mask, bool `[S]`, of each class's supports of lowest entropy; of equals the earlier.

    Args:
        entropies: `[S]`, in order of arrival.
        labels: classes, `[S]`.
        count: supports that a class may have.
    """
    order = np.lexsort((entropies, labels))  # stable
    by_class = labels[order]
    rank = np.arange(len(order)) - np.searchsorted(by_class, by_class)
    mask = np.zeros(len(order), bool)
    mask[order[rank < count]] = True
    return mask


def compute_prototypes(
    supports: FloatArray, labels: NDArray[np.int64], among: NDArray[np.int64]
) -> tuple[NDArray[np.int64], FloatArray]:
    """Return the classes that occur, ascending `[C]`, and the scaled sum of each one's supports `[C, F]`.

    A sum depends on the supports of its class and their order alone, not on what else is computed with it.

    Args:
        supports: float32 `[S, F]`.
        labels: classes, `[S]`.
        among: indices of the supports that count, at least one.
    """
    among = among[np.argsort(labels[among], kind="stable")]
    classes, starts = np.unique(labels[among], return_index=True)
    return classes, _normalise_rows(np.add.reduceat(supports[among], starts, axis=0, dtype=np.float64))


def _classify_rows(
    weight: FloatArray, bias: FloatArray, scale: float
) -> tuple[NDArray[np.int64], FloatArray]:
    """Return labels and entropies `[K]` of the head's prediction for its own rows, divided by `scale`.

    Rows made from texts have the length of the logit scale; features of images have length 1.
    """
    logits = [
        weight[start : start + HEAD_ROWS] / scale @ weight.T + bias
        for start in range(0, len(weight), HEAD_ROWS)
    ]
    return (
        np.concatenate([block.argmax(axis=1) for block in logits]).astype(np.int64, copy=False),
        np.concatenate([entropy(block) for block in logits]),
    )


def _normalise_rows(rows: FloatArray) -> FloatArray:
    """Return rows `[N, F]` scaled to length 1, float32; a row of zeros stays."""
    rows = rows.astype(np.float64)
    rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), TINY_NORM)
    return cast(FloatArray, rows.astype(np.float32))
