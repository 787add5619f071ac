"""Batches of views: the forms they come in, and messages about what is none."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from doubles import draw_images
from fozo.engine.errors import InputError
from fozo.engine.interface.method import count_views, get_view_recipe
from fozo.engine.interface.view_batch import check_views, get_plain_images, stack_views
from fozo.engine.interface.view_recipe import ViewRecipe
from fozo.engine.registry import method
from fozo.engine.streams.adapter import Adapter
from fozo.testing import StandInNetwork, add_views

ARRAY = add_views(draw_images(3), 6)


class OnDemand:
    """Views of which nothing is known but their number."""

    def __init__(self, views: Any) -> None:
        self._views = views

    def __len__(self) -> int:
        return len(self._views)

    def __getitem__(self, numbers: slice) -> Any:
        return self._views[numbers]


FORMS = [ARRAY, list(ARRAY), tuple(ARRAY), [OnDemand(views) for views in ARRAY]]


@pytest.mark.parametrize("images", FORMS)
def test_every_form_has_plain_images_and_slices(images: Any) -> None:
    batch = check_views(images, 6, "zero")
    assert len(batch) == 3
    assert np.array_equal(get_plain_images(batch), ARRAY[:, 0])
    assert get_plain_images(batch) is get_plain_images(batch)
    assert np.array_equal(batch[1][2:5], ARRAY[1, 2:5])
    assert np.array_equal(get_plain_images(images), ARRAY[:, 0])
    assert np.array_equal(stack_views(images, 4), ARRAY[:, :4])
    assert check_views(batch, 6, "zero") is batch


def test_plain_images_of_plain_images_are_the_same_object() -> None:
    images = draw_images(3)
    assert get_plain_images(images) is images


@pytest.mark.parametrize(
    ("images", "actual"),
    [
        (draw_images(3), r"found uint8 of shape \[3, 2, 2, 3\]"),
        (ARRAY.astype(np.float32), "found float32 of shape"),
        (ARRAY[:0], r"found uint8 of shape \[0, 6"),
        (ARRAY[..., :2], r"found uint8 of shape \[3, 6, 2, 2, 2\]"),
        (ARRAY[:, :5], "found 5 views of image 0"),
        ([*ARRAY[:2], ARRAY[2, :4]], "found 4 views of image 2"),
        ([*ARRAY[:2], add_views(np.zeros((1, 4, 4, 3), np.uint8), 6)[0]], "found list of something else"),
        ([], "found list without images"),
        (None, "found NoneType without images"),
        (7, "found int without images"),
        ([ARRAY[0].astype(np.int64)], r"views that are int64 of shape \[2, 2, 3\]"),
        ([list(range(6))], "views that are int64"),
    ],
)
def test_other_things_are_refused(images: Any, actual: str) -> None:
    with pytest.raises(InputError, match=r"zero looks at 6 views of each image.*" + actual):
        check_views(images, 6, "zero")


def test_more_views_than_a_method_looks_at_are_ignored() -> None:
    network = StandInNetwork()
    images = add_views(np.zeros((2, 4, 4, 3), np.uint8) + np.arange(4, dtype=np.uint8)[:, None], 9)
    first, second = (
        Adapter(network, method("zero", views=5)).step(batch) for batch in (images, images[:, :5])
    )
    assert first.logits.tobytes() == second.logits.tobytes() and first.forwards == 5


def test_an_adapter_says_what_is_missing_and_stays_as_it_was() -> None:
    adapter = Adapter(StandInNetwork(), method("zero", views=4))
    with pytest.raises(InputError, match=r"fozo\.views makes them.*set the option views"):
        adapter.step(np.zeros((2, 4, 4, 3), np.uint8))
    with pytest.raises(InputError, match=r"zero looks at 4 views.*found 3 views"):
        adapter.step(np.zeros((2, 3, 4, 4, 3), np.uint8))
    assert adapter.state.step == 0
    with pytest.raises(InputError, match="found list; no_adapt looks at one view"):
        Adapter(StandInNetwork(), method("no_adapt")).step([np.zeros((4, 4, 3), np.uint8)])


def test_methods_and_wrapped_methods_name_their_views() -> None:
    assert count_views(method("fozo")) == count_views(method("fozo", guard="stop", interval=4)) == 1
    wrapped = method("zero", views=7, view_kind="augmix", view_area=0.5, guard="stop", domains=2, interval=3)
    assert count_views(wrapped) == 7
    assert get_view_recipe(wrapped) == ViewRecipe(7, "augmix", 0.5)
    assert get_view_recipe(method("fozo")) == ViewRecipe(1)
