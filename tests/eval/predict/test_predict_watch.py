"""Predictions of images in a watched folder."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fozo
import pytest
from click.testing import CliRunner
from fozo.cli import cli
from fozo.engine.errors import InputError
from fozo.eval.predict import watch as watching
from fozo.eval.predict.predict import predict
from fozo.eval.predict.seen_images import SeenImages
from fozo.eval.predict.watch import PATIENCE, Watch
from predict_doubles import (
    RandomImages,
    Stepped,
    agree,
    png,
    run,
    save,
    table,
)

# --- watching, in an invented time ---


class Script:
    """A clock that only sleeping moves, and what happens in the folder meanwhile."""

    def __init__(self) -> None:
        self.now = 100.0
        self._events: list[tuple[float, Callable[[], object]]] = []

    def at(self, seconds: float, event: Callable[[], object]) -> None:
        self._events.append((100 + seconds, event))

    def sleep(self, seconds: float) -> None:
        assert 0 < seconds <= watching.TICK
        self.now += seconds
        for event in [event for event in self._events if event[0] <= self.now]:
            self._events.remove(event)
            event[1]()

    def watch(self, folder: Path, **options: Any) -> Watch:
        return Watch(folder, clock=lambda: self.now, sleep=self.sleep, **options)

    def taken(self, watch: Watch, unreadable: tuple[str, ...] = ()) -> list[tuple[float, str]]:
        """Seconds and name of everything that was taken; of the unreadable ones, only when given up."""
        found = []
        for path in watch:
            if path is not None:
                name = Path(path).name
                if name not in unreadable or not watch.retry(path):
                    found.append((round(self.now - 100, 3), name))
        return found


def write(path: Path, size: int = 1, modified: float | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * size)
    if modified is not None:
        os.utime(path, (modified, modified))


@pytest.fixture
def script() -> Script:
    return Script()


def test_files_are_taken_once_in_the_order_of_time_and_name(script: Script, tmp_path: Path) -> None:
    for name, modified in (("c.png", 10), ("a.JPG", 30), ("b.jpeg", 20), ("deep/d.png", 20), ("e.png", 20)):
        write(tmp_path / name, modified=modified)
    write(tmp_path / "e.png", size=9, modified=20)  # larger, not later
    write(tmp_path / "notes.txt")
    write(tmp_path / ".hidden.png")
    write(tmp_path / ".tmp" / "f.png")
    script.at(1.2, lambda: write(tmp_path / "new.png", modified=5))
    names = ["c.png", "b.jpeg", "d.png", "e.png", "a.JPG"]
    expected = [*((0.5, name) for name in names), (2.0, "new.png")]
    assert script.taken(script.watch(tmp_path, idle_exit=3)) == expected
    assert script.now - 100 == pytest.approx(1.5 + 3, abs=0.01)  # since a look found the last one


def test_only_what_is_new(script: Script, tmp_path: Path) -> None:
    write(tmp_path / "old.png")
    watch = script.watch(tmp_path, idle_exit=2, new_only=True)
    write(tmp_path / "new.png")  # while the network is being loaded
    script.at(0.7, lambda: write(tmp_path / "old.png", size=5))
    assert script.taken(watch) == [(0.5, "new.png")]


def test_a_growing_file_is_left_alone(script: Script, tmp_path: Path) -> None:
    for step in range(1, 8):
        script.at(0.4 * step, lambda size=step: write(tmp_path / "slow.png", size))  # type: ignore[misc]
    script.at(1.0, lambda: write(tmp_path / "part"))
    script.at(1.7, lambda: (tmp_path / "part").rename(tmp_path / "moved.png"))
    watch = script.watch(tmp_path, idle_exit=1.5)
    # Last written at 2.8 and seen at 3.0; moved at 1.7 and seen at 2.0.
    assert script.taken(watch) == [(2.5, "moved.png"), (3.5, "slow.png")]


def test_a_file_that_pauses_within(script: Script, tmp_path: Path) -> None:
    """It is unchanged between two looks, but cannot be read: it is taken again when it has changed."""
    write(tmp_path / "a.png", 1)
    script.at(3.2, lambda: write(tmp_path / "a.png", 2))
    watch = script.watch(tmp_path, idle_exit=6)
    taken = []
    for path in watch:
        if path is not None:
            taken.append((round(script.now - 100, 3), Path(path).stat().st_size))
            if taken[-1][1] == 1:
                assert watch.retry(path)
    assert taken == [(0.5, 1), (4.0, 2)]


def test_patience_ends(script: Script, tmp_path: Path) -> None:
    write(tmp_path / "bad.png", 1)
    script.at(1, lambda: write(tmp_path / "good.png"))
    script.at(20.2, lambda: write(tmp_path / "bad.png", 2))
    watch = script.watch(tmp_path, idle_exit=25)
    # Others do not wait for it; given up, it still gets a chance when it changes.
    found = script.taken(watch, ("bad.png",))
    assert found == [(1.5, "good.png"), (PATIENCE, "bad.png"), (20.5 + PATIENCE, "bad.png")]


def test_nothing_is_left_open_at_the_end(script: Script, tmp_path: Path) -> None:
    write(tmp_path / "bad.png")
    assert script.taken(script.watch(tmp_path, idle_exit=1), ("bad.png",)) == [(1.0, "bad.png")]


def test_an_unreadable_file_that_vanished_is_reported(script: Script, tmp_path: Path) -> None:
    write(tmp_path / "a.png")
    watch = script.watch(tmp_path, idle_exit=1)
    for path in watch:
        if path is not None:
            Path(path).unlink()
            assert not watch.retry(path)


def test_names_count(script: Script, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    write(path)
    script.at(1.1, lambda: write(path, 2))  # overwritten: not taken again
    script.at(2.1, path.unlink)
    script.at(2.9, lambda: write(path, 3))  # a look at 2.5 found it gone
    assert script.taken(script.watch(tmp_path, idle_exit=3)) == [(0.5, "a.png"), (3.5, "a.png")]


def test_suffixes_that_are_left_out_are_told_once(script: Script, tmp_path: Path) -> None:
    told: list[str] = []
    for name in ("a.png", "b.heic", "c.HEIC", "d.txt", ".e.gif", "@eaDir/f.tif"):
        write(tmp_path / name)
    watch = script.watch(tmp_path, idle_exit=3, on_left_out=told.append)
    assert told == [".heic"]
    script.at(1.1, lambda: write(tmp_path / "g.tif"))
    script.at(1.2, lambda: write(tmp_path / "without_suffix"))  # of a file that is still being written
    assert script.taken(watch) == [(0.5, "a.png")]
    assert told == [".heic", ".tif"]


def test_a_folder_that_cannot_be_read_for_a_moment(
    script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "deep" / "a.png")
    scan, broken = os.scandir, False

    def scandir(folder: str) -> Any:
        if broken and folder.endswith("deep"):
            raise OSError(5, "Input/output error")
        return scan(folder)

    def switch() -> None:
        nonlocal broken
        broken = not broken

    monkeypatch.setattr(watching.os, "scandir", scandir)
    script.at(1.1, switch)
    script.at(2.1, switch)
    assert script.taken(script.watch(tmp_path, idle_exit=4)) == [(0.5, "a.png")]
    switch()
    with pytest.raises(InputError, match="deep: Input/output error"):
        script.watch(tmp_path)


def test_the_folder_itself_is_gone(script: Script, tmp_path: Path) -> None:
    folder = tmp_path / "camera"
    folder.mkdir()
    script.at(1, folder.rmdir)
    with pytest.raises(InputError, match="cannot read the folder"):
        script.taken(script.watch(folder))
    with pytest.raises(InputError, match="cannot read the folder"):
        Watch(folder)


# --- watching for real ---


def test_an_image_does_not_wait_for_ever(
    adapter: fozo.Adapter, manifest: Any, random_images: RandomImages, stepped: Stepped, tmp_path: Path
) -> None:
    images = random_images(3)
    paths = save(images, tmp_path)
    done: list[int] = []

    def arriving() -> Iterator[Path | None]:
        yield paths[0]
        yield None
        yield paths[1]
        while not done:  # nothing else arrives before these two are predicted
            time.sleep(0.01)
            yield None
        yield paths[2]

    begin = time.monotonic()
    rows = predict(adapter, arriving(), manifest, batch_size=8, max_wait=0.3, on_batch=done.append)
    first = next(rows)
    assert time.monotonic() - begin >= 0.3
    assert [row.batch for row in [first, *rows]] == [1, 1, 2]
    assert done == [2, 1]


def test_ticks_end_the_reading_ahead(
    adapter: fozo.Adapter, manifest: Any, random_images: RandomImages, tmp_path: Path
) -> None:
    """A source knows of every failure before it is asked for more, and deferred images are not counted."""
    paths = save(random_images(3), tmp_path)
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no image")
    refused: list[str] = []

    def retry(path: str) -> bool:
        refused.append(path)
        return len(refused) == 1

    def arriving() -> Iterator[Path | None]:
        yield paths[0]
        yield bad
        yield None
        assert refused == [str(bad)]
        yield bad
        yield paths[1]
        yield None
        assert len(refused) == 2
        yield paths[2]
        raise AssertionError("asked for more than was needed")

    rows = list(
        predict(adapter, arriving(), manifest, max_wait=60, max_images=4, skip_unreadable=True, retry=retry)
    )
    assert [Path(row.path).name for row in rows] == ["000.png", "bad.png", "001.png", "002.png"]
    assert [row.error is None for row in rows] == [True, False, True, True]


def test_watching_a_camera(
    bundle_path: Path, random_images: RandomImages, stepped: Stepped, tmp_path: Path
) -> None:
    """Files are written in pieces, with pauses that are longer than several looks."""
    images = random_images(9)
    folder = tmp_path / "camera"
    save(images[:3], folder)

    def camera() -> None:
        for index, image in enumerate(images[3:], start=3):
            content = png(image)
            name = f".{index}.tmp" if index % 2 else f"{index:03d}.png"
            with (folder / name).open("wb") as stream:
                for start in range(0, len(content), 1 + len(content) // 3):
                    stream.write(content[start : start + 1 + len(content) // 3])
                    stream.flush()
                    time.sleep(0.08)
            if index % 2:
                (folder / name).rename(folder / f"{index:03d}.png")

    thread = threading.Thread(target=camera)
    thread.start()
    try:
        rows = table(
            run(
                bundle_path, "--watch", folder, "--batch-size", 1, "--poll", 0.01,
                "--max-images", 9,
            )
        )  # fmt: skip
    finally:
        thread.join()
    assert [Path(row["path"]).name for row in rows] == [f"{index:03d}.png" for index in range(9)]
    agree(rows, stepped(images, 1)[0])


def test_watching_until_nothing_comes(
    bundle_path: Path, random_images: RandomImages, stepped: Stepped, tmp_path: Path
) -> None:
    images = random_images(5)
    paths = save(images, tmp_path / "camera")
    for path in paths:
        os.utime(path, (1000, 1000))
    (tmp_path / "camera" / "bad.png").write_bytes(b"no image")
    options = ["--batch-size", 4, "--poll", 0.02, "--idle-exit", 0.2]
    rows = table(run(bundle_path, "--watch", tmp_path / "camera", *options, "--max-wait", 60))
    agree(rows[:-1], stepped(images, 4)[0])
    assert rows[-1]["path"].endswith("bad.png")
    assert "bad.png" in rows[-1]["error"]
    with pytest.raises(InputError, match=r"bad\.png"):
        run(bundle_path, "--watch", tmp_path / "camera", *options, "--on-error", "stop")
    assert table(run(bundle_path, "--watch", tmp_path / "camera", *options, "--new-only")) == []


def test_a_watch_says_what_it_leaves_out(bundle_path: Path, tmp_path: Path) -> None:
    write(tmp_path / "a.heic")
    arguments = ["predict", bundle_path, "--watch", tmp_path, "--idle-exit", "0.1"]
    result = CliRunner().invoke(cli, list(map(str, arguments)))
    assert result.stderr.count("Note: files that end in .heic are left out; convert") == 1


# --- restarts ---


def watch_once(bundle: Path, folder: Path, *options: object) -> None:
    run(bundle, "--watch", folder, "--poll", "0.01", "--max-wait", "0", "--idle-exit", "0.1", *options)


def test_a_restarted_watch_learns_from_no_image_twice_and_misses_none(
    bundle_path: Path, random_images: RandomImages, tmp_path: Path
) -> None:
    folder, out, state = tmp_path / "cam", tmp_path / "cam.csv", tmp_path / "cam.npz"
    images = random_images(4)
    carried = ("-m", "no_adapt", "--out", out, "--append", "--state", state)
    save(images[:2], folder)
    watch_once(bundle_path, folder, *carried)
    save(images[2:], folder / "deep", start=2)  # while nobody watches
    (folder / "000.png").unlink()
    watch_once(bundle_path, folder, *carried)
    watch_once(bundle_path, f"{folder}/", *carried)
    names = [Path(row["path"]).name for row in table(out)]
    assert sorted(names) == ["000.png", "001.png", "002.png", "003.png"]
    save(images[:1], folder)  # a new image under the old name
    watch_once(bundle_path, folder, *carried)
    assert [Path(row["path"]).name for row in table(out)][4:] == ["000.png"]


def test_new_only_is_about_the_first_start(
    bundle_path: Path, random_images: RandomImages, tmp_path: Path
) -> None:
    folder, out = tmp_path / "cam", tmp_path / "cam.csv"
    images = random_images(3)
    options = ("-m", "no_adapt", "--new-only", "--out", out, "--append")
    save(images[:1], folder)
    watch_once(bundle_path, folder, *options)
    assert table(out) == []
    save(images[1:], folder, start=1)
    watch_once(bundle_path, folder, *options)
    assert [Path(row["path"]).name for row in table(out)] == ["001.png", "002.png"]


def test_an_unreadable_image_is_tried_again_by_the_next_run(
    bundle_path: Path, random_images: RandomImages, tmp_path: Path
) -> None:
    folder, out = tmp_path / "cam", tmp_path / "cam.csv"
    write(folder / "a.png")
    options = ("-m", "no_adapt", "--out", out, "--append")
    watch_once(bundle_path, folder, *options)
    (folder / "a.png").write_bytes(png(random_images(1)[0]))
    watch_once(bundle_path, folder, *options)
    assert [bool(row["error"]) for row in table(out)] == [True, False]


@pytest.mark.parametrize("content", ["", "{}", '{"schema": 2, "seen": []}', '{"schema": 1, "seen": [1]}'])
def test_a_memory_that_is_something_else_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "m.seen.json").write_text(content)
    with pytest.raises(InputError, match=r"seen before in .*m\.seen\.json, found something else"):
        SeenImages(tmp_path / "m.seen.json", tmp_path)


def test_names_that_no_file_can_have_are_forgotten(tmp_path: Path) -> None:
    (tmp_path / "m.seen.json").write_text(json.dumps({"schema": 1, "seen": ["x" * 10**4, "a\0b"]}))
    assert SeenImages(tmp_path / "m.seen.json", tmp_path).paths == []


def test_a_memory_holds_any_names(tmp_path: Path) -> None:
    names = ["a\nb.png", "\udcff.png", "ä.png"]
    for name in names:
        write(tmp_path / "cam" / name)
    memory = SeenImages(tmp_path / "m", tmp_path / "cam")
    memory.add([f"{tmp_path}/cam/{name}" for name in names])
    memory.save()
    (tmp_path / "cam").rename(tmp_path / "moved")
    assert SeenImages(tmp_path / "m", tmp_path / "moved").paths == [
        f"{tmp_path}/moved/{name}" for name in names
    ]
