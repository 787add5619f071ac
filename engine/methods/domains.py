"""What is learnt belongs to a domain: any method, with a state for each domain that it meets.

Domains are told apart by the statistics of their embeddings, as in ZOA (ACM MM 2025). Where ZOA mixes what it
learnt in all of them, here each has its own, found again by these statistics: ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..domain_detector import Domain, DomainRules, distance, observe
from ..errors import BundleError
from ..guard import guarded_step
from ..model import FloatArray, Forward, ImageArray, ModelInfo, Outputs, Tunables
from .base import AnyMethod, Prediction, State, growing_array, renumbered, several_states
from .options import option, validate

IMAGES = 64  # that a check needs: statistics of fewer differ by what is on them
DECAY = 0.8  # share of the old statistics of a domain that a check keeps


@dataclass(frozen=True)
class DomainsState(State):
    """What is learnt in each domain.

    Attributes:
        inner: state of the method in this domain.
        pool_images, domain, pool: as in `Domain`, its statistics first.
        known: statistics of the K domains that were left, the one left longest ago first, `[K, 2, E]`.
        earlier: state of the method in each of these.
    """

    inner: State
    pool_images: int
    domain: FloatArray = growing_array(free=2)
    pool: FloatArray = growing_array(free=2)
    known: FloatArray = growing_array(free=3)
    earlier: tuple[State, ...] = several_states("inner")


@dataclass(frozen=True)
class Domains:
    """Another method that begins anew when the domain changes, and goes on where it was when it returns.

    A change is noticed on the first batch of the new domain, which is then predicted once more; smaller
    batches are checked together once they are 64 images.
    """

    method: AnyMethod
    domains: int = option(
        16, "begin anew in a new domain, and remember what was learnt in so many earlier ones", low=1
    )
    domains_threshold: float = option(0.05, "distance of two embeddings above which domains differ", low=0)

    def __post_init__(self) -> None:
        validate(self)

    @property
    def name(self) -> str:
        """The method's name."""
        return self.method.name

    @property
    def forwards(self) -> int:
        """Forwards that one step uses, except where the domain changes: twice as many there."""
        return self.method.forwards

    def init(self, info: ModelInfo, seed: int) -> DomainsState:
        """The method's initial state, and no domain.

        Raises:
            BundleError: the bundle lacks something the method needs.
        """
        none = Domain()
        inner = self.method.init(info, seed)
        return DomainsState(0, seed, inner, 0, none.statistics, none.pool, np.zeros((0, 0, 0)), ())

    def step(
        self, state: DomainsState, images: ImageArray, network: Forward
    ) -> tuple[Prediction, DomainsState]:
        """A step of the method, and if it shows another domain a second one with what belongs to that.

        Raises:
            BundleError: the graph has no output `embedding`, by which domains are told apart.
        """
        heard = _Overheard(network, images)
        prediction, inner = guarded_step(self.method, state.inner, images, heard)
        before = Domain(state.domain, state.pool, state.pool_images)
        rules = DomainRules(self.domains_threshold, IMAGES, "accumulate", DECAY)
        seen = observe(before, heard.embedding(), rules)
        following = replace(state, step=state.step + 1, inner=inner)
        if seen.changed:
            following = self._moved(state, following, seen.domain.statistics, network.info)
            again, inner = guarded_step(self.method, following.inner, images, network)
            prediction = replace(again, forwards=prediction.forwards + again.forwards)
            following = replace(following, inner=inner)
        diagnostics = {
            **prediction.diagnostics,
            "domain_changed": float(seen.changed),
            "domains": float(len(following.known) + 1),
        }
        return replace(prediction, diagnostics=diagnostics), replace(
            following,
            domain=seen.domain.statistics,
            pool=seen.domain.pool,
            pool_images=seen.domain.pool_images,
        )

    def predict(self, state: DomainsState, images: ImageArray, network: Forward) -> Prediction:
        """Predicts with what the method has learnt in the domain of the last step."""
        return self.method.predict(state.inner, images, network)

    def _moved(
        self, state: DomainsState, following: DomainsState, statistics: FloatArray, info: ModelInfo
    ) -> DomainsState:
        """In another domain: `state` is put away, and what belongs to the new one taken up."""
        index = nearest(state.known, statistics, self.domains_threshold)
        inner = self.method.init(info, state.seed) if index is None else state.earlier[index]
        others = [place for place in range(len(state.earlier)) if place != index]
        others = others[
            max(0, len(others) + 1 - self.domains) :
        ]  # with the one that is left, at most `domains`
        return replace(
            following,
            inner=renumbered(inner, following.inner),
            known=np.stack([*(state.known[place] for place in others), state.domain]),
            earlier=(*(state.earlier[place] for place in others), state.inner),
        )


def nearest(known: FloatArray, statistics: FloatArray, threshold: float) -> int | None:
    """Which of `known` `[K, 2, E]` is nearest to `statistics` `[2, E]`; None if all are too far."""
    distances = [distance(each, statistics) for each in known]
    if not distances or min(distances) > threshold:
        return None
    return int(np.argmin(distances))


class _Overheard:
    """A network that remembers the embedding of a batch, which tunables do not change."""

    def __init__(self, network: Forward, images: ImageArray) -> None:
        self.network = network
        self._images = images
        self._embedding: FloatArray | None = None

    @property
    def info(self) -> ModelInfo:
        """The model behind this network."""
        return self.network.info

    def __call__(self, images: ImageArray, **tunables: FloatArray) -> Outputs:
        """One forward."""
        return self._noted(images, [self.network(images, **tunables)])[0]

    def candidates(self, images: ImageArray, tunables: Sequence[Tunables]) -> list[Outputs]:
        """One forward for each of several sets of tunables."""
        return self._noted(images, self.network.candidates(images, tunables))

    def embedding(self) -> FloatArray:
        """That of the batch, `[N, 2, E]`."""
        if self._embedding is None:
            raise BundleError(
                f"domains are told apart by the output embedding, and the graph of {self.info.name} has "
                "none; export the model again, or set domains to 0"
            )
        return self._embedding

    def _noted(self, images: ImageArray, outputs: list[Outputs]) -> list[Outputs]:
        if images is self._images:
            self._embedding = outputs[0].embedding
        return outputs
