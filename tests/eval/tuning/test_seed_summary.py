"""Mean, spread and harmonic mean over seeds, by hand."""

from __future__ import annotations

from typing import Any

import pytest
from fozo.eval.tuning.seed_summary import (
    PromptScore,
    collect_scores,
    compute_harmonic_means,
    describe_seeds,
    format_seeds,
)


def make_content(seed: int, **accuracies: tuple[float, float]) -> dict[str, Any]:
    """Return the results of a seed; accuracies of the plain template and of the context by target."""
    tuning = {"method": "zip", "data": "pets", "shots": 16, "classes": "base", "steps": 5, "calls": 50}
    evaluations = [
        {
            "target": target,
            "images": "pets",
            "classes": 2,
            "prompts": {
                "plain": {"accuracy": plain, "macro_f1": plain / 2},
                "tuned": {"accuracy": tuned, "macro_f1": tuned / 2},
            },
        }
        for target, (plain, tuned) in accuracies.items()
    ]
    cost = {"steps": 5, "calls": 50}
    facts = {"bundle": {}, "cost": cost, "head": f"pets-{seed}", "evaluations": evaluations}
    return {"tuning": {**tuning, "seed": seed}, **facts}


CONTENTS = [
    make_content(1, base=(0.5, 0.8), new=(0.6, 0.4)),
    make_content(2, base=(0.5, 0.6), new=(0.6, 0.2)),
]


def test_scores_and_harmonic_means() -> None:
    scores = collect_scores(CONTENTS)
    assert [(score.target, score.prompt) for score in scores] == [
        ("base", "plain"),
        ("base", "tuned"),
        ("new", "plain"),
        ("new", "tuned"),
    ]
    assert scores[1].mean == pytest.approx(0.7)
    assert scores[1].spread == pytest.approx(0.2 / 2**0.5)  # unbiased
    means = compute_harmonic_means(scores, "base")
    # Of the means over the seeds, not the mean of the harmonic means.
    assert means["tuned"] == pytest.approx(2 * 0.7 * 0.3 / (0.7 + 0.3))
    assert means["plain"] == pytest.approx(2 * 0.5 * 0.6 / 1.1)


@pytest.mark.parametrize("learnt", ["all", "new"])
def test_harmonic_means_need_learnt_base_classes(learnt: str) -> None:
    assert compute_harmonic_means(collect_scores(CONTENTS), learnt) == {}
    only_base = [make_content(1, base=(0.5, 0.8))]
    assert compute_harmonic_means(collect_scores(only_base), "base") == {}


def test_no_right_answer_at_all() -> None:
    scores = collect_scores([make_content(1, test=(0.0, 0.0), new=(0.0, 0.5))])
    assert compute_harmonic_means(scores, "base") == {"plain": 0.0, "tuned": 0.0}


def test_a_single_seed_has_no_spread() -> None:
    score = PromptScore("test", "pets", 2, "tuned", (0.25,), (0.125,))
    assert score.spread is None
    assert format_seeds([score], {}).endswith("25.00       12.50")


def test_results_and_table() -> None:
    summary = describe_seeds(CONTENTS, ["a-1.json", "a-2.json"])
    assert (summary["kind"], summary["complete"], summary["tuning"]["calls"]) == ("tuning-seeds", True, 50)
    assert summary["runs"][1] == {"seed": 2, "head": "pets-2", "file": "a-2.json"}
    score = summary["scores"][3]
    assert (score["accuracies"], score["macro_f1s"]) == ([0.4, 0.2], [0.2, 0.1])
    assert (score["mean"], score["standard_deviation"]) == pytest.approx((0.3, 0.2 / 2**0.5))
    assert (score["macro_f1_mean"], score["macro_f1_standard_deviation"]) == pytest.approx(
        (0.15, 0.1 / 2**0.5)
    )
    table = format_seeds(collect_scores(CONTENTS), summary["harmonic_means"])
    assert "base           tuned   70.00 ± 14.14  35.00 ± 7.07" in table
    assert "harmonic mean  tuned   42.00" in table
