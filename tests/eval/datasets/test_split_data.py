"""Data sets that are divided for training and testing, in every published layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from dataset_doubles import put
from fozo.engine.errors import InputError
from fozo.eval.datasets.class_wording import word_class
from fozo.eval.datasets.open_split import open_split_data
from fozo.eval.datasets.published_sets import CROSS_DATASET, PUBLISHED_SETS, find_published_set
from fozo.eval.datasets.split_data import LabelledImage
from split_doubles import ITEMS, make_aircraft, make_folders, make_pets, put_images, write_split


def refuse(folder: Path, message: str, **options: Any) -> str:
    with pytest.raises(InputError, match=message) as caught:
        open_split_data(folder, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_split_file_of_coop(tmp_path: Path) -> None:
    folder = make_pets(tmp_path / "pets")
    data = open_split_data(folder)
    assert (data.name, data.published, data.origin) == ("oxford_pets",) * 2 + ("split_zhou_OxfordPets.json",)
    assert data.folder == folder / "images"
    assert data.class_ids == ("Abyssinian", "forest", "sea_lake")
    assert data.class_names == ("Abyssinian", "forest", "sea lake")
    assert [(image.path, image.label) for image in data.train] == [
        ("b/1.png", 2),
        ("a/1.png", 0),
        ("c/1.png", 1),
    ]
    assert (len(data.validation), len(data.test)) == (1, 3)
    data.check_files([*data.train, *data.validation, *data.test])
    assert open_split_data(folder, Path("split_zhou_OxfordPets.json")) == data
    assert open_split_data(folder, folder / "split_zhou_OxfordPets.json", "oxford_pets") == data


@pytest.mark.parametrize("images", ["", "pictures"])
def test_a_split_file_of_ones_own(tmp_path: Path, images: str) -> None:
    write_split(tmp_path, name="split_mine.json")
    put_images(tmp_path / images)
    data = open_split_data(tmp_path)
    assert (data.name, data.published, data.folder) == (tmp_path.name, None, tmp_path / images)


def test_images_of_a_split_file_in_two_folders(tmp_path: Path) -> None:
    write_split(tmp_path, name="split_mine.json")
    refuse(tmp_path, r"its folders lack b/1\.png")
    put_images(tmp_path / "large")
    put_images(tmp_path / "small")
    refuse(tmp_path, r"both .*large and .*small have b/1\.png; name the folder")


def test_images_of_a_published_split_file_elsewhere(tmp_path: Path) -> None:
    make_pets(tmp_path, images="pictures")
    refuse(tmp_path, r"expected the images of split_zhou_OxfordPets\.json in .*images")


def test_svhn_takes_its_test_images_from_a_folder(tmp_path: Path) -> None:
    content = {"train": [["1/a.png", 0, "1"], ["2/a.png", 1, "2"]], "val": [["2/b.png", 1, "2"]]}
    write_split(tmp_path, content, "split_SVHN.json")
    put_images(tmp_path / "train", content)
    put_images(tmp_path / "test", {"test": [["2/a.png"], ["1/a.png"], ["1/b.png"]]})
    data = open_split_data(tmp_path)
    assert data.folder == tmp_path
    assert [image.path for image in data.train] == ["train/1/a.png", "train/2/a.png"]
    assert data.validation == (LabelledImage("train/2/b.png", 1),)
    assert [(i.path, i.label) for i in data.test] == [
        ("test/1/a.png", 0),
        ("test/1/b.png", 0),
        ("test/2/a.png", 1),
    ]
    data.check_files([*data.train, *data.test])
    put(tmp_path / "test" / "3" / "a.png")
    refuse(tmp_path, r"that split_SVHN\.json does not name: 3")


def test_aircraft_in_text_files(tmp_path: Path) -> None:
    data = open_split_data(make_aircraft(tmp_path / "air"))
    assert data.class_names == ("707-320", "F/A-18")
    assert [(image.path, image.label) for image in data.train] == [("0034309.jpg", 1), ("0034958.jpg", 0)]
    assert (len(data.validation), len(data.test), data.published) == (1, 2, "fgvc_aircraft")
    data.check_files([*data.train, *data.validation, *data.test])
    (tmp_path / "air" / "images_variant_test.txt").write_text("2 F-16\n")
    refuse(tmp_path / "air", r"images_variant_test\.txt, line 1: .*out of variants\.txt, found '2 F-16'")
    (tmp_path / "air" / "images_variant_test.txt").unlink()
    refuse(tmp_path / "air", "cannot read the list of aircraft")


@pytest.mark.parametrize("below", ["", "images"])
def test_imagenet_in_folders(tmp_path: Path, below: str) -> None:
    make_folders(tmp_path / below / "train", ("n02", "n01"), 3)
    make_folders(tmp_path / below / "val", ("n01", "n02"), 2)
    data = open_split_data(tmp_path)
    assert data.class_ids == ("n01", "n02")
    assert [image.label for image in data.train] == [0, 0, 0, 1, 1, 1]
    assert (data.train[0].path, data.test[0].path, len(data.test)) == ("train/n01/0.png", "val/n01/0.png", 4)
    data.check_files([*data.train, *data.test])


def test_class_folders_alone_are_training_images(tmp_path: Path) -> None:
    data = open_split_data(make_folders(tmp_path, ("tabby_cat", "dog")))
    assert (data.class_ids, data.class_names) == (("dog", "tabby_cat"), ("dog", "tabby cat"))
    assert (len(data.train), data.test, data.train[3].path) == (6, (), "tabby_cat/0.png")


def test_test_classes_without_training_images(tmp_path: Path) -> None:
    make_folders(tmp_path / "train")
    make_folders(tmp_path / "test", ("cat", "emu"))
    refuse(tmp_path, "classes without training images in .*: emu")


def test_names_of_folders_by_published_rules(tmp_path: Path) -> None:
    folders = ("BACKGROUND_Google", "Faces", "Faces_easy", "airplanes", "ant")
    data = open_split_data(make_folders(tmp_path / "caltech", folders), dataset="caltech101")
    assert data.class_names == ("face", "airplane", "ant")
    assert (data.class_ids, len(data.train)) == (("Faces", "airplanes", "ant"), 9)
    plain = open_split_data(tmp_path / "caltech")
    assert plain.class_names == ("BACKGROUND Google", "Faces", "Faces easy", "airplanes", "ant")
    assert word_class("HerbaceousVegetation", "eurosat") == "Herbaceous Vegetation Land"
    assert word_class("YoYo", "ucf101") == "Yo Yo"
    assert word_class("Handstand_Pushups", "ucf101") == "Handstand Pushups"


def test_a_name_that_contradicts_the_files(tmp_path: Path) -> None:
    refuse(make_pets(tmp_path), "is oxford_pets by its files, and was named food101", dataset="food101")
    refuse(tmp_path, "expected a data set out of caltech101", dataset="pets")


def test_several_split_files(tmp_path: Path) -> None:
    make_pets(tmp_path)
    write_split(tmp_path, name="split_mine.json")
    refuse(tmp_path, "found split_mine.json, split_zhou_OxfordPets.json; say which one with --split")
    assert open_split_data(tmp_path, Path("split_mine.json")).published is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "expected a split file"),
        ({"test": []}, "expected a split file"),
        ({"train": []}, "with training images"),
        ({"train": [["a.png", 0]]}, r"train\[0\]: expected \[path, label, class name\]"),
        ({"train": [["a.png", -1, "a"]]}, "a label from 0 up"),
        ({"train": [["a.png", True, "a"]]}, "a label from 0 up"),
        ({"train": [["../a.png", 0, "a"]]}, "expected a path below the folder"),
        ({"train": [["/a.png", 0, "a"]]}, "expected a path below the folder"),
        ({"train": [["a.png", 0, " "]]}, "and a class name"),
        ({"train": [["a.png", 0, "a"], ["b.png", 0, "b"]]}, "found 'a' and 'b' for label 0"),
        ({"train": [["a.png", 0, "a"], ["b.png", 2, "b"]]}, "found no image of label 1"),
        ({"train": [["a.png", 0, "a"], ["b.png", 10**15, "b"]]}, "found no image of label 1"),
        (
            {"train": [["a.png", 0, "a"]], "test": [["b.png", 1, "b"]]},
            "1 class of .* without a training image: b",
        ),
    ],
)
def test_split_files_that_contradict_themselves(tmp_path: Path, content: Any, message: str) -> None:
    write_split(tmp_path, content, "split_mine.json")
    put(tmp_path / "a.png")
    refuse(tmp_path, message)


def test_a_split_file_that_is_no_json(tmp_path: Path) -> None:
    (tmp_path / "split_mine.json").write_text("{")
    refuse(tmp_path, "cannot read the split file")
    refuse(tmp_path, "cannot read the split file", split=Path("missing.json"))


@pytest.mark.parametrize("path", ["x" * 5000, "a\0b", "\ud800"])
def test_paths_that_no_system_takes(path: str, tmp_path: Path) -> None:
    write_split(tmp_path, {"train": [[path, 0, "a"]]}, "split_mine.json")
    refuse(tmp_path, "its folders lack")


def test_images_that_are_not_there(tmp_path: Path) -> None:
    data = open_split_data(make_pets(tmp_path))
    (tmp_path / "images" / "c" / "2.png").unlink()
    data.check_files(data.train)
    with pytest.raises(
        InputError, match=r"1 image of oxford_pets not in .*, although .*json names it: c/2\.png"
    ):
        data.check_files(data.test)
    refuse(tmp_path / "nowhere", "expected a folder of images, found nothing")


def test_equal_names_of_several_classes_are_numbered(tmp_path: Path) -> None:
    content = {"train": [["a.png", 0, "missile"], ["b.png", 1, "missile"]], "test": []}
    write_split(tmp_path, content, "split_mine.json")
    put_images(tmp_path, content)
    data = open_split_data(tmp_path)
    assert (data.class_ids, data.class_names) == (("0", "1"), ("missile", "missile"))


def test_published_facts() -> None:
    assert len(PUBLISHED_SETS) == 13
    assert len(CROSS_DATASET) == 10 and set(CROSS_DATASET) < set(PUBLISHED_SETS)
    assert all(facts.template.count("{}") == 1 for facts in PUBLISHED_SETS.values())
    assert sum(PUBLISHED_SETS[name].classes for name in CROSS_DATASET) == 1191
    assert find_published_set("split_zhou_EuroSAT.json") == "eurosat"
    assert find_published_set("split_mine.json") is None


def test_labels_may_be_written_as_texts(tmp_path: Path) -> None:
    content = {part: [[path, str(label), name] for path, label, name in rows] for part, rows in ITEMS.items()}
    assert (
        open_split_data(make_pets(tmp_path / "a", content)).train
        == open_split_data(make_pets(tmp_path / "b")).train
    )
