"""GDA (Wang et al., ICLR 2024): a classifier from features in closed form, beside that of the texts.

Each class is a Gaussian around the mean μ of its features, all with one covariance Σ, and all equally likely.
Then `w = Λ μ` and `b = −½ μ · Λ μ` decide as Bayes' rule does, Λ the shrunk inverse of Σ. The logits are
`τ x · t + α (x · w + b)`, t the text embedding of the class. α is a number, or chosen by cross-validation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..model import FloatArray
from ..state import State
from ..statistics.gaussian_classes import invert_scatter
from ..statistics.objective import log_softmax
from .sapt import StepRecord

ALPHAS = (1e-4, 1e-3, 0.01, 0.1, 1.0, 10.0)
FOLDS = 4
Labels = NDArray[np.int64]


class Examples(NamedTuple):
    """Labelled images.

    Attributes:
        features: unit embeddings, padded with zeros, float32 `[N, F]`.
        labels: classes, `[N]`.
    """

    features: FloatArray
    labels: Labels


@dataclass(frozen=True)
class GdaState(State):
    """State of GDA.

    Attributes:
        values: the context of the texts, float32 `[M, D]`; it stays.
        weight: of the classifier, float32 `[K, F]`.
        bias: float32 `[K]`.
        alpha: α; 0 before the step.
    """

    values: FloatArray
    weight: FloatArray
    bias: FloatArray
    alpha: float


@dataclass(frozen=True)
class Gda:
    """A classifier in closed form, as one step.

    Attributes:
        texts: classifier of the texts, `τ t`, float32 `[K, F]`.
        width: E, how much of a feature is not padding.
        alpha: α; None: the one of `ALPHAS` that is most accurate in cross-validation.
    """

    texts: FloatArray
    width: int
    alpha: float | None = None

    @property
    def losses_per_step(self) -> int:
        """Number of losses that a step needs: none, as it sees the embeddings."""
        return 0

    def init(self, values: FloatArray, seed: int) -> GdaState:
        """Return the state before the step, which has the classifier of the texts."""
        return GdaState(0, seed, values, self.texts, np.zeros(len(self.texts), np.float32), 0.0)

    def step(self, state: GdaState, examples: Examples) -> tuple[GdaState, StepRecord]:
        """Return the state with the classifier, and its loss on the images that it was computed from.

        Raises:
            InputError: a class has no image, or α is to be chosen and a class has only one.
        """
        features, labels = examples.features[:, : self.width].astype(np.float64), examples.labels
        texts = self.texts[:, : self.width].astype(np.float64)
        counts = np.bincount(labels, minlength=len(texts))
        if counts.min() < (2 if self.alpha is None else 1):
            raise InputError(
                "expected at least one image of each class, and two to choose alpha by cross-validation, "
                f"found {counts.min()}; give more --shots, or a number with --alpha"
            )
        alpha = choose_alpha(features, labels, texts) if self.alpha is None else self.alpha
        weight, bias = fit_gaussians(features, labels, len(texts))
        combined = np.zeros(self.texts.shape, np.float32)
        combined[:, : self.width] = texts + alpha * weight
        next_state = GdaState(
            state.step + 1, state.seed, state.values, combined, (alpha * bias).astype(np.float32), alpha
        )
        log_p = log_softmax(examples.features @ combined.T + next_state.bias)
        loss = -float(log_p[np.arange(len(labels)), labels].mean())
        return next_state, StepRecord(loss, 0.0, 0.0)


def fit_gaussians(features: FloatArray, labels: Labels, classes: int) -> tuple[FloatArray, FloatArray]:
    """Return weight `[K, E]` and bias `[K]` of Gaussian classes, float64.

    Their means over the classes are subtracted, which changes no probability.

    Args:
        features: float64 `[N, E]`.
        labels: `[N]`; every class occurs.
        classes: K.
    """
    members = np.eye(classes)[labels]
    means = members.T @ features / members.sum(axis=0)[:, None]
    deviations = features - means[labels]
    weight = means @ invert_scatter(deviations.T @ deviations, len(deviations))
    bias = -0.5 * np.einsum("ke,ke->k", weight, means)
    return weight - weight.mean(axis=0), bias - bias.mean()


def choose_alpha(features: FloatArray, labels: Labels, texts: FloatArray) -> float:
    """Return the α of `ALPHAS` that classifies most images right in cross-validation; of equals the smallest.

    The images of a class are dealt out to four parts in turn, and each part is classified by the others.

    Args:
        features: float64 `[N, E]`.
        labels: `[N]`, at least two of each class.
        texts: `τ t`, float64 `[K, E]`.
    """
    positions = np.zeros(len(labels), np.int64)
    for label in range(len(texts)):
        members = labels == label
        positions[members] = np.arange(members.sum())
    correct = np.zeros(len(ALPHAS), np.int64)
    for part in range(min(FOLDS, int(positions.max()) + 1)):
        held_out = positions % FOLDS == part
        weight, bias = fit_gaussians(features[~held_out], labels[~held_out], len(texts))
        plain, gaussian = features[held_out] @ texts.T, features[held_out] @ weight.T + bias
        for index, alpha in enumerate(ALPHAS):
            predicted = (plain + alpha * gaussian).argmax(axis=1)
            correct[index] += int((predicted == labels[held_out]).sum())
    return ALPHAS[int(correct.argmax())]
