"""Data sets by name: official layouts in miniature, and everything that can be missing or mixed up."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from doubles import WNIDS, draw_picture, vit_manifest
from fozo.engine.bundle.manifest import Manifest
from fozo.engine.errors import InputError
from fozo.eval.corruptions.by_name import corrupt
from fozo.eval.datasets.by_name import DATASETS, load_opener, open_dataset
from fozo.eval.datasets.cifar import CIFAR10_CLASSES
from fozo.eval.datasets.digits import DEMO_CORRUPTIONS
from fozo.eval.datasets.domain import IMAGENET_C, Domain
from fozo.eval.datasets.imagenet_subsets import IMAGENET_A, IMAGENET_R
from fozo.eval.datasets.request import DatasetRequest
from numpy.typing import NDArray
from PIL import Image

EXTRA = ("speckle_noise", "gaussian_blur", "spatter", "saturate")
VARIANTS = (
    "imagenetv2-matched-frequency-format-val",
    "imagenetv2-threshold0.7-format-val",
    "imagenetv2-top-images-format-val",
)
TABS = (("\ufeff", 1, 1999), ("", 2, 1000), ("", 3, 1002))
GENERATED = "generated corruptions (not the official ImageNet-C)"


def thousand(**changes: Any) -> Manifest:
    """A bundle of 1,000 classes with WNIDs in *descending* order, so that position and number differ."""
    wnids = tuple(f"n{1000 + number:08d}" for number in reversed(range(1000)))
    return vit_manifest(16, 16, **{"classes": 1000, "class_ids": wnids, **changes})


def put(path: Path, array: NDArray[np.uint8] | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(draw_picture(0, (20, 20)) if array is None else array).save(path)
    return path


def open_named(bundle: Manifest, name: str, *, seed: int = 0, **options: Any) -> tuple[str, list[Domain]]:
    """Open a data set by the fields of its request."""
    return open_dataset(DatasetRequest(name, **options), bundle, seed)


def opened(dataset: str, bundle: Manifest, data: Path | None = None, **options: Any) -> list[Domain]:
    label, domains = open_named(bundle, dataset, data=data, **options)
    assert label == dataset
    return domains


def refused(message: str, dataset: str, bundle: Manifest, data: Path | None = None, **options: Any) -> str:
    with pytest.raises(InputError, match=message) as caught:
        open_named(bundle, dataset, data=data, **options)
    assert "\n" not in str(caught.value)
    assert "://" not in str(caught.value)
    return str(caught.value)


# --- ImageNet-C ---


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A miniature ImageNet-C: two corruptions, two severities, two of the four classes."""
    root = tmp_path / "imagenet-c"
    for c, name in enumerate(("gaussian_noise", "fog")):
        for severity in (3, 5):
            for k, wnid in enumerate((WNIDS[3], WNIDS[1])):
                for i in range(2):
                    image = draw_picture(c * 100 + severity * 10 + k * 2 + i)
                    put(root / name / str(severity) / wnid / f"ILSVRC2012_val_{i:08d}.png", image)
    return root


def test_official_layout(tree: Path) -> None:
    names = ("gaussian_noise", "fog")
    noise, fog = opened("imagenet-c", vit_manifest(), tree, corruptions=names)
    assert (noise.name, fog.name) == names
    assert (noise.severity, noise.expected, noise.classes, noise.generated) == (5, 50_000, None, False)
    assert noise.ids[:2] == tuple(f"{WNIDS[1]}/ILSVRC2012_val_{i:08d}.png" for i in range(2))
    assert noise.labels.tolist() == [1, 1, 3, 3]
    np.testing.assert_array_equal(
        noise.load(0), draw_picture(52)
    )  # PNG: to the bit, neither resized nor cropped
    np.testing.assert_array_equal(fog.load(2), draw_picture(150))


def test_the_official_order() -> None:
    order = (
        "gaussian_noise shot_noise impulse_noise defocus_blur glass_blur motion_blur zoom_blur snow frost "
        "fog brightness contrast elastic_transform pixelate jpeg_compression"
    )
    assert list(IMAGENET_C) == order.split()


def test_all_fifteen_are_the_default_and_the_extra_ones_go_by_name(tmp_path: Path) -> None:
    for name in (*IMAGENET_C, *EXTRA):
        put(tmp_path / name / "5" / WNIDS[0] / "1.png", draw_picture(1))
    assert [d.name for d in opened("imagenet-c", vit_manifest(), tmp_path)] == list(IMAGENET_C)
    domains = opened("imagenet-c", vit_manifest(), tmp_path, corruptions=("spatter", "fog", "saturate"))
    assert [d.name for d in domains] == ["spatter", "fog", "saturate"]


def test_every_corruption_at_each_severity_in_turn(tree: Path) -> None:
    domains = opened(
        "imagenet-c", vit_manifest(), tree, severities=(5, 3), corruptions=("fog", "gaussian_noise")
    )
    found = [(d.name, d.severity) for d in domains]
    assert found == [("fog", 5), ("gaussian_noise", 5), ("fog", 3), ("gaussian_noise", 3)]
    np.testing.assert_array_equal(domains[0].load(2), draw_picture(150))
    np.testing.assert_array_equal(domains[2].load(2), draw_picture(130))


def test_domains_share_their_ids_and_labels(tree: Path) -> None:
    """ImageNet-C's 750,000 names would take 100 MB; a domain with other images keeps its own."""
    put(tree / "fog" / "5" / WNIDS[0] / "more.png", draw_picture(0))
    names = ("gaussian_noise", "fog")
    noise5, fog5, noise3, fog3 = opened(
        "imagenet-c", vit_manifest(), tree, severities=(5, 3), corruptions=names
    )
    assert noise5.ids is noise3.ids is fog3.ids
    assert noise5.labels is noise3.labels is fog3.labels
    assert len(fog5) == 5
    assert fog5.ids[0] == f"{WNIDS[0]}/more.png"
    np.testing.assert_array_equal(fog3.load(2), draw_picture(130))


def test_smaller_models_take_the_middle_and_never_resize(tree: Path) -> None:
    (fog,) = opened("imagenet-c", vit_manifest(160, 182), tree, corruptions=["fog"])
    np.testing.assert_array_equal(fog.load(0), draw_picture(152)[32:192, 32:192])


@pytest.mark.parametrize("size", [225, 384])
def test_larger_models_are_refused(size: int, tree: Path) -> None:
    refused(rf"224 pixels.*{size}.*--image-size 224", "imagenet-c", vit_manifest(size, size), tree)


def test_missing_folders_are_named_with_their_archives(tree: Path) -> None:
    names = ("fog", "snow", "spatter")
    message = refused(r"missing: snow/5, spatter/5\.", "imagenet-c", vit_manifest(), tree, corruptions=names)
    assert "Unpack weather.tar, extra.tar of ImageNet-C" in message
    refused(
        "missing: fog/1, fog/2", "imagenet-c", vit_manifest(), tree, corruptions=["fog"], severities=(1, 2, 3)
    )
    refused("missing: gaussian_noise/5", "imagenet-c", vit_manifest(), tree / "fog")
    refused("no folder", "imagenet-c", vit_manifest(), tree / "nowhere")


@pytest.mark.parametrize("names", [["rain"], ["fog", "Fog"], [], [""], ["../fog"], ["clean"]])
def test_unknown_corruptions(names: list[str], tree: Path) -> None:
    refused(
        "ImageNet-C has no corruption .*gaussian_noise", "imagenet-c", vit_manifest(), tree, corruptions=names
    )


@pytest.mark.parametrize("severities", [(), (0,), (6,), (5, 5)])
def test_unknown_severities(severities: tuple[int, ...], tree: Path) -> None:
    refused("severities out of 1, 2, 3, 4, 5", "imagenet-c", vit_manifest(), tree, severities=severities)


def test_clean_images_come_last(tree: Path, tmp_path: Path) -> None:
    put(tmp_path / "val" / WNIDS[2] / "1.png", draw_picture(9, (300, 512)))
    options: dict[str, Any] = {"severities": (3, 5), "corruptions": ["fog"], "clean": tmp_path / "val"}
    *fog, clean = opened("imagenet-c", vit_manifest(), tree, **options)
    assert [domain.name for domain in fog] == ["fog", "fog"]
    assert (clean.name, clean.severity, clean.expected, clean.generated) == ("clean", None, 50_000, False)
    assert clean.labels.tolist() == [2]
    shorter = Image.fromarray(draw_picture(9, (300, 512))).resize((436, 256), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(clean.load(0), np.asarray(shorter)[16:240, 106:330])  # as the bundle says


def test_what_is_no_folder_of_clean_images_is_told_what_is_expected(tree: Path, tmp_path: Path) -> None:
    def said(message: str, clean: Path, **options: Any) -> str:
        return refused(
            message, "imagenet-c", vit_manifest(), tree, corruptions=["fog"], clean=clean, **options
        )

    hint = "--clean names the folder of ImageNet's validation images"
    assert hint in said("found nothing", tmp_path / "nowhere")
    assert hint in said(r"<class>/<image>, found .*\.png", tree)  # ImageNet-C itself
    flat = put(tmp_path / "flat" / "ILSVRC2012_val_00000001.png").parent
    assert "side by side, with --labels FILE" in said("found .*ILSVRC2012_val_00000001", flat)
    put(tmp_path / "other" / "cats" / "1.png")
    assert hint in said("no class of vit: cats", tmp_path / "other")
    (tmp_path / "labels.txt").write_text("ILSVRC2012_val_00000002 n01440764\n")
    message = said("have no label", flat, labels=tmp_path / "labels.txt")
    assert hint in message
    assert "--labels FILE" not in message
    marked(tree)
    assert hint not in said("found nothing", tmp_path / "nowhere")  # they are of any origin


def test_a_damaged_image_of_imagenet_c_is_named(tree: Path) -> None:
    bad = tree / "fog" / "5" / WNIDS[1] / "ILSVRC2012_val_00000001.png"
    bad.write_bytes(bad.read_bytes()[:500])
    (fog,) = opened("imagenet-c", vit_manifest(), tree, corruptions=["fog"])
    fog.load(0)
    with pytest.raises(InputError, match=r"damaged .*fog/5/n01443537/ILSVRC2012_val_00000001\.png"):
        fog.load(1)


# --- generated.json ---


def marked(tree: Path, **changes: Any) -> Path:
    content = {"corruptions": ["gaussian_noise", "fog"], "severities": [3, 5], "size": 224, "images": 4}
    (tree / "generated.json").write_text(json.dumps({**content, **changes}))
    return tree


def test_generated_folders_are_labelled(tree: Path) -> None:
    label, domains = open_named(vit_manifest(), "imagenet-c", data=marked(tree), severities=(3, 5))
    assert label == GENERATED
    found = [(d.name, d.severity, d.generated, d.expected) for d in domains]
    names = ("gaussian_noise", "fog")
    assert found == [(name, severity, True, None) for severity in (3, 5) for name in names]
    np.testing.assert_array_equal(domains[1].load(2), draw_picture(130))


def test_clean_images_beside_generated_ones_have_no_official_number(tree: Path, tmp_path: Path) -> None:
    put(tmp_path / "val" / WNIDS[2] / "1.png")
    _, domains = open_named(vit_manifest(), "imagenet-c", data=marked(tree), clean=tmp_path / "val")
    assert (domains[-1].name, domains[-1].generated, domains[-1].expected) == ("clean", False, None)


def test_frost_that_was_left_out_is_said(tmp_path: Path) -> None:
    names = [name for name in IMAGENET_C if name != "frost"]
    for name in names:
        put(tmp_path / name / "5" / WNIDS[0] / "1.png")
    marked(tmp_path, corruptions=names, severities=[5], size=20, images=1)
    label, _ = open_named(vit_manifest(16, 16), "imagenet-c", data=tmp_path)
    assert label == "generated corruptions without frost (not the official ImageNet-C)"


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        (
            {},
            {"corruptions": ["snow"]},
            r"generated data in .* has no corruption snow; it has: gaussian_noise, fog",
        ),
        ({}, {"severities": (1, 3)}, r"generated at severity 3, 5, not at 1;"),
        ({"images": 5}, {}, r"expected 5 images of each .*found 4 in one .*fozo corrupt"),
        ({"corruptions": ["fog", "snow"]}, {}, r"expected 4 images of each .*found none .*fozo corrupt"),
        ({"size": 200}, {}, r"200 pixels a side .*224"),
    ],
)
def test_generated_folders_that_do_not_fit(
    changes: dict[str, Any], options: dict[str, Any], message: str, tree: Path
) -> None:
    refused(message, "imagenet-c", vit_manifest(), marked(tree, **changes), **options)


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "{}", "7", "[" * 100_000]
    + [
        json.dumps({"corruptions": ["fog"], "severities": [5], "size": 224, "images": 4, **change})
        for change in (
            {"corruptions": ["rain"]},
            {"corruptions": 3},
            {"corruptions": [["fog"]]},
            {"corruptions": []},
            {"severities": ["5"]},
            {"severities": [6]},
            {"size": 224.5},
            {"images": -1},
            {"images": True},
        )
    ],
)
def test_a_damaged_record_is_refused(content: str, tree: Path) -> None:
    (tree / "generated.json").write_text(content)
    refused(r"record of generated images in .*generated\.json", "imagenet-c", vit_manifest(), tree)


# --- generated while streaming ---


def test_generating_at_several_severities(tmp_path: Path) -> None:
    put(tmp_path / WNIDS[1] / "a.png", draw_picture(3))
    options: dict[str, Any] = {"generate_from": tmp_path, "severities": (4, 2), "seed": 7}
    label, domains = open_named(
        vit_manifest(), "imagenet-c", data=None, corruptions=["contrast", "clean", "fog"], **options
    )
    assert label == GENERATED
    found = [(d.name, d.severity, d.generated) for d in domains]
    corrupted = [("contrast", 4, True), ("fog", 4, True), ("contrast", 2, True)]
    assert found == [*corrupted, ("clean", None, False), ("fog", 2, True)]
    original = domains[3].load(0)
    expected = corrupt(original, "fog", 2, image_id=f"{WNIDS[1]}/a.png", seed=7)
    np.testing.assert_array_equal(domains[4].load(0), expected)
    assert all(domain.expected is None for domain in domains)


def test_generating_everything(tmp_path: Path) -> None:
    put(tmp_path / WNIDS[1] / "a.png")
    label, domains = open_named(
        vit_manifest(), "imagenet-c", data=None, generate_from=tmp_path, severities=(1, 5)
    )
    names = [name for name in IMAGENET_C if name != "frost"]
    assert label == "generated corruptions without frost (not the official ImageNet-C)"
    assert [d.name for d in domains] == [*names, *names, "clean"]


# --- the validation set ---


def test_validation_images_by_class(tmp_path: Path) -> None:
    put(tmp_path / WNIDS[2] / "1.png", draw_picture(9, (300, 512)))
    (domain,) = opened("imagenet", vit_manifest(), tmp_path)
    assert (domain.name, domain.expected, domain.classes, domain.severity) == ("imagenet", 50_000, None, None)
    shorter = Image.fromarray(draw_picture(9, (300, 512))).resize((436, 256), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(domain.load(0), np.asarray(shorter)[16:240, 106:330])


@pytest.fixture
def flat(tmp_path: Path) -> Path:
    """Three validation images side by side; image i is filled with the number i."""
    for number in (1, 2, 3):
        image = np.full((20, 20, 3), number, np.uint8)
        put(tmp_path / "val" / f"ILSVRC2012_val_{number:08d}.png", image)
    return tmp_path / "val"


def labelled(tmp_path: Path, *lines: str) -> Path:
    path = tmp_path / "labels.txt"
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize(
    "lines",
    [
        # The class's number among the sorted WNIDs; the file's order does not matter.
        [
            "ILSVRC2012_val_00000003.JPEG 2",
            "ILSVRC2012_val_00000001.JPEG 999",
            "ILSVRC2012_val_00000002.JPEG 0",
        ],
        [
            "val/ILSVRC2012_val_00000001 999",
            "val/ILSVRC2012_val_00000002 0",
            "",
            "ILSVRC2012_val_00000003,002",
        ],
        [
            "ImageId,PredictionString",
            "ILSVRC2012_val_00000001,n00001999 85 1 499 272",
            "ILSVRC2012_val_00000002,n00001000 131 0 499 254 n00001000 1 2 3 4 ",
            "ILSVRC2012_val_00000003,n00001002 0 0 1 1",
            "ILSVRC2012_val_00000004,n00001003 0 0 1 1",
        ],
        [f"{mark}ILSVRC2012_val_{i:08d}.JPEG\tn0000{n}" for mark, i, n in TABS],
    ],
)
def test_labels_of_images_in_one_folder(lines: list[str], flat: Path, tmp_path: Path) -> None:
    """In the bundle WNIDs descend: n00001999, number 999, is its class 0."""
    (domain,) = opened("imagenet", thousand(), flat, labels=labelled(tmp_path, *lines))
    found = {name: int(label) for name, label in zip(domain.ids, domain.labels, strict=True)}
    assert found == {
        "n00001000/ILSVRC2012_val_00000002.png": 999,
        "n00001002/ILSVRC2012_val_00000003.png": 997,
        "n00001999/ILSVRC2012_val_00000001.png": 0,
    }
    assert list(domain.ids) == sorted(domain.ids)
    assert [int(domain.load(i)[0, 0, 0]) for i in range(3)] == [2, 3, 1]
    assert domain.expected == 50_000


def test_published_lines_of_both_forms_agree(tmp_path: Path) -> None:
    """Lines of val.txt and of LOC_val_solution.csv, on ImageNet's own classes: a sea snake, a power drill."""
    wnids = tuple(pytest.importorskip("timm.data").ImageNetInfo().label_names())
    numbers = ["ILSVRC2012_val_00000001.JPEG 65", "ILSVRC2012_val_00048981.JPEG 740"]
    named = ["ImageId,PredictionString", "ILSVRC2012_val_00048981,n03995372 85 1 499 272"]
    named += ["ILSVRC2012_val_00000001,n01751748 111 108 189 159"]
    for number in (1, 48981):
        put(tmp_path / "val" / f"ILSVRC2012_val_{number:08d}.JPEG")
    for lines in (numbers, named):
        labels = labelled(tmp_path, *lines)
        (domain,) = opened(
            "imagenet", vit_manifest(classes=1000, class_ids=wnids), tmp_path / "val", labels=labels
        )
        assert domain.ids == (
            "n01751748/ILSVRC2012_val_00000001.JPEG",
            "n03995372/ILSVRC2012_val_00048981.JPEG",
        )
        assert domain.labels.tolist() == [wnids.index("n01751748"), wnids.index("n03995372")] == [65, 740]


def test_both_layouts_have_the_same_ids(flat: Path, tmp_path: Path) -> None:
    lines = [f"ILSVRC2012_val_{number:08d} n{2000 - number:08d}" for number in (1, 2, 3)]
    (side_by_side,) = opened("imagenet", thousand(), flat, labels=labelled(tmp_path, *lines))
    for number in (1, 2, 3):
        target = tmp_path / "sorted" / f"n{2000 - number:08d}" / f"ILSVRC2012_val_{number:08d}.png"
        target.parent.mkdir(parents=True)
        target.write_bytes((flat / target.name).read_bytes())
    (by_class,) = opened("imagenet", thousand(), tmp_path / "sorted")
    assert by_class.ids == side_by_side.ids
    assert by_class.labels.tolist() == side_by_side.labels.tolist()
    for i in range(3):
        np.testing.assert_array_equal(by_class.load(i), side_by_side.load(i))


def test_labels_go_with_clean_images_and_generation_too(flat: Path, tree: Path, tmp_path: Path) -> None:
    lines = [f"ILSVRC2012_val_{number:08d} {WNIDS[number]}" for number in (1, 2, 3)]
    labels = labelled(tmp_path, *lines)
    bundle = vit_manifest(16, 16)
    *_, clean = opened("imagenet-c", bundle, tree, corruptions=["fog"], clean=flat, labels=labels)
    assert (clean.name, clean.labels.tolist()) == ("clean", [1, 2, 3])
    _, (fog,) = open_named(
        bundle, "imagenet-c", data=None, generate_from=flat, labels=labels, corruptions=["fog"]
    )
    assert fog.ids == clean.ids


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["490", "361", "171"], r"a number per line and nothing else.*ILSVRC2012's own.*val\.txt.*LOC_val"),
        (["ILSVRC2012_val_00000001 1000", "ILSVRC2012_val_00000002 1"], "from 0 to 999 .*found 1000"),
        (["ILSVRC2012_val_00000001 7"], r"2 of the 3 images .*no label .*00000002\.png, .*00000003\.png"),
        (["ILSVRC2012_val_00000001 7", "ILSVRC2012_val_00000001.JPEG 8"], "line 2 .*a second label, 8"),
        (["ILSVRC2012_val_00000001 7", "ILSVRC2012_val_00000002 n00001000"], "numbers or WNIDs .*found both"),
        (["ILSVRC2012_val_00000001"], "line 1 .*found 'ILSVRC2012_val_00000001'"),
        (["ILSVRC2012_val_00000001 sea snake"], "line 1 .*sea snake"),
        (["ILSVRC2012_val_00000001 -1"], "line 1 "),
        (["ILSVRC2012_val_00000001 1.5"], "line 1 "),
        (["ILSVRC2012_val_00000001 7", "image,label"], "line 2 "),
        ([""], "found no line"),
        ([f"ILSVRC2012_val_{n:08d} n99999999" for n in (1, 2, 3)], "no class of vit: n99999999"),
    ],
)
def test_labels_that_cannot_be_used(lines: list[str], message: str, flat: Path, tmp_path: Path) -> None:
    labels = labelled(tmp_path, *lines)
    assert str(labels) in refused(message, "imagenet", thousand(), flat, labels=labels)


def test_labels_that_cannot_be_read(flat: Path, tmp_path: Path) -> None:
    refused(r"cannot read the labels .*none\.txt", "imagenet", thousand(), flat, labels=tmp_path / "none.txt")
    (tmp_path / "x.txt").write_bytes(b"\xff\xfe\x00")
    refused(r"cannot read the labels .*x\.txt", "imagenet", thousand(), flat, labels=tmp_path / "x.txt")


def test_images_in_one_folder_need_labels_and_class_folders_none(flat: Path, tmp_path: Path) -> None:
    message = refused(r"found .*ILSVRC2012_val_00000001\.png and 2 more", "imagenet", thousand(), flat)
    assert "ILSVRC2012_img_val.tar" in message
    assert "--labels FILE" in message
    put(tmp_path / "sorted" / WNIDS[0] / "1.png")
    labels = labelled(tmp_path, "ILSVRC2012_val_00000001 7")
    refused(f"found the folder {WNIDS[0]}", "imagenet", thousand(), tmp_path / "sorted", labels=labels)
    (tmp_path / "empty").mkdir()
    refused("found no image", "imagenet", thousand(), tmp_path / "empty", labels=labels)


def test_numbers_need_the_thousand_classes(flat: Path, tmp_path: Path) -> None:
    labels = labelled(tmp_path, *(f"ILSVRC2012_val_{n:08d} {n}" for n in (1, 2, 3)))
    refused("1,000 WNIDs.*vit has 4 classes", "imagenet", vit_manifest(), flat, labels=labels)
    names = tuple(f"class {n}" for n in range(1000))
    refused("named like class 0", "imagenet", thousand(class_ids=names), flat, labels=labels)
    (domain,) = opened("imagenet", thousand(class_ids=None), flat, labels=labels)
    assert domain.labels.tolist() == [1, 2, 3]
    assert domain.ids[0] == "ILSVRC2012_val_00000001.png"
    assert int(domain.load(2)[0, 0, 0]) == 3


# --- ImageNet-R, -A, -Sketch ---


@pytest.mark.parametrize(
    ("name", "count", "masked"),
    [("imagenet-r", 30_000, True), ("imagenet-a", 7_500, True), ("imagenet-sketch", 50_889, False)],
)
def test_relatives_of_imagenet(name: str, count: int, masked: bool, tmp_path: Path) -> None:
    for wnid in ("n00001999", "n00001007", "n00001500"):
        put(tmp_path / wnid / "art_0.jpg")
    (tmp_path / "README.txt").write_text("x")
    (domain,) = opened(name, thousand(), tmp_path)
    assert (domain.name, domain.expected, len(domain)) == (name, count, 3)
    assert domain.labels.tolist() == [992, 499, 0]  # n00001007, n00001500, n00001999
    assert domain.classes == ((0, 499, 992) if masked else None)
    assert domain.take([1]).classes == domain.classes
    assert domain.load(0).shape == (16, 16, 3)


@pytest.mark.parametrize(("name", "numbers"), [("imagenet-r", IMAGENET_R), ("imagenet-a", IMAGENET_A)])
def test_classes_of_relatives_are_those_that_timm_has(name: str, numbers: tuple[int, ...]) -> None:
    lists = resources.files("timm.data").joinpath("_info")
    official = lists.joinpath(f"{name.replace('-', '_')}_synsets.txt").read_text().split()
    every = sorted(lists.joinpath("imagenet_synsets.txt").read_text().split())
    assert len(every) == 1000
    assert [every[number] for number in numbers] == official
    assert len(set(official)) == 200


def test_missing_class_folders_of_relatives_are_named(tmp_path: Path) -> None:
    wnids = [f"n{1000 + number:08d}" for number in IMAGENET_R]
    for wnid in [*wnids[:2], *wnids[5:]]:
        put(tmp_path / "r" / wnid / "1.png")
    (domain,) = opened("imagenet-r", thousand(), tmp_path / "r")
    assert domain.missing == tuple(wnids[2:5])
    said = f"197 class folders of imagenet-r, officially 200, without class folders {', '.join(wnids[2:5])};"
    assert domain.describe_deviations()[-1].startswith(said)
    narrow = vit_manifest(16, 16, classes=200, class_ids=tuple(reversed(wnids)))
    (domain,) = opened("imagenet-r", narrow, tmp_path / "r")
    assert domain.missing == tuple(wnids[2:5])
    other = vit_manifest(16, 16, classes=201, class_ids=(*wnids, "n00000999"))
    (domain,) = opened("imagenet-r", other, tmp_path / "r")
    assert domain.missing == (), "which of these classes the data set has is not known"
    (domain,) = opened("imagenet-sketch", thousand(), tmp_path / "r")
    assert len(domain.missing) == 803
    assert domain.missing[:2] == ("n00001000", "n00001003")


def test_missing_class_folders_of_other_official_data_are_named(tree: Path, tmp_path: Path) -> None:
    (fog,) = opened("imagenet-c", vit_manifest(), tree, corruptions=["fog"])
    assert fog.describe_deviations() == [
        f"4 images of fog, officially 50,000, without class folders {WNIDS[0]}, {WNIDS[2]}"
    ]
    put(tmp_path / "val" / WNIDS[1] / "1.png")
    (domain,) = opened("imagenet", vit_manifest(), tmp_path / "val")
    assert domain.missing == (WNIDS[0], WNIDS[2], WNIDS[3])
    more = vit_manifest(classes=1001, class_ids=(*WNIDS, *(f"x{number}" for number in range(997))))
    (domain,) = opened("imagenet", more, tmp_path / "val")
    assert domain.missing == (), "not all of its classes are ImageNet's"
    for number in (2, 10):
        put(tmp_path / "v2" / str(number) / "1.jpeg")
    (domain,) = opened("imagenet-v2", thousand(), tmp_path / "v2")
    assert domain.missing[:3] == ("0", "1", "3")
    assert len(domain.missing) == 998


def test_a_model_of_the_two_hundred_classes_needs_no_mask(tmp_path: Path) -> None:
    wnids = tuple(f"n{number:08d}" for number in range(200))
    for wnid in wnids:
        put(tmp_path / wnid / "1.png")
    (domain,) = opened("imagenet-r", vit_manifest(16, 16, classes=200, class_ids=wnids), tmp_path)
    assert domain.classes is None
    (masked,) = opened(
        "imagenet-r", vit_manifest(16, 16, classes=201, class_ids=(*wnids, "n00000999")), tmp_path
    )
    assert masked.classes == tuple(range(200))


def test_another_set_in_place_of_imagenet_r_is_noticed(tmp_path: Path) -> None:
    for number in range(201):
        (tmp_path / f"n{1000 + number:08d}").mkdir()
        (tmp_path / f"n{1000 + number:08d}" / "1.png").write_bytes(b"x")
    refused("the 200 classes of imagenet-r, found 201", "imagenet-r", thousand(), tmp_path)


@pytest.mark.parametrize(
    ("name", "archive"),
    [
        ("imagenet-r", "imagenet-r.tar"),
        ("imagenet-a", "imagenet-a.tar"),
        ("imagenet-sketch", "ImageNet-Sketch.zip"),
    ],
)
def test_the_archive_is_named_where_something_is_missing(name: str, archive: str, tmp_path: Path) -> None:
    assert archive in refused("found nothing", name, thousand(), tmp_path / "none")
    assert archive in refused("found no image", name, thousand(), tmp_path)
    put(tmp_path / "parent" / name / "n00001007" / "1.png")
    assert archive in refused("<class>/<image>", name, thousand(), tmp_path / "parent")
    put(tmp_path / "other" / "n99999999" / "1.png")
    assert archive in refused("no class of vit", name, thousand(), tmp_path / "other")


# --- ImageNet-V2 ---


def variant(folder: Path) -> Path:
    """Numbers as folders, of which `10` comes before `2` as a text."""
    for number in (0, 2, 10, 999):
        put(folder / str(number) / "x.jpeg", np.full((20, 20, 3), number % 256, np.uint8))
    return folder


def test_numbers_are_classes_in_the_order_of_wnids(tmp_path: Path) -> None:
    (domain,) = opened("imagenet-v2", thousand(), variant(tmp_path / VARIANTS[0]))
    assert (domain.name, domain.expected, domain.classes) == ("matched-frequency", 10_000, None)
    assert dict(zip(domain.ids, domain.labels.tolist(), strict=True)) == {
        "0/x.jpeg": 999,
        "2/x.jpeg": 997,
        "10/x.jpeg": 989,
        "999/x.jpeg": 0,
    }
    (unnamed,) = opened("imagenet-v2", thousand(class_ids=None), variant(tmp_path / "v2"))
    assert unnamed.name == "imagenet-v2"
    assert sorted(unnamed.labels.tolist()) == [0, 2, 10, 999]


def test_variants_side_by_side_are_domains(tmp_path: Path) -> None:
    for name in (VARIANTS[2], VARIANTS[0], VARIANTS[1]):
        variant(tmp_path / name)
    (tmp_path / "else").mkdir()
    domains = opened("imagenet-v2", thousand(), tmp_path)
    assert [d.name for d in domains] == ["matched-frequency", "threshold0.7", "top-images"]
    assert [len(d) for d in domains] == [4, 4, 4]


@pytest.mark.parametrize("name", ["1000", "007", "-1", "n01440764", "²"])
def test_folders_that_are_no_numbers_of_classes(name: str, tmp_path: Path) -> None:
    put(variant(tmp_path) / name / "1.png")
    assert "imagenetv2-matched-frequency.tar.gz" in refused(
        f"from 0 to 999, found {name}", "imagenet-v2", thousand(), tmp_path
    )


def test_nothing_of_v2(tmp_path: Path) -> None:
    message = refused("found no image", "imagenet-v2", thousand(), tmp_path)
    assert VARIANTS[0] in message
    refused("1,000 WNIDs.*vit has 4 classes", "imagenet-v2", vit_manifest(), variant(tmp_path))


# --- CIFAR ---


def cifar(folder: Path, per_severity: int = 4, classes: int = 10) -> Path:
    """Image i of a severity has all values 10 * severity + i; fog is 100 brighter than snow."""
    folder.mkdir()
    numbers = (10 * np.arange(1, 6)[:, None] + np.arange(per_severity)).reshape(-1, 1, 1, 1)
    images = np.broadcast_to(numbers, (5 * per_severity, 32, 32, 3)).astype(np.uint8)
    np.save(folder / "snow.npy", images)
    np.save(folder / "fog.npy", images + 100)
    np.save(folder / "labels.npy", np.tile(np.arange(per_severity) * 7 % classes, 5).astype(np.uint8))
    return folder


def of_cifar(classes: int = 10, **changes: Any) -> Manifest:
    return vit_manifest(48, 48, **{"classes": classes, "class_ids": None, **changes})


def test_blocks_of_an_array_are_severities(tmp_path: Path) -> None:
    domains = opened(
        "cifar10-c",
        of_cifar(class_ids=CIFAR10_CLASSES),
        cifar(tmp_path / "CIFAR-10-C"),
        severities=(5, 1),
        corruptions=["snow", "fog"],
    )
    assert [(d.name, d.severity) for d in domains] == [("snow", 5), ("fog", 5), ("snow", 1), ("fog", 1)]
    for domain in domains:
        assert domain.labels.tolist() == [0, 7, 4, 1]
        assert (domain.expected, domain.classes, domain.generated) == (10_000, None, False)
        assert domain.ids is domains[0].ids
    assert domains[0].ids == ("00000", "00001", "00002", "00003")
    assert np.unique(domains[0].load(2)).tolist() == [52]
    assert np.unique(domains[3].load(3)).tolist() == [113]
    assert domains[0].load(0).shape == (48, 48, 3)


def test_cifar_images_are_prepared_as_the_bundle_says(tmp_path: Path) -> None:
    folder = cifar(tmp_path / "c")
    images = np.random.default_rng(0).integers(0, 256, (20, 32, 32, 3), dtype=np.uint8)
    np.save(folder / "snow.npy", images)
    (snow,) = opened("cifar10-c", of_cifar(), folder, severities=(2,), corruptions=["snow"])
    expected = Image.fromarray(images[6]).resize((48, 48), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(snow.load(2), np.asarray(expected))


def test_cifars_order_of_classes() -> None:
    order = "airplane automobile bird cat deer dog frog horse ship truck"
    assert list(CIFAR10_CLASSES) == order.split()


@pytest.mark.parametrize(
    ("dataset", "bundle", "fits"),
    [
        ("cifar10-c", {"class_ids": CIFAR10_CLASSES}, True),
        ("cifar10-c", {"class_ids": CIFAR10_CLASSES[::-1]}, False),
        ("cifar10-c", {"classes": 100}, False),
        ("cifar10-c", {"classes": 1000}, False),
        ("cifar100-c", {"classes": 100}, True),
        ("cifar100-c", {"classes": 100, "class_ids": tuple(f"{n:02d}" for n in range(100))}, True),
        ("cifar100-c", {"classes": 100, "class_ids": tuple(f"{99 - n:02d}" for n in range(100))}, False),
        ("cifar100-c", {"classes": 10}, False),
    ],
)
def test_the_models_classes_must_be_cifars(
    dataset: str, bundle: dict[str, Any], fits: bool, tmp_path: Path
) -> None:
    data = cifar(tmp_path / "c")
    if fits:
        (domain,) = opened(dataset, of_cifar(**bundle), data, corruptions=["fog"])
        assert len(domain) == 4
    else:
        refused("needs a model of its 10+ classes", dataset, of_cifar(**bundle), data, corruptions=["fog"])


def test_missing_files_of_cifar_are_named(tmp_path: Path) -> None:
    data = cifar(tmp_path / "c")
    message = refused("missing: ", "cifar10-c", of_cifar(), data)
    assert "missing: gaussian_noise.npy, shot_noise.npy" in message
    assert "CIFAR-10-C.tar" in message
    assert "fog.npy" not in message
    (data / "labels.npy").unlink()
    refused(r"missing: labels\.npy\.", "cifar10-c", of_cifar(), data, corruptions=["fog"])
    refused(
        r"missing: fog\.npy, labels\.npy\.", "cifar10-c", of_cifar(), tmp_path / "no", corruptions=["fog"]
    )
    refused("CIFAR-10-C has no corruption rain", "cifar10-c", of_cifar(), data, corruptions=["rain"])


def pickled(path: Path) -> None:
    np.save(path, np.array([{"x": 1}], dtype=object), allow_pickle=True)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("fog.npy", np.zeros((20, 32, 32), np.uint8), r"shape \[20, 32, 32, 3\].*fog\.npy"),
        (
            "fog.npy",
            np.zeros((15, 32, 32, 3), np.uint8),
            r"shape \[20, 32, 32, 3\].*found uint8 of shape \[15,",
        ),
        ("fog.npy", np.zeros((20, 32, 32, 3), np.float32), r"found float32"),
        ("fog.npy", b"", r"NumPy array in .*fog\.npy"),
        ("fog.npy", b"\x93NUMPY\x01\x00", r"NumPy array in .*fog\.npy"),
        ("fog.npy", "half", r"NumPy array in .*fog\.npy"),
        ("fog.npy", "pickled", r"NumPy array in .*fog\.npy"),
        ("labels.npy", np.full(20, 10), r"from 0 to 9 .*labels\.npy.*to 10"),
        ("labels.npy", np.full(20, -1), r"from -1"),
        ("labels.npy", np.zeros(20), r"found float64"),
        ("labels.npy", np.zeros(19, np.int64), r"a multiple of 5 .*\[19\]"),
        ("labels.npy", np.zeros(0, np.int64), r"shape \[0\]"),
        ("labels.npy", np.zeros((4, 5), np.int64), r"shape \[4, 5\]"),
    ],
)
def test_arrays_of_cifar_that_cannot_be_used(file: str, content: Any, message: str, tmp_path: Path) -> None:
    path = cifar(tmp_path / "c") / file
    if isinstance(content, np.ndarray):
        np.save(path, content)
    elif content == "pickled":
        pickled(path)
    else:
        path.write_bytes(path.read_bytes()[:2000] if content == "half" else content)
    refused(message, "cifar10-c", of_cifar(), path.parent, corruptions=["fog"])


# --- what goes with what ---


def test_the_demonstration_at_several_severities() -> None:
    pytest.importorskip("sklearn")
    digits = vit_manifest(32, 32, classes=10, class_ids=tuple("0123456789"))
    label, domains = open_named(digits, "demo", data=None, severities=(1, 3))
    assert label == "demo (generated corruptions)"
    names = list(DEMO_CORRUPTIONS[:-1])
    assert [d.name for d in domains] == [*names, *names, "clean"]
    assert [d.severity for d in domains] == [1] * len(names) + [3] * len(names) + [None]


def test_a_folder_of_ones_own(tmp_path: Path) -> None:
    put(tmp_path / "mine" / WNIDS[3] / "1.png")
    (domain,) = opened("imagefolder", vit_manifest(), tmp_path / "mine")
    assert (domain.name, domain.labels.tolist(), domain.expected) == ("imagefolder", [3], None)


@pytest.mark.parametrize(
    ("dataset", "options", "message"),
    [
        ("imagenet-b", {}, "expected a data set out of imagenet-c, .*found 'imagenet-b'"),
        ("imagenet-c", {}, "imagenet-c needs --data"),
        ("cifar10-c", {}, "cifar10-c needs --data"),
        ("demo", {"data": Path()}, "--data would do nothing with --dataset demo"),
        ("demo", {"generate_from": Path()}, "--generate-from would do nothing"),
        ("imagefolder", {"corruptions": ["fog"]}, "--corruptions would do nothing"),
        ("imagenet-r", {"labels": Path(), "clean": Path()}, "--clean, --labels would do nothing"),
        ("imagenet", {"clean": Path()}, "--clean would do nothing"),
        (
            "imagenet-c",
            {"data": Path(), "generate_from": Path()},
            "--generate-from stands in place of --data",
        ),
        ("imagenet-c", {"clean": Path(), "generate_from": Path()}, "in place of --clean"),
        (
            "imagenet-c",
            {"data": Path(), "frost_textures": Path()},
            "--frost-textures goes with --generate-from",
        ),
        ("imagenet-c", {"data": Path(), "labels": Path()}, "--labels goes with --clean"),
    ],
)
def test_options_that_do_not_go_together(dataset: str, options: dict[str, Any], message: str) -> None:
    refused(message, dataset, vit_manifest(), **{"data": None, **options})


def test_every_data_set_can_be_opened() -> None:
    """Without its data each is asked for it, and none is unknown."""
    for dataset in set(DATASETS) - {"demo"}:
        refused(f"{dataset} needs --data", dataset, vit_manifest())
    assert all(callable(load_opener(dataset)) for dataset in DATASETS.values())
