"""Clean images: a seeded choice from a folder, their labels where folders are classes, and parts of them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from fozo.data.demo import demo_images
from fozo.data.source import SourceImages, choose_images, demo_source, folder_source
from fozo.engine.bundle.preprocessing import Preprocessing
from fozo.engine.errors import InputError
from PIL import Image

HOW = Preprocessing((8, 8), 8, "bilinear")


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four classes with ten images each; image i of class c is of the colour (c, i, 0)."""
    root = tmp_path_factory.mktemp("source")
    for c, name in enumerate("dbca"):
        (root / name).mkdir()
        for i in range(10):
            Image.new("RGB", (8, 8), (c, i, 0)).save(root / name / f"{i}.png")
    return root


@pytest.mark.parametrize(
    ("class_ids", "known"),
    [
        (("a", "b", "c", "d"), True),
        (("x", "d", "c", "b", "y", "a"), True),
        (("a", "b", "c"), False),
        ((), False),
        (None, False),
    ],
)
def test_labels_are_folders_named_after_classes(
    class_ids: Sequence[str] | None, known: bool, tree: Path
) -> None:
    images = folder_source(tree, HOW, 36, 0, class_ids)
    assert images.count == 36
    assert images.origin == f"36 of the 40 images in {tree.name}, seed 0"
    assert (images.labels is not None) is known
    if class_ids and images.labels is not None:
        assert images.labels.dtype == np.int64
        for index in range(images.count):
            colour = images.load(index)[0, 0]
            assert class_ids[images.labels[index]] == "dbca"[colour[0]]


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("clean\timages", "clean\\timages"),
        ("clean\nimages", "clean\\nimages"),
        ("clean\u202eimages", "clean\\u202eimages"),
        (os.fsdecode(b"caf\xe9"), "caf\\udce9"),
    ],
)
def test_the_origin_is_plain_text(name: str, shown: str, tree: Path, tmp_path: Path) -> None:
    """A record with control characters could not be read again, one with other bytes not be written."""
    try:
        shutil.copytree(tree, tmp_path / name)
    except OSError as error:
        pytest.skip(f"this file system has no such names: {error}")
    assert choose_images(tmp_path / name, 40, 0)[1] == f"40 of the 40 images in {shown}, seed 0"


def test_images_without_class_folders_have_no_labels(tree: Path, tmp_path: Path) -> None:
    for path in tree.rglob("*.png"):
        path_of = tmp_path / f"{path.parent.name}{path.name}"
        path_of.write_bytes(path.read_bytes())
    assert folder_source(tmp_path, HOW, 40, 0, "abcd").labels is None


def test_the_choice_is_seeded(tree: Path) -> None:
    first, again, other = (choose_images(tree, 32, seed)[0] for seed in (0, 0, 1))
    assert first == again != other
    assert len(set(first)) == 32
    with pytest.raises(InputError, match="at least 32 images"):
        choose_images(tree, 31, 0)


@pytest.mark.parametrize("order", [list, np.asarray])
def test_a_part_has_the_images_and_labels_chosen(order: Callable[[list[int]], list[int]]) -> None:
    whole = SourceImages(5, lambda i: np.full((2, 2, 3), 10 * i, np.uint8), "somewhere", np.arange(5) + 100)
    part = whole.select(order([4, 0, 2]))
    assert (part.count, part.origin) == (3, "somewhere")
    assert [int(part.load(i)[0, 0, 0]) for i in range(3)] == [40, 0, 20]
    assert part.labels is not None
    assert part.labels.tolist() == [104, 100, 102]
    smaller = part.select(order([2]))
    assert int(smaller.load(0)[0, 0, 0]) == 20
    assert smaller.labels is not None and smaller.labels.tolist() == [102]
    assert SourceImages(5, whole.load, "somewhere").select([1]).labels is None
    with pytest.raises(IndexError):
        part.load(3)
    assert whole.select([]).count == 0


def test_the_demonstrations_images_have_labels() -> None:
    images, labels = demo_images("train")
    source = demo_source()
    assert source.count == len(images) == 1000
    np.testing.assert_array_equal(source.labels, labels)
    np.testing.assert_array_equal(source.load(17), images[17])
