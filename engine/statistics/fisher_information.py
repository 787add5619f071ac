"""Fisher information of the norms on clean images: how much a network's own predictions depend on them."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from ..errors import InputError
from ..model import NORMS, FloatArray, Forward, ImageArray, Slopes
from .output_slopes import derive_cross_entropy


def compute_fisher(network: Forward, batches: Iterable[ImageArray]) -> FloatArray:
    """Compute the diagonal of the Fisher information as EATA's official code does, float32 `[M, 2, W]`.

    For each batch, the mean cross entropy of the predictions with their own classes is differentiated with
    respect to gain and bias of each norm. The squares of these gradients are averaged over the batches, so
    the result depends on their size.

    Args:
        network: that will be adapted, with gradients of `norms`.
        batches: clean images, each uint8 `[N, H, W, 3]`.

    Raises:
        InputError: there are no images, or the gradients are not finite.
        BundleError: the network has no pull-back graph.
    """
    total, count = np.zeros(()), 0
    for images in batches:
        logits = network(images).logits
        slopes = Slopes(derive_cross_entropy(logits, logits.argmax(axis=1)) / len(images))
        pulled = network.pull_back(images, {}, slopes)
        assert pulled.gradients is not None
        total = total + np.square(pulled.gradients[NORMS])
        count += 1
    if not count:
        raise InputError("the Fisher information needs clean images, found none")
    fisher = (total / count).astype(np.float32)
    if not np.isfinite(fisher).all():
        raise InputError(f"{network.info.name} has non-finite gradients on clean images; check its weights")
    return fisher
