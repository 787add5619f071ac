"""Few images per class and half of the classes, as published code chooses them."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from fozo.engine.errors import InputError
from fozo.eval.datasets.few_shots import choose_half, choose_shots
from fozo.eval.datasets.split_data import LabelledImage, SplitData


def make_data(classes: int) -> SplitData:
    """Return data with two training images and one test image of each class, the last class first."""
    labels = [label for label in reversed(range(classes)) for _ in range(2)]
    train = tuple(LabelledImage(f"{number}.png", label) for number, label in enumerate(labels))
    test = tuple(LabelledImage(f"t{label}.png", label) for label in range(classes))
    names = tuple(f"class {label}" for label in range(classes))
    return SplitData("data", Path("data"), names, names, train, test=test)


# Three samples of 4 out of 40, drawn after `random.seed(seed)`, as the published code draws them.
PUBLISHED = {
    1: [[8, 36, 4, 16], [7, 31, 28, 30], [24, 13, 6, 31]],
    2: [[3, 5, 23, 10], [19, 16, 38, 13], [38, 2, 37, 10]],
    3: [[15, 37, 34, 8], [23, 38, 30, 37], [4, 38, 0, 30]],
}


@pytest.mark.parametrize("seed", PUBLISHED)
def test_shots_are_those_of_published_code(seed: int) -> None:
    """Labels are visited in the order of their first images, here 7, 0, 3, although images alternate."""
    images = [LabelledImage(f"{label}-{number}", label) for number in range(40) for label in (7, 0, 3)]
    shots = choose_shots(images, 4, seed)
    expected = [
        f"{label}-{n}" for label, numbers in zip((7, 0, 3), PUBLISHED[seed], strict=True) for n in numbers
    ]
    assert [image.path for image in shots] == expected


def test_the_choice_neither_reads_nor_changes_the_global_generator() -> None:
    random.seed(5)
    before = random.getstate()
    choose_shots(make_data(3).train, 1, seed=1)
    assert random.getstate() == before


def test_classes_with_fewer_images_give_all_without_drawing() -> None:
    few = [LabelledImage(f"few-{number}", 1) for number in range(3)]
    many = [LabelledImage(str(number), 0) for number in range(40)]
    assert choose_shots([*few, *many], 4, seed=1) == (*few, *(many[number] for number in PUBLISHED[1][0]))
    assert choose_shots(few, 3, seed=1)[0].label == 1
    assert choose_shots(many, 0, seed=1) == tuple(many)


def test_halves_of_an_odd_number_of_classes() -> None:
    data = make_data(37)
    base, new = choose_half(data, "base"), choose_half(data, "new")
    assert (base.classes, new.classes) == (19, 18)
    assert (len(base.train), len(new.train), len(base.test), len(new.test)) == (38, 36, 19, 18)
    assert base.class_ids == data.class_ids[:19] and new.class_ids == data.class_ids[19:]
    assert [image.label for image in new.test] == list(range(18))
    assert new.test[0].path == "t19.png"
    assert choose_half(data, "all") is data


def test_base_shots_are_the_shots_of_all_classes() -> None:
    """The published code chooses shots first and halves the classes then."""
    data = make_data(4)
    shots = choose_shots(data.train, 1, seed=1)
    kept = {image.path for image in shots if image.label < 2}
    chosen = choose_half(SplitData("data", data.folder, data.class_ids, data.class_names, shots), "base")
    assert {image.path for image in chosen.train} == kept


def test_strings_sort_as_strings_in_clevr() -> None:
    """Labels of CLEVR are numbers of objects, sorted as texts: ten comes first."""
    names = tuple(sorted(map(str, range(3, 11))))
    train = tuple(LabelledImage(name, label) for label, name in enumerate(names))
    data = SplitData("clevr", Path("clevr"), names, names, train)
    assert choose_half(data, "base").class_ids == ("10", "3", "4", "5")
    assert choose_half(data, "new").class_ids == ("6", "7", "8", "9")


def test_one_class_has_no_other_half() -> None:
    with pytest.raises(InputError, match="one class only"):
        choose_half(make_data(1), "new")
    assert choose_half(make_data(1), "base").classes == 1


@pytest.mark.parametrize("labels", [[], [0, 0], [3], [-1]])
def test_classes_that_do_not_exist(labels: list[int]) -> None:
    with pytest.raises(InputError, match=r"expected different classes out of 0\.\.2"):
        make_data(3).take_classes(labels)
