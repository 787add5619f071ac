"""Counts of several classifiers on the same images, whose features are computed once."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing

import numpy as np

from ...data.image_reader import ImageReader
from ...data.loader import load_batches
from ...engine.bundle.head import Head
from ...engine.bundle.preprocessing import Preprocessing
from ...engine.model import FloatArray, Forward
from ..datasets.split_data import LabelledImage, SplitData
from ..results.outcome import MethodResult
from .training_images import BATCH


def evaluate_classifiers(
    network: Forward,
    data: SplitData,
    images: Sequence[LabelledImage],
    heads: Mapping[str, Head],
    preprocessing: Preprocessing,
    reader: ImageReader,
    on_images: Callable[[int], None] = lambda count: None,
    memory: list[FloatArray] | None = None,
) -> dict[str, MethodResult]:
    """Return the counts of each head, by class as well. There is no cost of a head: all share their features.

    Args:
        network: the image graph.
        data: the images' data set.
        images: the images to classify.
        heads: classes by name, each with one for every label.
        preprocessing: of the bundle.
        reader: reads the images.
        on_images: is called with the number of images of every batch.
        memory: features of the batches from an earlier evaluation of these images, which are not computed
            again; an empty list is filled; None: nothing is kept.

    Raises:
        InputError: an image cannot be read.
    """
    labels = np.asarray([image.label for image in images], np.int64)
    results, start = {name: MethodResult.count_nothing(by_class=True) for name in heads}, 0
    features_of_batches: list[FloatArray] = []
    source = (batch for batch in memory or ())
    if not memory:
        source = _compute_features(network, data, images, preprocessing, reader)
    with closing(source) as batches:
        for features in batches:
            targets = labels[start : start + len(features)]
            for name, head in heads.items():
                logits = features @ head.weight.T
                results[name].add(logits if head.bias is None else logits + head.bias, targets)
            start += len(features)
            on_images(len(features))
            if memory is not None:
                features_of_batches.append(features)
    if memory is not None:
        memory[:] = features_of_batches
    return results


def _compute_features(
    network: Forward,
    data: SplitData,
    images: Sequence[LabelledImage],
    preprocessing: Preprocessing,
    reader: ImageReader,
) -> Generator[FloatArray, None, None]:
    """Yield the last features of every batch, `[n, F]`."""
    prepare, folder = reader.prepare(preprocessing), str(data.folder)
    loading = load_batches(lambda index: prepare(f"{folder}/{images[index].path}"), range(len(images)), BATCH)
    with closing(loading) as batches:
        for batch in batches:
            yield network(batch).features[:, -1]
