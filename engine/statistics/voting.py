"""Votes of an image's views: the confident ones are kept, and each names a class or adds its probabilities.

ZERO (NeurIPS 2024) and STSS (arXiv 2501.18864) differ in how they score views, and in how a tie ends.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, cast

import numpy as np
from numpy.typing import NDArray

from ..model import FloatArray
from .objective import softmax

VoteKind = Literal["hard", "soft"]
TieRule = Literal["next", "probability"]

ROUNDING = 1e-9  # so that 0.3 of 10 views are 3, although 0.3 · 10 is not exact for all such products


@dataclass(frozen=True)
class Vote:
    """The outcome of a vote.

    Attributes:
        winner: the class.
        shares: probability of each class, float64 `[K]`; the winner's is the largest.
        agreement: share of the voting views whose likeliest class is the winner.
    """

    winner: int
    shares: FloatArray
    agreement: float


def count_kept(share: float, views: int) -> int:
    """Return how many of `views` views vote, at least one.

    >>> [count_kept(0.3, 64), count_kept(0.1, 64), count_kept(0.7, 10), count_kept(0.0, 64)]
    [19, 6, 7, 1]
    """
    return max(1, math.floor(share * views + ROUNDING))


def rank_views(scores: FloatArray) -> NDArray[np.int64]:
    """Return the views from the lowest score to the highest, of equal ones the earlier first, int64 `[V]`."""
    return np.argsort(scores, kind="stable")


def hold_vote(
    logits: FloatArray, order: NDArray[np.int64], count: int, kind: VoteKind, ties: TieRule
) -> Vote:
    """Let the first views of an order vote.

    With soft votes, `shares` is the mean of their probabilities. With hard votes, each names its likeliest
    class. One further vote goes half to the winner and half to all classes by their mean probability: so the
    winner of a tie leads, no class has the share 0, and classes without a vote are in order.

    Args:
        logits: of all views, `[V, K]`.
        order: the views, most confident first, `[V]`.
        count: number of views that vote.
        kind: hard or soft votes.
        ties: how a tie of hard votes ends: `next`, by the next views in the order, until one names a tied
            class (ZERO), and by probability if none does; `probability`, by the larger mean probability.

    >>> two_views = np.log([[0.6, 0.3, 0.1], [0.3, 0.6, 0.1]])
    >>> vote = hold_vote(two_views, np.array([0, 1]), 2, "hard", "probability")
    >>> vote.winner, vote.shares.round(3).tolist()
    (0, [0.575, 0.408, 0.017])
    """
    voters = order[:count]
    classes = logits.argmax(axis=1)
    means = softmax(logits[voters]).mean(axis=0)
    if kind == "soft":
        winner = int(means.argmax())
        return Vote(winner, means, _compute_agreement(classes[voters], winner))
    votes = np.bincount(classes[voters], minlength=logits.shape[1])
    tied = np.flatnonzero(votes == votes.max())
    winner = int(tied[means[tied].argmax()])
    if len(tied) > 1 and ties == "next":
        others = classes[order[count:]]
        winner = int(next(iter(others[np.isin(others, tied)]), winner))
    further_vote = means / 2
    further_vote[winner] += 0.5
    shares = (votes + further_vote) / (len(voters) + 1)
    return Vote(winner, shares, _compute_agreement(classes[voters], winner))


def _compute_agreement(classes: NDArray[np.int64], winner: int) -> float:
    return float((classes == winner).mean())


def is_decided(logits: FloatArray, scores: FloatArray, share: float, views: int, certain: float) -> bool:
    """Return whether further views are unlikely to change a vote.

    Either the lead of the first class is larger than the number of votes to come, or all voting views name
    one class and have scores below `certain`. It is no guarantee: later views can also replace earlier ones
    among the confident.

    Args:
        logits: of the views so far, `[V, K]`.
        scores: of these views, `[V]`.
        share: share of the views that vote.
        views: number of views at the end.
        certain: score in nats.
    """
    count = count_kept(share, len(scores))
    voters = rank_views(scores)[:count]
    votes = np.sort(np.bincount(logits[voters].argmax(axis=1), minlength=2))
    lead = cast(int, votes[-1] - votes[-2])
    is_certain = lead == count and bool((scores[voters] < certain).all())
    return is_certain or lead > count_kept(share, views) - count
