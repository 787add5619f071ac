"""Several orders of the same images: what the seeds decide then."""

from __future__ import annotations

from pathlib import Path

from fozo.data.demo import DEMO_BUNDLE
from fozo.eval.datasets.dataset_request import DatasetRequest
from fozo.eval.results.average import compute_averages
from fozo.eval.results.outcome import DomainResult
from fozo.eval.results.results_file import read_results
from fozo.eval.streaming.experiment import Experiment, prepare
from fozo.eval.streaming.spec import EvaluationSpec


def run_demo(**options: int) -> Experiment:
    request = DatasetRequest("demo", corruptions=("gaussian_noise",))
    spec = EvaluationSpec(
        DEMO_BUNDLE, ("no_adapt", "t3a"), request, subset="24", batch_size=8, workers=1, **options
    )
    experiment = prepare(spec)
    with experiment.method_networks:
        for _ in experiment.run():
            pass
    return experiment


def list_domains(experiment: Experiment) -> list[DomainResult]:
    return [domain for run in experiment.runs for domain in run.domains]


def test_orders_have_the_same_images_and_differ_in_what_online_methods_get_right(tmp_path: Path) -> None:
    experiment = run_demo(orders=10)
    domains = list_domains(experiment)
    assert experiment.protocol.seeds == tuple(range(2000, 2010)) and experiment.protocol.orders
    assert "10 orders (seeds 2000 to 2009)" in experiment.protocol.describe()
    assert len({domain.ids_sha256 for domain in domains}) == 1
    # The network is the same for every image, so without adaptation the same images are right.
    assert len({domain.methods["no_adapt"].tally.top1 for domain in domains}) == 1
    assert len({domain.methods["no_adapt"].right.to_json() for domain in domains}) > 1
    averages = compute_averages(experiment.runs)
    assert averages["no_adapt"].worst_accuracy == averages["no_adapt"].accuracy
    worst = averages["t3a"].worst_accuracy
    assert worst == min(domain.methods["t3a"].tally.accuracy for domain in domains)
    experiment.results.save(tmp_path / "results.json")
    assert read_results(tmp_path / "results.json").protocol == experiment.protocol


def test_seeds_choose_other_images() -> None:
    experiment = run_demo(seeds=2)
    assert len({domain.ids_sha256 for domain in list_domains(experiment)}) == 2
    assert not experiment.protocol.orders
