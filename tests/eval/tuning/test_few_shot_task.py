"""Classes and images that a context is learnt from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fozo.engine.bundle.bundle import Bundle
from fozo.engine.bundle.head import Head
from fozo.engine.errors import BundleError, InputError
from fozo.eval.datasets.few_shots import choose_shots
from fozo.eval.datasets.open_split import open_split_data
from fozo.eval.tuning.few_shot_task import prepare_task
from fozo.eval.tuning.tuning_spec import TuningSpec
from split_doubles import make_folders, make_pets
from tune_doubles import make_colours, make_spec, make_tuning_bundle


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return make_tuning_bundle(tmp_path)


def name_wnids(bundle: Bundle) -> Bundle:
    """Return the bundle with a head that names two WordNet identifiers."""
    names = ("tench", "goldfish")
    weight = np.ones((2, 3), np.float32)
    head = Head(weight, ("n01440764", "n01443537"), names, ("a photo of a {}.",))
    return bundle.with_head("imagenet", head)


def test_shots_are_those_of_the_published_choice(bundle: Bundle, tmp_path: Path) -> None:
    data = make_colours(tmp_path / "data")
    task = prepare_task(make_spec(data, shots=2, seed=3), bundle)
    expected = choose_shots(open_split_data(data).train, 2, 3)
    assert (task.shots, task.labels.tolist()) == (expected, [0, 0, 1, 1, 2, 2])
    assert (task.data.class_names, len(task.data.test), task.notes) == (("cat", "cow", "dog"), 12, ())
    other = prepare_task(make_spec(data, shots=2, seed=4), bundle)
    assert other.sha256 != task.sha256 == prepare_task(make_spec(data, shots=2, seed=3), bundle).sha256


def test_half_of_the_classes(bundle: Bundle, tmp_path: Path) -> None:
    data = make_colours(tmp_path / "data")
    base = prepare_task(make_spec(data, classes="base"), bundle)
    assert (base.data.class_ids, len(base.shots), base.all_classes.classes) == (("cat", "cow"), 8, 3)
    new = prepare_task(make_spec(data, classes="new"), bundle)
    assert (new.data.class_ids, new.labels.tolist()) == (("dog",), [0] * 4)
    assert {image.path for image in base.shots} < {
        image.path for image in prepare_task(make_spec(data), bundle).shots
    }


def test_classes_with_few_images_are_noted(bundle: Bundle, tmp_path: Path) -> None:
    task = prepare_task(make_spec(make_colours(tmp_path / "data"), shots=9), bundle)
    assert len(task.shots) == 18
    assert task.notes == (
        "3 of 3 classes have fewer than 9 training images, such as cat; all of them are used",
    )
    assert prepare_task(make_spec(tmp_path / "data", shots=0), bundle).notes == ()


def test_images_of_other_formats_are_noted(bundle: Bundle, tmp_path: Path) -> None:
    data = make_colours(tmp_path / "data")
    for place in ("train/cat/a.tif", "train/dog/b.heic", "test/dog/c.tif"):
        (data / place).write_bytes(b"II*")
    (note,) = prepare_task(make_spec(data), bundle).notes
    assert note.startswith("3 files that look like images were left out (2 with .tif, 1 with .heic)")


def test_names_of_a_head(bundle: Bundle, tmp_path: Path) -> None:
    folder = make_folders(tmp_path / "data", ("n01440764", "n01443537"))
    with pytest.raises(InputError, match="WordNet identifiers like n01440764, which say nothing"):
        prepare_task(make_spec(folder), bundle)
    named = name_wnids(bundle)
    with pytest.raises(InputError, match="WordNet identifiers"):  # the head in use is another
        prepare_task(make_spec(folder), named)
    for task in (
        prepare_task(make_spec(folder, head="imagenet"), named),
        prepare_task(make_spec(folder), named.select_head("imagenet")),
    ):
        assert task.data.class_names == ("tench", "goldfish")
        assert task.data.class_ids == ("n01440764", "n01443537")
        assert "names of classes are those of the head imagenet" in task.notes


def test_classes_that_a_head_does_not_have(bundle: Bundle, tmp_path: Path) -> None:
    data = make_colours(tmp_path / "data")
    with pytest.raises(InputError, match="3 classes of data are none of the head imagenet: cat, cow, dog"):
        prepare_task(make_spec(data, head="imagenet"), name_wnids(bundle))
    with pytest.raises(BundleError, match="has no head 'nothing'"):
        prepare_task(make_spec(data, head="nothing"), bundle)


def test_names_of_published_data_stay(bundle: Bundle, tmp_path: Path) -> None:
    content = {"train": [["a.png", 0, "cat"], ["b.png", 1, "dog"]], "test": []}
    task = prepare_task(make_spec(make_pets(tmp_path / "pets", content)), bundle)
    assert (task.data.published, task.data.class_names) == ("oxford_pets", ("cat", "dog"))


def test_images_that_are_not_there(bundle: Bundle, tmp_path: Path) -> None:
    data = make_pets(tmp_path / "pets")
    (data / "images" / "c" / "1.png").unlink()
    with pytest.raises(InputError, match=r"1 image of oxford_pets not in .*: c/1\.png"):
        prepare_task(make_spec(data), bundle)


@pytest.mark.parametrize(
    "options",
    [
        {"epochs": 0},
        {"vectors": 0},
        {"shots": -1},
        {"crops": -1},
        {"rate": 0.0},
        {"batch": 0},
        {"ending": "a {}"},
    ],
)
def test_options_without_meaning(options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="expected"):
        TuningSpec(Path("data"), **options)
