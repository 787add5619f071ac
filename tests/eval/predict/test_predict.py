"""Predictions of unlabelled images: rows, classes and state."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fozo
import numpy as np
import pytest
from fozo.engine.errors import BundleError, FozoError, InputError, StateError
from fozo.engine.registry import Prediction, parse_method
from fozo.engine.runtime.network import Network
from fozo.eval.predict import prediction_run
from fozo.eval.predict.predict import predict
from predict_doubles import (
    CLASSES,
    DEFAULT,
    POSIX,
    RandomImages,
    Stepped,
    agree,
    png,
    run,
    save,
    table,
)

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


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"batch_size": 0}, "batch size of at least 1, found 0"),
        ({"top": 0}, "number of guesses of at least 1, found 0"),
        ({"top": CLASSES + 1}, f"at most {CLASSES} guesses, .*, found {CLASSES + 1}"),
        ({"max_images": 0}, "number of images of at least 1, found 0"),
    ],
)
def test_numbers_out_of_range(
    numbers: dict[str, int], message: str, adapter: fozo.Adapter, manifest: Any
) -> None:
    with pytest.raises(InputError, match=message):
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
    "lines",
    [
        ["n1003", "n1017", "n1004"],
        ["17", "3", "", "4", "3"],
        ["n1004", "17", "3"],
        ["\ufeffn1003\r", "# mine\r", "\r", 'the "17", so called\r', " n1004\t\r"],
    ],
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


def test_an_image_whose_output_is_not_finite_has_an_error_and_no_class(
    manifest: Any, random_images: RandomImages, tmp_path: Path
) -> None:
    logits = np.eye(CLASSES, dtype=np.float32)[:3]
    logits[1] = 0  # as the fallback leaves such an image
    answer = Prediction(logits, 1, fallback=True)
    adapter: Any = SimpleNamespace(
        step=lambda images: answer, state=SimpleNamespace(step=1), method=None, seed=0
    )
    rows = list(predict(adapter, save(random_images(3), tmp_path), manifest))
    assert [(row.error, bool(row.top), row.batch) for row in rows] == [
        (None, True, 1),
        ("the model's output for this image is not finite", False, 1),
        (None, True, 1),
    ]


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
