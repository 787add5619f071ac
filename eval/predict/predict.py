"""Predictions of unlabelled images, adapting to every batch."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import replace

import numpy as np
from PIL import Image

from ...data.image_reader import ImageReader
from ...data.lazy_views import open_images
from ...engine.bundle.manifest import Manifest
from ...engine.errors import InputError
from ...engine.registry import Prediction
from ...engine.streams.adapter import Adapter
from .image_batches import ImageBatch, Paths, Pixels, group_into_batches, read_images
from .prediction_row import Guess, Row, list_guesses

NOT_FINITE = "the model's output for this image is not finite"


def predict(
    adapter: Adapter,
    paths: Paths,
    manifest: Manifest,
    *,
    classes: Sequence[int] | None = None,
    batch_size: int = 64,
    top: int = 1,
    skip_unreadable: bool = False,
    max_images: int | None = None,
    max_wait: float = 0,
    reader: ImageReader | None = None,
    retry: Callable[[str], bool] = lambda path: False,
    on_batch: Callable[[int], None] = lambda images: None,
) -> Generator[Row, None, None]:
    """Predict images in the order of their arrival, one row each, and adapt to every batch.

    At most one batch is read ahead, and no prediction stays in memory. The last batch may be smaller. An
    unreadable image does not count towards the batch size, so the predictions of the others do not depend on
    it. Close the generator (`contextlib.closing`) where the loop may end early.

    Args:
        adapter: the stream that predicts; its state advances.
        paths: image files; None while nothing arrives (`eval/predict/watch.py`).
        manifest: of the bundle: preprocessing and names of the classes.
        classes: the classes that the adapter's network is restricted to (`Network.select`); None is all.
        batch_size: images per batch, at least 1.
        top: guesses per row.
        skip_unreadable: yield a row with `error` for an unreadable image instead of raising. When raising,
            earlier images of the same batch are neither predicted nor learnt from.
        max_images: number of rows after which to stop, at least 1; None is no limit.
        max_wait: seconds after which, if nothing arrives, an image no longer waits for a full batch.
        reader: reads the files, and counts remarks on them; None is one with the defaults.
        retry: is asked about every unreadable image; true if it will arrive again and gets no row yet.
        on_batch: is called with the number of rows after the rows of a batch have been consumed, before the
            next batch is computed. At this moment the adapter's state matches the rows.

    Raises:
        InputError: a number is out of range (at once), or an image cannot be read (while iterating).
    """
    guesses = list_guesses(manifest, classes)
    numbers = {"batch size": batch_size, "number of images": max_images, "number of guesses": top}
    for name, number in numbers.items():
        if number is not None and number < 1:
            raise InputError(f"expected a {name} of at least 1, found {number}; choose a larger one")
    if top > len(guesses):
        raise InputError(
            f"expected at most {len(guesses)} guesses, as many as there are classes to predict among, found "
            f"{top}; choose fewer"
        )
    reader = reader or ImageReader()
    load = reader.prepare(manifest.preprocessing)
    limit = math.inf if max_images is None else max_images
    images = read_images(paths, load, batch_size, limit, retry)
    batches = group_into_batches(images, batch_size, max_wait, skip_unreadable)
    return _predict_batches(adapter, batches, reader, guesses, top, on_batch)


def _predict_batches(
    adapter: Adapter,
    batches: Generator[ImageBatch, None, None],
    reader: ImageReader,
    guesses: Sequence[Guess],
    top: int,
    on_batch: Callable[[int], None],
) -> Generator[Row, None, None]:
    with closing(batches):
        for batch in batches:
            images, pixels = batch.images, batch.pixels
            tops: Iterator[tuple[Guess, ...]] = iter(())
            if pixels is not None:
                paths = [path for path, error in images if error is None]
                tops = _rank_classes(_step(adapter, pixels, paths, reader), guesses, top)
            del batch, pixels  # free the memory before the next batch is assembled
            for path, error in images:
                if error is not None:
                    yield Row(path, (), None, error)
                else:
                    best = next(tops)
                    yield Row(path, best, adapter.state.step, None if best else NOT_FINITE)
            on_batch(len(images))


def _step(adapter: Adapter, pixels: Pixels, paths: Sequence[str], reader: ImageReader) -> Prediction:
    """Make a step on images; a method that looks at views gets them from the files, while it runs."""

    def open_image(row: int) -> Image.Image:
        return reader.read(paths[row])

    with open_images(adapter.method, pixels, adapter.seed, paths, open_image) as images:
        return adapter.step(images)


def _rank_classes(prediction: Prediction, guesses: Sequence[Guess], top: int) -> Iterator[tuple[Guess, ...]]:
    """Yield the `top` likeliest classes of each image, best first; none where the network had no answer."""
    for logits, probabilities in zip(prediction.logits, prediction.probabilities, strict=True):
        if prediction.fallback and not logits.any():
            yield ()
            continue
        best = np.argsort(-logits, kind="stable")[:top]  # the first of equal ones, as argmax does
        yield tuple(replace(guesses[column], confidence=float(probabilities[column])) for column in best)
