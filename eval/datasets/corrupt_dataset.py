"""Corrupted copies of clean images on disk, in the layout of ImageNet-C.

Every file depends only on its clean image, the options and the seed, and is either complete or absent. The
result therefore does not depend on the order of the work or the number of processes, and interrupted work can
be continued.
"""

from __future__ import annotations

import hashlib
import io
from collections import Counter
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

from PIL import Image

from ...data.image_reader import ImageReader
from ...data.reading import Reading, suggest_skipping
from ...engine.bundle.preprocessing import INTERPOLATIONS, Preprocessing
from ...engine.errors import InputError, OutputError, reason
from ...engine.files import hash_texts, write_atomic
from ..corruptions.corruption_registry import FROST, corrupt
from ..corruptions.weather import load_frost_textures
from ..processes.workers import run_in_processes
from .class_folders import ClassFolders, list_class_folders
from .corrupted_folder import begin_record
from .corruption_names import EXTRA, IMAGENET_C, check_names, check_severities
from .domain import Pixels

# A file that has none of these suffixes gets the first.
SUFFIXES = {"jpeg": (".JPEG", ".jpeg", ".JPG", ".jpg"), "png": (".png", ".PNG")}
PUBLISHED_QUALITY = 85
_READERS = 2  # threads that check clean images


def list_default_corruptions(textures: Path | None) -> tuple[str, ...]:
    """Return ImageNet-C's corruptions, without frost unless its textures are given."""
    return tuple(name for name in IMAGENET_C if name != FROST or textures is not None)


@dataclass(frozen=True)
class Recipe:
    """Options that the pixels depend on.

    Attributes:
        corruptions: names of the corruptions, without repetition.
        severities: 1 to 5.
        seed: seed of the random numbers, as in `corrupt`.
        resize: length in pixels to which the shorter side of a clean image is resized.
        size: side in pixels of the square that is cut from the middle.
        interpolation: filter for resizing, one of `INTERPOLATIONS`.
        format: `jpeg` or `png`.
        quality: JPEG quality, 1 to 100; the published files have 85.
        textures: folder with the textures of frost.
        reading: how the files of clean images are read.
    """

    corruptions: tuple[str, ...]
    severities: tuple[int, ...]
    seed: int = 0
    resize: int = 256
    size: int = 224
    interpolation: str = "bilinear"
    format: str = "jpeg"
    quality: int = PUBLISHED_QUALITY
    textures: Path | None = None
    reading: Reading = field(default_factory=Reading)

    def __post_init__(self) -> None:
        """Check all options.

        Raises:
            InputError: a name or a severity does not exist, frost has no textures, the quality is not in
                1..100, or the crop is larger than the resized image.
        """
        check_names(self.corruptions, (*IMAGENET_C, *EXTRA), "the generator")
        check_severities(self.severities)
        if FROST in self.corruptions:
            load_frost_textures(self.textures)
        if self.format not in SUFFIXES or not 1 <= self.quality <= 100:
            raise InputError(
                f"expected the format {' or '.join(SUFFIXES)} and a quality from 1 to 100, found "
                f"{self.format!r} and {self.quality}"
            )
        if not 1 <= self.size <= self.resize or self.interpolation not in INTERPOLATIONS:
            raise InputError(
                f"expected a crop that fits into the resized image and an interpolation out of "
                f"{', '.join(INTERPOLATIONS)}, found {self.size} of {self.resize} pixels and "
                f"{self.interpolation!r}; choose a larger --resize or a smaller --size"
            )

    def prepare(self, path: str) -> Pixels:
        """Return the clean image, resized and cropped."""
        preprocessing = Preprocessing((self.size, self.size), self.resize, self.interpolation)
        return ImageReader(self.reading).prepare(preprocessing)(path)

    def encode(self, image: Pixels) -> bytes:
        """Return the content of the file of an image."""
        stream = io.BytesIO()
        options: dict[str, Any] = {"quality": self.quality, "optimize": True} if self.format == "jpeg" else {}
        Image.fromarray(image).save(stream, self.format, **options)
        return stream.getvalue()


@dataclass(frozen=True)
class Work:
    """Files to write.

    Attributes:
        recipe: how images are corrupted.
        clean: the clean images.
        out: folder that receives a folder for each corruption.
        targets: `<class>/<file>` for each clean image.
    """

    recipe: Recipe
    clean: ClassFolders
    out: Path
    targets: tuple[str, ...]

    @property
    def files(self) -> int:
        """Number of files, existing ones included."""
        return len(self.targets) * len(self.recipe.corruptions) * len(self.recipe.severities)


def prepare(
    clean: Path, out: Path, recipe: Recipe, reader: ImageReader | None = None, *, skip: bool = False
) -> Work:
    """Check everything, create the folder and write its record.

    Args:
        clean: folder of clean images, by class folder.
        out: folder that receives the corrupted images.
        recipe: options that the pixels depend on.
        reader: remembers what is remarkable about the clean images; None is one with the recipe's options.
        skip: read every clean image now, and leave out those that cannot be read.

    Raises:
        InputError: the clean images or their names cannot be used, or the output folder has other content or
            lies among the clean images.
        OutputError: the folder cannot be written.
    """
    reader = reader or ImageReader(recipe.reading)
    listing = list_class_folders(clean)
    reader.left_out[str(clean)] = listing.left_out
    if skip:
        listing = _keep_readable(listing, reader)
    if out.resolve().is_relative_to(clean.resolve()):
        raise InputError(f"{out} lies in the folder of the clean images, {clean}; choose one outside of it")
    targets = tuple(_name_target(identifier, recipe.format) for identifier in listing.ids)
    if len(set(targets)) < len(targets):
        duplicate, _ = Counter(targets).most_common(1)[0]
        names = [name for name, target in zip(listing.ids, targets, strict=True) if target == duplicate]
        raise InputError(f"{' and '.join(names)} in {clean} would all become {duplicate}; rename them")
    _make_folder(out)
    begin_record(out, _describe_recipe(recipe, listing))
    return Work(recipe, listing, out, targets)


def _keep_readable(listing: ClassFolders, reader: ImageReader) -> ClassFolders:
    with ThreadPoolExecutor(_READERS, thread_name_prefix="fozo-check") as pool:
        readable = list(
            pool.map(lambda identifier: _is_readable(listing.folder, identifier, reader), listing.ids)
        )
    ids = tuple(identifier for identifier, good in zip(listing.ids, readable, strict=True) if good)
    if not ids:
        raise InputError(f"no image in {listing.folder} can be read, the first being {listing.ids[0]}")
    return replace(listing, ids=ids)


def _is_readable(folder: Path, identifier: str, reader: ImageReader) -> bool:
    return reader.read_or_skip(f"{folder}/{identifier}") is not None


def write(work: Work, workers: int) -> Generator[int, None, None]:
    """Write the missing files.

    Yield, for every severity and clean image in turn, how many of its files were missing. Closing the
    generator stops the work; written files stay.

    Args:
        work: the files to write.
        workers: number of processes, at least 1; 1 works in this process.

    Raises:
        InputError: a clean image cannot be read.
        OutputError: a file cannot be written.
        ComputeError: a process ended, most often for lack of memory.
    """
    tasks = (
        (work.recipe, severity, str(work.clean.folder), identifier, str(work.out), target)
        for severity in work.recipe.severities
        for identifier, target in zip(work.clean.ids, work.targets, strict=True)
    )
    yield from run_in_processes(corrupt_image, tasks, workers)


def corrupt_image(recipe: Recipe, severity: int, clean: str, image_id: str, out: str, target: str) -> int:
    """Write the missing files of one clean image at one severity, and return how many there were.

    Raises:
        InputError: the clean image cannot be read.
        OutputError: a file cannot be written.
    """
    paths = {name: Path(out, name, str(severity), target) for name in recipe.corruptions}
    missing = {name: path for name, path in paths.items() if not path.is_file()}
    if not missing:
        return 0
    try:
        image = recipe.prepare(f"{clean}/{image_id}")
    except InputError as error:
        raise suggest_skipping(error) from error
    for name, path in missing.items():
        pixels = corrupt(image, name, severity, image_id=image_id, seed=recipe.seed, textures=recipe.textures)
        _make_folder(path.parent)
        write_atomic(path, recipe.encode(pixels))
    return len(missing)


def _name_target(identifier: str, kind: str) -> str:
    path = PurePosixPath(identifier)
    suffixes = SUFFIXES[kind]
    return identifier if path.suffix in suffixes else str(path.with_suffix(suffixes[0]))


def _describe_recipe(recipe: Recipe, clean: ClassFolders) -> dict[str, Any]:
    """Return everything that must agree for two runs to write the same files."""
    return {
        "corruptions": [name for name in (*IMAGENET_C, *EXTRA) if name in recipe.corruptions],
        "severities": sorted(recipe.severities),
        "seed": recipe.seed,
        "resize": recipe.resize,
        "size": recipe.size,
        "interpolation": recipe.interpolation,
        "format": recipe.format,
        "quality": recipe.quality if recipe.format == "jpeg" else None,
        "frost_textures_sha256": _hash_textures(recipe),
        "exif_orientation": recipe.reading.exif_orientation,
        "reduced_above": recipe.reading.reduced_above,
        "images": len(clean.ids),
        "ids_sha256": hash_texts(*clean.ids),
    }


def _hash_textures(recipe: Recipe) -> str | None:
    if FROST not in recipe.corruptions:
        return None
    digest = hashlib.sha256()
    for texture in load_frost_textures(recipe.textures):
        digest.update(texture.tobytes())
    return digest.hexdigest()


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"cannot make the folder {path}: {reason(error)}; choose another place, or make room "
            "and allow writing there"
        ) from error
