"""Runs that compare methods with and without views: the views are those of `fozo.views`, from the files."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fozo
import numpy as np
import pytest
from doubles import draw_picture
from fozo.engine.bundle.bundle import Bundle
from fozo.engine.model import ImageArray
from fozo.engine.registry import parse_method
from fozo.eval.datasets.cifar import _make_domain
from fozo.eval.datasets.domain import Domain, make_array_domain
from fozo.eval.datasets.generated_domains import generate_domains
from fozo.eval.datasets.image_folder import load_image_folder
from fozo.eval.datasets.imagenet_c import load_imagenet_c
from fozo.eval.protocol import Protocol
from fozo.eval.streaming import experiment, runner
from fozo.eval.streaming.experiment import Experiment
from fozo.eval.streaming.runner import evaluate
from fozo.eval.streaming.spec import EvaluationSpec
from fozo.eval.streaming.stream import plan_segments, shuffle_order
from numpy.typing import NDArray
from PIL import Image

VIEWS = 5
ZERO = f"zero:views={VIEWS}"
METHODS = ("no_adapt", ZERO, f"zero:views={VIEWS},view_kind=augmix", "neo")
NAME = "photos"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save photographs larger than the model's images, one for each of twenty classes."""
    root = tmp_path_factory.mktemp("photographs") / NAME
    for index in range(20):
        path = root / f"{index:02d}" / f"{index:03d}.png"
        path.parent.mkdir(parents=True)
        Image.fromarray(draw_picture(index, (50 + index, 70))).save(path)
    return root


@pytest.fixture
def prepare(bundle_path: Path, folder: Path) -> Callable[..., Experiment]:
    """`prepare(**changes)`: a small experiment of one seed, five batches."""

    def made(**changes: Any) -> Experiment:
        options = {
            "bundle": bundle_path,
            "methods": METHODS,
            "data": folder,
            "dataset": "imagefolder",
            "batch_size": 4,
            "seed": 7,
            "workers": 1,
            **changes,
        }
        return experiment.prepare(EvaluationSpec.from_options(**options))

    return made


def end(prepared: Experiment) -> Any:
    assert sum(prepared.run()) == prepared.images
    return prepared.runs


def count_right(prepared: Experiment, label: str) -> list[bool]:
    (domain,) = prepared.runs[0].domains
    flags: list[bool] = domain.methods[label].right.array().tolist()
    return flags


# --- one run


def test_views_are_those_of_the_files_by_seed_and_identifier(
    prepare: Callable[..., Experiment], folder: Path, bundle_path: Path
) -> None:
    prepared = prepare(methods=(ZERO,))
    end(prepared)
    bundle = Bundle.open(bundle_path)
    domain = load_image_folder(folder, bundle.manifest)
    adapter = fozo.Adapter.open(bundle_path, method="zero", views=VIEWS, seed=7, workers=1)
    right = []
    for index in shuffle_order(20, "imagefolder", 7):
        identifier = domain.ids[index]
        views = fozo.views(
            folder / identifier, VIEWS, bundle.manifest.preprocessing, seed=7, image_id=identifier
        )
        right.append(bool(adapter.step(views[None]).logits.argmax() == domain.labels[index]))
    assert count_right(prepared, ZERO) == right


def test_methods_with_and_without_views_share_a_run(prepare: Callable[..., Experiment]) -> None:
    together = prepare()
    end(together)
    for label in METHODS:
        alone = prepare(methods=(label,))
        end(alone)
        assert count_right(alone, label) == count_right(together, label), label
    (domain,) = together.runs[0].domains
    assert [domain.methods[label].forwards / domain.methods[label].batches for label in METHODS] == [
        1,
        VIEWS,
        VIEWS,
        1,
    ]
    document = json.loads(json.dumps(together.results.to_dict(), default=str))
    assert document["methods"][ZERO]["forwards_per_batch"] == VIEWS
    assert document["average"][ZERO]["forwards_per_batch"] == VIEWS
    assert document["methods"][ZERO]["options"]["view_kind"] == "crops"


def test_predictions_do_not_depend_on_the_batch_size(prepare: Callable[..., Experiment]) -> None:
    runs = [prepare(methods=("no_adapt", ZERO), batch_size=size) for size in (3, 20)]
    for prepared in runs:
        end(prepared)
    assert count_right(runs[0], ZERO) == count_right(runs[1], ZERO)


def test_mean_views_are_reported_where_a_method_stops_early(prepare: Callable[..., Experiment]) -> None:
    label = "zero:views=12,block=3,certain=0.9,kept=0.3"
    prepared = prepare(methods=(label,))
    end(prepared)
    (domain,) = prepared.runs[0].domains
    average = domain.methods[label].forwards / domain.methods[label].batches
    assert 3 <= average < 12
    assert prepared.runs[0].traces[label].values["views"][0] is not None


# --- interruptions and bad images


@pytest.mark.parametrize("setting", ["reset", "continual", "rounds"])
def test_a_run_that_is_resumed_ends_with_the_same_results(
    prepare: Callable[..., Experiment], tmp_path: Path, setting: str
) -> None:
    options: dict[str, Any] = {"setting": setting, "rounds": 2 if setting == "rounds" else None}
    whole, stopped, resumed = (prepare(**options) for _ in range(3))
    end(whole)
    for number, _ in enumerate(stopped.run()):
        if number == 2:
            stopped.save_progress(tmp_path / "run.progress.npz")
            break
    resumed.resume(tmp_path / "run.progress.npz")
    for _ in resumed.run():
        pass
    for a, b in zip(whole.runs[0].domains, resumed.runs[0].domains, strict=True):
        for label in METHODS:
            assert np.array_equal(a.methods[label].right.array(), b.methods[label].right.array())
            assert a.methods[label].tally.nll == b.methods[label].tally.nll
            assert a.methods[label].forwards == b.methods[label].forwards


def test_an_image_that_cannot_be_read_is_skipped_by_all_methods(
    prepare: Callable[..., Experiment], folder: Path, tmp_path: Path
) -> None:
    broken = tmp_path / NAME
    for path in folder.rglob("*.png"):
        target = broken / path.relative_to(folder)
        target.parent.mkdir(parents=True)
        target.write_bytes(path.read_bytes())
    (broken / "03" / "003.png").write_bytes(b"broken")
    prepared, complete = prepare(data=broken, on_error="skip"), prepare()
    end(prepared)
    end(complete)
    (domain,) = prepared.runs[0].domains
    assert domain.unreadable == ["03/003.png"]
    order = [index for index in shuffle_order(20, "imagefolder", 7) if index != 3]
    positions = [list(shuffle_order(20, "imagefolder", 7)).index(index) for index in order]
    expected = [count_right(complete, ZERO)[position] for position in positions]
    assert count_right(prepared, ZERO) == expected  # nobody else's views move


def test_a_file_that_vanishes_during_a_step_changes_nothing(
    prepare: Callable[..., Experiment], folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared = prepare()
    running = prepared.run()
    next(running)
    states = {label: adapter.state for label, adapter in prepared.adapters.items()}

    def fail(*arguments: Any) -> Any:
        raise fozo.InputError("the file is gone")

    monkeypatch.setattr("fozo.eval.streaming.stream._open_image", fail)
    with pytest.raises(fozo.InputError, match="the file is gone"):
        for _ in running:
            pass
    (domain,) = prepared.runs[0].domains
    steps = {prepared.adapters[label].state.step for label in METHODS}
    assert len(steps) == 1 and steps <= {1, 2}  # the next batch may have been loaded before
    assert len({domain.methods[label].tally.images for label in METHODS}) == 1
    assert states.keys() == prepared.adapters.keys()


def test_threads_end_with_their_step(
    prepare: Callable[..., Experiment], monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = []
    original = runner._time_step

    def watch(*arguments: Any) -> Any:
        result = original(*arguments)
        counts.append(sum(thread.name.startswith("fozo-views") for thread in threading.enumerate()))
        return result

    monkeypatch.setattr(runner, "_time_step", watch)
    end(prepare())
    assert set(counts) == {0}


# --- where views come from


@pytest.fixture
def manifest(bundle_path: Path) -> Any:
    return Bundle.open(bundle_path).manifest


def decode(domain: Domain, index: int) -> NDArray[np.uint8] | None:
    return None if domain.open_image is None else np.asarray(domain.open_image(index))


def test_files_are_opened_as_they_are(folder: Path, manifest: Any) -> None:
    domain = load_image_folder(folder, manifest).take([7, 2])
    assert np.array_equal(decode(domain, 0), draw_picture(7, (57, 70)))  # type: ignore[arg-type]
    assert domain.load(0).shape == (32, 32, 3)


def test_stored_corruptions_are_opened_as_they_are(tmp_path: Path, manifest: Any) -> None:
    for index in range(20):
        path = tmp_path / "fog" / "5" / f"{index:02d}" / "0.png"
        path.parent.mkdir(parents=True)
        Image.fromarray(draw_picture(index, (40, 40))).save(path)
    _, (domain,) = load_imagenet_c(tmp_path, manifest, [5], ["fog"])
    assert np.array_equal(decode(domain, 3), draw_picture(3, (40, 40)))  # type: ignore[arg-type]


def test_generated_corruptions_and_arrays_are_their_own_source(folder: Path, manifest: Any) -> None:
    clean = load_image_folder(folder, manifest)
    (corrupted,) = generate_domains(clean, 5, ["contrast"], 0)
    assert corrupted.open_image is None
    images = np.stack([clean.load(index) for index in range(3)])
    assert make_array_domain("array", images, [0, 1, 2]).open_image is None


def test_views_of_small_images_are_parts_of_the_small_images(manifest: Any) -> None:
    images = np.stack([draw_picture(index, (32, 32)) for index in range(2)])
    domain = _make_domain("fog", 1, images, np.arange(2), ("a", "b"), manifest)
    assert np.array_equal(decode(domain, 1), images[1])  # type: ignore[arg-type]


def test_a_mixed_stream_opens_each_image_where_it_is_from(folder: Path, manifest: Any) -> None:
    clean = load_image_folder(folder, manifest)
    (corrupted,) = generate_domains(clean, 5, ["contrast"], 0)
    protocol = Protocol("x", "mixed", (5,), "all", (0,), 8, "all")
    (segment,) = plan_segments([clean, corrupted], protocol, 0)
    origins = {0: 0, 1: 0}
    for batch in segment.batches(8):
        assert batch.open_image is not None and len(batch.ids) == len(batch.images)
        for row, member in enumerate(batch.members):
            image = batch.open_image(row)
            assert (image is None) == (member == 1)
            if image is not None:
                number = int(batch.ids[row][:2])
                assert image.size == (70, 50 + number)
            origins[int(member)] += 1
    assert origins == {0: 20, 1: 20}


def test_any_batches_may_be_evaluated(bundle_path: Path, random_images: Callable[..., ImageArray]) -> None:
    adapters = {
        label: fozo.Adapter.open(bundle_path, method="no_adapt", workers=1)
        if label == "no_adapt"
        else fozo.Adapter(fozo.Network.open(bundle_path, workers=1), parse_method(label)[1])
        for label in ("no_adapt", ZERO)
    }

    def batches() -> Iterator[Any]:
        for seed in range(2):
            yield random_images(3, seed=seed), np.arange(3)

    run = evaluate(adapters, batches())
    (domain,) = run.domains
    assert domain.methods[ZERO].forwards == 2 * VIEWS
    alone = fozo.Adapter.open(bundle_path, method="zero", views=VIEWS, workers=1)
    right = []
    for seed in range(2):
        images = random_images(3, seed=seed)
        views = [
            fozo.views(image, VIEWS, seed=alone.seed, image_id=str(3 * seed + row))
            for row, image in enumerate(images)
        ]
        right += (alone.step(views).logits.argmax(axis=1) == np.arange(3)).tolist()
    assert domain.methods[ZERO].right.array().tolist() == right
