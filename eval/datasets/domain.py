"""Domains of labelled images to evaluate on: one corruption, one folder, or one embedded set."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ...data.image_file import Remark
from ...data.image_reader import ImageReader
from ...engine.errors import InputError, escape_controls
from ...engine.files import hash_texts

_NAMED_FOLDERS = 3
_NAMED_DOMAINS = 3

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Domain:
    """A set of labelled images, loaded one by one.

    Attributes:
        name: name in tables.
        ids: texts that identify the images, such as paths relative to the domain's folder.
        labels: int64 `[N]`, indices into the classes of the bundle.
        load: returns image i, uint8 `[H, W, 3]`; safe to call from several threads.
        open_image: returns image i decoded, RGB, before it is resized and cropped: what views are parts of.
            None where there is only what `load` returns, as for corruptions computed while streaming.
        generated: the corruption was computed by fozo and is not the official data.
        severity: severity of the corruption, 1 to 5, or None.
        classes: ascending indices of the classes of the data set; None is all classes of the bundle.
        benchmark: published benchmark that the domain belongs to, if figures depend on that.
        official_images: number of images of the official data set; None if there is no such number.
        subset_of: number of images from which these were chosen; None if they are all.
        official_class_count: number of classes of the official data set; None if that is not checked.
        missing_folders: class folders of the official data set that do not exist here.
        reader: reads the files, and remembers what is remarkable about them; None if there are no files.
        left_out: number of other files by suffix that show images, but are not read.
        notes: sentences on how the data were understood.
        learnt_from: the prompt was learnt from training images of this data set.
    """

    name: str
    ids: tuple[str, ...]
    labels: NDArray[np.int64]
    load: Callable[[int], Pixels]
    open_image: Callable[[int], Image.Image] | None = None
    generated: bool = False
    severity: int | None = None
    classes: tuple[int, ...] | None = None
    benchmark: str | None = None
    official_images: int | None = None
    subset_of: int | None = None
    official_class_count: int | None = None
    missing_folders: tuple[str, ...] = ()
    reader: ImageReader | None = None
    left_out: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    learnt_from: bool = False

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def available_images(self) -> int:
        """Number of images of the data, before a subset is chosen."""
        return len(self) if self.subset_of is None else self.subset_of

    def take(self, indices: Sequence[int] | NDArray[np.int64]) -> Domain:
        """Return the domain restricted to some images, in the given order."""
        positions, open_image = [int(index) for index in indices], self.open_image
        return replace(
            self,
            ids=tuple(self.ids[i] for i in positions),
            labels=self.labels[positions],
            load=lambda index: self.load(positions[index]),
            open_image=None if open_image is None else lambda index: open_image(positions[index]),
            subset_of=self.available_images,
        )

    def describe_deviations(self, name: str | None = None) -> list[str]:
        """Describe how the data differs from the official data set, where it does.

        Args:
            name: name of the domain in the text; None is its own name.
        """
        name = self.name if name is None else name
        class_count = len(self.classes or ())
        fewer_classes = self.official_class_count not in (None, class_count)
        missing, descriptions = self._describe_missing(), []
        wrong_count = self.official_images != self.available_images or (missing and not fewer_classes)
        if self.official_images is not None and wrong_count:
            folders = "" if fewer_classes else missing
            descriptions.append(
                f"{self.available_images:,} images of {name}, officially {self.official_images:,}{folders}"
            )
        if fewer_classes:
            descriptions.append(
                f"{class_count} class folders of {name}, officially {self.official_class_count}{missing}; "
                "predictions are only among these, which is easier"
            )
        return descriptions

    def _describe_missing(self) -> str:
        """Name the first missing class folders and count the others."""
        if not self.missing_folders:
            return ""
        unnamed = len(self.missing_folders) - _NAMED_FOLDERS
        more = f" and {unnamed:,} other{'s' if unnamed > 1 else ''}" if unnamed > 0 else ""
        folders = "folders" if len(self.missing_folders) > 1 else "folder"
        return f", without class {folders} {', '.join(self.missing_folders[:_NAMED_FOLDERS])}{more}"

    def collect_remarks(self) -> AbstractContextManager[set[Remark]]:
        """Collect the remarks on the files that this thread reads while the block runs."""
        return nullcontext(set()) if self.reader is None else self.reader.collect_remarks()

    def hash_ids(self) -> str:
        """Return the hash of the image identifiers in order, which tells subsets apart."""
        return hash_texts(*self.ids)


def describe_deviations(domains: Sequence[Domain]) -> list[str]:
    """Describe how domains differ from the official data set, equal differences in one sentence."""
    names: dict[str, dict[str, None]] = {}  # the domains of each deviation, in order and without repetition
    for domain in domains:
        for template in domain.describe_deviations("\0"):
            names.setdefault(template, {})[escape_controls(domain.name)] = None
    return [template.replace("\0", join_names(list(group))) for template, group in names.items()]


def join_names(names: Sequence[str]) -> str:
    """Return the names of domains that have something in common, the first few of them."""
    if len(names) <= _NAMED_DOMAINS:
        return f"{'each of ' if len(names) > 1 else ''}{', '.join(names)}"
    unnamed = len(names) - _NAMED_DOMAINS
    return f"each of {', '.join(names[:_NAMED_DOMAINS])} and {unnamed} other{'s' if unnamed > 1 else ''}"


def make_array_domain(
    name: str,
    images: NDArray[np.uint8],
    labels: Sequence[int] | NDArray[np.integer],
    ids: Sequence[str] | None = None,
) -> Domain:
    """Return a domain of images in memory, or memory-mapped, at the size that the model reads.

    Args:
        name: name in tables.
        images: uint8 RGB `[N, H, W, 3]`; not copied, so do not change them while they are streamed.
        labels: `[N]`, indices into the classes of the bundle.
        ids: N different texts that identify the images; None numbers them.

    Raises:
        InputError: an array has another type or shape, the lengths differ, or ids are not distinct.
    """
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3 or 0 in images.shape:
        raise InputError(
            f"expected uint8 images of shape [N, H, W, 3] for {name}, found {images.dtype} of shape "
            f"{list(images.shape)}; convert them to 8-bit RGB first"
        )
    count, classes = len(images), np.asarray(labels)
    if classes.shape != (count,) or classes.dtype.kind not in "iu" or classes.min() < 0:
        raise InputError(
            f"expected {count} labels for {name}, whole numbers from 0 up, found {classes.dtype} of shape "
            f"{list(classes.shape)}{f' from {classes.min()} up' if classes.size else ''}"
        )
    texts = tuple(ids) if ids is not None else number_ids(count)
    if len(texts) != count or len(set(texts)) != count:
        raise InputError(
            f"expected {count} different ids for {name}, found {len(texts)}, of which "
            f"{len(set(texts))} are different"
        )
    return Domain(name, texts, classes.astype(np.int64), lambda index: np.asarray(images[index]))


def number_ids(count: int) -> tuple[str, ...]:
    """Return identifiers of images that have none, five digits from `00000` on."""
    return tuple(f"{index:05d}" for index in range(count))
