"""LAME: Laplacian-adjusted predictions, nothing of the network changes (CVPR 2022, arXiv 2201.05718)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal, cast

import numpy as np

from ..interface.method import Binding, Prediction, State, Step, variable_length_array
from ..interface.method_options import option, validate
from ..interface.request import Request, Requests
from ..model import FloatArray, ImageArray, ModelInfo, Outputs
from ..statistics.objective import entropy, softmax
from ..statistics.window import select_earlier, slide_window

PROBABILITY_FLOOR = 1e-10  # official code: keeps the unary finite
TINY_NORM = 1e-12
TINY_WIDTH = 1e-12  # of a squared distance on the unit sphere: nearer points are equal in float32
Affinity = Literal["knn", "rbf", "linear"]


@dataclass(frozen=True)
class LameState(State):
    """Earlier images, if the option `window` asks for them; otherwise nothing.

    Attributes:
        features: of the last images, what the head reads, float32 `[W, F]`, W at most the option `window`.
        logits: of the same images, float32 `[W, K]`.
    """

    features: FloatArray = variable_length_array()
    logits: FloatArray = variable_length_array()


@dataclass(frozen=True)
class Lame:
    """LAME: images with similar features shall get similar predictions.

    The output is a matrix of probabilities. `Prediction.logits` holds its logarithms; they are finite,
    because no probability of the network enters as less than 1e-10.

    It sees the images of one batch only, so a single image is predicted as by the network alone, and images
    of small batches have few neighbours. With `window`, earlier images join the graph; only the current ones
    are predicted anew. Where there are fewer than `neighbours` others, all others are neighbours.
    """

    name: ClassVar[str] = "lame"

    neighbours: int = option(
        5, "nearest images that each image is tied to (knn), or whose distance sets the width (rbf)", low=1
    )
    affinity: Affinity = option(
        "knn",
        "how images are tied: nearest neighbours alike, all by a Gaussian of the distance, or all by cosine",
    )
    max_iterations: int = option(100, "iterations at most", low=1)
    tolerance: float = option(1e-8, "relative change of the energy at which iterations stop", low=0)
    window: int = option(
        0, "images in the graph: earlier ones join those of a smaller batch; 0 is the batch alone", low=0
    )

    def __post_init__(self) -> None:
        validate(self)

    @property
    def forwards(self) -> int:
        """Forwards that one step uses."""
        return 1

    def bind(self, model: ModelInfo) -> BoundLame:
        """Return the method bound to a model; any model will do."""
        return BoundLame(self, model)


@dataclass(frozen=True, eq=False)
class BoundLame(Binding[Lame]):
    """LAME on one model."""

    def init(self, seed: int) -> LameState:
        """Return a state without earlier images."""
        return LameState(
            step=0,
            seed=seed,
            features=np.zeros((0, self.model.feature_width), np.float32),
            logits=np.zeros((0, self.model.classes), np.float32),
        )

    def step(self, state: LameState, images: ImageArray) -> Step[LameState]:
        """Predict the images together, and store them if there is a window."""
        (outputs,) = yield Request(images)
        return self._predict(state, outputs), replace(
            state,
            step=state.step + 1,
            features=slide_window(state.features, outputs.features[:, -1], self.options.window),
            logits=slide_window(state.logits, outputs.logits, self.options.window),
        )

    def predict(self, state: LameState, images: ImageArray) -> Requests[Prediction]:
        """Predict the images together with the current window."""
        (outputs,) = yield Request(images)
        return self._predict(state, outputs)

    def _predict(self, state: LameState, outputs: Outputs) -> Prediction:
        options, batch = self.options, len(outputs.logits)
        features = np.concatenate(
            [select_earlier(state.features, batch, options.window), outputs.features[:, -1]]
        )
        logits = np.concatenate([select_earlier(state.logits, batch, options.window), outputs.logits])
        unary = -np.log(softmax(logits) + PROBABILITY_FLOOR)
        pairwise = compute_affinities(features, options.affinity, options.neighbours)
        log_probabilities, energies = solve_assignments(
            unary, pairwise, options.max_iterations, options.tolerance
        )
        adjusted = log_probabilities[-batch:].astype(np.float32)
        return Prediction(
            adjusted,
            1,
            diagnostics={
                "entropy": float(entropy(adjusted).mean()),
                "energy": energies[-1],
                "iterations": float(len(energies)),
                "images": float(len(logits)),
            },
        )


def compute_affinities(features: FloatArray, kind: Affinity, neighbours: int) -> FloatArray:
    """Return the affinity of each pair of images, symmetric float64 `[N, N]`, 0 on the diagonal.

    Args:
        features: `[N, F]`; only their directions matter.
        kind: `knn`, 1 for neighbours of each other, ½ where only one is a neighbour of the other, else 0;
            `rbf`, `exp(−d²/2σ²)` with σ the mean distance to the last neighbour; `linear`, the cosine.
        neighbours: nearest images that count, at most N − 1; of equally near ones the earlier.
    """
    features = features.astype(np.float64)
    features /= np.maximum(np.linalg.norm(features, axis=1, keepdims=True), TINY_NORM)
    cosines = features @ features.T
    count = min(neighbours, len(features) - 1)
    if kind == "linear" or not count:
        affinities = cosines
    else:
        squares = np.maximum(2 - 2 * cosines, 0)
        np.fill_diagonal(squares, np.inf)
        nearest = np.argsort(squares, axis=1, kind="stable")[:, :count]
        if kind == "knn":
            affinities = np.zeros_like(squares)
            np.put_along_axis(affinities, nearest, 1.0, axis=1)
            affinities = (affinities + affinities.T) / 2
        else:
            width = np.sqrt(np.take_along_axis(squares, nearest[:, -1:], axis=1)).mean()
            affinities = np.exp(-squares / max(2 * width**2, TINY_WIDTH))
    np.fill_diagonal(affinities, 0)
    return cast(FloatArray, affinities)


def solve_assignments(
    unary: FloatArray, affinities: FloatArray, max_iterations: int, tolerance: float
) -> tuple[FloatArray, list[float]]:
    """Return log-probabilities float64 `[N, K]` that balance unary and ties, and the energy per iteration.

    Iterates `Y ← softmax(Q − U)` with `Q = A Y`, from `Y = softmax(−U)`. The energy of the official code,
    `Σ (U Y − Q Y + Y ln Y)` with the old Q and the new Y, is minus the sum of the rows' log-normalisers. From
    the third iteration on, a relative change of at most `tolerance` is the end.

    Args:
        unary: U, minus the log-probabilities of the network, `[N, K]`.
        affinities: A, `[N, N]`.
        max_iterations: iterations at most, ≥ 1.
        tolerance: relative change of the energy.
    """
    y, _ = _softmax_rows(-unary)
    energies: list[float] = []
    while True:
        scores = affinities @ y
        scores -= unary
        y, normalisers = _softmax_rows(scores)
        energies.append(-float(normalisers.sum()))
        settled = len(energies) > 2 and abs(energies[-1] - energies[-2]) <= tolerance * abs(energies[-2])
        if settled or len(energies) == max_iterations:
            return scores - normalisers, energies


def _softmax_rows(scores: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the softmax of each row `[N, K]`, and its log-normaliser `[N, 1]`."""
    top = scores.max(axis=1, keepdims=True)
    y = np.subtract(scores, top)
    np.exp(y, out=y)
    total = y.sum(axis=1, keepdims=True)
    y /= total
    return y, top + np.log(total)
