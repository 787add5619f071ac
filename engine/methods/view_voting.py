"""Votes of an image's confident views: options and steps that `zero` and `stss` share."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np

from ..interface.method import Binding, Prediction, State, Step
from ..interface.method_options import option, validate
from ..interface.request import Request, Requests
from ..interface.view_batch import ViewBatch, Views, get_plain_images
from ..interface.view_recipe import SMALLEST_AREA, ViewKind, ViewRecipe
from ..model import FloatArray
from ..statistics.objective import entropy
from ..statistics.voting import TieRule, Vote, VoteKind, count_kept, hold_vote, is_decided, rank_views

# Returns the score of each view, `[V]`, low for those that shall vote, given logits `[V, K]` and features
# `[V, F]`.
Score = Callable[[FloatArray, FloatArray], FloatArray]


@dataclass(frozen=True)
class ViewVoting:
    """Base of the options of methods that let the confident views of an image vote."""

    name: ClassVar[str]
    ties: ClassVar[TieRule]

    views: int = option(64, "views of each image: the ordinary one, and random parts of it", low=2)
    kept: float = option(
        0.3, "share of the views that vote, those of the lowest scores; at least one", low=0, high=1
    )
    vote: VoteKind = option(
        "hard", "whether each of these views names one class, or their probabilities are averaged"
    )
    view_kind: ViewKind = option("crops", "views: random crops and flips, or AugMix on top of these")
    view_area: float = option(
        SMALLEST_AREA, "smallest area that a crop shows, as a share of the image's", low=0.001, high=1
    )
    block: int = option(
        0,
        "views that are computed before it is asked whether more could change the vote; 0 computes all",
        low=0,
    )
    certain: float = option(
        0.1,
        "with block: score below which votes for one class alone end the vote, as a share of ln K",
        low=0,
    )
    skip: float = option(
        0.0, "score of the ordinary view below which it decides alone, as a share of ln K; 0: never", low=0
    )

    def __post_init__(self) -> None:
        validate(self)

    @property
    def forwards(self) -> int:
        """Forwards that one step uses, if it stops at no view."""
        return self.views

    @property
    def view_recipe(self) -> ViewRecipe:
        """Recipe of the views."""
        return ViewRecipe(self.views, self.view_kind, self.view_area)


VotingT = TypeVar("VotingT", bound=ViewVoting)


@dataclass(frozen=True)
class _Views:
    """Outputs for some views of an image, and their scores `[V]`."""

    logits: FloatArray
    scores: FloatArray


@dataclass(frozen=True, eq=False)
class ViewVotingBinding(Binding[VotingT], Generic[VotingT]):  # type: ignore[type-var]  # bind is theirs
    """Base of these methods on one model. An image's prediction does not depend on its batch."""

    def init(self, seed: int) -> State:
        """Return a state that only counts: nothing is carried from image to image."""
        return State(step=0, seed=seed)

    def make_score(self, state: State) -> Score:
        """Return the function that scores views."""
        raise NotImplementedError

    def step(self, state: State, images: ViewBatch) -> Step[State]:
        """Predict each image by a vote of its views."""
        prediction = yield from self.predict(state, images)
        return prediction, replace(state, step=state.step + 1)

    def predict(self, state: State, images: ViewBatch) -> Requests[Prediction]:
        """Predict each image by a vote of its views; view 0 of all images is computed first."""
        score = self.make_score(state)
        (plain,) = yield Request(get_plain_images(images))
        votes: list[Vote] = []
        views = 0
        for index in range(len(images)):
            row = slice(index, index + 1)
            first = _Views(plain.logits[row], score(plain.logits[row], plain.features[row, -1]))
            computed = yield from self._compute_views(images[index], first, score)
            votes.append(self._hold_vote(computed))
            views += len(computed.scores)
        return self._summarize(votes, views)

    def _compute_views(self, views: Views, computed: _Views, score: Score) -> Requests[_Views]:
        """Return the outputs for an image's views, of which view 0 is computed already."""
        options, scale = self.options, math.log(self.model.classes)
        if computed.scores[0] < options.skip * scale:
            return computed
        block = options.block or options.views
        while (count := len(computed.scores)) < options.views:
            stop = min(count - count % block + block, options.views)
            (outputs,) = yield Request(views[count:stop])
            scores = score(outputs.logits, outputs.features[:, -1])
            computed = _Views(
                np.concatenate([computed.logits, outputs.logits]), np.concatenate([computed.scores, scores])
            )
            if stop < options.views and is_decided(
                computed.logits, computed.scores, options.kept, options.views, options.certain * scale
            ):
                break
        return computed

    def _hold_vote(self, computed: _Views) -> Vote:
        options, order = self.options, rank_views(computed.scores)
        count = count_kept(options.kept, len(order))
        return hold_vote(computed.logits, order, count, options.vote, options.ties)

    def _summarize(self, votes: list[Vote], views: int) -> Prediction:
        """Return the prediction: the logarithms of the shares as logits."""
        shares = np.stack([vote.shares for vote in votes])
        logits = np.log(np.maximum(shares, np.finfo(np.float32).tiny)).astype(np.float32)
        mean_views = views / len(votes)
        diagnostics: dict[str, Any] = {
            "entropy": float(entropy(logits).mean()),
            "agreement": float(np.mean([vote.agreement for vote in votes])),
            "views": mean_views,
        }
        return Prediction(logits, mean_views, diagnostics=diagnostics)
