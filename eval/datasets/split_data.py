"""Labelled images with a published division into training, validation and test images, as a value."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ...engine.errors import InputError

_SHOWN = 3


@dataclass(frozen=True)
class LabelledImage:
    """An image file and its class.

    Attributes:
        path: relative to the folder of the data, with slashes.
        label: number of its class.
    """

    path: str
    label: int


@dataclass(frozen=True)
class SplitData:
    """Images of K classes, divided for training and testing.

    Attributes:
        name: name in tables.
        folder: the folder that the paths are relative to.
        class_ids: K different identifiers, by label.
        class_names: K names as they stand in texts.
        train: training images, in published order.
        validation: validation images; often none.
        test: test images; perhaps none.
        published: its name among `PUBLISHED_SETS`; None for data of a user.
        origin: where the division comes from, for the record.
        left_out: number of other files by suffix that show images, but are not read.
    """

    name: str
    folder: Path
    class_ids: tuple[str, ...]
    class_names: tuple[str, ...]
    train: tuple[LabelledImage, ...]
    validation: tuple[LabelledImage, ...] = ()
    test: tuple[LabelledImage, ...] = ()
    published: str | None = None
    origin: str = ""
    left_out: Mapping[str, int] = field(default_factory=dict)

    @property
    def classes(self) -> int:
        """Number of classes K."""
        return len(self.class_ids)

    def take_classes(self, labels: Sequence[int]) -> SplitData:
        """Return the data restricted to some classes, numbered from 0 in the order of `labels`.

        Raises:
            InputError: there is no such class, or none is asked for, or one twice.
        """
        positions = {label: position for position, label in enumerate(labels)}
        if not positions or len(positions) != len(labels) or not positions.keys() <= set(range(self.classes)):
            raise InputError(
                f"expected different classes out of 0..{self.classes - 1} of {self.name}, found "
                f"{list(labels)}"
            )

        def keep(images: Iterable[LabelledImage]) -> tuple[LabelledImage, ...]:
            return tuple(
                LabelledImage(image.path, positions[image.label])
                for image in images
                if image.label in positions
            )

        return replace(
            self,
            class_ids=tuple(self.class_ids[label] for label in labels),
            class_names=tuple(self.class_names[label] for label in labels),
            train=keep(self.train),
            validation=keep(self.validation),
            test=keep(self.test),
        )

    def check_training_classes(self) -> None:
        """Check that every class has training images.

        Raises:
            InputError: one has none.
        """
        present = {image.label for image in self.train}
        if missing := [label for label in range(self.classes) if label not in present]:
            names = [self.class_ids[label] for label in missing]
            raise InputError(
                f"{_count(missing, 'class', 'classes')} of {self.name} without a training image: "
                f"{_list_some(names)}; complete the data, or leave the class out of the other images too"
            )

    def check_files(self, images: Iterable[LabelledImage]) -> None:
        """Check that image files exist.

        Raises:
            InputError: one does not; the message names the first ones.
        """
        missing = [image.path for image in images if not has_file(self.folder, image.path)]
        if missing:
            raise InputError(
                f"{_count(missing, 'image', 'images')} of {self.name} not in {self.folder}, although "
                f"{self.origin or 'its list'} names {'it' if len(missing) == 1 else 'them'}: "
                f"{_list_some(missing)}; complete the data, or name the right folder"
            )


def has_file(folder: Path, path: str) -> bool:
    """Return whether a folder has a file at a relative path, which may be no name that the system takes."""
    return os.path.isfile(f"{os.fspath(folder)}/{path}")  # noqa: PTH113


def _count(items: Sequence[object], one: str, many: str) -> str:
    return f"{len(items):,} {one if len(items) == 1 else many}"


def _list_some(names: Sequence[str]) -> str:
    return f"{', '.join(names[:_SHOWN])}{', …' if len(names) > _SHOWN else ''}"
