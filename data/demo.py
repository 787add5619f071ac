"""The demonstration's images: scikit-learn's handwritten digits, which come with that package.

1,797 images of 8x8 pixels in ten classes, from the UCI "Optical Recognition of Handwritten Digits" set
(Alpaydin and Kaynak, 1998). Nothing is downloaded.
"""

from __future__ import annotations

import hashlib
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..engine.errors import InputError

DEMO_CLASSES = ("0", "1", "2", "3", "4", "5", "6", "7", "8", "9")
TRAIN_SIZE = 1000
IMAGE_SIZE = 32
_SPLIT_SEED = "fozo demo split 0"
_LARGEST_INK = 16


def demo_images(split: Literal["train", "test"]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return the demonstration's images and labels, in the order of scikit-learn's file.

    Args:
        split: `train` (1,000 images, on which the demonstration's model was trained, and which serve as
            its clean source images) or `test` (the other 797). The split is fixed and stratified.

    Returns:
        Images, uint8 RGB of shape [N, 32, 32, 3] (bicubic enlargement of the 8x8 originals, 0..255), and
        labels, int64 of shape [N], indices into `DEMO_CLASSES`.

    Raises:
        InputError: scikit-learn is not installed, or `split` is neither of the two.
    """
    if split not in ("train", "test"):
        raise InputError(f"expected the split 'train' or 'test', found {split!r}; pass one of the two")
    digits = _load_digits()
    labels = np.asarray(digits.target, dtype=np.int64)
    indices = _split(labels)[split]
    images = np.stack([_enlarge(digits.images[i]) for i in indices])
    return images, labels[indices]


def _load_digits() -> Any:
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise InputError(
            "the demonstration's images come with scikit-learn, which cannot be imported "
            f'({error}); install it with: pip install "fozo[demo]"'
        ) from error
    return load_digits()


def _split(labels: NDArray[np.int64]) -> dict[str, NDArray[np.int64]]:
    """Take the first `TRAIN_SIZE` after laying each class out evenly over [0, 1) in a shuffled order."""
    position = np.empty(len(labels))
    for label in np.unique(labels):
        members = _shuffle(np.flatnonzero(labels == label))
        position[members] = (np.arange(len(members)) + 0.5) / len(members)
    order = np.argsort(position, kind="stable")
    return {"train": np.sort(order[:TRAIN_SIZE]), "test": np.sort(order[TRAIN_SIZE:])}


def _shuffle(indices: NDArray[np.int64]) -> NDArray[np.int64]:
    """Order by a hash: the same order with every version of NumPy and scikit-learn."""

    def key(index: int) -> bytes:
        return hashlib.sha256(f"{_SPLIT_SEED}:{index}".encode()).digest()

    return np.array(sorted(indices.tolist(), key=key), dtype=np.int64)


def _enlarge(ink: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Convert [8, 8] with values 0..16 to uint8 [32, 32, 3]."""
    grey = Image.fromarray(np.rint(ink * (255 / _LARGEST_INK)).astype(np.uint8))
    large = grey.resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BICUBIC)
    return np.repeat(np.asarray(large)[:, :, None], 3, axis=2)
