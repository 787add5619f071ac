"""Votes of views: published vectors, ties, and the limits of early decisions."""

from __future__ import annotations

import math

import numpy as np
import pytest
from fozo.engine.model import FloatArray
from fozo.engine.statistics.objective import entropy, softmax
from fozo.engine.statistics.voting import count_kept, hold_vote, is_decided, rank_views


def unit(rows: list[list[float]]) -> FloatArray:
    array = np.array(rows)
    normalised: FloatArray = array / np.linalg.norm(array, axis=1, keepdims=True)
    return normalised


TEXTS = unit([[1, 0], [0, 1], [0.7, 0.7]])
VIEWS = unit([[1, 0.1], [0.2, 1], [0.7, 0.72], [0.5, 0.1]])
LOGITS = 10 * VIEWS @ TEXTS.T


def logits_for(classes: list[int], sure: list[float], count: int = 4) -> FloatArray:
    """Return logits whose largest class is given, by the height of its logit."""
    rows = np.zeros((len(classes), count))
    rows[np.arange(len(classes)), classes] = sure
    return rows


def test_the_reference_of_zero() -> None:
    """Four views and three classes in the plane; half of the views vote, and tie."""
    entropies = entropy(LOGITS)
    np.testing.assert_allclose(
        entropies, [0.3235372231, 0.4810759581, 0.3853170171, 0.4810759581], atol=5e-11
    )
    order = rank_views(entropies.round(12))  # the last two are equal but for rounding
    assert order.tolist() == [0, 2, 1, 3]
    assert [int(LOGITS[view].argmax()) for view in order] == [0, 2, 1, 0]
    vote = hold_vote(LOGITS, order, count_kept(0.5, 4), "hard", "next")
    assert vote.winner == 0  # view 1 names a class that is not tied, view 3 one that is
    assert vote.agreement == 0.5


def test_soft_votes_are_the_mean_probability() -> None:
    vote = hold_vote(LOGITS, np.array([0, 1, 3, 2]), 2, "soft", "next")
    np.testing.assert_allclose(vote.shares, [0.4507148363, 0.4076141060, 0.1416710576], atol=5e-11)
    everything = hold_vote(LOGITS, np.arange(4), 4, "soft", "next")
    np.testing.assert_allclose(everything.shares, softmax(LOGITS).mean(axis=0), rtol=1e-15)


def test_ties_end_with_the_next_view_that_names_a_tied_class() -> None:
    logits = logits_for([2, 1, 0, 1, 2], [5, 6, 4, 3, 2])
    order = np.arange(5)
    assert (
        hold_vote(logits, order, 2, "hard", "next").winner == 1
    )  # view 2 names another class, view 3 decides
    assert hold_vote(logits, order[[0, 1, 2, 4, 3]], 2, "hard", "next").winner == 2
    assert hold_vote(logits, order[:3], 2, "hard", "next").winner == 1  # nobody decides: by probability
    assert hold_vote(logits, order, 2, "hard", "probability").winner == 1
    assert hold_vote(logits_for([2, 1], [5, 5]), np.arange(2), 2, "hard", "next").winner == 1  # and by number
    for ties in ("next", "probability"):  # no tie: they are the same
        assert hold_vote(logits, order, 4, "hard", ties).winner == 1  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["hard", "soft"])
@pytest.mark.parametrize("ties", ["next", "probability"])
def test_shares_are_probabilities_and_the_winner_leads(kind: str, ties: str) -> None:
    generator = np.random.default_rng(0)
    for _ in range(300):
        views, classes = generator.integers(2, 12), generator.integers(1, 6)
        logits = generator.normal(size=(views, classes)) * generator.choice([0.1, 1, 10])
        order, count = generator.permutation(views), int(generator.integers(1, views + 1))
        vote = hold_vote(logits, order, count, kind, ties)  # type: ignore[arg-type]
        assert vote.shares.sum() == pytest.approx(1, abs=1e-12) and (vote.shares > 0).all()
        assert vote.shares.astype(np.float32).argmax() == vote.winner
        votes = np.bincount(logits[order[:count]].argmax(axis=1), minlength=classes)
        assert vote.agreement == pytest.approx(votes[vote.winner] / count)
        if kind == "hard":
            assert votes[vote.winner] == votes.max()
            assert np.abs(vote.shares * (count + 1) - votes).max() <= 1
        permutation = generator.permutation(classes)
        turned = hold_vote(logits[:, permutation], order, count, kind, ties)  # type: ignore[arg-type]
        assert permutation[turned.winner] == vote.winner
        np.testing.assert_allclose(turned.shares, vote.shares[permutation], rtol=1e-12)


def test_equal_views_keep_their_order() -> None:
    assert rank_views(np.array([0.5, 0.1, 0.5, 0.1, 0.1])).tolist() == [1, 3, 4, 0, 2]
    assert rank_views(np.array([0.5, np.nan, 0.1])).tolist() == [2, 0, 1]  # not finite is never confident


@pytest.mark.parametrize(
    ("share", "views", "count"), [(0.3, 64, 19), (0.1, 64, 6), (1.0, 64, 64), (0.0, 5, 1)]
)
def test_numbers_of_kept_views(share: float, views: int, count: int) -> None:
    assert count_kept(share, views) == count
    for total in range(1, 200):
        for tenths in range(11):
            assert count_kept(tenths / 10, total) == max(1, tenths * total // 10)


def test_a_vote_is_decided_by_its_lead_or_by_certainty() -> None:
    """Of 20 views 10 vote; after 12 views 6 have voted, so 4 are to come."""
    scores = np.arange(12) / 10

    def decide(classes: list[int], certain: float = 0.0) -> bool:
        return is_decided(logits_for(classes + [3] * 6, [5.0] * 12), scores, 0.5, 20, certain)

    assert decide([1, 1, 1, 1, 1, 1])
    assert decide([1, 1, 1, 1, 1, 1], certain=9.0)
    assert not decide([1, 1, 1, 1, 1, 2])  # the lead is 4
    assert not decide([1, 1, 1, 1, 1, 2], certain=9.0)  # not of one mind
    few = logits_for([1, 1, 1, 1, 3, 3, 3, 3], [5.0] * 8)
    assert not is_decided(few, scores[:8], 0.5, 20, certain=0.3)  # the last of the four is at 0.3
    assert is_decided(few, scores[:8], 0.5, 20, certain=0.31)
    assert is_decided(logits_for([0], [1.0], count=1), scores[:1], 0.3, 2, certain=math.inf)
