"""Test images of data that are divided for training and testing, as one domain."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ...data.image_reader import ImageReader
from ...engine.bundle.manifest import Manifest
from ...engine.bundle.preprocessing import Preprocessing
from ...engine.errors import InputError
from .dataset_request import DatasetRequest
from .domain import Domain
from .open_split import open_split_data
from .published_sets import PUBLISHED_SETS
from .split_data import SplitData


def open_split_dataset(request: DatasetRequest, manifest: Manifest, seed: int) -> tuple[str, list[Domain]]:
    """Open the test images of a split; the seed has no effect.

    Raises:
        InputError: the data are not as they should be, have no test images, or a class is none of the
            bundle's.
    """
    data = open_split_data(request.folder, request.split)
    index = index_named_classes(data, manifest)
    domain = make_test_domain(data, index, manifest.preprocessing, request.make_reader())
    return data.name, [replace(domain, classes=None if data.classes == manifest.classes else domain.classes)]


def make_test_domain(
    data: SplitData, index: Sequence[int], preprocessing: Preprocessing, reader: ImageReader
) -> Domain:
    """Return the test images as a domain.

    Args:
        data: the data.
        index: for each of its classes, the class of the network.
        preprocessing: of the bundle.
        reader: reads the images.

    Raises:
        InputError: there are no test images, or one is not there.
    """
    if not data.test:
        raise InputError(
            f"{data.name} has no test images: expected some in its split file, or in test/ or val/ beside "
            "train/; class folders alone are read with --dataset imagefolder"
        )
    data.check_files(data.test)
    prepare, folder = reader.prepare(preprocessing), str(data.folder)
    facts = None if data.published is None else PUBLISHED_SETS[data.published]
    is_complete = facts is not None and facts.classes == data.classes
    return Domain(
        data.name,
        tuple(image.path for image in data.test),
        np.asarray(index, np.int64)[[image.label for image in data.test]],
        lambda position: prepare(f"{folder}/{data.test[position].path}"),
        lambda position: reader.read(f"{folder}/{data.test[position].path}"),
        classes=tuple(sorted(index)),
        official_images=facts.test_images if facts is not None and is_complete else None,
        reader=reader,
        left_out=data.left_out,
    )


def index_named_classes(data: SplitData, manifest: Manifest) -> list[int]:
    """Return the bundle's class of each class of the data: by identifier, or else by name.

    Raises:
        InputError: a class is none of the bundle's, or its name is that of several.
    """
    ids, names = manifest.class_ids or (), manifest.class_names or ()
    if set(data.class_ids) <= set(ids):
        return [ids.index(identifier) for identifier in data.class_ids]
    counts = Counter(names)
    if unclear := [name for name in data.class_names if counts[name] != 1]:
        raise InputError(
            f"{len(unclear)} of the {data.classes} classes of {data.name} are no class of {manifest.model}, "
            f"or several: {', '.join(unclear[:3])}{', …' if len(unclear) > 3 else ''}; its classes are named "
            f"like {', '.join(list(names or ids)[:2]) or 'nothing'}. Choose a head with --head, or make one: "
            "fozo classes BUNDLE NAMES.txt --as NAME"
        )
    return [names.index(name) for name in data.class_names]
