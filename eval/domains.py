"""Labelled images to evaluate on: a domain is one corruption, one folder, or one embedded set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..data.demo import DEMO_CLASSES, demo_images
from ..data.images import center_crop, list_images, preprocess, read_image
from ..engine.bundle import Manifest
from ..engine.errors import InputError
from ..engine.files import sha256_of_parts
from .corruptions import FROST, NAMES, corrupt, frost_textures

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
IMAGENET_C_SIZE = 224
CLEAN = "clean"

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
    """

    name: str
    ids: tuple[str, ...]
    labels: NDArray[np.int64]
    load: Callable[[int], Pixels]
    generated: bool = False
    severity: int | None = None
    classes: tuple[int, ...] | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, indices: Sequence[int] | NDArray[np.int64]) -> Domain:
        """The domain restricted to some images, in the given order."""
        chosen = [int(index) for index in indices]
        return replace(
            self,
            ids=tuple(self.ids[i] for i in chosen),
            labels=self.labels[chosen],
            load=lambda index: self.load(chosen[index]),
        )

    def ids_sha256(self) -> str:
        """Hash of the image identifiers in order, to tell subsets apart."""
        return sha256_of_parts(*self.ids)


def imagefolder(folder: Path, manifest: Manifest, name: str | None = None) -> Domain:
    """Images in one folder per class (`<class>/<image>`), prepared as the bundle says.

    Folders are matched with the bundle's class identifiers. Where the bundle has none, they must be exactly
    as many as the classes, and sorted names stand for indices.

    Raises:
        InputError: the folder is missing or empty, or a class folder is not a class of the model.
    """
    return _folder(
        folder,
        manifest,
        name or folder.resolve().name,
        lambda path: preprocess(read_image(path), manifest.preprocessing),
    )


def imagenet_c(root: Path, manifest: Manifest, severity: int, corruptions: Sequence[str]) -> list[Domain]:
    """ImageNet-C in its official layout, `<corruption>/<severity>/<wnid>/<image>`; only centre-cropped.

    Raises:
        InputError: a corruption is not one of ImageNet-C's or its folder is missing, or the model reads
            images larger than ImageNet-C's 224 pixels.
    """
    _check_names(corruptions, IMAGENET_C, "ImageNet-C")
    size = manifest.preprocessing.size
    if max(size) > IMAGENET_C_SIZE:
        raise InputError(
            f"ImageNet-C images have {IMAGENET_C_SIZE} pixels a side and this model reads {size[0]} × "
            f"{size[1]}; export it with --image-size {IMAGENET_C_SIZE}"
        )
    if not root.is_dir():
        raise InputError(f"there is no folder {root}; --data names the folder that holds gaussian_noise/, …")
    missing = [name for name in corruptions if not (root / name / str(severity)).is_dir()]
    if missing:
        raise InputError(
            f"expected {root}/<corruption>/{severity}/<wnid>/*.JPEG; missing: "
            f"{', '.join(f'{name}/{severity}' for name in missing)}. Unpack ImageNet-C's archives side "
            "by side there, or choose what you have with --corruptions"
        )
    return [
        _folder(root / name / str(severity), manifest, name, lambda path: center_crop(read_image(path), size))
        for name in corruptions
    ]


def generated(
    clean: Domain, severity: int, corruptions: Sequence[str], seed: int, textures: Path | None = None
) -> list[Domain]:
    """Corrupted versions of clean images, computed while streaming; `clean` among the names is the original.

    Raises:
        InputError: there is no such corruption, the severity is not in 1..5, or frost is named and the folder
            `textures` does not hold its textures.
    """
    _check_names(corruptions, (*NAMES, CLEAN), "the generator")
    if FROST in corruptions:
        frost_textures(textures)
    return [
        clean if name == CLEAN else _corrupted(clean, name, severity, seed, textures) for name in corruptions
    ]


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
    return Domain(
        CLEAN,
        tuple(f"digit-{index:04d}" for index in range(len(labels))),
        labels,
        lambda index: images[index],
    )


def _corrupted(clean: Domain, name: str, severity: int, seed: int, textures: Path | None) -> Domain:
    def load(index: int) -> Pixels:
        image_id = clean.ids[index]
        return corrupt(clean.load(index), name, severity, image_id=image_id, seed=seed, textures=textures)

    return Domain(name, clean.ids, clean.labels, load, generated=True)


def _check_names(names: Sequence[str], known: Sequence[str], where: str) -> None:
    if len(set(names)) != len(names):
        raise InputError(f"a corruption is named twice: {', '.join(names)}")
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        raise InputError(
            f"{where} has no corruption {', '.join(unknown) or '(none given)'}; it has: {', '.join(known)}"
        )


def _folder(folder: Path, manifest: Manifest, name: str, load: Callable[[Path], Pixels]) -> Domain:
    # Only names are kept, no paths: ImageNet-C has 750,000 images.
    ids = tuple(path.relative_to(folder).as_posix() for path in list_images(folder))
    loose = [identifier for identifier in ids if identifier.count("/") != 1]
    if loose:
        raise InputError(
            f"expected {folder}/<class>/<image>, found {folder}/{loose[0]}"
            f"{f' and {len(loose) - 1} more' if len(loose) > 1 else ''}; put every image into the folder "
            "of its class"
        )
    index = _class_index(sorted({identifier.split("/")[0] for identifier in ids}), manifest, folder)
    labels = np.array([index[identifier.split("/")[0]] for identifier in ids], np.int64)
    return Domain(name, ids, labels, lambda i: load(folder / ids[i]))


def _class_index(found: list[str], manifest: Manifest, folder: Path) -> dict[str, int]:
    if manifest.class_ids is None:
        if len(found) != manifest.classes:
            raise InputError(
                f"the bundle does not know its classes' names, so {folder} must have one folder for each "
                f"of its {manifest.classes} classes, found {len(found)}; export the model with --class-ids"
            )
        return {name: index for index, name in enumerate(found)}
    known = {name: index for index, name in enumerate(manifest.class_ids)}
    unknown = [name for name in found if name not in known]
    if unknown:
        raise InputError(
            f"{folder} has {len(unknown)} folders that are no class of {manifest.model}: "
            f"{', '.join(unknown[:5])}{', …' if len(unknown) > 5 else ''}; its classes are named like "
            f"{', '.join(manifest.class_ids[:2])}"
        )
    return known
