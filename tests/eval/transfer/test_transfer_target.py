"""Data sets that a prompt is transferred to, in miniature and in their published layouts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from dataset_doubles import put
from fozo.data.reading import Reading
from fozo.engine.bundle.bundle import Bundle
from fozo.engine.bundle.head import Head
from fozo.engine.errors import InputError
from fozo.eval.datasets.imagenet_subsets import IMAGENET_A, IMAGENET_R
from fozo.eval.transfer.transfer_target import TransferTarget, find_imagenet, open_target, recognise_folder
from split_doubles import make_aircraft, make_folders, make_pets
from tune_doubles import make_tuning_bundle

WNIDS = tuple(f"n{1000 + number:08d}" for number in reversed(range(1000)))  # descending: 999 comes first
NAMES = tuple(f"thing {number}" for number in reversed(range(1000)))


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    head = Head(np.ones((1000, 3), np.float32), WNIDS, NAMES, ("a photo of a {}.",))
    return make_tuning_bundle(tmp_path / "bundle").with_head("imagenet", head)


def put_numbers(folder: Path, numbers: tuple[int, ...]) -> Path:
    for number in numbers:
        put(folder / f"n{1000 + number:08d}" / "x.png")
    return folder


def open_text(text: object, bundle: Bundle) -> TransferTarget:
    return open_target(str(text), bundle, Reading())


@pytest.mark.parametrize(
    ("place", "kind", "numbers", "official"),
    [
        ("imagenet-a", "imagenet-a", IMAGENET_A[:3], 200),
        ("imagenet-rendition/imagenet-r", "imagenet-r", IMAGENET_R[5:8], 200),
        ("imagenet-sketch/images", "imagenet-sketch", (0, 999), None),
        ("sketch", "imagenet-sketch", (0, 999), None),
    ],
)
def test_relatives_of_imagenet(
    place: str, kind: str, numbers: tuple[int, ...], official: int | None, bundle: Bundle, tmp_path: Path
) -> None:
    target = open_text(put_numbers(tmp_path / place, numbers), bundle)
    (domain,) = target.domains
    assert target.name == domain.name == kind
    if official is None:
        assert (target.class_ids, domain.labels.tolist()) == (WNIDS, [999, 0])
        return
    # Classes are those that have a folder, in the order of the head.
    assert target.class_names == tuple(f"thing {number}" for number in reversed(numbers))
    assert [target.class_ids[label] for label in domain.labels] == [f"n{1000 + n:08d}" for n in numbers]
    assert domain.official_class_count == official


def test_imagenet_v2_and_imagenet_itself(bundle: Bundle, tmp_path: Path) -> None:
    for name in ("imagenetv2-matched-frequency-format-val", "imagenetv2-top-images-format-val"):
        for number in ("0", "999"):
            put(tmp_path / "imagenetv2" / name / number / "x.jpeg")
    both = open_text(tmp_path / "imagenetv2", bundle)
    assert [domain.name for domain in both.domains] == [
        "imagenet-v2 matched-frequency",
        "imagenet-v2 top-images",
    ]
    assert [domain.labels.tolist() for domain in both.domains] == [[999, 0]] * 2
    one = open_text(tmp_path / "imagenetv2" / "imagenetv2-top-images-format-val", bundle)
    assert (one.name, [domain.name for domain in one.domains]) == ("imagenet-v2", ["imagenet-v2"])
    clean = open_text(f"imagenet={put_numbers(tmp_path / 'val', (0, 5))}", bundle)
    assert (len(clean.class_names), clean.domains[0].labels.tolist()) == (1000, [999, 994])


def test_published_data_sets(bundle: Bundle, tmp_path: Path) -> None:
    pets = open_text(make_pets(tmp_path / "pets"), bundle)
    assert (pets.name, pets.class_names) == ("oxford_pets", ("Abyssinian", "forest", "sea lake"))
    assert (pets.template, pets.domains[0].classes) == ("a photo of a {}, a type of pet.", None)
    assert pets.domains[0].labels.tolist() == [1, 0, 2]
    air = open_text(make_aircraft(tmp_path / "air"), bundle)
    assert (air.name, len(air.domains[0])) == ("fgvc_aircraft", 2)
    mine = tmp_path / "mine"
    make_folders(mine / "train", ("SeaLake", "River"))
    make_folders(mine / "test", ("SeaLake", "River"), 2)
    assert open_text(mine, bundle).class_names == ("River", "SeaLake")
    assert open_text(mine, bundle).template == "a photo of a {}."
    eurosat = open_text(f"eurosat={mine}", bundle)
    assert (eurosat.class_names, eurosat.name) == (("River", "Sea or Lake"), "eurosat")


def test_folders_that_do_not_say_what_they_are(bundle: Bundle, tmp_path: Path) -> None:
    folder = make_folders(tmp_path / "photos")
    with pytest.raises(InputError, match=r"cannot tell which data set .*photos is.*say it with NAME="):
        recognise_folder(folder)
    with pytest.raises(InputError, match="in front of =, found 'flowers'"):
        open_text(f"flowers={folder}", bundle)
    assert recognise_folder(make_pets(tmp_path / "a=b")) == "split"
    assert open_text(tmp_path / "a=b", bundle).name == "oxford_pets"
    with pytest.raises(InputError, match="has no test images"):
        open_text(f"split={folder}", bundle)
    with pytest.raises(InputError, match="found nothing"):
        open_text(f"imagenet-a={tmp_path / 'nowhere'}", bundle)


def test_imagenets_names_come_from_a_head(bundle: Bundle, tmp_path: Path) -> None:
    assert find_imagenet(bundle).class_names == NAMES
    other = Head(np.ones((1000, 3), np.float32), WNIDS, WNIDS, ("{}.",))
    changed = bundle.with_head("zzz", other)
    assert find_imagenet(changed).class_names == NAMES
    assert find_imagenet(changed, ["zzz"]).class_names == WNIDS
    assert find_imagenet(changed, ["animals"]).class_names == NAMES  # it has other classes
    with pytest.raises(InputError, match="has no head with names for ImageNet's 1,000 classes"):
        find_imagenet(make_tuning_bundle(tmp_path / "small"))


def test_class_folders_get_the_names_of_the_head_in_use(bundle: Bundle, tmp_path: Path) -> None:
    for name in ("train/0/a.png", "train/1/b.png", "test/0/c.png", "test/1/d.png"):
        put(tmp_path / "digits" / name)
    head = Head(np.ones((3, 3), np.float32), ("1", "0", "2"), ("one", "zero", "two"), ("{}",))
    words = bundle.with_head("words", head).select_head("words")
    target = open_text(tmp_path / "digits", words)
    assert (target.class_ids, target.class_names) == (("0", "1"), ("zero", "one"))
    assert target.domains[0].notes[-1] == "names of classes are those of the head words"
    assert open_text(tmp_path / "digits", bundle).class_names == ("0", "1")
