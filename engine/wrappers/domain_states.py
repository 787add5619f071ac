"""What is learnt belongs to a domain: any method, with a state for each domain that it meets.

Domains are told apart by the statistics of their embeddings, as in ZOA (ACM MM 2025). Where ZOA mixes what it
learnt in all of them, here each has its own, found again by these statistics: ours.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ..errors import BundleError
from ..interface.method import Prediction, State, growing_array, renumbered, several_states
from ..interface.options import option
from ..model import FloatArray, Forward, ImageArray, ModelInfo
from ..statistics.domain_detector import Domain, DomainRules, distance, observe
from .fallback import guarded_step
from .recorder import Overheard
from .wrapper import Wrapper

IMAGES = 64  # that a check needs: statistics of fewer differ by what is on them
DECAY = 0.8  # share of the old statistics of a domain that a check keeps


@dataclass(frozen=True)
class DomainsState(State):
    """What is learnt in each domain.

    Attributes:
        inner: state of the method in this domain.
        checked: the same after the last check: no image of a domain that is yet to be noticed is in it.
        pool_images, domain, pool: as in `Domain`, its statistics first.
        known: statistics of the K domains that were left, the one left longest ago first, `[K, 2, E]`.
        earlier: state of the method in each of these.
    """

    inner: State
    checked: State
    pool_images: int
    domain: FloatArray = growing_array(free=2)
    pool: FloatArray = growing_array(free=2)
    known: FloatArray = growing_array(free=3)
    earlier: tuple[State, ...] = several_states("inner", each_of="known")


@dataclass(frozen=True)
class Domains(Wrapper):
    """Another method that begins anew when the domain changes, and goes on where it was when it returns.

    A change is noticed on the first batch of the new domain, which is then predicted once more; smaller
    batches are checked together once they are 64 images.
    """

    domains: int = option(
        16, "begin anew in a new domain, and remember what was learnt in so many earlier ones", low=1
    )
    domains_threshold: float = option(0.05, "distance of two embeddings above which domains differ", low=0)

    def init(self, info: ModelInfo, seed: int) -> DomainsState:
        """The method's initial state, and no domain.

        Raises:
            BundleError: the bundle lacks something the method needs.
        """
        none = Domain()
        inner = self.method.init(info, seed)
        return DomainsState(
            step=0,
            seed=seed,
            inner=inner,
            checked=inner,
            pool_images=0,
            domain=none.statistics,
            pool=none.pool,
            known=np.zeros((0, 0, 0)),
        )

    def step(
        self, state: DomainsState, images: ImageArray, network: Forward
    ) -> tuple[Prediction, DomainsState]:
        """A step of the method, and if it shows another domain a second one with what belongs to that.

        Raises:
            BundleError: the graph has no output `embedding`, by which domains are told apart.
        """
        heard = Overheard(network, images)
        prediction, inner = guarded_step(self.method, state.inner, images, heard)
        before = Domain(state.domain, state.pool, state.pool_images)
        rules = DomainRules(self.domains_threshold, IMAGES, "accumulate", DECAY)
        seen = observe(before, _embedding(heard), rules)
        following = replace(
            state,
            step=state.step + 1,
            inner=inner,
            domain=seen.domain.statistics,
            pool=seen.domain.pool,
            pool_images=seen.domain.pool_images,
        )
        if seen.changed:
            following = self._moved(state, following, network.info)
            again, inner = guarded_step(self.method, following.inner, images, network)
            prediction = replace(again, forwards=prediction.forwards + again.forwards)
            following = replace(following, inner=inner)
        if not following.pool_images:
            following = replace(following, checked=following.inner)
        diagnostics = {
            **prediction.diagnostics,
            "domain_changed": float(seen.changed),
            "domains": float(len(following.known) + 1),
            **({} if seen.distance is None else {"domain_distance": seen.distance}),
        }
        return replace(prediction, diagnostics=diagnostics), following

    def predict(self, state: DomainsState, images: ImageArray, network: Forward) -> Prediction:
        """Predicts with what the method has learnt in the domain of the last step."""
        return self.method.predict(state.inner, images, network)

    def _moved(self, state: DomainsState, following: DomainsState, info: ModelInfo) -> DomainsState:
        """In another domain: that of `state` is put away, and what belongs to the new one taken up."""
        index = nearest(state.known, following.domain, self.domains_threshold)
        inner = self.method.init(info, state.seed) if index is None else state.earlier[index]
        others = [place for place in range(len(state.known)) if place != index]
        others = others[max(0, len(others) + 1 - self.domains) :]  # one place is for the domain that is left
        return replace(
            following,
            inner=renumbered(inner, following.inner),
            known=np.stack([*state.known[others], state.domain]),
            earlier=(*(state.earlier[place] for place in others), state.checked),
        )


def nearest(known: FloatArray, statistics: FloatArray, threshold: float) -> int | None:
    """Which of `known` `[K, 2, E]` is nearest to `statistics` `[2, E]`; None if all are too far."""
    distances = [distance(each, statistics) for each in known]
    if not distances or min(distances) > threshold:
        return None
    return int(np.argmin(distances))


def _embedding(heard: Overheard) -> FloatArray:
    if heard.embedding is None:
        raise BundleError(
            f"domains are told apart by the output embedding, and the graph of {heard.info.name} has none; "
            "export the model again, or set domains to 0"
        )
    return heard.embedding
