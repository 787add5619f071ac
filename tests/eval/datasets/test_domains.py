"""Images in class folders, in arrays, generated and embedded, and everything that can be wrong with them."""

from __future__ import annotations

import io
import os
import struct
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from doubles import WNIDS, draw_picture, vit_manifest
from fozo.data.demo import DEMO_CLASSES, demo_images
from fozo.engine.errors import InputError
from fozo.eval.corruptions.corruption_registry import NAMES, corrupt
from fozo.eval.datasets.corruption_names import EXTRA, IMAGENET_C
from fozo.eval.datasets.digits import load_demo_domain
from fozo.eval.datasets.domain import Domain, describe_deviations, make_array_domain
from fozo.eval.datasets.generated_domains import generate_domains
from fozo.eval.datasets.image_folder import load_image_folder
from numpy.typing import NDArray
from PIL import Image


def put(path: Path, array: NDArray[np.uint8]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".JPEG":
        Image.fromarray(array).save(path, "JPEG", quality=90)
    else:
        Image.fromarray(array).save(path)
    return path


# --- folders of classes ---


def test_labels_are_the_models_and_not_the_folders_order(tmp_path: Path) -> None:
    ids = ("zebra", "ant", "moth")
    for name in ("ant", "zebra"):
        put(tmp_path / "data" / name / "1.png", draw_picture(1))
    domain = load_image_folder(tmp_path / "data", vit_manifest(classes=3, class_ids=ids))
    assert domain.name == "data"
    assert domain.ids == ("ant/1.png", "zebra/1.png")
    assert domain.labels.tolist() == [1, 0]


def test_without_identifiers_sorted_folders_are_the_classes(tmp_path: Path) -> None:
    for name in ("b", "a", "c"):
        put(tmp_path / name / "1.png", draw_picture(1))
    assert load_image_folder(tmp_path, vit_manifest(classes=3, class_ids=None)).labels.tolist() == [0, 1, 2]
    for classes in (2, 4):
        with pytest.raises(InputError, match=rf"one folder for each of its {classes} classes, found 3"):
            load_image_folder(tmp_path, vit_manifest(classes=classes, class_ids=None))


def test_images_are_prepared_as_the_bundle_says(tmp_path: Path) -> None:
    put(tmp_path / WNIDS[0] / "1.png", draw_picture(1, (64, 128)))
    found = load_image_folder(tmp_path, vit_manifest(32, 40)).load(0)
    expected = np.asarray(
        Image.fromarray(draw_picture(1, (64, 128))).resize((80, 40), Image.Resampling.BILINEAR)
    )
    np.testing.assert_array_equal(found, expected[4:36, 24:56])
    assert found.dtype == np.uint8


def test_a_miniature_of_every_rule(tmp_path: Path) -> None:
    for name in ("n02007558/b.JPEG", "n01440764/a.png", "n01440764/Z.PnM"):
        put(tmp_path / name, draw_picture(1, (8, 8)))
    (tmp_path / "README.txt").write_text("x")
    (tmp_path / "n01440764" / "notes.txt").write_text("x")
    (tmp_path / "n01440764" / "thumbnails").mkdir()
    domain = load_image_folder(tmp_path, vit_manifest())
    assert domain.ids == ("n01440764/Z.PnM", "n01440764/a.png", "n02007558/b.JPEG")
    assert domain.labels.tolist() == [0, 0, 2]
    assert domain.labels.dtype == np.int64
    assert (domain.severity, domain.classes, domain.official_images, domain.generated) == (
        None,
        None,
        None,
        False,
    )


@pytest.mark.parametrize(
    "name", [".DS_Store", "n01440764/.DS_Store", "n01440764/._1.JPEG", ".cache/n0/2.png"]
)
def test_hidden_files_are_ignored(name: str, tmp_path: Path) -> None:
    put(tmp_path / WNIDS[0] / "1.png", draw_picture(1))
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_bytes(b"no image")
    assert load_image_folder(tmp_path, vit_manifest()).ids == (f"{WNIDS[0]}/1.png",)


def test_ids_are_ordered_as_whole_texts(tmp_path: Path) -> None:
    """`-` comes before `/`, so ordering folders first would differ; results of older versions must stay."""
    for name in ("a/1.png", "a-b/1.png"):
        put(tmp_path / name, draw_picture(1, (8, 8)))
    domain = load_image_folder(tmp_path, vit_manifest(classes=2, class_ids=("a", "a-b")))
    assert domain.ids == ("a-b/1.png", "a/1.png")
    assert domain.labels.tolist() == [1, 0]


@pytest.mark.parametrize("kind", ["missing", "empty", "file"])
def test_no_folder_of_images(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "data"
    if kind == "empty":
        path.mkdir()
    elif kind == "file":
        path.write_text("")
    with pytest.raises(InputError, match=r"folder.*data"):
        load_image_folder(path, vit_manifest())


def test_an_empty_class_folder_is_named(tmp_path: Path) -> None:
    put(tmp_path / WNIDS[0] / "1.png", draw_picture(1))
    (tmp_path / WNIDS[1]).mkdir()
    with pytest.raises(
        InputError, match=rf"no image in the class folder .*{WNIDS[1]}; expected files ending"
    ):
        load_image_folder(tmp_path, vit_manifest())
    (tmp_path / WNIDS[1] / "1.heic").write_bytes(b"x")
    with pytest.raises(InputError, match=rf"no image in the class folder .*{WNIDS[1]}"):
        load_image_folder(tmp_path, vit_manifest())


def test_images_loose_in_the_root_or_too_deep(tmp_path: Path) -> None:
    put(tmp_path / WNIDS[0] / "1.png", draw_picture(1))
    loose = put(tmp_path / "loose.png", draw_picture(0))
    with pytest.raises(InputError, match=r"<class>/<image>.*loose\.png"):
        load_image_folder(tmp_path, vit_manifest())
    loose.unlink()
    put(tmp_path / WNIDS[0] / "more" / "still" / "deep.png", draw_picture(0))
    with pytest.raises(InputError, match=r"<class>/<image>.*more/still/deep\.png"):
        load_image_folder(tmp_path, vit_manifest())


def test_a_folder_that_is_no_class_of_the_model(tmp_path: Path) -> None:
    put(tmp_path / "n99999999" / "1.png", draw_picture(1))
    with pytest.raises(InputError, match="a name that is no class of vit: n99999999"):
        load_image_folder(tmp_path, vit_manifest())


def test_an_unreadable_folder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: object) -> None:
        raise PermissionError(13, "Permission denied")

    put(tmp_path / WNIDS[0] / "1.png", draw_picture(1))
    monkeypatch.setattr("fozo.eval.datasets.class_folders.os.scandir", refuse)
    with pytest.raises(InputError, match=rf"cannot read the folder {tmp_path}: Permission denied"):
        load_image_folder(tmp_path, vit_manifest())


@pytest.mark.skipif(os.name != "posix", reason="names are bytes on POSIX systems only")
def test_a_name_that_is_no_text_is_refused(tmp_path: Path) -> None:
    put(tmp_path / WNIDS[0] / "1.png", draw_picture(1))
    try:
        Path(os.fsdecode(os.fsencode(tmp_path / WNIDS[0]) + b"/\xff.png")).write_bytes(b"x")
    except OSError:
        pytest.skip("this file system knows only UTF-8")
    with pytest.raises(InputError, match=r"UTF-8, found '\\udcff\.png'"):
        load_image_folder(tmp_path, vit_manifest())


# --- links ---


def linked(tmp_path: Path, target: object, name: str = "1.png") -> Path:
    """Save a class folder with an image `0.png` and a link."""
    put(tmp_path / "data" / WNIDS[0] / "0.png", draw_picture(1))
    (tmp_path / "data" / WNIDS[0] / name).symlink_to(Path(str(target)))
    return tmp_path / "data"


def test_links_to_files_outside_are_followed(tmp_path: Path) -> None:
    domain = load_image_folder(
        linked(tmp_path, put(tmp_path / "elsewhere.png", draw_picture(2))), vit_manifest()
    )
    assert domain.ids == (f"{WNIDS[0]}/0.png", f"{WNIDS[0]}/1.png")
    np.testing.assert_array_equal(domain.load(1), imagefolder_of(tmp_path / "elsewhere.png").load(0))


def imagefolder_of(image: Path) -> Domain:
    """Save the image in a folder of its own."""
    folder = image.parent / "own"
    put(folder / WNIDS[0] / "1.png", np.asarray(Image.open(image)))
    return load_image_folder(folder, vit_manifest())


def test_links_to_class_folders_are_followed(tmp_path: Path) -> None:
    put(tmp_path / "elsewhere" / "1.png", draw_picture(2))
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / WNIDS[2]).symlink_to(tmp_path / "elsewhere")
    domain = load_image_folder(tmp_path / "data", vit_manifest())
    assert (domain.ids, domain.labels.tolist()) == ((f"{WNIDS[2]}/1.png",), [2])
    assert domain.load(0).shape == (224, 224, 3)


def test_broken_links_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"leads nowhere.*n01440764/1\.png"):
        load_image_folder(linked(tmp_path, tmp_path / "gone.png"), vit_manifest())


def test_links_in_a_circle_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"in a circle.*n01440764/1\.png"):
        load_image_folder(linked(tmp_path, "1.png"), vit_manifest())


@pytest.mark.parametrize("target", [".", ".."])
def test_links_to_a_folder_above_end(target: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"<class>/<image>, found .*n01440764/up/"):
        load_image_folder(linked(tmp_path, target, "up"), vit_manifest())


# --- damaged images ---


def bomb() -> bytes:
    """Return a PNG of 60,000 by 60,000 pixels, as its header says."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        whole = kind + content
        return struct.pack(">I", len(content)) + whole + struct.pack(">I", zlib.crc32(whole))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 64))


def gif() -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (8, 8)).save(stream, "GIF")
    return stream.getvalue()


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("truncated", "expected a whole image"),
        ("empty", "found an empty file"),
        ("text", "expected an image in one of JPEG"),
        ("another format under this name", "expected an image in one of JPEG"),
        ("bomb", r"at most 64,000,000 pixels"),
        ("deleted", r"cannot read the image"),
        ("a folder by now", "found a folder"),
    ],
)
def test_an_image_that_cannot_be_read_is_named(kind: str, message: str, tmp_path: Path) -> None:
    put(tmp_path / WNIDS[0] / "1.JPEG", draw_picture(1))
    bad = put(tmp_path / WNIDS[1] / "2.JPEG", draw_picture(2))
    domain = load_image_folder(tmp_path, vit_manifest())
    content = {
        "truncated": bad.read_bytes()[:700],
        "empty": b"",
        "text": b"I am not a picture.",
        "another format under this name": gif(),
        "bomb": bomb(),
    }
    bad.unlink()
    if kind in content:
        bad.write_bytes(content[kind])
    elif kind == "a folder by now":
        bad.mkdir()
    domain.load(0)
    with pytest.raises(InputError, match=message) as caught:
        domain.load(1)
    assert str(bad) in str(caught.value)
    with pytest.raises(InputError, match=message):
        domain.take([1]).load(0)


def test_a_renamed_suffix(tmp_path: Path) -> None:
    """Content decides how an image is read; only the suffix decides whether it is one."""
    image = put(tmp_path / WNIDS[0] / "1.png", draw_picture(1))
    other = put(tmp_path / WNIDS[0] / "2.png", draw_picture(2))
    image.rename(image.with_suffix(".JPEG"))
    other.rename(other.with_suffix(".txt"))
    domain = load_image_folder(tmp_path, vit_manifest(224, 224))
    assert domain.ids == (f"{WNIDS[0]}/1.JPEG",)
    np.testing.assert_array_equal(domain.load(0), draw_picture(1))


# --- arrays ---


def test_arrays_are_streamed_as_they_are() -> None:
    images = np.arange(4 * 2 * 3 * 3, dtype=np.uint8).reshape(4, 2, 3, 3)
    domain = make_array_domain("camera", images, [2, 0, 1, 2])
    assert (domain.name, domain.ids) == ("camera", ("00000", "00001", "00002", "00003"))
    assert domain.labels.tolist() == [2, 0, 1, 2]
    assert domain.labels.dtype == np.int64
    np.testing.assert_array_equal(domain.load(2), images[2])
    named = make_array_domain("camera", images, np.array([2, 0, 1, 2], np.uint8), ids=["d", "c", "b", "a"])
    assert named.take([3, 0]).ids == ("a", "d")
    np.testing.assert_array_equal(named.take([3, 0]).load(0), images[3])


def test_arrays_may_be_memory_mapped(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)
    np.save(tmp_path / "x.npy", images)
    domain = make_array_domain("camera", np.load(tmp_path / "x.npy", mmap_mode="r"), np.zeros(5, np.int64))
    np.testing.assert_array_equal(domain.load(4), images[4])


@pytest.mark.parametrize(
    ("images", "labels", "ids", "message"),
    [
        (
            np.zeros((2, 4, 4, 3)),
            [0, 0],
            None,
            r"uint8 images .*camera, found float64 of shape \[2, 4, 4, 3\]",
        ),
        (np.zeros((2, 3, 4, 4), np.uint8), [0, 0], None, r"found uint8 of shape \[2, 3, 4, 4\]"),
        (np.zeros((4, 4, 3), np.uint8), [0], None, "uint8 images"),
        (np.zeros((0, 4, 4, 3), np.uint8), [], None, "uint8 images"),
        (np.zeros((2, 4, 4, 3), np.uint8), [0], None, r"2 labels .*of shape \[1\]"),
        (np.zeros((2, 4, 4, 3), np.uint8), [[0], [1]], None, "2 labels"),
        (np.zeros((2, 4, 4, 3), np.uint8), [0.0, 1.0], None, "2 labels .*float64"),
        (np.zeros((2, 4, 4, 3), np.uint8), [0, -1], None, "2 labels .*from -1 up"),
        (np.zeros((2, 4, 4, 3), np.uint8), [0, 1], ["a"], "2 different ids .*found 1"),
        (np.zeros((2, 4, 4, 3), np.uint8), [0, 1], ["a", "a"], "2 different ids"),
    ],
)
def test_arrays_of_the_wrong_kind(images: Any, labels: Any, ids: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_array_domain("camera", images, labels, ids)


def test_a_subset_remembers_what_it_is_from() -> None:
    domain = replace(clean(), official_images=5, classes=(0, 1, 2, 3, 4), severity=3)
    part = domain.take([0, 1])
    assert (part.official_images, part.classes, part.severity) == (5, (0, 1, 2, 3, 4), 3)
    assert part.available_images == part.take([0]).available_images == len(domain)
    assert part.describe_deviations() == domain.describe_deviations()
    lacking = replace(domain, official_class_count=200)
    assert (
        "5 class folders of clean, officially 200; predictions" in lacking.take([0]).describe_deviations()[-1]
    )
    assert domain.official_images == 5


@pytest.mark.parametrize(
    ("count", "said"),
    [
        (0, ""),
        (1, ", without class folder n0"),
        (3, ", without class folders n0, n1, n2"),
        (4, ", without class folders n0, n1, n2 and 1 other"),
        (1003, ", without class folders n0, n1, n2 and 1,000 others"),
    ],
)
def test_missing_class_folders_are_named(count: int, said: str) -> None:
    domain = replace(clean(), missing_folders=tuple(f"n{index}" for index in range(count)))
    assert domain.describe_deviations() == [], "of one's own images there is no official number"
    images = len(domain)
    short = replace(domain, official_images=images + 1)
    assert short.describe_deviations() == [f"{images} images of clean, officially {images + 1}{said}"]
    same = replace(domain, official_images=images)
    assert same.describe_deviations() == (
        [f"{images} images of clean, officially {images}{said}"] if said else []
    )
    fewer = replace(short, classes=(0, 1, 2, 3, 4), official_class_count=200)
    assert fewer.take([1]).describe_deviations() == [
        f"{images} images of clean, officially {images + 1}",
        f"5 class folders of clean, officially 200{said}; predictions are only among these, which is easier",
    ]


def test_deviations_that_agree_are_described_once() -> None:
    short = replace(clean(), official_images=50_000)
    names = ("fog", "snow", "frost", "contrast", "pixelate")
    domains = [replace(short, name=name, severity=severity) for severity in (1, 2) for name in names]
    count = len(short)
    assert describe_deviations(domains) == [
        f"{count} images of each of fog, snow, frost and 2 others, officially 50,000"
    ]
    assert describe_deviations(domains[:2]) == [f"{count} images of each of fog, snow, officially 50,000"]
    assert describe_deviations(
        [domains[0], short.take([0]), replace(short, name="x", official_images=9)]
    ) == [
        f"{count} images of each of fog, clean, officially 50,000",
        f"{count} images of x, officially 9",
    ]
    assert describe_deviations([clean()]) == []


# --- generated ---


def clean() -> Domain:
    images = [draw_picture(i, (32, 32)) for i in range(5)]
    return Domain("clean", tuple(f"c/{i}.png" for i in range(5)), np.arange(5), lambda i: images[i])


def test_generated_corruptions_are_labelled_and_belong_to_the_image() -> None:
    noise, same, contrast = generate_domains(clean(), 4, ("gaussian_noise", "clean", "contrast"), 11)
    assert noise.generated
    assert contrast.generated
    assert (noise.severity, same.severity, contrast.severity) == (4, None, 4)
    assert not same.generated
    assert [domain.name for domain in (noise, same, contrast)] == ["gaussian_noise", "clean", "contrast"]
    assert noise.labels.tolist() == clean().labels.tolist()
    assert noise.ids == clean().ids
    for i in (3, 0, 3):
        expected = corrupt(clean().load(i), "gaussian_noise", 4, image_id=f"c/{i}.png", seed=11)
        np.testing.assert_array_equal(noise.load(i), expected)
        np.testing.assert_array_equal(same.load(i), clean().load(i))
    subset = noise.take([4, 1])
    assert subset.generated
    np.testing.assert_array_equal(subset.load(0), noise.load(4))
    np.testing.assert_array_equal(subset.take([1]).load(0), noise.load(1))


def test_corruptions_that_cannot_be_generated() -> None:
    for name in ("sleet", "rain", ""):
        with pytest.raises(InputError, match=r"the generator has no corruption .*clean"):
            generate_domains(clean(), 5, [name], 0)
    assert {*IMAGENET_C, *EXTRA} == set(NAMES)
    for severity in (0, 6):
        with pytest.raises(InputError, match=f"severities out of 1, 2, 3, 4, 5, found {severity}"):
            generate_domains(clean(), severity, ["contrast"], 0)


def test_frost_is_generated_with_its_textures_only(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--frost-textures"):
        generate_domains(clean(), 5, ["contrast", "frost"], 0)
    with pytest.raises(InputError, match=r"missing: frost1, frost2"):
        generate_domains(clean(), 5, ["frost"], 0, tmp_path)
    for number in range(1, 6):
        put(tmp_path / f"frost{number}.png", draw_picture(number, (240, 260)))
    (frost,) = generate_domains(clean(), 5, ["frost"], 0, tmp_path)
    expected = corrupt(clean().load(2), "frost", 5, image_id="c/2.png", seed=0, textures=tmp_path)
    np.testing.assert_array_equal(frost.load(2), expected)


# --- the demonstration ---


def test_demo() -> None:
    bundle = vit_manifest(32, 32, classes=10, class_ids=DEMO_CLASSES)
    domain = load_demo_domain(bundle)
    images, labels = demo_images("test")
    assert len(domain) == 797
    assert len(set(domain.ids)) == 797
    np.testing.assert_array_equal(domain.labels, labels)
    np.testing.assert_array_equal(domain.load(5), images[5])
    for other in (vit_manifest(), vit_manifest(28, 28, classes=10, class_ids=DEMO_CLASSES)):
        with pytest.raises(InputError, match="needs the demo model"):
            load_demo_domain(other)
