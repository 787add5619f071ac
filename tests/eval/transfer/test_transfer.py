"""One prompt on several data sets with classes of their own, side by side with the texts without it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from fozo.data.demo import DEMO_CLIP_BUNDLE
from fozo.engine.bundle.bundle import Bundle
from fozo.engine.errors import InputError
from fozo.eval.results.average import compute_averages
from fozo.eval.results.results_file import read_results
from fozo.eval.streaming.method_networks import MethodNetworks
from fozo.eval.transfer.transfer import list_methods, view_networks
from fozo.eval.transfer.transfer_spec import PUBLISHED, TransferSpec
from metric_doubles import compute_macro_f1
from transfer_doubles import CONTEXT, NAMES, SETS, make_folder, predict, prepare, run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_folder(tmp_path)


def count_right(folder: Path, name: str, templates: list[str]) -> int:
    """Return the number of images that templates get right."""
    labels, predictions = predict(folder, name, templates)
    return int((labels == predictions).sum())


def test_every_data_set_has_its_own_classes_and_the_same_context(folder: Path, tmp_path: Path) -> None:
    experiment = run(prepare(folder, "t3a"))
    assert list(experiment.methods) == ["zero-shot", "no_adapt", "t3a"]
    assert (experiment.images, experiment.processed_images) == (27, 27)
    domains = experiment.runs[0].domains
    assert [(domain.name, domain.images) for domain in domains] == list(zip(NAMES, (6, 9, 12), strict=True))
    for name, domain in zip(SETS, domains, strict=True):
        assert domain.complete
        tallies = {label: result.tally for label, result in domain.methods.items()}
        for label, prompt in (("zero-shot", (["a photo of a {}."],)), ("no_adapt", (["{}."], CONTEXT))):
            labels, predictions = predict(folder, name, *prompt)
            assert tallies[label].top1 == (labels == predictions).sum()
            assert tallies[label].macro_f1 == pytest.approx(compute_macro_f1(labels, predictions))
        assert {result.tally.images for result in domain.methods.values()} == {len(SETS[name][2]) * 3}
    averages = compute_averages(experiment.runs)
    rates = [domain.methods["no_adapt"].tally.accuracy for domain in domains]
    assert averages["no_adapt"].accuracy == pytest.approx(np.mean(rates))
    macro_f1s = [domain.methods["no_adapt"].tally.macro_f1 for domain in domains]
    assert averages["no_adapt"].macro_f1 == pytest.approx(np.mean(macro_f1s))
    assert averages["t3a"].gain is not None and averages["zero-shot"].gain is None


def test_every_method_has_its_own_activations_with_the_classes_of_a_head() -> None:
    methods = list_methods(["quar", "pea"], has_context=True)
    bundle, target = Bundle.open(DEMO_CLIP_BUNDLE), SimpleNamespace(name="digits")
    target.domains = [target]
    with MethodNetworks.open(bundle, "fp32", methods.values(), workers=1) as networks:

        def view(classes: Any) -> MethodNetworks:
            return networks.view(lambda network: network.select(classes))

        targets: Any = [target]
        heads: list[Any] = [{"digits": [1, 2]}, {"digits": [3, 4, 5]}]
        (views,) = view_networks(targets, methods, view, heads[0], heads[1:])
    for label, method in methods.items():
        use, network = getattr(method, "activations", None), views["digits"][label]
        assert network.info.classes == (2 if label == "zero-shot" else 3)
        selected = [] if use is None else use.select(bundle.manifest.activations)
        assert list(network.info.activations) == selected


def test_results_say_what_was_transferred(folder: Path, tmp_path: Path) -> None:
    experiment = run(prepare(folder))
    experiment.results.save(tmp_path / "results.json")
    results = read_results(tmp_path / "results.json")
    assert results.complete
    assert results.protocol.classes == "those of each data set"
    assert results.protocol.dataset == f"transfer of context learnt to {', '.join(NAMES)}"
    facts = results.bundle["transfer"]
    assert (facts["context"], facts["context_vectors"], facts["templates"]) == (
        "learnt",
        3,
        ["a photo of a {}."],
    )
    assert {name: target["classes"] for name, target in facts["targets"].items()} == dict(
        zip(NAMES, (2, 3, 4), strict=True)
    )
    assert "head" not in results.bundle and "classes" not in results.bundle


def test_the_report_of_a_transfer(folder: Path, tmp_path: Path) -> None:
    from fozo.eval.report.digest.report_digest import digest_results
    from fozo.eval.report.digest.sources import collect_results

    run(prepare(folder)).results.save(tmp_path / "results.json")
    sources, _ = collect_results([tmp_path / "results.json"])
    digest = digest_results(sources)
    text = repr(digest)
    assert "context of the head learnt, 3 learnt vectors and" in text
    assert "The methods predict the classes of each data set." in text


@pytest.mark.parametrize("batches", [1, 2, 3, 5])
def test_a_continued_run_gives_the_same_results(batches: int, folder: Path, tmp_path: Path) -> None:
    """Batches of 4: pets end after 2, land after 3 more."""
    progress = tmp_path / "progress.npz"
    whole = run(prepare(folder, "t3a", "lame"))
    begun = run(prepare(folder, "t3a", "lame"), batches)
    begun.save_progress(progress)
    continued = prepare(folder, "t3a", "lame")
    continued.resume(progress)
    run(continued)
    for one, other in zip(whole.runs[0].domains, continued.runs[0].domains, strict=True):
        for label, result in one.methods.items():
            assert result.right.to_json() == other.methods[label].right.to_json()
            assert result.tally.nll == other.methods[label].tally.nll
    assert whole.key_sha256 == continued.key_sha256


def test_everything_is_forgotten_between_data_sets(folder: Path) -> None:
    alone = run(prepare(folder, "t3a", names=("land",)))
    after = run(prepare(folder, "t3a", names=("pets", "land")))
    assert (
        alone.runs[0].domains[0].methods["t3a"].tally.nll == after.runs[0].domains[1].methods["t3a"].tally.nll
    )


def test_without_a_context_templates_are_the_prompt_of_all_methods(folder: Path) -> None:
    experiment = run(prepare(folder, "t3a", context=None, templates=("a dog at {}",)))
    assert list(experiment.methods) == ["no_adapt", "t3a"]
    for name, domain in zip(SETS, experiment.runs[0].domains, strict=True):
        assert domain.methods["no_adapt"].tally.top1 == count_right(folder, name, ["a dog at {}"])


def test_templates_that_are_published_for_each_data_set(folder: Path) -> None:
    experiment = run(prepare(folder, templates=(PUBLISHED,)))
    published = ("a photo of a {}, a type of pet.", "a centered satellite photo of {}.", "{} texture.")
    for name, template, domain in zip(SETS, published, experiment.runs[0].domains, strict=True):
        assert domain.methods["zero-shot"].tally.top1 == count_right(folder, name, [template])


def test_orders_and_subsets(folder: Path) -> None:
    experiment = run(prepare(folder, orders=3, subset="5"))
    assert [[domain.images for domain in each.domains] for each in experiment.runs] == [[5, 5, 5]] * 3
    assert len({domain.ids_sha256 for each in experiment.runs for domain in each.domains}) == 3


def test_what_cannot_be_transferred(folder: Path) -> None:
    with pytest.raises(
        InputError, match=r"the head animals has no learnt context, only words: '\{\} at a dog\.'"
    ):
        prepare(folder, context="animals")
    with pytest.raises(InputError, match="expected different data sets, found oxford_pets twice"):
        prepare(folder, names=("pets", "pets"))
    with pytest.raises(InputError, match="found none; name each with --data"):
        TransferSpec(())
    with pytest.raises(InputError, match="--seeds or --orders, found both"):
        TransferSpec(("a",), seeds=2, orders=2)
    with pytest.raises(InputError, match="label zero-shot stands for the texts without a context"):
        list_methods(["zero-shot=t3a"], has_context=True)


def test_the_frozen_network_is_always_there() -> None:
    assert list(list_methods(["t3a"], has_context=False)) == ["no_adapt", "t3a"]
    assert list(list_methods(["plain=no_adapt", "t3a"], has_context=False)) == ["plain", "t3a"]
    assert list(list_methods(["t3a", "no_adapt"], has_context=True)) == ["zero-shot", "t3a", "no_adapt"]
