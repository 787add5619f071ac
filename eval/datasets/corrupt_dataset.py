"""Clean images in class folders to corrupted ones on disk, in ImageNet-C's layout.

Every file depends on its clean image, the options and the seed only, and is whole or absent. So the order of
the work and the number of processes do not show in the result, and interrupted work goes on where it was.
"""

from __future__ import annotations

import hashlib
import io
from collections import Counter
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from PIL import Image

from ...data.images import preprocess, read_image
from ...engine.bundle.preprocessing import INTERPOLATIONS, Preprocessing
from ...engine.errors import InputError, OutputError
from ...engine.files import hash_texts, write_atomic
from ..corruptions.corruption_registry import FROST, corrupt
from ..corruptions.weather import load_frost_textures
from ..processes.workers import in_processes
from .class_folders import ClassFolders, class_folders
from .corrupted_folder import begin_record
from .domain import EXTRA, IMAGENET_C, Pixels, check_names, check_severities

# The first is what a file gets that has none of them.
SUFFIXES = {"jpeg": (".JPEG", ".jpeg", ".JPG", ".jpg"), "png": (".png", ".PNG")}
PUBLISHED_QUALITY = 85


def default_corruptions(textures: Path | None) -> tuple[str, ...]:
    """Return ImageNet-C's corruptions, without frost unless its textures are given."""
    return tuple(name for name in IMAGENET_C if name != FROST or textures is not None)


@dataclass(frozen=True)
class Recipe:
    """Everything that the pixels depend on, beside the clean images.

    Attributes:
        corruptions: their names, without repetition.
        severities: 1 to 5.
        seed: of the random numbers, as in `corrupt`.
        resize: length of the shorter side of a clean image before it is cropped, in pixels.
        size: height and width of the result, its middle.
        interpolation: of the resizing, one of `INTERPOLATIONS`.
        format: `jpeg` or `png`.
        quality: of JPEG, 1 to 100; the published files have 85.
        textures: frost's folder.
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

    def __post_init__(self) -> None:
        """Refuses what does not exist.

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
        """The clean image, resized and cropped."""
        preprocessing = Preprocessing((self.size, self.size), self.resize, self.interpolation)
        return preprocess(read_image(path), preprocessing)

    def encode(self, image: Pixels) -> bytes:
        """The content of the file."""
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
        out: the folder that gets a folder for each corruption.
        targets: `<class>/<file>` for each clean image.
    """

    recipe: Recipe
    clean: ClassFolders
    out: Path
    targets: tuple[str, ...]

    @property
    def files(self) -> int:
        """Number of files when all are written."""
        return len(self.targets) * len(self.recipe.corruptions) * len(self.recipe.severities)


def prepare(clean: Path, out: Path, recipe: Recipe) -> Work:
    """Checks everything, creates the folder and writes its record.

    Raises:
        InputError: there is something wrong with the clean images or their names, or the output folder has
            other content or lies among the clean images.
        OutputError: the folder cannot be written.
    """
    listing = class_folders(clean)
    if out.resolve().is_relative_to(clean.resolve()):
        raise InputError(f"{out} lies in the folder of the clean images, {clean}; choose one outside of it")
    targets = tuple(_target(identifier, recipe.format) for identifier in listing.ids)
    if len(set(targets)) < len(targets):
        twice, _ = Counter(targets).most_common(1)[0]
        names = [name for name, target in zip(listing.ids, targets, strict=True) if target == twice]
        raise InputError(f"{' and '.join(names)} in {clean} would all become {twice}; rename them")
    _make_folder(out)
    begin_record(out, _describe_recipe(recipe, listing))
    return Work(recipe, listing, out, targets)


def write(work: Work, workers: int) -> Generator[int, None, None]:
    """Writes the files that are not there yet.

    Yields, for every severity and clean image in turn, how many of its files were missing. Closing the
    iterator stops the work; what was written stays.

    Args:
        work: what to write.
        workers: processes, at least 1; with 1 there is no other process than this one.

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
    yield from in_processes(corrupt_image, tasks, workers)


def corrupt_image(recipe: Recipe, severity: int, clean: str, image_id: str, out: str, target: str) -> int:
    """Writes one clean image's files at one severity, as far as they are missing; says how many.

    Raises:
        InputError: the clean image cannot be read.
        OutputError: a file cannot be written.
    """
    paths = {name: Path(out, name, str(severity), target) for name in recipe.corruptions}
    missing = {name: path for name, path in paths.items() if not path.is_file()}
    if not missing:
        return 0
    image = recipe.prepare(f"{clean}/{image_id}")
    for name, path in missing.items():
        pixels = corrupt(image, name, severity, image_id=image_id, seed=recipe.seed, textures=recipe.textures)
        _make_folder(path.parent)
        write_atomic(path, recipe.encode(pixels))
    return len(missing)


def _target(identifier: str, kind: str) -> str:
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
        "frost_textures_sha256": _textures_sha256(recipe),
        "images": len(clean.ids),
        "ids_sha256": hash_texts(*clean.ids),
    }


def _textures_sha256(recipe: Recipe) -> str | None:
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
            f"cannot make the folder {path}: {error.strerror or error}; choose another place, or make room "
            "and allow writing there"
        ) from error
