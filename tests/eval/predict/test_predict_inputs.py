"""Inputs of predictions, unreadable images, and the file of rows."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fozo
import pytest
from fozo.engine.errors import FozoError, InputError
from fozo.eval.predict.predict import predict
from predict_doubles import (
    CLASSES,
    RandomImages,
    Stepped,
    agree,
    png,
    run,
    save,
    table,
)

# --- unreadable images ---


def test_skipped_images_leave_no_trace_in_the_others(
    bundle_path: Path, random_images: RandomImages, stepped: Stepped, tmp_path: Path
) -> None:
    images = random_images(10)
    save(images, tmp_path / "images")
    content = png(images[0])
    bad = {
        "000a.png": b"",
        "001a.png": content[:-100],
        "001b.jpg": b"text",
        "003a.png": b"x",
        "zzz.png": b"x",
    }
    for name, text in bad.items():
        (tmp_path / "images" / name).write_bytes(text)
    (tmp_path / "images" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    arguments = [bundle_path, tmp_path / "images", "--batch-size", 4, "--on-error", "skip"]
    rows = table(run(*arguments))
    assert [row["path"] for row in rows] == sorted(row["path"] for row in rows)
    failed = {Path(row["path"]).name: row for row in rows if row["error"]}
    assert failed.keys() == {*bad, "gone.png"}
    for name, row in failed.items():
        assert name in row["error"]
        assert {row[column] for column in row if column not in ("path", "error")} == {""}
    good = [row for row in rows if not row["error"]]
    agree(good, stepped(images, 4)[0])
    assert [row["batch"] for row in good] == [*"1111222233"]
    lines = [json.loads(line) for line in run(*arguments, "--format", "jsonl", "--top", 2).splitlines()]
    for line in lines:
        empty = line["class_id"] is line["confidence"] is line["batch"] is None and line["top"] == []
        assert empty == (line["error"] is not None)


def test_stopping_and_going_on(
    bundle_path: Path, random_images: RandomImages, stepped: Stepped, tmp_path: Path
) -> None:
    """The batch of the unreadable image is in neither rows nor state, so repairing it leaves no trace."""
    images = random_images(14)
    paths = save(images, tmp_path / "images")
    paths[6].write_bytes(b"no image")
    out, state = tmp_path / "out.csv", tmp_path / "state.npz"
    options = ["--batch-size", 4, "--state", state, "--out", out]
    with pytest.raises(InputError, match=r"006\.png.*--on-error skip"):
        run(bundle_path, tmp_path / "images", *options)
    assert len(table(out)) == 4
    save(images[6:7], tmp_path / "images", start=6)
    done = {row["path"] for row in table(out)}
    run(bundle_path, *(path for path in paths if str(path) not in done), *options, "--append")
    agree(table(out), stepped(images, 4)[0])
    assert [row["path"] for row in table(out)] == list(map(str, paths))


def test_nothing_but_unreadable_images(bundle_path: Path, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for index in range(5):
        (tmp_path / "images" / f"{index}.png").write_bytes(b"no image")
    arguments = [bundle_path, tmp_path / "images", "--batch-size", 2, "--on-error", "skip"]
    rows = table(run(*arguments))
    assert [Path(row["path"]).name for row in rows] == [f"{index}.png" for index in range(5)]
    assert all(row["error"] for row in rows)


# --- inputs ---


def test_files_folders_and_patterns(bundle_path: Path, random_images: RandomImages, tmp_path: Path) -> None:
    images = random_images(8)
    for folder, start in (("b", 0), ("a/deep", 2), ("c", 4), ("c/.hidden", 6)):
        save(images[start : start + 2], tmp_path / folder, start)
    (tmp_path / "c" / "notes.txt").write_text("not an image")
    (tmp_path / "plain").write_bytes(png(images[7]))
    shutil.copy(tmp_path / "plain", tmp_path / "b" / "[0].png")
    arguments = [
        tmp_path / "plain",
        tmp_path / "c",
        f"{tmp_path}/*/**/00[0-3].png",
        tmp_path / "b" / "[0].png",
    ]
    rows = table(run(bundle_path, *arguments, "-m", "no_adapt"))
    assert [Path(row["path"]).relative_to(tmp_path).as_posix() for row in rows] == [
        "plain", "c/004.png", "c/005.png", "a/deep/002.png", "a/deep/003.png", "b/000.png", "b/001.png",
        "b/[0].png",
    ]  # fmt: skip


def test_a_list_on_standard_input(
    bundle_path: Path, random_images: RandomImages, stepped: Stepped, tmp_path: Path
) -> None:
    images = random_images(7)
    paths = save(images, tmp_path / "images")
    lines = "\r\n".join([f"{tmp_path}/./images//{path.name}" for path in paths[1:5]] + ["", ""]).encode()
    arguments = ["--batch-size", 3]
    rows = table(run(bundle_path, paths[0], "-", *paths[5:], *arguments, input=lines))
    agree(rows, stepped(images, 3)[0])
    assert rows[1]["path"] == f"{tmp_path}/./images//001.png"  # as it was given, to the letter
    missing = f"{paths[0]}\n{tmp_path}/missing.png\n{tmp_path}\n{paths[1]}".encode()
    with pytest.raises(InputError, match=r"missing\.png"):
        run(bundle_path, "-", *arguments, input=missing)
    errors = [
        row["error"] for row in table(run(bundle_path, "-", *arguments, "--on-error", "skip", input=missing))
    ]
    assert [bool(error) for error in errors] == [False, True, True, False]
    with pytest.raises(InputError, match="NUL"):
        run(bundle_path, "-", *arguments, input=b"a.png\0b.png")
    with pytest.raises(InputError, match="2 times"):
        run(bundle_path, "-", "-", *arguments)
    assert table(run(bundle_path, "-", *arguments, input=b"")) == []


def test_max_images(bundle_path: Path, random_images: RandomImages, stepped: Stepped, tmp_path: Path) -> None:
    images = random_images(9)
    save(images, tmp_path / "images")
    rows = table(run(bundle_path, tmp_path / "images", "--batch-size", 4, "--max-images", 6))
    agree(rows, stepped(images[:6], 4)[0])


def test_a_limited_list_is_not_read_beyond_the_limit(
    adapter: fozo.Adapter, manifest: Any, random_images: RandomImages, tmp_path: Path
) -> None:
    paths = save(random_images(5), tmp_path)

    def live() -> Iterator[Path]:
        yield from paths
        raise AssertionError("asked for more than was needed")

    assert len(list(predict(adapter, live(), manifest, max_images=5))) == 5


@pytest.mark.parametrize("what", ["nowhere", "empty", "*.png", "x" * 300])
def test_nothing_to_predict(what: str, bundle_path: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    out = tmp_path / "out.csv"
    with pytest.raises(InputError, match="found no"):
        run(bundle_path, tmp_path / what, "--out", out, "--on-error", "skip")
    assert not out.exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], "INPUTS or --watch"),
        (["images", "--watch", "images"], "both"),
        (["images", "--new-only"], "--new-only goes with --watch"),
        (["images", "--poll", "0.5"], "--poll goes with"),
        (["images", "--max-wait", "2"], "--max-wait goes with"),
        (["images", "--idle-exit", "2"], "--idle-exit goes with"),
        (["images", "--append"], "--out FILE"),
        (["images", "--append", "--overwrite", "--out", "o.csv"], "choose one"),
        (["images", "--out", "s.npz", "--state", "s.npz"], "same file"),
        (["images", "-m", "sgd"], "sgd"),
        (["images", "--precision", "int4"], "int4"),
        (["images", "--top", CLASSES + 1], "at most 20 guesses"),
        (["--watch", "nowhere"], "cannot read the folder nowhere"),
    ],
)
def test_options_that_cannot_be_used(
    options: list[Any],
    words: str,
    bundle_path: Path,
    random_images: RandomImages,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    save(random_images(1), tmp_path / "images")
    with pytest.raises(FozoError, match=words):
        run(bundle_path, *options)
    assert [path.name for path in tmp_path.iterdir()] == ["images"]


# --- the file of rows ---


def test_an_existing_file_is_refused_continued_or_replaced(
    bundle_path: Path, random_images: RandomImages, tmp_path: Path
) -> None:
    paths = save(random_images(3), tmp_path / "images")
    for name in ("out.csv", "out.jsonl"):
        out = tmp_path / name
        arguments = ["-m", "no_adapt", "--out", out]
        out.touch()
        run(bundle_path, paths[0], *arguments, "--append")  # an empty file is none
        first = out.read_text()
        with pytest.raises(InputError, match=r"--append.*--overwrite"):
            run(bundle_path, paths[1], *arguments)
        assert out.read_text() == first
        run(bundle_path, paths[1], paths[2], *arguments, "--append")
        second = out.read_text()
        assert second.startswith(first)
        assert second.count("class_name,") == (name == "out.csv")
        assert len(second.splitlines()) == 3 + (name == "out.csv")
        run(bundle_path, paths[0], *arguments, "--overwrite")
        assert out.read_text() == first
        with pytest.raises(InputError, match="other columns or another form"):
            run(
                bundle_path,
                paths[1],
                *arguments,
                "--append",
                "--format",
                "jsonl" if name == "out.csv" else "csv",
            )
        out.write_text(first[:-3])
        with pytest.raises(InputError, match="ends within a row"):
            run(bundle_path, paths[1], *arguments, "--append")
        assert out.read_text() == first[:-3]
    with pytest.raises(InputError, match="other columns"):
        run(bundle_path, paths[1], "--out", tmp_path / "out.csv", "--append", "--top", 2)


def test_an_old_file_stays_until_there_are_new_rows(bundle_path: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"no image")
    out = tmp_path / "out.csv"
    out.write_text("precious")
    with pytest.raises(InputError, match=r"bad\.png"):
        run(bundle_path, tmp_path / "bad.png", "--out", out, "--overwrite")
    assert out.read_text() == "precious"
