"""Predictions of unlabelled images: rows against the engine itself, state, bad images, watched folders."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import fozo
import numpy as np
import pytest
from click.testing import CliRunner
from doubles import accept_interrupts, child_environment, fozo_command, run_fozo
from fozo.cli import cli
from fozo.engine.bundle.bundle import Bundle
from fozo.engine.errors import BundleError, FozoError, InputError, StateError
from fozo.engine.model import ImageArray
from fozo.engine.registry import parse_method
from fozo.engine.runtime.network import Network
from fozo.eval.predict import prediction_run
from fozo.eval.predict import watch as watching
from fozo.eval.predict.predict import predict
from fozo.eval.predict.prediction_row import Row
from fozo.eval.predict.prediction_writer import PredictionWriter
from fozo.eval.predict.watch import PATIENCE, Watch
from PIL import Image

ENVIRONMENT = child_environment(PYTHONWARNINGS="default")
DEFAULT = "pizo:domains=16"  # the method of `fozo predict`
CLASSES = 20
POSIX = pytest.mark.skipif(os.name != "posix", reason="signals, and names of files that are any bytes")

RandomImages = Callable[..., ImageArray]


def run(*arguments: object, input: bytes = b"") -> str:
    """Standard output of a run inside this process; what a command line would report is raised."""
    result = CliRunner().invoke(cli, ["predict", *map(str, arguments), "--quiet"], input=input)
    if result.exception is not None:
        raise result.exception
    assert result.exit_code == 0
    return result.stdout


def spawned(*arguments: object, **options: Any) -> subprocess.CompletedProcess[Any]:
    return run_fozo("predict", *arguments, env=ENVIRONMENT, text=False, **options)


def table(source: str | Path) -> list[dict[str, str]]:
    """The rows of a CSV file, or of its text."""
    if isinstance(source, str):
        return list(csv.DictReader(io.StringIO(source, newline="")))
    with source.open(encoding="utf-8", errors="surrogateescape", newline="") as stream:
        return list(csv.DictReader(stream))


def save(images: ImageArray, folder: Path, start: int = 0) -> list[Path]:
    """Images as files in the order of their names."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{start + index:03d}.png" for index in range(len(images))]
    for image, path in zip(images, paths, strict=True):
        Image.fromarray(image).save(path)
    return paths


def png(image: ImageArray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture(scope="module")
def network(bundle_path: Path) -> Iterator[Network]:
    with Network.open(bundle_path, workers=1) as opened:
        yield opened


Stepped = Callable[..., tuple[Any, fozo.Adapter]]


@pytest.fixture(scope="module")
def stepped(network: Network) -> Stepped:
    """`stepped(images, batch_size, method)`: probabilities of all images by `Adapter.step` alone."""

    def step(images: ImageArray, batch_size: int, method: str = DEFAULT) -> tuple[Any, fozo.Adapter]:
        adapter = fozo.Adapter(network, parse_method(method)[1])
        batches = [images[start : start + batch_size] for start in range(0, len(images), batch_size)]
        return np.concatenate([adapter.step(batch).probabilities for batch in batches]), adapter

    return step


@pytest.fixture(scope="module")
def named_bundle(bundle_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle with identifiers and names of its classes."""
    copy = tmp_path_factory.mktemp("named") / "bundle"
    shutil.copytree(bundle_path, copy)
    raw = json.loads((copy / "bundle.json").read_bytes())
    raw["class_ids"] = [f"n{1000 + index}" for index in range(CLASSES)]
    raw["class_names"] = [f'the "{index}", so called' for index in range(CLASSES)]
    (copy / "bundle.json").write_text(json.dumps(raw))
    return copy


@pytest.fixture
def manifest(bundle_path: Path) -> Any:
    return Bundle.open(bundle_path).manifest


@pytest.fixture
def adapter(network: Network) -> fozo.Adapter:
    return fozo.Adapter(network, parse_method(DEFAULT)[1])


def agree(rows: list[dict[str, str]], probabilities: Any) -> None:
    """Confidences to the bit, and classes."""
    assert [float(row["confidence"]) for row in rows] == probabilities.max(axis=1).tolist()
    assert [int(row["class_index"]) for row in rows] == probabilities.argmax(axis=1).tolist()


# --- rows ---


@pytest.mark.parametrize("method", [DEFAULT, "no_adapt", "fozo", "calm=fozo:shift=origin,samples=2"])
@pytest.mark.parametrize("batch_size", [1, 4, 64])
def test_rows_are_what_the_engine_says(
    method: str,
    batch_size: int,
    bundle_path: Path,
    random_images: RandomImages,
    stepped: Stepped,
    tmp_path: Path,
) -> None:
    images = random_images(10)
    paths = save(images, tmp_path / "images")
    expected, _ = stepped(images, batch_size, method)
    text = run(bundle_path, tmp_path / "images", "-m", method, "--batch-size", batch_size)
    assert text.splitlines()[0] == "path,class_id,class_name,class_index,confidence,batch,error"
    rows = table(text)
    agree(rows, expected)
    assert [row["path"] for row in rows] == list(map(str, paths))
    assert [row["batch"] for row in rows] == [str(1 + index // batch_size) for index in range(10)]
    assert {row["error"] for row in rows} == {""}
    assert all(row["class_id"] == row["class_name"] == row["class_index"] for row in rows)


def test_adaptation_shows_in_the_second_batch(
    bundle_path: Path, random_images: RandomImages, stepped: Stepped
) -> None:
    """What the tests above compare would differ if batches were cut elsewhere, or nothing were learnt."""
    images = random_images(10)
    assert not np.array_equal(stepped(images, 4)[0], stepped(images, 5)[0])
    assert not np.array_equal(stepped(images, 4)[0], stepped(images, 4, "no_adapt")[0])


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "ndjson"])
def test_several_guesses(
    suffix: str, named_bundle: Path, random_images: RandomImages, stepped: Stepped, tmp_path: Path
) -> None:
    images = random_images(5)
    save(images, tmp_path / "images")
    probabilities, _ = stepped(images, 4)
    order = np.argsort(-probabilities, axis=1)[:, :3]
    expected = [
        [(f"n{1000 + i}", f'the "{i}", so called', int(i), float(row[i])) for i in best]
        for row, best in zip(probabilities, order, strict=True)
    ]
    out = tmp_path / f"out.{suffix}"
    run(named_bundle, tmp_path / "images", "--batch-size", 4, "--top", 3, "--out", out)
    if suffix == "csv":
        columns = ("class_id", "class_name", "class_index", "confidence")
        for row, guesses in zip(table(out), expected, strict=True):
            for guess, ending in zip(guesses, ("", "_2", "_3"), strict=True):
                found = [row[column + ending] for column in columns]
                assert (*found[:2], int(found[2]), float(found[3])) == guess
    else:
        lines = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
        assert [[tuple(guess.values()) for guess in line["top"]] for line in lines] == expected
        for line in lines:
            keys = ["path", "class_id", "class_name", "class_index", "confidence", "batch", "error", "top"]
            assert list(line) == keys
            assert {key: line[key] for key in line["top"][0]} == line["top"][0]
            assert line["error"] is None


def test_format_goes_before_suffix(bundle_path: Path, random_images: RandomImages, tmp_path: Path) -> None:
    paths = save(random_images(2), tmp_path / "images")
    out = tmp_path / "out.csv"
    arguments = [bundle_path, paths[0], "-m", "no_adapt"]
    run(*arguments, "--out", out, "--format", "jsonl")
    (line,) = out.read_text().splitlines()
    assert "top" not in json.loads(line)
    with pytest.raises(InputError, match="--format"):
        run(*arguments, "--out", tmp_path / "out.json")


@POSIX
@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_strange_names(form: str, bundle_path: Path, random_images: RandomImages, tmp_path: Path) -> None:
    names = [
        b'a,"b".png', b"new\nline.png", b"return\rhere.png", b" space .png", b"-m.png", b"\xff\xfe.png",
        "Übung 图.png".encode(), b"'single'.png", b"[1]*?.png", b"=1+1.png", b"back\\slash.png",
    ]  # fmt: skip
    folder = tmp_path / "images"
    folder.mkdir()
    content = png(random_images(1)[0])
    for name in names:
        (folder / os.fsdecode(name)).write_bytes(content)
    out = tmp_path / "out"
    run(bundle_path, folder, "-m", "no_adapt", "--out", out, "--format", form)
    if form == "csv":
        found = [row["path"] for row in table(out)]
        assert out.read_bytes().count(b"\xff\xfe") == 1
    else:
        found = [json.loads(line)["path"] for line in out.read_text(encoding="utf-8").splitlines()]
    assert sorted(os.fsencode(path) for path in found) == sorted(
        os.fsencode(folder) + b"/" + n for n in names
    )


def test_python_api(
    network: Network, manifest: Any, random_images: RandomImages, stepped: Stepped, tmp_path: Path
) -> None:
    images = random_images(6)
    paths = save(images, tmp_path)
    expected, reference = stepped(images, 4)
    adapter = fozo.Adapter(network, parse_method(DEFAULT)[1])
    rows = list(predict(adapter, paths, manifest, batch_size=4, top=2))
    assert [row.top[0].confidence for row in rows] == expected.max(axis=1).tolist()
    assert [len(row.top) for row in rows] == [2] * 6
    assert rows[0].path == str(paths[0])
    assert adapter.state.step == reference.state.step == 2


@pytest.mark.parametrize("numbers", [{"batch_size": 0}, {"top": 0}, {"top": CLASSES + 1}, {"max_images": 0}])
def test_numbers_out_of_range(numbers: dict[str, int], adapter: fozo.Adapter, manifest: Any) -> None:
    with pytest.raises(InputError, match="choose other numbers"):
        predict(adapter, [], manifest, **numbers)  # type: ignore[arg-type]


def test_reading_ahead_is_bounded_and_ends(
    adapter: fozo.Adapter, manifest: Any, random_images: RandomImages, tmp_path: Path
) -> None:
    (path,) = save(random_images(1), tmp_path)
    pulled = 0

    def endless() -> Iterator[Path]:
        nonlocal pulled
        while True:
            pulled += 1
            yield path

    with closing(predict(adapter, endless(), manifest, batch_size=4)) as rows:
        for count in range(1, 22):
            next(rows)
            assert pulled <= 4 * ((count - 1) // 4 + 2)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("fozo-read")]


def test_a_batch_is_over_before_the_next_is_computed(
    adapter: fozo.Adapter, manifest: Any, random_images: RandomImages, tmp_path: Path
) -> None:
    events: list[Any] = []
    rows = predict(
        adapter,
        save(random_images(5), tmp_path),
        manifest,
        batch_size=2,
        on_batch=lambda images: events.append((images, adapter.state.step)),
    )
    events += (row.batch for row in rows)  # extended row by row, in turn with the calls
    assert events == [1, 1, (2, 1), 2, 2, (2, 2), 3, (1, 3)]


# --- classes ---


@pytest.mark.parametrize(
    "lines", [["n1003", "n1017", "n1004"], ["17", "3", "", "4", "3"], ["n1004", "17", "3"]]
)
def test_class_lists(
    lines: list[str], named_bundle: Path, network: Network, random_images: RandomImages, tmp_path: Path
) -> None:
    images = random_images(6)
    save(images, tmp_path / "images")
    (tmp_path / "classes.txt").write_text("\n".join(lines))
    logits = network(images).logits[:, [3, 4, 17]].astype(np.float64)
    probabilities = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    rows = table(
        run(
            named_bundle, tmp_path / "images", "-m", "no_adapt",
            "--classes", tmp_path / "classes.txt",
        )
    )  # fmt: skip
    assert [float(row["confidence"]) for row in rows] == pytest.approx(probabilities.max(axis=1), rel=1e-12)
    chosen = np.array([3, 4, 17])[probabilities.argmax(axis=1)].tolist()
    assert [int(row["class_index"]) for row in rows] == chosen
    assert [row["class_id"] for row in rows] == [f"n{1000 + index}" for index in chosen]


@pytest.mark.parametrize(("content", "words"), [("n1003\ncat\n", "'cat'"), ("", "none"), ("20", "'20'")])
def test_class_lists_that_cannot_be_used(
    content: str, words: str, named_bundle: Path, random_images: RandomImages, tmp_path: Path
) -> None:
    save(random_images(1), tmp_path / "images")
    (tmp_path / "classes.txt").write_text(content)
    with pytest.raises(InputError, match=words):
        run(named_bundle, tmp_path / "images", "--classes", tmp_path / "classes.txt")
    with pytest.raises(InputError, match="cannot read the list"):
        run(named_bundle, tmp_path / "images", "--classes", tmp_path / "nowhere.txt")


# --- state ---


@pytest.mark.parametrize("method", [DEFAULT, "fozo", "shift", "fozo:guard=rollback,window=8"])
def test_two_runs_are_one(
    method: str, bundle_path: Path, random_images: RandomImages, stepped: Stepped, tmp_path: Path
) -> None:
    images = random_images(14)
    first = save(images[:8], tmp_path / "first")
    second = save(images[8:], tmp_path / "second", start=8)
    options = ["-m", method, "--batch-size", 4]
    once, twice = tmp_path / "once.npz", tmp_path / "twice.npz"
    whole = run(bundle_path, *first, *second, *options, "--state", once)
    parts = [run(bundle_path, tmp_path / name, *options, "--state", twice) for name in ("first", "second")]
    assert "".join([parts[0], *parts[1].splitlines(keepends=True)[1:]]) == whole
    agree(table(whole), stepped(images, 4, method)[0])
    assert once.read_bytes() == twice.read_bytes()
    direct = stepped(images, 4, method)[1]
    direct.save(tmp_path / "direct.npz")
    assert (tmp_path / "direct.npz").read_bytes() == once.read_bytes()


@pytest.mark.parametrize(
    "change",
    [
        ["-m", "no_adapt"],
        ["-m", "fozo:samples=2"],
        ["--seed", 1],
        ["other"],
        ["--classes", "classes.txt"],
        ["damaged"],
    ],
)
def test_a_state_of_another_stream_is_refused_and_left_as_it_was(
    change: list[Any], bundle_paths: dict[int, Path], random_images: RandomImages, tmp_path: Path
) -> None:
    save(random_images(4), tmp_path / "images")
    (tmp_path / "classes.txt").write_text("1\n2\n")
    state, out = tmp_path / "state.npz", tmp_path / "out.csv"
    arguments = [bundle_paths[64], tmp_path / "images", "--state", state]
    run(*arguments)
    if change == ["other"]:
        arguments[0], change = bundle_paths[192], []
    elif change == ["damaged"]:
        state.write_bytes(state.read_bytes()[:-40])
        change = []
    before = state.read_bytes()
    replaced = {"classes.txt": tmp_path / "classes.txt"}
    with pytest.raises(StateError, match=r"state\.npz"):
        run(*arguments, *(replaced.get(word, word) for word in change), "--out", out)
    assert state.read_bytes() == before
    assert not out.exists()


def test_a_state_that_cannot_be_saved_is_known_before_the_work(
    bundle_path: Path, random_images: RandomImages, tmp_path: Path
) -> None:
    save(random_images(1), tmp_path / "images")
    out = tmp_path / "out.csv"
    with pytest.raises(FozoError, match="cannot write"):
        run(
            bundle_path, tmp_path / "images", "--out", out,
            "--state", tmp_path / "no" / "state.npz",
        )  # fmt: skip
    assert not out.exists()


def test_the_state_is_saved_now_and_then(
    bundle_path: Path, random_images: RandomImages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a power cut, a stream of weeks goes on where it was a minute ago."""
    save(random_images(6), tmp_path / "images")
    steps: list[int] = []
    saving = fozo.Adapter.save

    def noted(self: fozo.Adapter, path: str | Path) -> None:
        steps.append(self.state.step)
        saving(self, path)

    monkeypatch.setattr(fozo.Adapter, "save", noted)
    arguments = [bundle_path, tmp_path / "images", "--batch-size", 2]
    run(*arguments, "--state", tmp_path / "rarely.npz")
    assert steps == [3]
    steps.clear()
    monkeypatch.setattr(prediction_run, "SAVE_SECONDS", -1)
    run(*arguments, "--state", tmp_path / "often.npz")
    assert steps == [1, 2, 3, 3]


def test_without_source_statistics(make_bundle: Any, random_images: RandomImages, tmp_path: Path) -> None:
    save(random_images(3), tmp_path / "images")
    arguments = [make_bundle(tmp_path / "bundle", source=False).path, tmp_path / "images"]
    with pytest.raises(BundleError, match=r"source statistics.*fozo source.*-m no_adapt"):
        run(*arguments)
    assert len(table(run(*arguments, "-m", "no_adapt"))) == 3


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
        (["images", "--top", CLASSES + 1], "1 to 20"),
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


# --- real processes ---


def test_summary_and_errors_of_a_process(
    bundle_path: Path, random_images: RandomImages, tmp_path: Path
) -> None:
    save(random_images(3), tmp_path / "images")
    (tmp_path / "images" / "001.png").write_bytes(b"no image")
    state = tmp_path / "state.npz"
    arguments = [bundle_path, tmp_path / "images", "--state", state]
    result = spawned(*arguments, "--on-error", "skip")
    assert result.returncode == 0
    assert len(result.stdout.splitlines()) == 4
    (line,) = result.stderr.decode().splitlines()
    for words in ("3 images", "1 unreadable", "images/s", "guarded batches: 0", f"state: {state}"):
        assert words in line
    result = spawned(*arguments)
    assert result.returncode == 1
    (line,) = result.stderr.decode().splitlines()
    assert line.startswith("Error: ")
    assert "001.png" in line


@POSIX
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_end_a_stream_with_its_state_saved(
    number: signal.Signals,
    code: int,
    bundle_path: Path,
    random_images: RandomImages,
    stepped: Stepped,
    tmp_path: Path,
) -> None:
    images = random_images(6)
    save(images, tmp_path / "camera")
    state, out = tmp_path / "state.npz", tmp_path / "out.csv"
    arguments = [bundle_path, "--watch", tmp_path / "camera", "--batch-size", 4, "--poll", 0.05]
    arguments += ["--max-wait", 0.1, "--state", state, "--out", out]
    for path in (tmp_path / "camera").iterdir():
        os.utime(path, (1000, 1000))
    with subprocess.Popen(
        fozo_command("predict", *arguments),
        env=ENVIRONMENT,
        stderr=subprocess.PIPE,
        preexec_fn=accept_interrupts,
    ) as process:
        watchdog = threading.Timer(100, process.kill)
        watchdog.start()
        while process.poll() is None and (not out.exists() or len(out.read_bytes().splitlines()) < 7):
            time.sleep(0.02)
        assert process.poll() is None  # rows are there while it runs
        assert not state.exists()
        process.send_signal(number)
        _, errors = process.communicate()
        watchdog.cancel()
    assert process.returncode == code, errors
    assert b"Traceback" not in errors
    assert b"6 images, 0 unreadable" in errors
    expected, reference = stepped(images, 4)
    agree(table(out), expected)
    reference.save(tmp_path / "expected.npz")
    assert state.read_bytes() == (tmp_path / "expected.npz").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".")) == []


def test_an_interrupt_within_a_batch(
    bundle_path: Path,
    random_images: RandomImages,
    stepped: Stepped,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It comes after the third batch is learnt and before its rows are written: it is in neither."""
    images = random_images(12)
    save(images, tmp_path / "images")
    state, out = tmp_path / "state.npz", tmp_path / "out.csv"
    adding, added = PredictionWriter.add, 0

    def add(self: Any, row: Row) -> None:
        nonlocal added
        added += 1
        if added == 10:
            raise KeyboardInterrupt
        adding(self, row)

    monkeypatch.setattr(PredictionWriter, "add", add)
    arguments = ["predict", bundle_path, tmp_path / "images", "--batch-size", 4]
    result = CliRunner().invoke(cli, [*map(str, [*arguments, "--state", state, "--out", out])])
    assert result.exit_code != 0
    agree(table(out), stepped(images[:8], 4)[0])
    stepped(images[:8], 4)[1].save(tmp_path / "expected.npz")
    assert state.read_bytes() == (tmp_path / "expected.npz").read_bytes()


@POSIX
def test_a_reader_that_has_enough(bundle_path: Path, random_images: RandomImages, tmp_path: Path) -> None:
    """As in `fozo predict - | head -2`, with a list that never ends."""
    (path,) = save(random_images(1), tmp_path / "images")
    state = tmp_path / "state.npz"
    arguments = [bundle_path, "-", "--batch-size", 1, "--state", state]
    with (
        subprocess.Popen(["yes", str(path)], stdout=subprocess.PIPE) as source,
        subprocess.Popen(
            fozo_command("predict", *arguments),
            env=ENVIRONMENT,
            stdin=source.stdout,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process,
    ):
        watchdog = threading.Timer(100, process.kill)
        watchdog.start()
        assert source.stdout is not None
        assert process.stdout is not None
        assert process.stderr is not None
        source.stdout.close()
        assert process.stdout.readline().startswith(b"path,")
        assert process.stdout.readline().startswith(os.fsencode(path))
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 0
        watchdog.cancel()
    assert state.exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk(bundle_path: Path, random_images: RandomImages, tmp_path: Path) -> None:
    save(random_images(1), tmp_path / "images")
    command = fozo_command("predict", bundle_path, tmp_path / "images")
    with Path("/dev/full").open("wb") as full:
        result = subprocess.run(command, env=ENVIRONMENT, stdout=full, stderr=subprocess.PIPE, timeout=100)
    assert result.returncode == 1
    (line,) = result.stderr.decode().splitlines()
    assert line.startswith("Error: cannot write standard output: No space left")
