"""Source statistics of a graph, computed by that graph on clean images and stored in its bundle."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ..bundle.bundle import Bundle
from ..model import ACTIVATION_KINDS, BATCH_STATISTICS, ActivationUse, FloatArray, ImageArray
from ..statistics.feature_statistics import compute_source_statistics
from ..statistics.fisher_information import compute_fisher
from .network import Network

SOURCE_BATCH = 32
# ZOA's values, for networks whose batch norms use the statistics of the batch.
NORMALISED_BATCH, NORMALISED_SEED = 64, 0
# Those of EATA's official code, which shuffles.
FISHER_IMAGES, FISHER_BATCH, FISHER_SEED = 2000, 64, 0


@dataclass(frozen=True)
class SourcePlan:
    """The order in which clean images pass through a network.

    Attributes:
        order: indices of the images to use.
        batch_size: images per batch.
        remark: what the record says about the order, or an empty text.
    """

    order: NDArray[np.int64]
    batch_size: int
    remark: str = ""


def plan_source_batches(bundle: Bundle, images: int) -> SourcePlan:
    """Return the order in which `images` clean images are used for the source statistics of a bundle.

    A network with batch norms is used as ZOA uses it (docs/specification.md §8): every norm with the
    statistics of the batch. Its images are therefore shuffled and taken in full batches of 64. Those that do
    not fill a batch are dropped, but fewer than 64 images form one batch.

    Raises:
        BundleError: the head in use changes the images.
    """
    bundle.check_plain_images()
    if BATCH_STATISTICS not in bundle.manifest.tunables:
        return SourcePlan(np.arange(images), SOURCE_BATCH)
    order = np.random.default_rng(NORMALISED_SEED).permutation(images)
    used = images - images % NORMALISED_BATCH or images
    batch = min(used, NORMALISED_BATCH)
    remark = f"; {used} of them in batches of {batch}, normalised with the statistics of their batch"
    return SourcePlan(order[:used], NORMALISED_BATCH, remark)


def plan_fisher_batches(bundle: Bundle, precision: str, images: int) -> SourcePlan | None:
    """Return the order in which clean images are used for the Fisher information of a graph's norms.

    At most 2,000 of the `images` are used. None for a graph without gradients or tunable norms.
    """
    if not (precision in bundle.manifest.pull_backs and bundle.manifest.norms):
        return None
    order = np.random.default_rng(FISHER_SEED).permutation(images)[:FISHER_IMAGES]
    remark = f"; Fisher information of {len(order)} of them in batches of {FISHER_BATCH}"
    return SourcePlan(order, FISHER_BATCH, remark)


def store_source(
    bundle: Bundle,
    precision: str,
    batches: Iterable[ImageArray],
    origin: str,
    fisher_batches: Iterable[ImageArray] | None = None,
) -> Bundle:
    """Compute the source statistics of a graph with that graph, and store them in its bundle.

    Those of all activations that the bundle lists are computed with them.

    Args:
        bundle: the bundle that holds the graph; the changed bundle is returned.
        precision: name of the graph.
        batches: clean images, in the batches of `plan_source_batches`.
        origin: description of the images, for the record.
        fisher_batches: those of `plan_fisher_batches`; None: without Fisher information.

    Raises:
        BundleError: the bundle cannot be used.
        InputError: an image cannot be read, or features are not finite.
        OutputError: the bundle's folder cannot be written.
    """
    tunables: dict[str, FloatArray] = {}
    if BATCH_STATISTICS in bundle.manifest.tunables:
        tunables[BATCH_STATISTICS] = np.ones(1, np.float32)
    with Network.open(bundle, precision, activations=[ActivationUse(ACTIVATION_KINDS)]) as network:
        statistics = compute_source_statistics(network, batches, **tunables)
    if fisher_batches is not None:
        with Network.open(bundle, precision, gradients=True) as network:
            statistics = replace(statistics, fisher=compute_fisher(network, fisher_batches))
    return bundle.with_source(precision, statistics, origin)
