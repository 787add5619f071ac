"""Corrupted data sets on disk: their files and record, interrupted work, and refusals."""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import fozo
import numpy as np
import pytest
from corrupt_doubles import SMALL, make_corrupted, open_named, read_files, save_clean_images
from doubles import WNIDS, draw_picture, vit_manifest
from fozo.data.image_file import decode_file
from fozo.data.images import preprocess, read_image
from fozo.engine.errors import InputError, OutputError
from fozo.eval.corruptions.corruption_registry import corrupt
from fozo.eval.datasets.corrupt_dataset import Recipe, corrupt_image, prepare, write
from fozo.eval.datasets.corruption_names import IMAGENET_C
from PIL import Image


def test_names_are_those_of_the_clean_images(tmp_path: Path) -> None:
    make_corrupted(save_clean_images(tmp_path / "clean"), tmp_path / "out")
    names = {f"{WNIDS[1]}/a.JPEG", f"{WNIDS[0]}/b.JPEG", f"{WNIDS[1]}/c.jpg"}
    found = set(read_files(tmp_path / "out"))
    places = {(corruption, severity) for corruption in ("gaussian_noise", "contrast") for severity in (3, 5)}
    assert found == {"generated.json"} | {f"{c}/{s}/{name}" for c, s in places for name in names}


def test_jpeg_files_are_the_corrupted_pixels_at_quality_85(tmp_path: Path) -> None:
    folder = save_clean_images(tmp_path / "clean")
    make_corrupted(folder, tmp_path / "out")
    shorter = Image.open(folder / WNIDS[1] / "a.png").resize((50, 40), Image.Resampling.BILINEAR)
    middle = np.asarray(shorter)[4:36, 9:41]
    noisy = corrupt(middle, "gaussian_noise", 5, image_id=f"{WNIDS[1]}/a.png", seed=11)
    stream = io.BytesIO()
    Image.fromarray(noisy).save(stream, "JPEG", quality=85, optimize=True)
    path = tmp_path / "out" / "gaussian_noise" / "5" / WNIDS[1] / "a.JPEG"
    assert path.read_bytes() == stream.getvalue()
    with Image.open(path) as image:
        # The table of the JPEG standard, times 30 %, rounded: what quality 85 stands for.
        assert list(image.quantization[0][:8]) in ([5, 3, 3, 5, 7, 12, 15, 18], [5, 3, 4, 4, 3, 5, 4, 4])
        assert image.size == (32, 32)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_png_files_are_what_generate_from_streams(interpolation: str, tmp_path: Path) -> None:
    folder = save_clean_images(tmp_path / "clean")
    names = tuple(name for name in IMAGENET_C if name != "frost")
    recipe = Recipe(names, (4,), seed=3, resize=40, size=32, interpolation=interpolation, format="png")
    make_corrupted(folder, tmp_path / "out", recipe)
    bundle = vit_manifest(32, 40, interpolation)
    _, streamed = open_named(
        bundle, "imagenet-c", data=None, generate_from=folder, severities=(4,), corruptions=names, seed=3
    )
    label, stored = open_named(bundle, "imagenet-c", data=tmp_path / "out", severities=(4,))
    assert label == "generated corruptions without frost (not the official ImageNet-C)"
    assert [d.name for d in stored] == [d.name for d in streamed] == list(names)
    for one, other in zip(streamed, stored, strict=True):
        assert other.generated
        assert one.labels.tolist() == other.labels.tolist() == [0, 1, 1]
        assert other.ids == (f"{WNIDS[0]}/b.png", f"{WNIDS[1]}/a.png", f"{WNIDS[1]}/c.png")
        for i in range(3):
            np.testing.assert_array_equal(one.load(i), other.load(i))


def test_the_order_and_the_processes_do_not_show(tmp_path: Path) -> None:
    folder = save_clean_images(tmp_path / "clean", tuple(f"{WNIDS[i % 2]}/{i}.png" for i in range(12)))
    turned = replace(SMALL, corruptions=SMALL.corruptions[::-1], severities=SMALL.severities[::-1])
    make_corrupted(folder, tmp_path / "one")
    make_corrupted(folder, tmp_path / "two", turned, workers=2)
    make_corrupted(folder, tmp_path / "three", workers=3)
    expected = read_files(tmp_path / "one")
    assert len(expected) == 1 + 12 * 4
    assert read_files(tmp_path / "two") == read_files(tmp_path / "three") == expected


def test_seeds_and_images_differ(tmp_path: Path) -> None:
    """Two equal images under two names get different noise, and so does one image under another seed."""
    folder = save_clean_images(tmp_path / "clean", (f"{WNIDS[0]}/a.png",))
    (folder / WNIDS[0] / "b.png").write_bytes((folder / WNIDS[0] / "a.png").read_bytes())
    make_corrupted(folder, tmp_path / "out")
    make_corrupted(folder, tmp_path / "other", replace(SMALL, seed=12))
    noise = [out / "gaussian_noise" / "5" / WNIDS[0] for out in (tmp_path / "out", tmp_path / "other")]
    assert (noise[0] / "a.JPEG").exists()
    different = {(noise[0] / "a.JPEG").read_bytes(), (noise[0] / "b.JPEG").read_bytes()}
    assert len(different | {(noise[1] / "a.JPEG").read_bytes()}) == 3


def test_frost_is_made_from_its_textures(tmp_path: Path) -> None:
    for number in range(1, 6):
        Image.fromarray(draw_picture(number, (240, 260))).save(tmp_path / f"frost{number}.png")
    folder = save_clean_images(tmp_path / "clean")
    recipe = Recipe(("frost",), (2,), resize=40, size=32, format="png", textures=tmp_path)
    make_corrupted(folder, tmp_path / "out", recipe)
    original = preprocess(read_image(folder / WNIDS[0] / "b.JPEG"), vit_manifest(32, 40).preprocessing)
    expected = corrupt(original, "frost", 2, image_id=f"{WNIDS[0]}/b.JPEG", seed=0, textures=tmp_path)
    found = np.asarray(Image.open(tmp_path / "out" / "frost" / "2" / WNIDS[0] / "b.png"))
    np.testing.assert_array_equal(found, expected)
    Image.fromarray(draw_picture(9, (240, 260))).save(tmp_path / "frost3.png")
    from fozo.eval.corruptions.weather import load_frost_textures

    load_frost_textures.cache_clear()
    with pytest.raises(InputError, match="frost_textures_sha256"):
        prepare(folder, tmp_path / "out", recipe)


def test_the_record_says_that_it_is_not_the_official_data(tmp_path: Path) -> None:
    make_corrupted(save_clean_images(tmp_path / "clean"), tmp_path / "out")
    record = json.loads((tmp_path / "out" / "generated.json").read_text(encoding="utf-8"))
    assert record["note"].startswith("Generated by fozo. This is not the official ImageNet-C")
    assert record["corruptions"] == ["gaussian_noise", "contrast"]
    assert record["severities"] == [3, 5]
    facts = {key: record[key] for key in ("seed", "resize", "size", "interpolation", "format", "quality")}
    assert list(facts.values()) == [11, 40, 32, "bilinear", "jpeg", 85]
    assert record["images"] == 3
    ids = f"{WNIDS[0]}/b.JPEG\n{WNIDS[1]}/a.png\n{WNIDS[1]}/c.jpg"
    assert record["ids_sha256"] == hashlib.sha256(ids.encode()).hexdigest()


def test_the_record_comes_first(tmp_path: Path) -> None:
    prepare(save_clean_images(tmp_path / "clean"), tmp_path / "out", SMALL)
    assert set(read_files(tmp_path / "out")) == {"generated.json"}
    with pytest.raises(InputError, match="repeat the command fozo corrupt"):
        open_named(vit_manifest(32, 40), "imagenet-c", data=tmp_path / "out")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 12}, "seed 11, now 12"),
        ({"quality": 90}, "quality 85, now 90"),
        ({"resize": 41}, "resize 40, now 41"),
        ({"size": 31}, "size 32, now 31"),
        ({"interpolation": "bicubic"}, "interpolation bilinear, now bicubic"),
        ({"format": "png"}, "format jpeg, now png; quality 85, now None"),
        ({"severities": (5,)}, "severities now without 3"),
        ({"corruptions": ("fog", "contrast")}, "corruptions now without gaussian_noise, now also fog"),
    ],
)
def test_other_options_are_refused_with_what_differs(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    folder = save_clean_images(tmp_path / "clean")
    make_corrupted(folder, tmp_path / "out")
    before = read_files(tmp_path / "out")
    with pytest.raises(InputError, match=message):
        prepare(folder, tmp_path / "out", replace(SMALL, **changes))
    assert read_files(tmp_path / "out") == before


def test_other_images_are_refused(tmp_path: Path) -> None:
    folder = save_clean_images(tmp_path / "clean")
    make_corrupted(folder, tmp_path / "out")
    save_clean_images(folder, (f"{WNIDS[0]}/new.png",))
    with pytest.raises(InputError, match="images 3, now 4; ids_sha256"):
        prepare(folder, tmp_path / "out", SMALL)


def test_another_version_is_refused(tmp_path: Path) -> None:
    folder = save_clean_images(tmp_path / "clean")
    make_corrupted(folder, tmp_path / "out")
    path = tmp_path / "out" / "generated.json"
    path.write_text(path.read_text().replace(f'"fozo": "{fozo.__version__}"', '"fozo": "0.0.1"'))
    with pytest.raises(InputError, match=r"fozo 0\.0\.1, now"):
        prepare(folder, tmp_path / "out", SMALL)


def test_a_folder_with_something_else_is_left_alone(tmp_path: Path) -> None:
    folder = save_clean_images(tmp_path / "clean")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".hidden").write_text("does not count")
    (tmp_path / "out" / "thesis.txt").write_text("precious")
    with pytest.raises(InputError, match=r"out is not empty and has no generated\.json"):
        prepare(folder, tmp_path / "out", SMALL)
    assert set(read_files(tmp_path / "out")) == {".hidden", "thesis.txt"}
    (tmp_path / "out" / "generated.json").write_text("{")
    with pytest.raises(InputError, match=r"generated\.json, found something else"):
        prepare(folder, tmp_path / "out", SMALL)


def test_only_missing_files_are_written(tmp_path: Path) -> None:
    folder = save_clean_images(tmp_path / "clean")
    work = make_corrupted(folder, tmp_path / "out")
    expected = read_files(tmp_path / "out")
    assert sum(write(work, 1)) == 0
    kept = tmp_path / "out" / "contrast" / "3" / WNIDS[0] / "b.JPEG"
    kept.write_bytes(b"mine")
    (tmp_path / "out" / "contrast" / "5" / WNIDS[0] / "b.JPEG").unlink()
    again = prepare(folder, tmp_path / "out", SMALL)
    assert again.files == 12
    assert list(write(again, 1)) == [1, 0, 0, 0, 0, 0]
    assert kept.read_bytes() == b"mine"
    kept.write_bytes(expected["contrast/3/n01440764/b.JPEG"])
    assert read_files(tmp_path / "out") == expected


def test_stopping_early_leaves_whole_files(tmp_path: Path) -> None:
    folder = save_clean_images(tmp_path / "clean")
    make_corrupted(folder, tmp_path / "whole")
    work = prepare(folder, tmp_path / "out", SMALL)
    written = write(work, 1)
    next(written)
    written.close()
    part, whole = read_files(tmp_path / "out"), read_files(tmp_path / "whole")
    assert len(part) == 1 + 2
    assert part.items() <= whole.items()
    make_corrupted(folder, tmp_path / "out")
    assert read_files(tmp_path / "out") == whole


@pytest.mark.parametrize("workers", [1, 2])
def test_a_damaged_clean_image_stops_the_work_with_its_name(workers: int, tmp_path: Path) -> None:
    folder = save_clean_images(tmp_path / "clean")
    bad = folder / WNIDS[1] / "c.jpg"
    bad.write_bytes(bad.read_bytes()[:300])
    with pytest.raises(InputError, match=r"c\.jpg"):
        make_corrupted(folder, tmp_path / "out", workers=workers)
    assert not [name for name in read_files(tmp_path / "out") if name.endswith(".tmp")]
    save_clean_images(folder)
    make_corrupted(folder, tmp_path / "out")
    make_corrupted(folder, tmp_path / "whole")
    assert read_files(tmp_path / "out") == read_files(tmp_path / "whole")


def test_names_that_would_fall_together(tmp_path: Path) -> None:
    folder = save_clean_images(tmp_path / "clean", (f"{WNIDS[0]}/a.png", f"{WNIDS[0]}/a.bmp"))
    with pytest.raises(InputError, match=r"a\.bmp and n01440764/a\.png .* become n01440764/a\.JPEG"):
        prepare(folder, tmp_path / "out", SMALL)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("inside", [".", "out", "n01440764/out"])
def test_the_output_must_not_lie_among_the_clean_images(inside: str, tmp_path: Path) -> None:
    folder = save_clean_images(tmp_path / "clean")
    before = read_files(folder)
    with pytest.raises(InputError, match="lies in the folder of the clean images"):
        prepare(folder, folder / inside, SMALL)
    assert read_files(folder) == before


def test_an_output_that_cannot_be_written(tmp_path: Path) -> None:
    folder = save_clean_images(tmp_path / "clean")
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"cannot make the folder .*file/out"):
        prepare(folder, tmp_path / "file" / "out", SMALL)
    work = prepare(folder, tmp_path / "out", SMALL)
    (tmp_path / "out" / "contrast").write_text("")
    with pytest.raises(OutputError, match=r"cannot make the folder .*contrast/5"):
        list(write(work, 1))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"corruptions": ("rain",)}, "the generator has no corruption rain"),
        ({"corruptions": ("clean",)}, "the generator has no corruption clean"),
        ({"corruptions": ("fog", "fog")}, "named twice"),
        ({"corruptions": ()}, "none given"),
        ({"corruptions": ("frost",)}, "--frost-textures"),
        ({"severities": (0,)}, "severities"),
        ({"format": "gif"}, "jpeg or png"),
        ({"quality": 0}, "quality from 1 to 100"),
        ({"resize": 31}, "found 32 of 31 pixels"),
        ({"interpolation": "cubic"}, "'cubic'"),
    ],
)
def test_impossible_recipes(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        replace(SMALL, **changes)


def test_the_clean_image_is_read_once_for_all_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save_clean_images(tmp_path / "clean")
    opened = []
    monkeypatch.setattr(
        "fozo.data.image_reader.decode_file", lambda path, how: opened.append(path) or decode_file(path, how)
    )
    target = f"{WNIDS[1]}/a.JPEG"
    assert corrupt_image(SMALL, 5, str(folder), f"{WNIDS[1]}/a.png", str(tmp_path / "out"), target) == 2
    assert corrupt_image(SMALL, 5, str(folder), f"{WNIDS[1]}/a.png", str(tmp_path / "out"), target) == 0
    assert len(opened) == 1
