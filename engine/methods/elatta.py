"""ELaTTA: an offset of the head's input in a few directions, found by CMA-ES for each image.

From arXiv 2510.11068 the source is the abstract, with the formula `z' = z + V_k p` and the search on the
entropy of head(z'); its code is not public. There, V_k are the right singular vectors of centred source
features. Bundles keep no features, so V_k here are those of the head's centred rows, which point where the
classes lie apart. k, the population, the number of generations, the bound of p and where the search begins
are ours as well. No published figure has been reproduced with this file.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np

from ..interface.method import Binding, Prediction, State, Step
from ..interface.method_options import option, validate
from ..interface.request import Request, Requests
from ..model import FloatArray, ImageArray, ModelInfo, Outputs
from ..search import cma
from ..search.cma import CovarianceForm
from ..statistics.objective import entropy

TINY = 1e-12


@dataclass(frozen=True)
class ElattaState(State):
    """Offset of the last image, from which the next search begins if options say so.

    Attributes:
        offset: p in units of the source's standard deviations, float64 `[k]`.
    """

    offset: FloatArray


@dataclass(frozen=True)
class Elatta:
    """ELaTTA: the backbone runs once per image, and the head many times on its feature; unverified.

    Images of a batch are searched one after the other, so batches make no difference. The search is over
    `q = p / σ`, σ the source's standard deviation along each direction, from that of each coordinate.
    |q| ≤ `bound` keeps an image near where it was: without a bound, the nearest class has the least entropy.
    """

    name: ClassVar[str] = "elatta"

    directions: int = option(
        16, "k, directions in which features may move; at most the number of classes less one", low=1
    )
    population: int = option(8, "offsets drawn per generation", low=2)
    generations: int = option(10, "generations of the search for an image", low=1)
    sigma: float = option(0.1, "step size of the search at the start, in standard deviations", low=1e-3)
    bound: float = option(
        1.0, "largest length of an offset, in standard deviations of the source in each direction", low=0
    )
    covariance: CovarianceForm = option("diagonal", "covariance that the search learns")
    start: Literal["zero", "previous"] = option(
        "zero", "where the search for an image begins: at no offset, or at that of the image before"
    )

    def __post_init__(self) -> None:
        validate(self)

    @property
    def forwards(self) -> int:
        """Forwards that one step uses."""
        return 1

    def bind(self, model: ModelInfo) -> BoundElatta:
        """Return the method bound to a model.

        Raises:
            BundleError: the bundle has no source statistics for this graph.
        """
        source = model.require_source(self.name)
        weight = model.head_weight.astype(np.float64)
        count = min(self.directions, max(1, len(weight) - 1))  # rows about their mean span no more
        directions = np.linalg.svd(weight - weight.mean(axis=0), full_matrices=False)[2][:count]
        variances = np.square(directions) @ np.square(source.std[-1].astype(np.float64))
        return BoundElatta(self, model, np.sqrt(variances)[:, None] * (directions @ weight.T))


@dataclass(frozen=True, eq=False)
class BoundElatta(Binding[Elatta]):
    """ELaTTA on one model.

    Attributes:
        responses: change of the logits by one standard deviation in each direction, float64 `[k, K]`.
    """

    responses: FloatArray

    def init(self, seed: int) -> ElattaState:
        """Return no offset."""
        return ElattaState(0, seed, np.zeros(len(self.responses)))

    def step(self, state: ElattaState, images: ImageArray) -> Step[ElattaState]:
        """Search an offset for each image, and predict with it."""
        (outputs,) = yield Request(images)
        logits, offset, length = self._search_all(state, outputs)
        diagnostics = {"entropy": float(entropy(logits).mean()), "offset": length}
        return Prediction(logits, 1, diagnostics=diagnostics), ElattaState(state.step + 1, state.seed, offset)

    def predict(self, state: ElattaState, images: ImageArray) -> Requests[Prediction]:
        """Predict as `step` does, because every image is searched on its own."""
        (outputs,) = yield Request(images)
        logits, _, length = self._search_all(state, outputs)
        return Prediction(logits, 1, diagnostics={"entropy": float(entropy(logits).mean()), "offset": length})

    def _search_all(self, state: ElattaState, outputs: Outputs) -> tuple[FloatArray, FloatArray, float]:
        """Return logits `[N, K]`, the last offset `[k]`, and the mean length of all offsets."""
        offset, lengths = state.offset, []
        logits = outputs.logits.astype(np.float64)
        for row in logits:
            first = offset if self.options.start == "previous" else np.zeros_like(offset)
            offset = self._search(row, first, state.seed)
            row += offset @ self.responses
            lengths.append(float(np.linalg.norm(offset)))
        return logits.astype(np.float32), offset, float(np.mean(lengths))

    def _search(self, logits: FloatArray, first: FloatArray, seed: int) -> FloatArray:
        """Return the offset of least entropy among the first one and all that were drawn, `[k]`.

        Every image has the same draws, so that it does not matter which images came before it.
        """
        best, least = first, float(entropy((logits + first @ self.responses)[None])[0])
        for offsets, losses in self._iterate_generations(logits, first, seed):
            index = int(losses.argmin())
            if losses[index] < least:
                best, least = offsets[index], float(losses[index])
        return best

    def _iterate_generations(
        self, logits: FloatArray, first: FloatArray, seed: int
    ) -> Iterator[tuple[FloatArray, FloatArray]]:
        """Yield bounded offsets `[λ, k]` and the entropies with them `[λ]`, generation by generation."""
        options = self.options
        search = cma.start_search(len(first), options.sigma, options.covariance)
        search = replace(search, mean=first)
        for generation in range(options.generations):
            offsets = cma.ask(search, seed, generation, options.population)
            lengths = np.linalg.norm(offsets, axis=1, keepdims=True)
            offsets = offsets * np.minimum(1, options.bound / np.maximum(lengths, TINY))
            losses = entropy(logits + offsets @ self.responses)
            yield offsets, losses
            search = cma.tell(search, offsets, losses, options.population)
