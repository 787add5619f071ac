"""Views: the published distribution, and pure functions of seed, image and number."""

from __future__ import annotations

import math
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fozo
import numpy as np
import pytest
from doubles import draw_picture
from fozo.data.views import draw_box, make_view, make_view_generator, views
from fozo.engine.bundle.preprocessing import Preprocessing
from fozo.engine.errors import InputError
from fozo.engine.interface.view_recipe import ViewRecipe
from PIL import Image

PREPROCESSING = Preprocessing((32, 32), 36, "bicubic")
RECIPE = ViewRecipe(64)


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(draw_picture(seed, (height, width)))


def draw_boxes(size: tuple[int, int], count: int, area: float = 0.08) -> np.ndarray[Any, Any]:
    """Return drawn boxes as (left, top, width, height), `[count, 4]`."""
    boxes = [draw_box(make_view_generator(1, str(size), number), size, area) for number in range(count)]
    return np.array([(left, top, right - left, bottom - top) for left, top, right, bottom in boxes])


# --- the distribution


def test_views_are_those_of_torchvision_for_the_same_boxes() -> None:
    functional = pytest.importorskip("torchvision.transforms.functional")
    image = picture(97, 71)
    for number in range(1, 40):
        generator = make_view_generator(5, "a", number)
        left, top, right, bottom = draw_box(generator, image.size, 0.08)
        expected = functional.resized_crop(
            image, top, left, bottom - top, right - left, [24, 40], functional.InterpolationMode.BILINEAR
        )
        if generator.random() < 0.5:
            expected = functional.hflip(expected)
        actual = make_view(image, number, (24, 40), RECIPE, 5, "a")
        assert np.array_equal(actual, np.asarray(expected)), number


@pytest.mark.parametrize("size", [(500, 375), (90, 160)])
def test_boxes_are_distributed_as_those_of_torchvision(size: tuple[int, int]) -> None:
    transforms = pytest.importorskip("torchvision.transforms")
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    width, height = size
    image, count = Image.new("RGB", size), 4000
    expected = np.array(
        [
            (left, top, w, h)
            for top, left, h, w in (
                transforms.RandomResizedCrop.get_params(image, [0.08, 1.0], [3 / 4, 4 / 3])
                for _ in range(count)
            )
        ]
    )
    actual = draw_boxes(size, count)
    for name, compute in {
        "area": lambda boxes: boxes[:, 2] * boxes[:, 3] / (width * height),
        "proportions": lambda boxes: np.log(boxes[:, 2] / boxes[:, 3]),
        "left": lambda boxes: boxes[:, 0],
        "top": lambda boxes: boxes[:, 1],
    }.items():
        ours, theirs = np.sort(compute(actual)), np.sort(compute(expected))
        grid = np.concatenate([ours, theirs])
        distance = np.abs(
            np.searchsorted(ours, grid, side="right") - np.searchsorted(theirs, grid, side="right")
        ).max()
        assert distance / count < 1.95 * math.sqrt(2 / count), name  # Kolmogorov and Smirnov, p = 0.001


def test_areas_and_proportions_stay_within_their_limits() -> None:
    boxes = draw_boxes((640, 640), 2000)
    areas, aspects = boxes[:, 2] * boxes[:, 3] / 640**2, boxes[:, 2] / boxes[:, 3]
    assert 0.078 < areas.min() < 0.09 and 0.98 < areas.max() <= 1
    assert 0.74 < aspects.min() < 0.76 and 1.32 < aspects.max() < 1.345
    assert draw_boxes((640, 640), 300, area=0.5)[:, 2:].prod(axis=1).min() / 640**2 > 0.49
    assert draw_boxes((64, 64), 5, area=1.0)[:, 2:].prod(axis=1).min() >= 64 * 48 - 64


@pytest.mark.parametrize(
    ("size", "box"),
    [((400, 20), (186, 0, 213, 20)), ((20, 401), (0, 187, 20, 214)), ((1, 1), (0, 0, 1, 1))],
)
def test_thin_images_show_their_middle(size: tuple[int, int], box: tuple[int, ...]) -> None:
    drawn = {draw_box(make_view_generator(0, "thin", number), size, 0.08) for number in range(200)}
    assert drawn == {box}


def test_half_of_the_views_are_mirrored() -> None:
    ramp = Image.fromarray(np.tile(np.arange(0, 250, 5, dtype=np.uint8)[None, :, None], (50, 1, 3)))
    rising = [
        bool(view[:, -1].mean() > view[:, 0].mean())
        for view in views(ramp, 400, PREPROCESSING, image_id="ramp")[1:]
    ]
    assert 0.42 < np.mean(rising) < 0.58


# --- pure functions


def test_a_view_depends_on_seed_image_and_number_alone() -> None:
    image = picture(60, 45)
    complete = views(image, 9, PREPROCESSING, seed=3, image_id="b/1.jpg")
    order = list(range(1, 9))
    random.Random(0).shuffle(order)
    with ThreadPoolExecutor(4) as pool:
        made = dict(
            zip(
                order,
                pool.map(lambda n: make_view(image, n, (32, 32), RECIPE, 3, "b/1.jpg"), order),
                strict=True,
            )
        )
    assert all(np.array_equal(complete[number], made[number]) for number in order)
    assert np.array_equal(views(image, 4, PREPROCESSING, seed=3, image_id="b/1.jpg"), complete[:4])
    assert len({view.tobytes() for view in complete}) == 9
    for other in ({"seed": 4, "image_id": "b/1.jpg"}, {"seed": 3, "image_id": "b/2.jpg"}):
        different = views(image, 9, PREPROCESSING, **other)
        assert np.array_equal(different[0], complete[0])
        assert not any(np.array_equal(a, b) for a, b in zip(different[1:], complete[1:], strict=True))


def test_view_zero_is_the_ordinary_crop_of_files_images_and_arrays(tmp_path: Path) -> None:
    image = picture(60, 45)
    image.save(tmp_path / "a.png")
    ordinary = fozo.preprocess(image, PREPROCESSING)
    made = [
        fozo.views(source, 5, PREPROCESSING, seed=1)
        for source in (image, tmp_path / "a.png", str(tmp_path / "a.png"), np.asarray(image))
    ]
    assert np.array_equal(made[0][0], ordinary)
    assert all(np.array_equal(made[0], other) for other in made[1:])
    assert made[0].dtype == np.uint8 and made[0].shape == (5, 32, 32, 3)
    cropped = fozo.views(ordinary, 5, seed=1)
    assert np.array_equal(cropped[0], ordinary) and cropped.shape == made[0].shape
    assert not np.array_equal(cropped[1], made[0][1])  # parts of the crop, not of the file


def test_names_may_be_paths_and_seeds_are_integers() -> None:
    image = np.asarray(picture(20, 20))
    assert np.array_equal(views(image, 4, image_id=Path("a/b")), views(image, 4, image_id="a/b"))
    assert np.array_equal(views(image, 4, seed=np.int64(3)), views(image, 4, seed=3))  # type: ignore[arg-type]
    for seed in (0.5, "1", True, None):
        with pytest.raises(InputError, match="must be an integer"):
            views(image, 4, seed=seed)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="text or a path, found 7"):
        views(image, 4, image_id=7)  # type: ignore[arg-type]


def test_grey_images_of_pillow_become_colours() -> None:
    grey = picture(40, 40).convert("L")
    assert np.array_equal(views(grey, 3, PREPROCESSING), views(grey.convert("RGB"), 3, PREPROCESSING))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((picture(8, 8), 4), "preprocessing=bundle"),
        (("missing.png", 4), "preprocessing=bundle"),
        (("missing.png", 4, PREPROCESSING), "cannot read"),
        ((np.zeros((8, 8, 3), np.float32), 4), "float32 of shape"),
        ((np.zeros((2, 8, 8, 3), np.uint8), 4), "one image at a time"),
        ((np.zeros((0, 8, 3), np.uint8), 4), "expected an image"),
        ((np.zeros((8, 8, 3), np.uint8), 0), "at least 1, found 0"),
        ((np.zeros((8, 8, 3), np.uint8), 2.0), "at least 1, found 2.0"),
        ((None, 4, PREPROCESSING), "found NoneType"),
        (([picture(8, 8)], 4, PREPROCESSING), "found list; pass one image"),
    ],
)
def test_unusable_arguments_are_refused(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        views(*arguments)


@pytest.mark.parametrize("options", [{"kind": "mixup"}, {"smallest_area": 0.0}, {"smallest_area": 1.5}])
def test_unusable_recipes_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="expected views of the kind crops or augmix"):
        views(np.zeros((8, 8, 3), np.uint8), 4, **options)
