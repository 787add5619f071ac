"""Names of files and folders: which stand for images, which are left out, and which are never a user's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from ..engine.ordinary_files import check_ordinary

# The suffixes of FORMATS in images.py; JPEG files have many.
SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jif", ".jfif", ".pjpeg", ".pjp"),
    *(".png", ".webp", ".bmp", ".dib", ".ppm", ".pgm", ".pbm", ".pnm"),
)
# Suffixes of other images: files that have them are left out, and counted.
OTHER_SUFFIXES = frozenset(
    [
        ".gif",
        ".tif",
        ".tiff",
        ".heic",
        ".heif",
        ".hif",
        ".avif",
        ".jxl",
        ".jp2",
        ".j2k",
        ".jpx",
        ".jls",
        ".apng",
        ".mpo",
        ".tga",
        ".exr",
        ".hdr",
        ".pfm",
        ".psd",
        ".svg",
        ".ico",
        ".icns",
        ".xcf",
        ".raw",
        ".dng",
        ".cr2",
        ".cr3",
        ".nef",
        ".nrw",
        ".arw",
        ".orf",
        ".rw2",
        ".raf",
        ".pef",
        ".srw",
        ".dcm",
        ".dicom",
        ".nii",
        ".fits",
        ".czi",
        ".svs",
        ".ndpi",
    ]
)
# Folders that file servers, archivers and systems fill with copies and thumbnails of a user's images.
SYSTEM_FOLDERS = (
    *("@eadir", "@__thumb", "@recycle", "@tmp", "#recycle", "#snapshot", "__macosx"),
    *("$recycle.bin", "system volume information", "lost+found"),
)
_WITHOUT_SUFFIX = "no suffix"
_BEGINNINGS = (b"\xff\xd8\xff", b"\x89PNG", b"RIFF", b"GIF8", b"BM", b"II*\0", b"MM\0*")


def is_image_name(name: str) -> bool:
    """Return whether a file counts as an image: it has one of `SUFFIXES` and is not hidden."""
    return not name.startswith(".") and name.lower().endswith(SUFFIXES)


def is_skipped_folder(name: str) -> bool:
    """Return whether a folder is hidden, or one that no user puts images in."""
    return name.startswith(".") or is_system_folder(name)


def is_system_folder(name: str) -> bool:
    """Return whether a folder is one of `SYSTEM_FOLDERS`."""
    return name.lower() in SYSTEM_FOLDERS


def find_reason_to_leave_out(folder: str, name: str) -> str | None:
    """Return the suffix for which a file that shows an image is left out; None if it is not one.

    A file without a suffix is opened: it counts if it begins as images do.
    """
    suffix = Path(name).suffix.lower()
    if name.startswith(".") or suffix in SUFFIXES:
        return None
    if suffix:
        return suffix if suffix in OTHER_SUFFIXES else None
    path = Path(folder, name)
    try:
        check_ordinary(path)
        with path.open("rb") as stream:
            return _WITHOUT_SUFFIX if stream.read(4).startswith(_BEGINNINGS) else None
    except OSError:
        return None


def describe_left_out(counts: Mapping[str, int], where: str = "") -> str:
    """Return a sentence about images that were left out somewhere, by suffix; empty for none."""
    total = sum(counts.values())
    if not total:
        return ""
    kinds = ", ".join(f"{count:,} with {kind}" for kind, count in Counter(counts).most_common())
    files = "file that looks like an image was" if total == 1 else "files that look like images were"
    advice = "convert them to PNG or JPEG, with a suffix of those, to have them read"
    return f"{total:,} {files} left out{where} ({kinds}); {advice}"
