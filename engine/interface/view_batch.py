"""Batches that hold several views of each image, for methods that look at an image many times."""

from __future__ import annotations

from typing import Any, Protocol, cast

import numpy as np

from ..errors import InputError
from ..model import ImageArray


class Views(Protocol):
    """The views of one image; view 0 is the ordinary one."""

    def __len__(self) -> int:
        """Return the number of views."""

    def __getitem__(self, numbers: slice) -> ImageArray:
        """Return some views, uint8 `[V, H, W, 3]`."""


class ViewBatch(Protocol):
    """The views of N images: `batch[i][start:stop]` is uint8 `[stop - start, H, W, 3]`.

    An array `[N, V, H, W, 3]` is one, and so is a list of arrays `[V, H, W, 3]`. Others make their views when
    they are asked for.
    """

    def __len__(self) -> int:
        """Return N."""

    def __getitem__(self, index: int) -> Views:
        """Return the views of image `index`, 0 ≤ `index` < N."""


class StackedViews:
    """A batch of views that remembers view 0 of its images.

    Attributes:
        plain: view 0 of each image, uint8 `[N, H, W, 3]`; always the same object, so that outputs for it can
            be recognised.
    """

    def __init__(self, images: ViewBatch) -> None:
        """Take the views of each image.

        Raises:
            ValueError: the images differ in size.
        """
        self._images = images
        self.plain = get_plain_images(images)

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> Views:
        return self._images[index]


def get_plain_images(images: Any) -> ImageArray:
    """Return view 0 of each image, uint8 `[N, H, W, 3]`; an array of images is that already.

    >>> get_plain_images(np.zeros((2, 64, 32, 32, 3), np.uint8)).shape
    (2, 32, 32, 3)
    """
    if isinstance(images, np.ndarray):
        return images[:, 0] if images.ndim == 5 else images
    if hasattr(images, "plain"):
        return cast(ImageArray, images.plain)
    return np.concatenate([images[index][0:1] for index in range(len(images))])


def stack_views(images: Any, count: int) -> ImageArray:
    """Return the first views of each image in one array, uint8 `[N, count, H, W, 3]`."""
    if isinstance(images, np.ndarray):
        return images[:, :count]
    return np.stack([images[index][0:count] for index in range(len(images))])


def check_views(images: Any, count: int, user: str) -> ViewBatch:
    """Return a batch of views that remembers its plain images, after checking its form.

    Args:
        images: uint8 `[N, V, H, W, 3]`, a sequence of arrays `[V, H, W, 3]`, or another `ViewBatch`, with
            V ≥ `count`. Further views are not looked at.
        count: views that the method looks at.
        user: name of the method, for messages.

    Raises:
        InputError: it is something else, there is no image, or an image has too few views.
    """
    if isinstance(images, np.ndarray):
        if images.dtype != np.uint8 or images.ndim != 5 or images.shape[4] != 3 or not images.size:
            raise _refuse(count, user, f"{images.dtype} of shape {list(images.shape)}")
    elif not hasattr(images, "__getitem__") or not hasattr(images, "__len__") or not len(images):
        raise _refuse(count, user, f"{type(images).__name__} without images")
    for index in range(len(images)):
        views = images[index]
        if not hasattr(views, "__getitem__") or len(views) < count:
            raise _refuse(count, user, f"{len(views)} views of image {index}")
    batch = images if hasattr(images, "plain") else _stack(images, count, user)
    plain = batch.plain
    if plain.dtype != np.uint8 or plain.ndim != 4 or plain.shape[3] != 3 or not plain.size:
        raise _refuse(count, user, f"views that are {plain.dtype} of shape {list(plain.shape[1:])}")
    return cast(ViewBatch, batch)


def _stack(images: ViewBatch, count: int, user: str) -> StackedViews:
    try:
        return StackedViews(images)
    except (ValueError, TypeError, IndexError) as error:
        raise _refuse(count, user, f"{type(images).__name__} of something else ({error})") from error


def _refuse(count: int, user: str, actual: str) -> InputError:
    return InputError(
        f"{user} looks at {count} views of each image, as an array of uint8 and shape [N, {count}, H, W, 3] "
        f"or a list of arrays [{count}, H, W, 3] (fozo.views makes them); found {actual}. Pass the views, or "
        "set the option views to as many as there are"
    )
