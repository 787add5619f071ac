"""CIFAR-10-C and CIFAR-100-C in miniature."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dataset_doubles import (
    cifar,
    of_cifar,
    opened,
    refused,
)
from fozo.eval.datasets.cifar import CIFAR10_CLASSES
from PIL import Image


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
        assert (domain.official_images, domain.classes, domain.generated) == (10_000, None, False)
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
        ("fog.npy", b"\x93NUMPY\x01\x00v\x00{'shape': (4, (" + b" " * 200, r"NumPy array in .*fog\.npy"),
        ("fog.npy", "half", r"NumPy array in .*fog\.npy"),
        ("fog.npy", "pickled", r"NumPy array in .*fog\.npy"),
        ("labels.npy", np.full(20, 10), r"from 0 to 9 .*labels\.npy.*to 10"),
        ("labels.npy", np.full(20, -1), r"from -1"),
        ("labels.npy", np.zeros(20), r"found float64"),
        ("labels.npy", np.arange(19) % 10, r"\[95, 32, 32, 3\], or \[19, 32, 32, 3\] for one severity"),
        ("labels.npy", np.zeros(20, np.int64), "found 20 labels that fit both"),
        ("labels.npy", np.arange(20) % 2, "found 20 labels that fit both"),
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


# --- an array is of one severity or of five: the labels decide ---


def test_an_array_of_one_severity_is_not_cut_into_five(tmp_path: Path) -> None:
    """Read as five severities, the last two of these ten images would be severity 5."""
    folder = cifar(tmp_path / "c")
    images = np.broadcast_to(np.arange(10).reshape(-1, 1, 1, 1), (10, 32, 32, 3)).astype(np.uint8)
    np.save(folder / "fog.npy", images)
    np.save(folder / "labels.npy", np.array([3, 1, 4, 1, 5, 9, 2, 6, 5, 3]))
    (fog,) = opened("cifar10-c", of_cifar(), folder, severities=(3,), corruptions=["fog"])
    assert fog.labels.tolist() == [3, 1, 4, 1, 5, 9, 2, 6, 5, 3]
    assert [int(fog.load(index).max()) for index in range(10)] == list(range(10))
    assert fog.notes == ("arrays of one severity were taken as severity 3, as --severities says",)
    refused(
        "10 images, as many as one severity",
        "cifar10-c",
        of_cifar(),
        folder,
        severities=(3, 5),
        corruptions=["fog"],
    )


@pytest.mark.parametrize("repeats", [1, 5])
def test_labels_may_be_given_once_or_for_each_severity(repeats: int, tmp_path: Path) -> None:
    folder = cifar(tmp_path / "c")
    np.save(folder / "labels.npy", np.tile([0, 7, 4, 1], repeats))
    (snow,) = opened("cifar10-c", of_cifar(), folder, severities=(4,), corruptions=["snow"])
    assert snow.labels.tolist() == [0, 7, 4, 1]
    assert [int(snow.load(index).max()) for index in range(4)] == [40, 41, 42, 43]
    assert snow.notes == ()


def test_the_folder_of_cifar_one_level_deeper_is_named(tmp_path: Path) -> None:
    data = cifar(tmp_path / "CIFAR-10-C")
    message = refused("missing: ", "cifar10-c", of_cifar(), tmp_path, corruptions=["fog"])
    assert f"lies in {data}: name that folder" in message
