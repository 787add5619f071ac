"""Views of a batch's images, made on demand by a few threads, so that a batch of views is never in memory."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..engine.errors import InputError
from ..engine.interface.method import AnyMethod, count_views, get_view_recipe
from ..engine.interface.view_recipe import ViewRecipe
from .views import make_view

THREADS = 2

Pixels = NDArray[np.uint8]
# Returns the decoded file of an image, given its place in the batch; None if there is no file.
OpenImage = Callable[[int], Image.Image | None]


@contextmanager
def open_images(
    method: AnyMethod, plain: Pixels, seed: int, ids: Sequence[str], open_image: OpenImage | None = None
) -> Iterator[Any]:
    """Give a batch in the form that a method takes: as it is, or `LazyViews` while the block runs.

    Args:
        method: the method.
        plain, seed, ids, open_image: as for `LazyViews`.
    """
    if count_views(method) == 1:
        yield plain
        return
    with LazyViews(plain, get_view_recipe(method), seed, ids, open_image) as views:
        yield views


class LazyViews:
    """A batch of N images, each a sequence of views that can be sliced: `lazy[i][start:stop]`.

    Threads make the views of a slice, and those of the same slice of the next image ahead. So at most the
    views of two images are in memory, and the decoded files of these two. It belongs to one thread at a time;
    use it in a `with` block, which ends its threads.

    Attributes:
        plain: view 0 of each image, uint8 `[N, H, W, 3]`.
        recipe: number and kind of the views.
    """

    def __init__(
        self,
        plain: Pixels,
        recipe: ViewRecipe,
        seed: int,
        ids: Sequence[str],
        open_image: OpenImage | None = None,
        threads: int = THREADS,
    ) -> None:
        """Prepare the views; nothing is made before it is asked for.

        Args:
            plain: the images as the model reads them, uint8 `[N, H, W, 3]`.
            recipe: number and kind of the views.
            seed: of the random crops.
            ids: N names of the images; with the seed, they decide what is drawn.
            open_image: opens the files, in the threads. Without it, and for images without a file, views are
                parts of the plain image.
            threads: number of threads.
        """
        self.plain, self.recipe = plain, recipe
        self._seed, self._ids = seed, tuple(ids)
        self._open_image = open_image
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="fozo-views")
        self._images: dict[int, _PendingImage] = {}
        self._closed = False

    def __len__(self) -> int:
        return len(self.plain)

    def __getitem__(self, index: int) -> ViewsOfImage:
        """Return the views of one image.

        Raises:
            IndexError: there is no such image.
        """
        return ViewsOfImage(self, range(len(self))[index])

    def get_views(self, index: int, start: int, stop: int) -> Pixels:
        """Return views of one image, uint8 `[stop - start, H, W, 3]`.

        Raises:
            InputError: the file of this image cannot be read any more, or the views are closed.
        """
        if self._closed:
            raise InputError("these views are closed; use them inside of their `with` block")
        self._drop_others(index)
        numbers = range(max(start, 1), stop)
        pending = self._request(index, numbers)
        if numbers and not pending.read_ahead and index + 1 < len(self):
            pending.read_ahead = True
            self._request(index + 1, numbers)
        result = np.empty((stop - start, *self.plain.shape[1:]), np.uint8)
        if start == 0 < stop:
            result[0] = self.plain[index]
        for number in numbers:
            result[number - start] = pending.futures.pop(number).result()
        return result

    def close(self) -> None:
        """End the threads; views that were to be made ahead are dropped."""
        self._closed = True
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._images.clear()

    def __enter__(self) -> LazyViews:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _drop_others(self, index: int) -> None:
        """Forget the views of images before this one, and those made ahead if another image is next."""
        current = self._images.get(index)
        if current is None or not current.read_ahead:
            for other in [other for other in self._images if other != index]:
                for future in self._images.pop(other).futures.values():
                    future.cancel()

    def _request(self, index: int, numbers: range) -> _PendingImage:
        """Have the threads make views that they are not making yet."""
        pending = self._images.setdefault(index, _PendingImage())
        for number in numbers:
            if number not in pending.futures:
                pending.futures[number] = self._pool.submit(self._make, index, number, pending)
        return pending

    def _make(self, index: int, number: int, pending: _PendingImage) -> Pixels:
        image = pending.decode(lambda: self._decode(index))
        return make_view(image, number, self.plain.shape[1:3], self.recipe, self._seed, self._ids[index])

    def _decode(self, index: int) -> Image.Image:
        image = None if self._open_image is None else self._open_image(index)
        return Image.fromarray(self.plain[index]) if image is None else image


@dataclass(frozen=True)
class ViewsOfImage:
    """The views of one image: an index or a slice makes them."""

    batch: LazyViews
    index: int

    def __len__(self) -> int:
        return self.batch.recipe.count

    @overload
    def __getitem__(self, numbers: int) -> Pixels: ...

    @overload
    def __getitem__(self, numbers: slice) -> Pixels: ...

    def __getitem__(self, numbers: int | slice) -> Pixels:
        """Return one view, uint8 `[H, W, 3]`, or those of a slice, `[V, H, W, 3]`.

        Raises:
            IndexError: there is no such view.
            InputError: the file of the image cannot be read any more, or the views are closed.
        """
        selected = range(len(self))[numbers]
        if isinstance(selected, int):
            view: Pixels = self.batch.get_views(self.index, selected, selected + 1)[0]
            return view
        low, high = min(selected, default=0), max(selected, default=-1) + 1
        made = self.batch.get_views(self.index, low, max(low, high))
        return made if selected.step == 1 else made[[number - low for number in selected]]


@dataclass
class _PendingImage:
    """The views of an image that threads make or have made, by number, and its decoded file.

    Attributes:
        futures: of the views.
        read_ahead: the next image's views are made ahead, too.
    """

    futures: dict[int, Future[Pixels]] = field(default_factory=dict)
    read_ahead: bool = False
    _image: Image.Image | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def decode(self, open_image: Callable[[], Image.Image]) -> Image.Image:
        """Return the decoded file, opened by the first thread that needs it."""
        with self._lock:
            if self._image is None:
                self._image = open_image()
            return self._image
