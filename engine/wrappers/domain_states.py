"""A state per domain for any method: it starts afresh in a new domain and resumes in an earlier one.

Domains are told apart by the statistics of their embeddings, as in ZOA (ACM MM 2025). ZOA mixes the changes
of all domains; here every domain has a state of its own, which is looked up by these statistics.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ..errors import BundleError
from ..interface.method import Prediction, State, Step, replace_step_counts, state_list, variable_length_array
from ..interface.method_options import option
from ..interface.request import Requests
from ..model import FloatArray, ImageArray, ModelInfo
from ..statistics.domain_detector import DomainEstimate, DomainRules, compute_distance, observe
from .fallback import step_with_fallback
from .recorder import RequestRecorder
from .wrapper import BoundWrapper, Wrapper

IMAGES = 64  # per check; statistics of fewer images depend too much on their content
DECAY = 0.8  # share of a domain's old statistics that a check keeps


@dataclass(frozen=True)
class DomainsState(State):
    """The states of a method in several domains.

    Attributes:
        inner: state of the method in the current domain.
        checked: the same after the last check: it contains no image of a domain that is yet to be noticed.
        domain: running statistics of the current domain.
        earlier_statistics: statistics of the K earlier domains, the one left longest ago first, `[K, 2, E]`.
        earlier: state of the method in each of these.
    """

    inner: State
    checked: State
    domain: DomainEstimate
    earlier_statistics: FloatArray = variable_length_array(axes=3)
    earlier: tuple[State, ...] = state_list(template="inner", parallel_to="earlier_statistics")


@dataclass(frozen=True)
class Domains(Wrapper):
    """A method that starts afresh when the domain changes, and resumes when an earlier domain returns.

    A change is noticed on the first batch of the new domain, which is then predicted once more; smaller
    batches are checked together once they are 64 images.
    """

    domains: int = option(
        16, "start afresh in a new domain, and keep the states of this many earlier domains", low=1
    )
    domains_threshold: float = option(0.05, "distance of two embeddings above which domains differ", low=0)

    def bind(self, model: ModelInfo) -> BoundDomains:
        """Return the wrapped method bound to a model.

        Raises:
            BundleError: the bundle lacks something the method needs.
        """
        return BoundDomains(self, model, self.method.bind(model))


@dataclass(frozen=True, eq=False)
class BoundDomains(BoundWrapper[Domains]):
    """A method with a state per domain, on one model."""

    def init(self, seed: int) -> DomainsState:
        """Return the method's initial state, and no domain."""
        inner = self.inner.init(seed)
        return DomainsState(
            step=0,
            seed=seed,
            inner=inner,
            checked=inner,
            domain=DomainEstimate(),
            earlier_statistics=np.zeros((0, 0, 0)),
        )

    def step(self, state: DomainsState, images: ImageArray) -> Step[DomainsState]:
        """Step the method, and if the batch shows another domain, step it again with that domain's state.

        Raises:
            BundleError: the graph has no output `embedding`, by which domains are told apart.
        """
        recorder = RequestRecorder(images)
        prediction, inner = yield from recorder.record(step_with_fallback(self.inner, state.inner, images))
        rules = DomainRules(self.options.domains_threshold, IMAGES, "accumulate", DECAY)
        embedding = yield from self._request_embedding(recorder)
        prediction = replace(prediction, forwards=prediction.forwards + recorder.extra_forwards)
        observation = observe(state.domain, embedding, rules)
        next_state = replace(state, step=state.step + 1, inner=inner, domain=observation.domain)
        if observation.changed:
            next_state = self._switch_domain(state, next_state)
            first = prediction
            prediction, inner = yield from step_with_fallback(self.inner, next_state.inner, images)
            prediction = replace(
                prediction,
                forwards=first.forwards + prediction.forwards,
                pull_backs=first.pull_backs + prediction.pull_backs,
            )
            next_state = replace(next_state, inner=inner)
        if not next_state.domain.pool_images:
            next_state = replace(next_state, checked=next_state.inner)
        diagnostics = {
            **prediction.diagnostics,
            "domain_changed": float(observation.changed),
            "domains": float(len(next_state.earlier) + 1),
            **({} if observation.distance is None else {"domain_distance": observation.distance}),
        }
        return replace(prediction, diagnostics=diagnostics), next_state

    def predict(self, state: DomainsState, images: ImageArray) -> Requests[Prediction]:
        """Predict with the method's state in the domain of the last step."""
        return self.inner.predict(state.inner, images)

    def _switch_domain(self, state: DomainsState, next_state: DomainsState) -> DomainsState:
        """Store the current domain's state and switch to the matching stored one, or start afresh."""
        options, statistics = self.options, state.earlier_statistics
        match = find_nearest(statistics, next_state.domain.statistics, options.domains_threshold)
        inner = self.inner.init(state.seed) if match is None else state.earlier[match]
        remaining = [index for index in range(len(statistics)) if index != match]
        remaining = remaining[max(0, len(remaining) + 1 - options.domains) :]  # one entry for the domain left
        return replace(
            next_state,
            inner=replace_step_counts(inner, next_state.inner),
            earlier_statistics=np.stack([*statistics[remaining], state.domain.statistics]),
            earlier=(*(state.earlier[index] for index in remaining), state.checked),
        )

    def _request_embedding(self, recorder: RequestRecorder) -> Requests[FloatArray]:
        embedding = yield from recorder.request_embedding()
        if embedding is None:
            raise BundleError(
                f"domains are told apart by the output embedding, and the graph of {self.model.name} has "
                "none; export the model again, or set domains to 0"
            )
        return embedding


def find_nearest(candidates: FloatArray, statistics: FloatArray, threshold: float) -> int | None:
    """Return the index of the candidate `[K, 2, E]` nearest to `statistics` `[2, E]`; None if all are far."""
    distances = [compute_distance(candidate, statistics) for candidate in candidates]
    if not distances or min(distances) > threshold:
        return None
    return int(np.argmin(distances))
