"""Runs that mix methods with and without re-centred activations: every method pays for its own alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fozo.data.demo import DEMO_BUNDLE
from fozo.engine.bundle.bundle import Bundle
from fozo.engine.registry import METHODS, parse_methods
from fozo.engine.runtime.network import Network
from fozo.eval.datasets.dataset_request import DatasetRequest
from fozo.eval.streaming.experiment import Experiment, prepare
from fozo.eval.streaming.method_networks import MethodNetworks
from fozo.eval.streaming.spec import EvaluationSpec

PLAIN = ("no_adapt", "neo", "quar:branches=global")
RECENTRING = ("quar", "guarded=quar:guard=rollback", "quar:blocks=1", "pea")


def run_demo(*methods: str, **options: Any) -> Experiment:
    request = DatasetRequest("demo", corruptions=("gaussian_noise",))
    spec = EvaluationSpec(DEMO_BUNDLE, methods, request, subset="24", batch_size=8, workers=1, **options)
    experiment = prepare(spec)
    with experiment.method_networks:
        for _ in experiment.run():
            pass
    return experiment


def open_networks(path: Path, *methods: str) -> MethodNetworks:
    return MethodNetworks.open(Bundle.open(path), "fp32", parse_methods(methods).values(), workers=1)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[Network]:
    """Record the networks that a test opens."""
    networks: list[Network] = []
    open_network = Network.open

    def record(*arguments: Any, **options: Any) -> Network:
        networks.append(open_network(*arguments, **options))
        return networks[-1]

    monkeypatch.setattr(Network, "open", record)
    return networks


@pytest.mark.parametrize("classes", ["auto", "present"])
def test_every_method_has_a_network_with_its_activations_alone(opened: list[Network], classes: str) -> None:
    experiment = run_demo(*RECENTRING, *PLAIN, classes=classes)
    assert len(opened) == 4  # without activations, two sets of quar's, and pea's
    for method, adapter in zip(experiment.methods.values(), experiment.adapters.values(), strict=True):
        use = getattr(method, "activations", None)
        listed = experiment.bundle.manifest.activations
        assert list(adapter.network.info.activations) == ([] if use is None else use.select(listed))
    assert experiment.adapters["guarded"].network is experiment.adapters["quar"].network
    assert len({id(experiment.adapters[label].network) for label in PLAIN}) == 1
    assert experiment.network is experiment.adapters["no_adapt"].network


def test_without_such_methods_there_is_one_network(opened: list[Network]) -> None:
    run_demo(*PLAIN)
    assert len(opened) == 1


def test_methods_answer_as_they_do_alone() -> None:
    methods = ("no_adapt", "quar", "pea")
    (together,) = run_demo(*methods).runs[0].domains
    for label in methods:
        (alone,) = run_demo(label).runs[0].domains
        assert together.methods[label].right.to_json() == alone.methods[label].right.to_json()
        assert together.methods[label].tally.nll == alone.methods[label].tally.nll


def test_exact_gradients_and_activations_in_one_run(bundle_path: Path) -> None:
    """All networks split their work in the same way, which is what results report of the engine."""
    with open_networks(bundle_path, "quar", "tent") as networks:
        plain, recentred = networks.find(METHODS["tent"]), networks.find(METHODS["quar"])
        assert networks.first is plain
        assert plain.info.gradients and not plain.info.activations
        assert recentred.info.activations and not recentred.info.gradients
        assert (plain.workers, plain.micro_batch) == (recentred.workers, recentred.micro_batch) == (1, 1)


def test_views_of_all(bundle_path: Path) -> None:
    with open_networks(bundle_path, "no_adapt", "pea") as networks:
        views = networks.view(lambda network: network.select([3, 1]))
        for name in ("no_adapt", "pea"):
            network, view = networks.find(METHODS[name]), views.find(METHODS[name])
            assert (network.info.classes, view.info.classes) == (20, 2)
            assert view.info.activations == network.info.activations


def test_networks_without_methods(bundle_path: Path) -> None:
    with open_networks(bundle_path) as networks:
        assert networks.first.info.activations == ()
