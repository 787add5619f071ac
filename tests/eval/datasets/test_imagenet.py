"""ImageNet's validation images and the sets that test its classes, in miniature."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from dataset_doubles import (
    TABS,
    VARIANTS,
    labelled,
    open_named,
    opened,
    put,
    refused,
    thousand,
    variant,
)
from doubles import WNIDS, draw_picture, vit_manifest
from fozo.eval.datasets.imagenet_subsets import IMAGENET_A, IMAGENET_R
from PIL import Image

# --- the validation set ---


def test_validation_images_by_class(tmp_path: Path) -> None:
    put(tmp_path / WNIDS[2] / "1.png", draw_picture(9, (300, 512)))
    (domain,) = opened("imagenet", vit_manifest(), tmp_path)
    assert (domain.name, domain.official_images, domain.classes, domain.severity) == (
        "imagenet",
        50_000,
        None,
        None,
    )
    shorter = Image.fromarray(draw_picture(9, (300, 512))).resize((436, 256), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(domain.load(0), np.asarray(shorter)[16:240, 106:330])


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
    assert domain.official_images == 50_000


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
    assert (domain.name, domain.official_images, len(domain)) == (name, count, 3)
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
    assert domain.missing_folders == tuple(wnids[2:5])
    said = f"197 class folders of imagenet-r, officially 200, without class folders {', '.join(wnids[2:5])};"
    assert domain.describe_deviations()[-1].startswith(said)
    narrow = vit_manifest(16, 16, classes=200, class_ids=tuple(reversed(wnids)))
    (domain,) = opened("imagenet-r", narrow, tmp_path / "r")
    assert domain.missing_folders == tuple(wnids[2:5])
    other = vit_manifest(16, 16, classes=201, class_ids=(*wnids, "n00000999"))
    (domain,) = opened("imagenet-r", other, tmp_path / "r")
    assert domain.missing_folders == (), "which of these classes the data set has is not known"
    (domain,) = opened("imagenet-sketch", thousand(), tmp_path / "r")
    assert len(domain.missing_folders) == 803
    assert domain.missing_folders[:2] == ("n00001000", "n00001003")


def test_missing_class_folders_of_other_official_data_are_named(tree: Path, tmp_path: Path) -> None:
    (fog,) = opened("imagenet-c", vit_manifest(), tree, corruptions=["fog"])
    assert fog.describe_deviations() == [
        f"4 images of fog, officially 50,000, without class folders {WNIDS[0]}, {WNIDS[2]}"
    ]
    put(tmp_path / "val" / WNIDS[1] / "1.png")
    (domain,) = opened("imagenet", vit_manifest(), tmp_path / "val")
    assert domain.missing_folders == (WNIDS[0], WNIDS[2], WNIDS[3])
    more = vit_manifest(classes=1001, class_ids=(*WNIDS, *(f"x{number}" for number in range(997))))
    (domain,) = opened("imagenet", more, tmp_path / "val")
    assert domain.missing_folders == (), "not all of its classes are ImageNet's"
    for number in (2, 10):
        put(tmp_path / "v2" / str(number) / "1.jpeg")
    (domain,) = opened("imagenet-v2", thousand(), tmp_path / "v2")
    assert domain.missing_folders[:3] == ("0", "1", "3")
    assert len(domain.missing_folders) == 998


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


def test_numbers_are_classes_in_the_order_of_wnids(tmp_path: Path) -> None:
    (domain,) = opened("imagenet-v2", thousand(), variant(tmp_path / VARIANTS[0]))
    assert (domain.name, domain.official_images, domain.classes) == ("matched-frequency", 10_000, None)
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
        f"from 0 to 999, or named by WNID, found {name}", "imagenet-v2", thousand(), tmp_path
    )


def test_nothing_of_v2(tmp_path: Path) -> None:
    message = refused("found no image", "imagenet-v2", thousand(), tmp_path)
    assert VARIANTS[0] in message
    refused("1,000 WNIDs.*vit has 4 classes", "imagenet-v2", vit_manifest(), variant(tmp_path))
