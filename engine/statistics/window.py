"""A window of the last images' features: statistics that a batch alone is too small for."""

from __future__ import annotations

import numpy as np

from ..model import FloatArray, ModelInfo
from .feature_statistics import Moments


def create_empty_window(info: ModelInfo) -> FloatArray:
    """Return a window without images, float32 `[0, L, F]`.

    >>> from fozo.testing import StandInNetwork
    >>> create_empty_window(StandInNetwork().info).shape
    (0, 2, 8)
    """
    return np.zeros((0, info.layers, info.feature_width), np.float32)


def select_earlier(window: FloatArray, batch: int, size: int) -> FloatArray:
    """Return as much of the end of a window as a batch leaves room for, `[W, …]`.

    Args:
        window: of the images before, `[W, …]`, the latest last.
        batch: images of the current batch.
        size: images that both shall have together; 0 keeps no window.
    """
    room = max(0, size - batch)
    return window[max(0, len(window) - room) :]


def compute_window_moments(window: FloatArray, batch: int, size: int) -> Moments | None:
    """Return the moments of a window's features that join a batch; None if there are none.

    >>> window = np.array([[1.0], [2.0], [4.0]])
    >>> print(compute_window_moments(window, batch=6, size=8).mean)  # the last two
    [3.]
    >>> print(compute_window_moments(window, batch=8, size=8))
    None
    """
    recent = select_earlier(window, batch, size)
    return Moments.of(recent) if len(recent) else None


def slide_window(window: FloatArray, features: FloatArray, size: int) -> FloatArray:
    """Return the window after a batch of features `[N, L, F]`: its last `size` images, a new array.

    >>> print(slide_window(np.array([[1.0], [2.0], [4.0]]), np.array([[8.0]]), 3).ravel())
    [2. 4. 8.]
    """
    if not size:
        return window
    latest = features[-size:].astype(np.float32, copy=False)
    return np.concatenate([select_earlier(window, len(latest), size), latest])
