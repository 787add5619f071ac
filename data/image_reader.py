"""A reader of image files that counts what its user should know about them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import Lock, local

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..engine.bundle.preprocessing import Preprocessing
from ..engine.errors import InputError, escape_controls
from .image_file import Remark, decode_file
from .image_names import describe_left_out
from .images import preprocess
from .reading import Reading

_SENTENCES: dict[str, str] = {
    "orientation": "{} turned by EXIF data, which timm and torchvision ignore and so does fozo; "
    "--exif-orientation apply turns them",
    "transparency": "{} transparent in places; transparency was dropped",
    "cmyk": "{} in CMYK, converted to RGB without regard to a colour profile",
    "profile": "{} in colours other than sRGB, by a colour profile that was not applied",
    "frames": "{} animated; only the first picture was read",
    "dark": "{} of 16 bits, of which the upper two are never used; if the camera has fewer bits than 16, "
    "scale the values to the whole range",
    "reduced": "{} larger than --max-pixels, decoded at a half, a quarter or an eighth of the size",
}


class ImageReader:
    """Reads image files in one way, from any number of threads, and remembers what is remarkable.

    Attributes:
        reading: how files are read.
        remarks: the files that each remark is about.
        unreadable: errors by file, of `read_or_skip`.
        left_out: by folder, the number of files by suffix that show images, but are not read.
    """

    def __init__(self, reading: Reading | None = None) -> None:
        """Take how files are read; None is as `read_image` does by default."""
        self.reading = reading or Reading()
        self.remarks: dict[Remark, set[str]] = {}
        self.unreadable: dict[str, str] = {}
        self.left_out: dict[str, Mapping[str, int]] = {}
        self._lock, self._thread = Lock(), local()

    def read(self, path: str | os.PathLike[str]) -> Image.Image:
        """Return an image as RGB.

        Raises:
            InputError: as `read_image`.
        """
        decoded = decode_file(Path(path), self.reading)
        if decoded.remarks:
            getattr(self._thread, "remarks", set[Remark]()).update(decoded.remarks)
            with self._lock:
                for remark in decoded.remarks:
                    self.remarks.setdefault(remark, set()).add(os.fspath(path))
        return decoded.image

    @contextmanager
    def collect_remarks(self) -> Iterator[set[Remark]]:
        """Collect the remarks on all files that this thread reads while the block runs."""
        self._thread.remarks = remarks = set[Remark]()
        try:
            yield remarks
        finally:
            del self._thread.remarks

    def read_or_skip(self, path: str | os.PathLike[str]) -> Image.Image | None:
        """Return an image as RGB, or None if it cannot be read."""
        try:
            return self.read(path)
        except InputError as error:
            with self._lock:
                self.unreadable[os.fspath(path)] = str(error)
            return None

    def prepare(self, preprocessing: Preprocessing) -> Callable[[str], NDArray[np.uint8]]:
        """Return the function that reads a file, resizes and crops it."""
        return lambda path: preprocess(self.read(path), preprocessing)


def describe_files(readers: Iterable[ImageReader]) -> list[str]:
    """Return a sentence for everything remarkable about the files of some readers, with their number."""
    all_readers = list(readers)
    counts = {
        folder: Counter(left_out) for reader in all_readers for folder, left_out in reader.left_out.items()
    }
    unreadable = {path: error for reader in all_readers for path, error in reader.unreadable.items()}
    remarks: dict[Remark, set[str]] = {}
    for reader in all_readers:
        for remark, paths in reader.remarks.items():
            remarks.setdefault(remark, set()).update(paths)
    return [
        *filter(None, [describe_left_out(sum(counts.values(), Counter[str]()))]),
        *([describe_unreadable(len(unreadable), next(iter(unreadable.values())))] if unreadable else []),
        *(describe_remark(remark, len(paths)) for remark, paths in sorted(remarks.items(), key=_rank)),
    ]


def describe_unreadable(count: int, first: str) -> str:
    """Return a sentence about skipped images, given their number and the first error or name."""
    return f"{count:,} unreadable {'image was' if count == 1 else 'images were'} skipped, the first: {first}"


def describe_remark(remark: str, count: int, where: str = "") -> str:
    """Return a sentence about a remark on so many images; `where` follows their number."""
    images = f"{count:,} image{where} is" if count == 1 else f"{count:,} images{where} are"
    return _SENTENCES.get(remark, f"{{}} remarked as {escape_controls(remark)!r}").format(images)


def _rank(item: tuple[str, object]) -> int:
    return list(_SENTENCES).index(item[0])
