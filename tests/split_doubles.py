"""Few-shot data sets in miniature, in their published layouts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dataset_doubles import put

ITEMS = {  # labels in an order of their own; class 2 comes first
    "train": [["b/1.png", 2, "sea_lake"], ["a/1.png", 0, "Abyssinian"], ["c/1.png", 1, "forest"]],
    "val": [["a/2.png", 0, "Abyssinian"]],
    "test": [["c/2.png", 1, "forest"], ["a/3.png", 0, "Abyssinian"], ["b/2.png", 2, "sea_lake"]],
}


def write_split(folder: Path, content: Any = ITEMS, name: str = "split_zhou_OxfordPets.json") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(content))
    return folder / name


def put_images(folder: Path, content: Any = ITEMS) -> None:
    for part in content.values():
        for path, *_ in part:
            put(folder / path)


def make_pets(folder: Path, content: Any = ITEMS, images: str = "images") -> Path:
    """Write a data set with a split file and all of its images; return its folder."""
    write_split(folder, content)
    put_images(folder / images, content)
    return folder


def make_aircraft(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "variants.txt").write_text("707-320\nF/A-18\n")
    lists = {
        "train": "0034309 F/A-18\n0034958 707-320\n",
        "val": "1 707-320\n",
        "test": "2 F/A-18\n3 707-320\n",
    }
    for part, text in lists.items():
        (folder / f"images_variant_{part}.txt").write_text(text)
    for name in ("0034309", "0034958", "1", "2", "3"):
        put(folder / "images" / f"{name}.jpg")
    return folder


def make_folders(folder: Path, classes: tuple[str, ...] = ("cat", "dog"), count: int = 3) -> Path:
    """Write class folders with `count` images each; return their folder."""
    for name in classes:
        for number in range(count):
            put(folder / name / f"{number}.png")
    return folder
