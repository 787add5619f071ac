"""Contexts of several seeds in one transfer: mean, spread and noise against the formulas, run by run."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fozo.engine.bundle.bundle import Bundle
from fozo.engine.errors import BundleError, InputError
from fozo.engine.runtime.class_head import make_head
from fozo.eval.report.digest.report_digest import digest_results
from fozo.eval.report.digest.sources import collect_results
from fozo.eval.results.seed_table import format_seed_table
from fozo.eval.results.table import format_row
from fozo.eval.transfer.transfer import prepare_transfer
from fozo.eval.transfer.transfer_spec import TransferSpec
from fozo.eval.transfer.transfer_target import mark_source, open_target
from transfer_doubles import CONTEXT, NAMES, SETS, make_folder, predict, prepare, run

SEEDS = (1, 2, 5)
CONTEXTS = {seed: np.random.default_rng(seed).normal(0, 2, (3, 4)).astype(np.float32) for seed in SEEDS}
PLAIN = ["a photo of a {}."]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_folder(tmp_path)
    for seed, context in CONTEXTS.items():
        bundle = Bundle.open(tmp_path / "clip")
        bundle.with_head(f"zip-{seed}", make_head(bundle, ["cow"], ["{}."], context=context))
    return tmp_path


def get_accuracy(folder: Path, name: str, *prompt: Any) -> float:
    labels, predictions = predict(folder, name, *prompt)
    return float((labels == predictions).mean())


def test_every_seed_has_its_own_context(folder: Path, tmp_path: Path) -> None:
    experiment = run(prepare(folder, context="zip", context_seeds=SEEDS))
    assert [each.seed for each in experiment.runs] == list(SEEDS)
    rates = np.array(
        [[get_accuracy(folder, name, ["{}."], context) for name in SETS] for context in CONTEXTS.values()]
    )
    plain = np.array([get_accuracy(folder, name, PLAIN) for name in SETS])
    assert len(set(rates.mean(1))) > 1, "the contexts are all alike, which tests nothing"
    for each, row in zip(experiment.runs, rates, strict=True):
        for domain, rate, untuned in zip(each.domains, row, plain, strict=True):
            assert domain.methods["no_adapt"].tally.accuracy == pytest.approx(rate)
            assert domain.methods["zero-shot"].tally.accuracy == pytest.approx(untuned)
    path = tmp_path / "results.json"
    experiment.results.save(path)
    content = json.loads(path.read_text())
    assert list(content["average_by_domain"]) == list(NAMES)
    for index, name in enumerate(NAMES):
        averages = content["average_by_domain"][name]
        assert averages["no_adapt"]["accuracy"] == pytest.approx(rates[:, index].mean())
        assert averages["no_adapt"]["accuracy_std"] == pytest.approx(rates[:, index].std(ddof=1))
        assert averages["no_adapt"]["gain"] == pytest.approx(rates[:, index].mean() - plain[index])
        assert averages["zero-shot"]["accuracy_std"] == 0
    average = content["average"]["no_adapt"]
    assert average["accuracy"] == pytest.approx(rates.mean())
    assert average["accuracy_std"] == pytest.approx(rates.mean(1).std(ddof=1))
    facts = content["bundle"]["transfer"]
    assert (facts["context"], facts["context_seeds"]) == ("zip", list(SEEDS))
    bundle = Bundle.open(folder / "clip")
    for name, sha256 in facts["context_heads"].items():
        assert sha256 == bundle.manifest.files[bundle.manifest.heads[name].file].sha256
    assert list(facts["context_heads"]) == ["zip-1", "zip-2", "zip-5"]


def test_the_table_of_the_terminal(folder: Path) -> None:
    experiment = run(prepare(folder, context="zip", context_seeds=SEEDS))
    lines = format_seed_table(experiment.runs).splitlines()
    assert lines[0].split() == ["accuracy,", "%", "zero-shot", "no_adapt"]
    assert [line.split()[0] for line in lines[1:]] == [*NAMES, "average"]
    rates = [get_accuracy(folder, "pets", ["{}."], context) for context in CONTEXTS.values()]
    expected = f"{100 * np.mean(rates):.2f} ± {100 * np.std(rates, ddof=1):.2f}"
    assert expected in lines[1]
    plain = f"{100 * get_accuracy(folder, 'pets', PLAIN):.2f} ± 0.00"
    assert plain in lines[1]
    assert len({len(line) for line in lines}) == 1 and "~" in "".join(lines)


def test_all_runs_have_the_same_images(folder: Path) -> None:
    experiment = run(prepare(folder, context="zip", context_seeds=SEEDS, subset="5"))
    choices = {tuple(domain.ids_sha256 for domain in each.domains) for each in experiment.runs}
    assert len(choices) == 1
    assert [domain.images for domain in experiment.runs[0].domains] == [5, 5, 5]


@pytest.mark.parametrize("batches", [1, 3, 8, 11])
def test_a_continued_run_gives_the_same_results(batches: int, folder: Path, tmp_path: Path) -> None:
    """Batches of 4: a seed takes 2 + 3 + 3."""
    options: dict[str, Any] = {"context": "zip", "context_seeds": SEEDS}
    whole = run(prepare(folder, "t3a", **options))
    begun = run(prepare(folder, "t3a", **options), batches)
    begun.save_progress(tmp_path / "progress.npz")
    continued = prepare(folder, "t3a", **options)
    continued.resume(tmp_path / "progress.npz")
    run(continued)
    for one, other in zip(whole.runs, continued.runs, strict=True):
        for domain, again in zip(one.domains, other.domains, strict=True):
            for label, result in domain.methods.items():
                assert result.right.to_json() == again.methods[label].right.to_json()
                assert result.tally.nll == again.methods[label].tally.nll


def test_one_seed_is_the_head_of_that_name(folder: Path) -> None:
    several = run(prepare(folder, context="zip", context_seeds=(2,)))
    one = run(prepare(folder, context="zip-2", seed=2))
    for domain, other in zip(several.runs[0].domains, one.runs[0].domains, strict=True):
        assert domain.methods["no_adapt"].tally.nll == other.methods["no_adapt"].tally.nll


def test_the_report_says_whose_contexts_they_are(folder: Path, tmp_path: Path) -> None:
    run(prepare(folder, context="zip", context_seeds=SEEDS)).results.save(tmp_path / "results.json")
    digest = digest_results(collect_results([tmp_path / "results.json"])[0])
    assert "contexts of the heads zip-1, zip-2, zip-5, 3 learnt vectors and '{}.'" in repr(digest)
    assert "macro-F1, %" in digest.runs[0].summary.columns


def test_the_data_set_of_the_context_is_in_no_average(folder: Path) -> None:
    """A context that was learnt on EuroSAT, on EuroSAT and others."""
    bundle = Bundle.open(folder / "clip")
    head = make_head(bundle, ["cow"], ["{}."], context=CONTEXT)
    bundle.with_head("land", replace(head, record={"tuning": {"data": "eurosat"}}))
    experiment = run(prepare(folder, context="land"))
    domains = experiment.runs[0].domains
    assert [domain.learnt_from for domain in domains] == [False, True, False]
    facts = experiment.results.bundle["transfer"]["targets"]
    assert [target["learnt_from"] for target in facts.values()] == [False, True, False]
    rates = [get_accuracy(folder, name, ["{}."], CONTEXT) for name in SETS]
    average = experiment.results.to_dict()["average"]["no_adapt"]["accuracy"]
    assert average == pytest.approx((rates[0] + rates[2]) / 2)
    assert "the prompt was learnt from" in format_row(domains[1], experiment.protocol)
    table = format_seed_table(experiment.runs).splitlines()
    assert [line.split()[0] for line in table[1:]] == ["oxford_pets", "dtd", "average", "(eurosat)", "(…)"]


def test_only_the_data_set_of_a_context_averages_itself(folder: Path) -> None:
    bundle = Bundle.open(folder / "clip")
    head = make_head(bundle, ["cow"], ["{}."], context=CONTEXT)
    bundle.with_head("land", replace(head, record={"tuning": {"data": "eurosat"}}))
    experiment = run(prepare(folder, context="land", names=("land",)))
    rate = get_accuracy(folder, "land", ["{}."], CONTEXT)
    assert experiment.results.to_dict()["average"]["no_adapt"]["accuracy"] == pytest.approx(rate)
    assert [line.split()[0] for line in format_seed_table(experiment.runs).splitlines()[1:]] == [
        "(eurosat)",
        "(…)",
    ]


def test_imagenet_is_the_data_set_of_contexts_with_its_classes(folder: Path) -> None:
    """Its relatives have the same classes, and nothing was learnt from them."""
    bundle = Bundle.open(folder / "clip")
    target = open_target(str(folder / "land"), bundle, TransferSpec(("a",)).reading)
    head = make_head(bundle, ["cow"], ["{}."], context=CONTEXT)
    thousand = replace(head, class_ids=tuple(f"n{index:08}" for index in range(1000)))
    for name, expected in (("imagenet", True), ("imagenet-v2", False), ("eurosat", False)):
        marked = mark_source(replace(target, name=name), [thousand])
        assert [domain.learnt_from for domain in marked.domains] == [expected]
    assert not mark_source(replace(target, name="imagenet"), [head]).domains[0].learnt_from


def test_what_cannot_be_transferred(folder: Path) -> None:
    with pytest.raises(InputError, match=r"one for each of several seeds; give --context-seeds 1,2,5 with"):
        prepare(folder, context="zip")
    with pytest.raises(BundleError, match="has no head 'zip-4'"):
        prepare(folder, context="zip", context_seeds=(1, 4))
    with pytest.raises(InputError, match="expected --head-context with --context-seeds, found none"):
        TransferSpec(("a",), context_seeds=(1,))
    with pytest.raises(InputError, match="--context-seeds, --seeds or --orders, found two"):
        TransferSpec(("a",), context="zip", context_seeds=(1,), orders=3)
    bundle = Bundle.open(folder / "clip")
    bundle.with_head("zip-7", make_head(bundle, ["cow"], ["{}."], context=CONTEXT[:2]))
    with pytest.raises(InputError, match="expected zip-1, zip-7 to be of one tuning"):
        prepare_transfer(
            Bundle.open(folder / "clip"),
            TransferSpec((str(folder / "pets"),), context="zip", context_seeds=(1, 7)),
        )
