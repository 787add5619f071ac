"""Labelled images to evaluate on: a domain is one corruption, one folder, or one embedded set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...data.demo import DEMO_CLASSES, demo_images
from ...data.images import preprocess, read_image
from ...engine.bundle.manifest import Manifest
from ...engine.errors import InputError
from ...engine.files import hash_texts
from ..corruptions.corruption_registry import FROST, NAMES, SEVERITIES, corrupt
from ..corruptions.weather import load_frost_textures
from .class_folders import ClassFolders, class_folders, class_index, official_classes

IMAGENET_C = (
    "gaussian_noise",
    "shot_noise",
    "impulse_noise",
    "defocus_blur",
    "glass_blur",
    "motion_blur",
    "zoom_blur",
    "snow",
    "frost",
    "fog",
    "brightness",
    "contrast",
    "elastic_transform",
    "pixelate",
    "jpeg_compression",
)
# The paper holds these back for validation; they are taken by name only.
EXTRA = ("speckle_noise", "gaussian_blur", "spatter", "saturate")
CLEAN = "clean"
_NAMED_FOLDERS = 3
_NAMED_DOMAINS = 3

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Domain:
    """A set of labelled images, loaded one by one.

    Attributes:
        name: as it appears in tables.
        ids: what tells the images apart, such as paths relative to the domain's folder.
        labels: int64 `[N]`, indices into the classes of the bundle.
        load: gives image i, uint8 `[H, W, 3]`; safe to call from several threads.
        generated: the corruption was computed by fozo and is not the official data.
        severity: of the corruption, 1 to 5, or None.
        classes: indices of the classes that the data set has, ascending, or None: all of the bundle's.
        benchmark: the published benchmark that this is a domain of, where figures depend on that.
        expected: how many images the official data set has, or None where there is no such number.
        found: how many the data has, where this is a subset of it; None: as many as this.
        expected_classes: how many classes the official data set has, or None where that is not checked.
        missing: class folders that the official data set has and that are not there.
    """

    name: str
    ids: tuple[str, ...]
    labels: NDArray[np.int64]
    load: Callable[[int], Pixels]
    generated: bool = False
    severity: int | None = None
    classes: tuple[int, ...] | None = None
    benchmark: str | None = None
    expected: int | None = None
    found: int | None = None
    expected_classes: int | None = None
    missing: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def whole(self) -> int:
        """Number of images of the data that these are from."""
        return len(self) if self.found is None else self.found

    def take(self, indices: Sequence[int] | NDArray[np.int64]) -> Domain:
        """The domain restricted to some images, in the given order."""
        positions = [int(index) for index in indices]
        return replace(
            self,
            ids=tuple(self.ids[i] for i in positions),
            labels=self.labels[positions],
            load=lambda index: self.load(positions[index]),
            found=self.whole,
        )

    def describe_deviations(self, name: str | None = None) -> list[str]:
        """Describe how the data differs from the official data set, where it does.

        Args:
            name: what to call the domain; None is its own name.
        """
        name = self.name if name is None else name
        class_count = len(self.classes or ())
        fewer_classes = self.expected_classes not in (None, class_count)
        missing, descriptions = self._describe_missing(), []
        wrong_count = self.expected != self.whole or (missing and not fewer_classes)
        if self.expected is not None and wrong_count:
            folders = "" if fewer_classes else missing
            descriptions.append(f"{self.whole:,} images of {name}, officially {self.expected:,}{folders}")
        if fewer_classes:
            descriptions.append(
                f"{class_count} class folders of {name}, officially {self.expected_classes}{missing}; "
                "predictions are only among these, which is easier"
            )
        return descriptions

    def _describe_missing(self) -> str:
        """Name the first missing class folders and count the others."""
        if not self.missing:
            return ""
        unnamed = len(self.missing) - _NAMED_FOLDERS
        more = f" and {unnamed:,} other{'s' if unnamed > 1 else ''}" if unnamed > 0 else ""
        folders = "folders" if len(self.missing) > 1 else "folder"
        return f", without class {folders} {', '.join(self.missing[:_NAMED_FOLDERS])}{more}"

    def ids_sha256(self) -> str:
        """Hash of the image identifiers in order, to tell subsets apart."""
        return hash_texts(*self.ids)


def describe_deviations(domains: Sequence[Domain]) -> list[str]:
    """Describe how domains differ from the official data set, in one sentence where they all differ alike."""
    names: dict[str, dict[str, None]] = {}  # the domains of each deviation, in order and without repetition
    for domain in domains:
        for template in domain.describe_deviations("\0"):
            names.setdefault(template, {})[domain.name] = None
    return [template.replace("\0", _join_names(list(group))) for template, group in names.items()]


def _join_names(names: Sequence[str]) -> str:
    if len(names) <= _NAMED_DOMAINS:
        return f"{'each of ' if len(names) > 1 else ''}{', '.join(names)}"
    unnamed = len(names) - _NAMED_DOMAINS
    return f"each of {', '.join(names[:_NAMED_DOMAINS])} and {unnamed} other{'s' if unnamed > 1 else ''}"


def arrays(
    name: str,
    images: NDArray[np.uint8],
    labels: Sequence[int] | NDArray[np.integer],
    ids: Sequence[str] | None = None,
) -> Domain:
    """A domain of images that are already in memory, or memory-mapped, at the size that the model reads.

    Args:
        name: as it appears in tables.
        images: uint8 RGB `[N, H, W, 3]`; not copied, so do not change them while they are streamed.
        labels: `[N]`, indices into the classes of the bundle.
        ids: N different texts that tell the images apart; None numbers them.

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
    texts = tuple(ids) if ids is not None else numbered(count)
    if len(texts) != count or len(set(texts)) != count:
        raise InputError(
            f"expected {count} different ids for {name}, found {len(texts)}, of which "
            f"{len(set(texts))} are different"
        )
    return Domain(name, texts, classes.astype(np.int64), lambda index: np.asarray(images[index]))


def numbered(count: int) -> tuple[str, ...]:
    """Identifiers of images that have none: `00000`, `00001`, …"""
    return tuple(f"{index:05d}" for index in range(count))


def imagefolder(folder: Path, manifest: Manifest, name: str | None = None) -> Domain:
    """Images in one folder per class (`<class>/<image>`), prepared as the bundle says.

    The order in which images are streamed depends on the name (default: the folder's). Folders are matched
    with the bundle's class identifiers. Where the bundle has none, they must be exactly as many as the
    classes, and sorted names stand for indices.

    Raises:
        InputError: the folder is missing or empty, or a class folder is empty or not a class of the model.
    """
    listing = class_folders(folder)
    labels = listing.labels(class_index(listing.classes, manifest, folder))
    return Domain(
        name or folder.resolve().name,
        listing.ids,
        labels,
        reader(listing, prepared(manifest)),
        missing=listing.without(official_classes(manifest)),
    )


def prepared(manifest: Manifest) -> Callable[[str], Pixels]:
    """Reads an image file as the bundle says: resized and cropped."""
    return lambda path: preprocess(read_image(path), manifest.preprocessing)


def reader(listing: ClassFolders, read: Callable[[str], Pixels]) -> Callable[[int], Pixels]:
    """`Domain.load` of images in class folders, given what reads one file."""
    folder, ids = str(listing.folder), listing.ids
    return lambda index: read(f"{folder}/{ids[index]}")


def generated(
    clean: Domain, severity: int, corruptions: Sequence[str], seed: int, textures: Path | None = None
) -> list[Domain]:
    """Corrupted versions of clean images, computed while streaming; `clean` among the names is the original.

    Raises:
        InputError: there is no such corruption, the severity is not in 1..5, or frost is named and the folder
            `textures` does not hold its textures.
    """
    check_names(corruptions, (*NAMES, CLEAN), "the generator")
    check_severities([severity])
    if FROST in corruptions:
        load_frost_textures(textures)
    return [
        clean if name == CLEAN else _corrupt_domain(clean, name, severity, seed, textures)
        for name in corruptions
    ]


def generate_at_severities(
    clean: Domain, severities: Sequence[int], corruptions: Sequence[str], seed: int, textures: Path | None
) -> list[Domain]:
    """Corrupt clean images at each severity in turn; clean images, which have none, come once, at the end."""
    turns = [generated(clean, severity, corruptions, seed, textures) for severity in severities]
    return [domain for turn in turns for domain in turn if domain.name != CLEAN or turn is turns[-1]]


def demo(manifest: Manifest) -> Domain:
    """The demonstration's test images (handwritten digits), clean.

    Raises:
        InputError: the bundle is not one of the demonstration's model, or scikit-learn is not installed.
    """
    size = manifest.preprocessing.size
    if manifest.class_ids != DEMO_CLASSES or size != (32, 32):
        raise InputError(
            f"the demo data set needs the demo model, this bundle is {manifest.model}; make one with: "
            "fozo export --model fozo_demo_vit"
        )
    images, labels = demo_images("test")
    return arrays(CLEAN, images, labels, [f"digit-{index:04d}" for index in range(len(labels))])


def check_names(names: Sequence[str], choices: Sequence[str], where: str) -> None:
    """Refuses corruptions that do not exist or are named twice, and naming none.

    Raises:
        InputError: with the names that `where` has.
    """
    if len(set(names)) != len(names):
        raise InputError(f"a corruption is named twice: {', '.join(names)}")
    unknown = [name for name in names if name not in choices]
    if unknown or not names:
        raise InputError(
            f"{where} has no corruption {', '.join(unknown) or '(none given)'}; it has: {', '.join(choices)}"
        )


def check_severities(severities: Sequence[int]) -> None:
    """Refuses severities that do not exist or are named twice, and naming none.

    Raises:
        InputError: with the severities that there are.
    """
    if not severities or len(set(severities)) != len(severities) or not set(severities) <= set(SEVERITIES):
        raise InputError(
            f"expected different severities out of {', '.join(map(str, SEVERITIES))}, found "
            f"{', '.join(map(str, severities)) or 'none'}"
        )


def _corrupt_domain(clean: Domain, name: str, severity: int, seed: int, textures: Path | None) -> Domain:
    def load(index: int) -> Pixels:
        image_id = clean.ids[index]
        return corrupt(clean.load(index), name, severity, image_id=image_id, seed=seed, textures=textures)

    return Domain(name, clean.ids, clean.labels, load, generated=True, severity=severity)
