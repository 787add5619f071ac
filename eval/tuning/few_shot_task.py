"""A few labelled images of named classes: what a context is learnt from."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ...data.image_names import describe_left_out
from ...engine.bundle.bundle import Bundle
from ...engine.errors import InputError
from ...engine.files import hash_texts
from ..datasets.few_shots import choose_half, choose_shots
from ..datasets.open_split import open_split_data
from ..datasets.split_data import LabelledImage, SplitData
from .tuning_spec import TuningSpec

_WNID = re.compile(r"n\d{8}")


@dataclass(frozen=True)
class FewShotTask:
    """The images that a context is learnt from.

    Attributes:
        data: the classes to learn from, with all of their images.
        shots: the training images, in the order in which they were chosen.
        all_classes: the same data with all classes, for tests on those that were not learnt.
        notes: sentences on how the data were understood.
    """

    data: SplitData
    shots: tuple[LabelledImage, ...]
    all_classes: SplitData
    notes: tuple[str, ...] = ()

    @property
    def labels(self) -> NDArray[np.int64]:
        """Classes of the shots, `[N]`."""
        return np.asarray([image.label for image in self.shots], np.int64)

    @property
    def sha256(self) -> str:
        """Hash of the shots, in order, and of the classes."""
        images = [f"{image.label} {image.path}" for image in self.shots]
        return hash_texts(*self.data.class_ids, *self.data.class_names, *images)


def prepare_task(spec: TuningSpec, bundle: Bundle) -> FewShotTask:
    """Open the data, name the classes, and choose the images.

    Raises:
        InputError: the data are not as they should be, or the classes cannot be named.
        BundleError: there is no such head.
    """
    data = open_split_data(spec.data, spec.split, spec.dataset)
    data, note = name_classes(data, bundle, spec.head)
    shots = replace(data, train=choose_shots(data.train, spec.shots, spec.seed))
    task = choose_half(shots, spec.classes)
    task.check_files(task.train)
    counts = Counter(image.label for image in task.train)
    scarce = [name for label, name in enumerate(task.class_names) if counts[label] < spec.shots]
    notes = [text for text in (note, describe_left_out(data.left_out)) if text]
    if scarce:
        notes.append(
            f"{len(scarce)} of {task.classes} classes have fewer than {spec.shots} training images, such as "
            f"{scarce[0]}; all of them are used"
        )
    return FewShotTask(task, task.train, data, tuple(notes))


def name_classes(data: SplitData, bundle: Bundle, head: str | None = None) -> tuple[SplitData, str | None]:
    """Return the data with the names that a head of the bundle has for its classes, and a note about it.

    Without a head, class folders take the names of the head in use if all of them are identifiers of it.
    Otherwise, and for published data, the names of the data stay.

    Raises:
        BundleError: there is no such head.
        InputError: a class is none of the head's; or the classes are WordNet identifiers without names.
    """
    manifest = bundle.manifest if head is None else bundle.select_head(head).manifest
    ids, names = manifest.class_ids or (), manifest.class_names or ()
    known_names = dict(zip(ids, names, strict=True)) if len(ids) == len(names) else {}
    unknown = [identifier for identifier in data.class_ids if identifier not in known_names]
    if head is not None and unknown:
        raise InputError(
            f"{len(unknown)} classes of {data.name} are none of the head {head}: {', '.join(unknown[:3])}"
            f"{', …' if len(unknown) > 3 else ''}; its classes are named like {', '.join(list(ids)[:2])}"
        )
    if not unknown and (head is not None or data.published is None):
        class_names = tuple(known_names[identifier] for identifier in data.class_ids)
        note = f"names of classes are those of the head {head or manifest.head_name}"
        return replace(data, class_names=class_names), None if class_names == data.class_names else note
    if all(map(_WNID.fullmatch, data.class_ids)):
        raise InputError(
            f"the classes of {data.name} are WordNet identifiers like {data.class_ids[0]}, which say nothing "
            "to a text tower, and no head of the bundle names them; make one with: fozo classes BUNDLE "
            "NAMES.txt --as NAME, in lines like: n01440764 tench"
        )
    return data, None
