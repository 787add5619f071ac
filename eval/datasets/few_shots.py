"""Choice of a few training images per class, and of half of the classes, exactly as CoOp's code makes it."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Literal, get_args

from ...engine.errors import InputError
from .split_data import LabelledImage, SplitData

ClassHalf = Literal["all", "base", "new"]
CLASS_HALVES: tuple[ClassHalf, ...] = get_args(ClassHalf)


def choose_shots(images: Sequence[LabelledImage], shots: int, seed: int) -> tuple[LabelledImage, ...]:
    """Choose some images of each class: the same ones as Dassl's `generate_fewshot_dataset`.

    The generator is seeded once. It draws from the classes in the order in which their first images come.
    A class with fewer images gives all of them, in their order.

    >>> items = [LabelledImage(str(number), 0) for number in range(40)]
    >>> [image.path for image in choose_shots(items, 4, seed=1)]
    ['8', '36', '4', '16']

    Args:
        images: training images, in published order.
        shots: images per class; 0 takes all images as they are.
        seed: of the choice.
    """
    if not shots:
        return tuple(images)
    generator = random.Random(seed)
    by_label: dict[int, list[LabelledImage]] = {}
    for image in images:
        by_label.setdefault(image.label, []).append(image)
    return tuple(
        image
        for items in by_label.values()
        for image in (generator.sample(items, shots) if len(items) >= shots else items)
    )


def choose_half(data: SplitData, half: ClassHalf) -> SplitData:
    """Return the data of the first ⌈K / 2⌉ classes (`base`), of the others (`new`), or of all.

    Raises:
        InputError: there is only one class, and so no other half.
    """
    if half == "all":
        return data
    middle = -(-data.classes // 2)
    labels = range(middle) if half == "base" else range(middle, data.classes)
    if not labels:
        raise InputError(f"{data.name} has one class only, so there are no new ones; choose other data")
    return data.take_classes(labels)
