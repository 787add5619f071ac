"""BCA: class embeddings and class priors that follow the stream by Bayes' rule (arXiv 2503.09248).

The formulas are those of a public port of the method, without its 64 views of every image. The authors'
own code was not compared, and no published figure has been reproduced with this file.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal, cast

import numpy as np

from ..interface.method import Binding, Prediction, State, Step
from ..interface.method_options import option, validate
from ..interface.request import Request, Requests
from ..model import FloatArray, ImageArray, ModelInfo, Outputs
from ..statistics.class_memory import normalise_features, read_width
from ..statistics.objective import entropy, softmax

TINY = np.finfo(np.float64).tiny  # in place of a probability of 0, whose logarithm is not finite


@dataclass(frozen=True)
class BcaState(State):
    """Embeddings and priors of the classes, and their weights in the running means.

    Attributes:
        embeddings: µ, of length 1, float32 `[K, E]`.
        embedding_counts: c₁, weight of each embedding as a number of images, float64 `[K]`.
        priors: P, in row k the mean prediction of images of embedding k, float32 `[K, K]`.
        prior_counts: c₂, weight of each row of priors as a number of images, float64 `[K]`.
    """

    embeddings: FloatArray
    embedding_counts: FloatArray
    priors: FloatArray
    prior_counts: FloatArray


@dataclass(frozen=True)
class Bca:
    """BCA: likelihoods of class embeddings times class priors, which learn from each image; unverified.

    Per image with feature x of length 1: `s = softmax(τ x·µ)`, `p = s P` and `k = argmax p`. The prediction
    is p, from before the image is learnt. Where p_k is large enough, µ_k moves towards x and P_k towards p,
    as running means. Images of a batch are taken one after the other, so batches make no difference.
    """

    name: ClassVar[str] = "bca"

    scale: float = option(
        0.0,
        "τ, factor of the cosines; 0 takes the logit scale of CLIP, and elsewhere the length of the image's"
        " feature times the mean length of the head's rows",
        low=0,
    )
    logits: Literal["cosines", "network"] = option(
        "cosines",
        "scores in s: cosines with the embeddings (paper), or the network's logits plus the change caused by"
        " moved embeddings, which keeps the bias and the lengths of the head's rows",
    )
    move_above: float = option(0.05, "probability above which an image moves its embedding", low=0, high=1)
    prior_above: float = option(0.65, "probability above which an image changes its prior", low=0, high=1)
    embedding_count: float = option(
        20000.0, "c₁ at the start: weight of the head's row in the mean, as a number of images", low=0
    )
    prior_count: float = option(
        1.0, "c₂ at the start: weight of the first prior in the mean, as a number of images", low=0
    )

    def __post_init__(self) -> None:
        validate(self)

    @property
    def forwards(self) -> int:
        """Forwards that one step uses."""
        return 1

    def bind(self, model: ModelInfo) -> BoundBca:
        """Return the method bound to a model; any model will do."""
        rows = model.head_weight.astype(np.float64)
        return BoundBca(
            self,
            model,
            normalise_features(rows, read_width(model)).astype(np.float32),
            float(np.linalg.norm(rows, axis=1).mean()),
        )


@dataclass(frozen=True, eq=False)
class BoundBca(Binding[Bca]):
    """BCA on one model.

    Attributes:
        first_embeddings: rows of the head, scaled to length 1, float32 `[K, E]`.
        row_length: mean length of the head's rows.
    """

    first_embeddings: FloatArray
    row_length: float

    def init(self, seed: int) -> BcaState:
        """Return the rows of the head as embeddings, each with its own class as prior."""
        options, classes = self.options, self.model.classes
        return BcaState(
            step=0,
            seed=seed,
            embeddings=self.first_embeddings,
            embedding_counts=np.full(classes, float(options.embedding_count)),
            priors=np.eye(classes, dtype=np.float32),
            prior_counts=np.full(classes, float(options.prior_count)),
        )

    def step(self, state: BcaState, images: ImageArray) -> Step[BcaState]:
        """Predict each image, and learn from it before the next one."""
        (outputs,) = yield Request(images)
        state = replace(
            state,
            step=state.step + 1,
            embeddings=state.embeddings.copy(),
            embedding_counts=state.embedding_counts.copy(),
            priors=state.priors.copy(),
            prior_counts=state.prior_counts.copy(),
        )
        features, scales, scores = self._score(state, outputs)
        probabilities = np.empty(scores.shape)
        for index, feature in enumerate(features):
            probabilities[index] = softmax(scores[index]).astype(np.float32) @ state.priors
            label = int(probabilities[index].argmax())
            move = self._learn(state, feature, label, probabilities[index])
            scores[index + 1 :, label] += scales[index + 1 :] * (features[index + 1 :] @ move)
        return _predict(probabilities), state

    def predict(self, state: BcaState, images: ImageArray) -> Requests[Prediction]:
        """Predict with embeddings and priors as they are."""
        (outputs,) = yield Request(images)
        scores = self._score(state, outputs)[2]
        return _predict(softmax(scores).astype(np.float32) @ state.priors)

    def _score(self, state: BcaState, outputs: Outputs) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return features of length 1 `[N, E]`, factors of cosines `[N]`, and scores `[N, K]`, float64."""
        last = outputs.features[:, -1]
        features = normalise_features(last, read_width(self.model))
        scales = np.full(len(features), self.options.scale or self.model.logit_scale)
        if not self.options.scale and not self.model.takes_classifier:
            scales = self.row_length * np.linalg.norm(last.astype(np.float64), axis=1)
        if self.options.logits == "cosines":
            return features, scales, scales[:, None] * (features @ state.embeddings.T)
        moves = state.embeddings - self.first_embeddings
        return features, scales, outputs.logits + scales[:, None] * (features @ moves.T)

    def _learn(
        self, state: BcaState, feature: FloatArray, label: int, probabilities: FloatArray
    ) -> FloatArray:
        """Add an image to its class, in place; return the move of the embedding, float64 `[E]`."""
        before = state.embeddings[label].astype(np.float64)
        if probabilities[label] > self.options.move_above:
            mean = state.embedding_counts[label] * before + feature
            state.embeddings[label] = mean / max(float(np.linalg.norm(mean)), TINY)
            state.embedding_counts[label] += 1
        if probabilities[label] > self.options.prior_above:
            count = state.prior_counts[label]
            state.priors[label] = (count * state.priors[label] + probabilities) / (count + 1)
            state.prior_counts[label] += 1
        return cast(FloatArray, state.embeddings[label] - before)


def _predict(probabilities: FloatArray) -> Prediction:
    logits = np.log(np.maximum(probabilities, TINY)).astype(np.float32)
    return Prediction(logits, 1, diagnostics={"entropy": float(entropy(logits).mean())})
