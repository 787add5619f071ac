"""Test images of divided data as a data set for `fozo adapt`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dataset_doubles import open_named, put, refused
from doubles import vit_manifest
from fozo.engine.bundle.manifest import Manifest
from fozo.eval.datasets.domain import describe_deviations
from split_doubles import ITEMS, make_aircraft, make_folders, make_pets, write_split


def name_bundle(*ids: str, names: tuple[str, ...] | None = None, **changes: Any) -> Manifest:
    return vit_manifest(16, 16, classes=len(ids), class_ids=ids, class_names=names or ids, **changes)


def open_pets(folder: Path, bundle: Manifest) -> Any:
    label, (domain,) = open_named(bundle, "split", data=folder)
    assert label == domain.name == "oxford_pets"
    return domain


def test_test_images_by_identifier(tmp_path: Path) -> None:
    bundle = name_bundle("forest", "other", "sea_lake", "Abyssinian")
    domain = open_pets(make_pets(tmp_path), bundle)
    assert domain.ids == ("c/2.png", "a/3.png", "b/2.png")
    assert domain.labels.tolist() == [0, 3, 2]
    assert domain.classes == (0, 2, 3)
    assert domain.load(1).shape == (16, 16, 3)
    # Three classes are not the published 37.
    assert domain.official_images is None and describe_deviations([domain]) == []


def test_test_images_by_name(tmp_path: Path) -> None:
    bundle = name_bundle("1", "2", "3", names=("sea lake", "Abyssinian", "forest"))
    domain = open_pets(make_pets(tmp_path), bundle)
    assert (domain.labels.tolist(), domain.classes) == ([2, 1, 0], None)


def test_classes_that_are_none_of_the_bundle(tmp_path: Path) -> None:
    make_pets(tmp_path)
    refused(
        r"2 of the 3 classes of oxford_pets are no class of vit, or several: Abyssinian, sea lake; its "
        r"classes are named like forest, pug\. Choose a head",
        "split",
        name_bundle("forest", "pug"),
        tmp_path,
    )
    several = name_bundle("1", "2", "3", "4", names=("forest", "forest", "Abyssinian", "sea lake"))
    refused("or several: forest;", "split", several, tmp_path)


def test_numbers_of_published_test_images(tmp_path: Path) -> None:
    rows = [[f"{label}.png", label, f"class {label}"] for label in range(10)]
    write_split(tmp_path, {"train": rows, "test": rows}, "split_zhou_EuroSAT.json")
    for path, *_ in rows:
        put(tmp_path / "2750" / path)
    _, (domain,) = open_named(name_bundle(*(f"class {n}" for n in range(10))), "split", data=tmp_path)
    assert domain.official_images == 8_100
    assert describe_deviations([domain]) == ["10 images of eurosat, officially 8,100"]


def test_other_layouts(tmp_path: Path) -> None:
    air = name_bundle("F/A-18", "707-320")
    _, (domain,) = open_named(air, "split", data=make_aircraft(tmp_path / "air"))
    assert (domain.name, domain.labels.tolist()) == ("fgvc_aircraft", [0, 1])
    make_folders(tmp_path / "mine" / "train")
    make_folders(tmp_path / "mine" / "test", count=2)
    _, (domain,) = open_named(name_bundle("dog", "cat"), "split", data=tmp_path / "mine")
    assert domain.labels.tolist() == [1, 1, 0, 0]
    refused(
        "has no test images: .*class folders alone are read with --dataset imagefolder",
        "split",
        name_bundle("dog", "cat"),
        tmp_path / "mine" / "train",
    )


def test_missing_test_images(tmp_path: Path) -> None:
    make_pets(tmp_path)
    (tmp_path / "images" / "a" / "3.png").unlink()
    bundle = name_bundle("forest", "sea_lake", "Abyssinian")
    refused(r"1 image of oxford_pets not in .*: a/3\.png", "split", bundle, tmp_path)


def test_a_split_file_by_name(tmp_path: Path) -> None:
    make_pets(tmp_path)
    write_split(tmp_path, ITEMS, "split_mine.json")
    bundle = name_bundle("forest", "sea_lake", "Abyssinian")
    refused("say which one with --split", "split", bundle, tmp_path)
    label, _ = open_named(bundle, "split", data=tmp_path, split=Path("split_mine.json"))
    assert label == tmp_path.name
    refused("--split would have no effect", "imagefolder", bundle, tmp_path, split=Path("split_mine.json"))
