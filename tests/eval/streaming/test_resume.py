"""Runs that were interrupted, and end as if they had not been: killed for real, at random moments."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from doubles import child_environment, fozo_command, run_fozo
from fozo.engine.bundle.bundle import Bundle
from fozo.engine.errors import StateError
from fozo.engine.files import from_npz, to_npz
from fozo.eval.results import partial_results as progress
from fozo.eval.streaming import experiment
from fozo.eval.streaming.experiment import Experiment
from fozo.eval.streaming.spec import EvaluationSpec
from PIL import Image

KILLS = 20
METHODS = ("no_adapt", "fozo:window=8,guard=rollback", "t3a:interval=10", "zoa", "lame:window=12")
OPTIONS: dict[str, Any] = {
    "dataset": "imagefolder",
    "setting": "continual",
    "severities": (5,),
    "corruptions": None,
    "subset": "40",
    "subset_list": None,
    "classes": "all",
    "batch_size": 4,
    "seed": 7,
    "seeds": 2,
    "rounds": None,
    "concentration": None,
    "precision": "fp32",
    "workers": 1,
    "micro_batch": None,
    "provider": "cpu",
}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save a folder with three noisy images for each of twenty classes."""
    folder, generator = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for index in range(60):
        path = folder / f"{index % 20:02d}" / f"{index:03d}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(path)
    return folder


@pytest.fixture
def prepare(bundle_path: Path, images: Path) -> Callable[..., Experiment]:
    """`prepare(**changes)`: a small experiment of two seeds, ten batches each."""

    def made(**changes: Any) -> Experiment:
        options = {"bundle": bundle_path, "methods": METHODS, "data": images, **OPTIONS, **changes}
        return experiment.prepare(EvaluationSpec.from_options(**options))

    return made


def timeless(document: dict[str, Any]) -> Any:
    """Return a document without what depends on the clock and on the memory of the machine."""
    if isinstance(document, dict):
        drop = ("seconds", "peak_bytes", "images_per_second", "created", "path")
        return {key: timeless(value) for key, value in document.items() if key not in drop}
    return [timeless(each) for each in document] if isinstance(document, list) else document


def outcome(made: Experiment) -> Any:
    return timeless(json.loads(json.dumps(made.results.to_dict())))


@pytest.mark.parametrize("stop", [1, 9, 10, 11, 19])
def test_continued_runs_equal_whole_ones(
    prepare: Callable[..., Experiment], tmp_path: Path, stop: int
) -> None:
    whole = prepare()
    assert sum(whole.run()) == whole.images == 80
    part = prepare()
    steps = part.run()
    for _ in range(stop):
        next(steps)
    part.save_progress(tmp_path / "progress.npz")
    rest = prepare()
    rest.resume(tmp_path / "progress.npz")
    assert rest.processed_images == 4 * stop
    ahead = prepare()
    ahead.resume(tmp_path / "progress.npz")
    next(ahead.run())
    ahead.save_progress(tmp_path / "further.npz")
    assert progress.load(tmp_path / "further.npz", ahead.key)[0][-1].images % 40 == 4 * (stop + 1) % 40
    rest.save_progress(tmp_path / "nothing.npz")  # before it has begun there is nothing new to save
    assert not (tmp_path / "nothing.npz").exists()
    assert sum(rest.run()) == 80 - 4 * stop
    assert outcome(rest) == outcome(whole)
    assert outcome(rest)["complete"] is True
    assert len({str(run["domains"][0]["methods"]["no_adapt"]) for run in outcome(rest)["runs"]}) == 2


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"batch_size": 5}, "batch_size"),
        ({"seed": 8}, "seeds"),
        ({"methods": ("no_adapt", "shift")}, "methods"),
        ({"methods": ("no_adapt", "fozo:window=9,guard=rollback", *METHODS[2:])}, "window"),
        ({"subset": "all"}, "subset"),
        ({"setting": "mixed"}, "setting"),
    ],
)
def test_progress_belongs_to_its_run(
    prepare: Callable[..., Experiment], tmp_path: Path, changes: dict[str, Any], word: str
) -> None:
    part = prepare()
    next(part.run())
    part.save_progress(tmp_path / "progress.npz")
    with pytest.raises(StateError, match=f"another run.*{word}"):
        prepare(**changes).resume(tmp_path / "progress.npz")


def test_progress_belongs_to_its_images(
    prepare: Callable[..., Experiment], images: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "images"
    shutil.copytree(images, copy)
    part = prepare(data=copy, subset="all")
    next(part.run())
    part.save_progress(tmp_path / "progress.npz")
    (copy / "00" / "000.png").rename(copy / "00" / "other.png")
    with pytest.raises(StateError, match="images is"):
        prepare(data=copy, subset="all").resume(tmp_path / "progress.npz")


def test_progress_belongs_to_its_bundle(
    prepare: Callable[..., Experiment], make_bundle: Callable[..., Bundle], tmp_path: Path
) -> None:
    part = prepare()
    next(part.run())
    part.save_progress(tmp_path / "progress.npz")
    other = make_bundle(tmp_path / "other", seed=5)
    with pytest.raises(StateError, match="bundle is"):
        prepare(bundle=other.path).resume(tmp_path / "progress.npz")


@pytest.mark.parametrize("damage", ["truncated", "header", "array", "empty"])
def test_damaged_progress_is_refused(prepare: Callable[..., Experiment], tmp_path: Path, damage: str) -> None:
    path = tmp_path / "progress.npz"
    part = prepare()
    next(part.run())
    part.save_progress(path)
    arrays = from_npz(path)
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:-100])
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "header":
        arrays["header"] = arrays["header"][:-5]
        path.write_bytes(to_npz(**arrays))
    else:
        name = next(name for name in arrays if name.endswith("prompts"))
        arrays[name] = arrays[name][:, :-1]
        path.write_bytes(to_npz(**arrays))
    broken = prepare()
    with pytest.raises(StateError, match=r"progress\.npz"):
        broken.resume(path)
        next(broken.run())


def test_where_progress_lies() -> None:
    assert progress.get_path(Path("some/results.json")) == Path("some/results.progress.npz")


# --- kill -9 ---


def command(bundle: Path, images: Path, out: Path, *options: str) -> list[str]:
    listed = [part for spec in METHODS for part in ("-m", spec)]
    stream = [
        "--setting",
        "continual",
        "--batch-size",
        "2",
        "--seeds",
        "3",
        "--seed",
        "7",
        "--save-every",
        "0",
    ]
    arguments = [str(bundle), "--dataset", "imagefolder", "--data", str(images), "--out", str(out)]
    return ["adapt", *arguments, *listed, *stream, "--quiet", *options]


def read(path: Path) -> Any:
    return timeless(json.loads(path.read_text()))


@pytest.mark.skipif(os.name != "posix", reason="sends SIGKILL")
def test_killed_at_random_moments(bundle_path: Path, images: Path, tmp_path: Path) -> None:
    """As often as it takes; every run that comes to its end equals the one that was left in peace."""
    peace, out = tmp_path / "peace.json", tmp_path / "results.json"
    run_fozo(*command(bundle_path, images, peace), check=True)
    expected, moments = read(peace), random.Random(0)
    kills = ends = continued = 0
    while kills < KILLS or not ends:
        process = subprocess.Popen(
            fozo_command(*command(bundle_path, images, out, "--resume")),
            env=child_environment(PYTHONUNBUFFERED="1"),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert process.stdout is not None
        said = process.stdout.readline()
        assert "Error" not in said
        if kills < KILLS:
            time.sleep(moments.uniform(0, 0.25))
            process.send_signal(signal.SIGKILL)
        said += process.stdout.read()
        continued += "Continuing after" in said
        if process.wait() == -signal.SIGKILL:
            kills += 1
            continue
        assert process.returncode == 0, said
        assert read(out) == expected
        assert not progress.get_path(out).exists()
        out.unlink()  # else the next one would say that it is complete already
        ends += 1
    assert continued >= KILLS // 4, "hardly ever was there something to continue"
    assert sorted(path.name for path in tmp_path.glob("*.json")) == ["peace.json"]
