"""The demonstration's images and bundles, which ship with fozo: handwritten digits, and models of them.

1,797 images of 8x8 pixels in ten classes: the test set of "Optical Recognition of Handwritten Digits"
(Alpaydin and Kaynak, UCI, 1998), under CC BY 4.0. The licence is in `demo_digits_license.txt`.
"""

from __future__ import annotations

import hashlib
import shutil
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..engine.bundle.bundle import Bundle
from ..engine.bundle.create import create
from ..engine.bundle.manifest import Manifest
from ..engine.errors import BundleError, InputError

DEMO_BUNDLE = Path(__file__).with_name("demo_bundle")
DEMO_CLIP_BUNDLE = Path(__file__).with_name("demo_clip_bundle")
DEMO_DIGITS = Path(__file__).with_name("demo_digits.npz")
DEMO_MODEL = "fozo_demo_vit"
DEMO_CLIP = "fozo_demo_clip"  # a tiny CLIP trained on digits
DEMO_CLASSES = ("0", "1", "2", "3", "4", "5", "6", "7", "8", "9")
TRAIN_SIZE = 1000
IMAGE_SIZE = 32
_SPLIT_SEED = "fozo demo split 0"
_LARGEST_INK = 16


def demo_images(split: Literal["train", "test"]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return the demonstration's images and labels, in the order of UCI's file.

    Args:
        split: `train` (1,000 images, on which the demonstration's model was trained, and which serve as
            its clean source images) or `test` (the other 797). The split is fixed and stratified.

    Returns:
        Images, uint8 RGB of shape [N, 32, 32, 3] (bicubic enlargement of the 8x8 originals, 0..255), and
        labels, int64 of shape [N], indices into `DEMO_CLASSES`.

    Raises:
        InputError: `split` is neither of the two, or the file of the digits is missing or damaged.
    """
    if split not in ("train", "test"):
        raise InputError(f"expected the split 'train' or 'test', found {split!r}; pass one of the two")
    inks, labels = _load_digits()
    indices = _split(labels)[split]
    images = np.stack([_enlarge(inks[i]) for i in indices])
    return images, labels[indices]


def copy_demo_bundle(path: Path, source: Path | None = None, *, overwrite: bool = False) -> Bundle:
    """Copy a bundle of the demonstration to `path`, unless it is there already, and return the copy.

    Args:
        path: where the copy shall be.
        source: the bundle; None is `DEMO_BUNDLE`.
        overwrite: replace another bundle that is there.

    Raises:
        BundleError: the bundle that ships with fozo is damaged.
        OutputError: something else is at `path`, or the folder cannot be written.
    """
    shipped = Bundle.open(DEMO_BUNDLE if source is None else source)
    if _holds(path, shipped.manifest):
        return Bundle.open(path)
    writers = {name: partial(shutil.copyfile, shipped.file(name)) for name in shipped.manifest.files}
    return create(path, shipped.manifest, writers, overwrite=overwrite)


def _holds(path: Path, manifest: Manifest) -> bool:
    try:
        return Bundle.open(path).manifest == manifest
    except BundleError:
        return False


def _load_digits() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return all digits, uint8 [N, 8, 8] with values 0..16, and their classes, int64 [N]."""
    try:
        with np.load(DEMO_DIGITS, allow_pickle=False) as arrays:
            return arrays["images"], arrays["labels"].astype(np.int64)
    except Exception as error:  # zipfile and NumPy raise a dozen kinds on damaged files
        raise InputError(
            f"cannot read the demonstration's images {DEMO_DIGITS} ({type(error).__name__}: {error}); "
            "install fozo again"
        ) from error


def _split(labels: NDArray[np.int64]) -> dict[str, NDArray[np.int64]]:
    """Take the first `TRAIN_SIZE` after laying each class out evenly over [0, 1) in a shuffled order."""
    position = np.empty(len(labels))
    for label in np.unique(labels):
        members = _shuffle(np.flatnonzero(labels == label))
        position[members] = (np.arange(len(members)) + 0.5) / len(members)
    order = np.argsort(position, kind="stable")
    return {"train": np.sort(order[:TRAIN_SIZE]), "test": np.sort(order[TRAIN_SIZE:])}


def _shuffle(indices: NDArray[np.int64]) -> NDArray[np.int64]:
    """Order by a hash: the same order with every version of NumPy."""

    def key(index: int) -> bytes:
        return hashlib.sha256(f"{_SPLIT_SEED}:{index}".encode()).digest()

    return np.array(sorted(indices.tolist(), key=key), dtype=np.int64)


def _enlarge(ink: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Convert [8, 8] with values 0..16 to uint8 [32, 32, 3]."""
    grey = Image.fromarray(np.rint(ink * (255 / _LARGEST_INK)).astype(np.uint8))
    large = grey.resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BICUBIC)
    return np.repeat(np.asarray(large)[:, :, None], 3, axis=2)
