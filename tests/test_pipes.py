"""Files that users name may be pipes: no reader waits for one, and each says what it expected."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from doubles import vit_manifest
from fozo.data.class_names import read_class_names, read_names
from fozo.data.context_file import read_context
from fozo.data.image_listing import list_images
from fozo.engine.errors import FozoError
from fozo.engine.runtime.arrangement import CACHE_FILE, load_arrangement
from fozo.engine.text.vocabulary import read_vocabulary
from fozo.eval.datasets.corrupted_folder import RECORD, read_record
from fozo.eval.datasets.validation_labels import read_labels
from fozo.eval.predict.class_list import read_class_list
from fozo.eval.predict.prediction_writer import PredictionWriter
from fozo.eval.predict.seen_images import SeenImages
from fozo.eval.report.digest.sources import collect_results
from fozo.eval.results.results_file import read_results
from fozo.eval.sweep.folder import GRID_FILE, Sweep
from PIL import Image

pytestmark = pytest.mark.skipif(os.name != "posix", reason="makes pipes")

READERS: dict[str, Callable[[Path], Any]] = {
    "results.json": read_results,
    "report.json": lambda path: collect_results([path]),
    "labels.txt": read_labels,
    "names.txt": read_names,
    "vocabulary.txt.gz": read_vocabulary,
    "context.npz": read_context,
    "classes.txt": lambda path: read_class_names(path, 3),
    "class-list.txt": lambda path: read_class_list(path, replace(vit_manifest(), classes=3)),
    "seen.json": lambda path: SeenImages(path, path.parent),
    RECORD: lambda path: read_record(path.parent),
    GRID_FILE: lambda path: Sweep.open(path.parent, []),
}


@contextmanager
def without_waiting() -> Iterator[None]:
    """Fail instead of waiting for a pipe for ever."""

    def fail(number: int, frame: object) -> None:
        raise AssertionError("it waits for the pipe")

    before = signal.signal(signal.SIGALRM, fail)
    signal.alarm(10)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("name", READERS)
def test_a_pipe_is_refused_at_once(name: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / name)
    with without_waiting(), pytest.raises(FozoError, match="a pipe or a device, expected a file"):
        READERS[name](tmp_path / name)


def test_weights_and_settings_in_pipes_are_refused_at_once(tmp_path: Path) -> None:
    weights = pytest.importorskip("fozo.export.weights", reason="export needs PyTorch")
    for name in ("w.npz", "w.pt", "w.safetensors"):
        os.mkfifo(tmp_path / name)
        with without_waiting(), pytest.raises(FozoError, match="a pipe or a device, expected a file"):
            weights.load_weights(None, tmp_path / name)


def test_a_device_is_not_read_to_its_end() -> None:
    with without_waiting(), pytest.raises(FozoError, match="a pipe or a device, expected a file"):
        read_labels(Path("/dev/zero"))


def test_a_pipe_in_the_cache_is_no_arrangement(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOZO_CACHE_DIR", str(tmp_path))
    os.mkfifo(tmp_path / CACHE_FILE)
    with without_waiting():
        assert load_arrangement("0" * 64, "cpu") is None


def test_a_pipe_among_images_is_passed_over(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    shutil.copy(tmp_path / "a.png", tmp_path / "without_suffix")
    os.mkfifo(tmp_path / "pipe")
    with without_waiting():
        listing = list_images(tmp_path)
    assert (listing.paths, listing.left_out) == ([tmp_path / "a.png"], {"no suffix": 1})


def test_predictions_appended_to_a_pipe_do_not_wait_for_its_content(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "p.csv")
    with without_waiting():
        PredictionWriter(tmp_path / "p.csv", None, 1, append=True, overwrite=False)
