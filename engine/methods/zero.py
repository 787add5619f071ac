"""ZERO: a vote of an image's confident views, without learning (NeurIPS 2024)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..interface.method import State
from ..model import FloatArray, ModelInfo
from ..statistics.objective import entropy
from ..statistics.voting import TieRule
from .view_voting import Score, ViewVoting, ViewVotingBinding


@dataclass(frozen=True)
class Zero(ViewVoting):
    """ZERO: the views of lowest entropy vote for their likeliest class.

    If classes tie, the next views in order of entropy decide, until one of them names a tied class. Nothing
    is carried from image to image. The prediction's probabilities are the shares of the votes.
    """

    name: ClassVar[str] = "zero"
    ties: ClassVar[TieRule] = "next"

    def bind(self, model: ModelInfo) -> BoundZero:
        """Return the method bound to a model; any model will do."""
        return BoundZero(self, model)


@dataclass(frozen=True, eq=False)
class BoundZero(ViewVotingBinding[Zero]):
    """ZERO on one model."""

    def make_score(self, state: State) -> Score:
        """Return the entropy of a view's prediction."""
        return score_by_entropy


def score_by_entropy(logits: FloatArray, features: FloatArray) -> FloatArray:
    """Return the entropy of each view's prediction, float64 `[V]`."""
    return entropy(logits)
