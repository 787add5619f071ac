"""Questions of methods that change the images: losses of a batch under candidates, by the image graph."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...engine.model import PIXELS, FloatArray, Forward, Tunables
from ...engine.tuning.bar import FOCAL_GAMMA
from ...engine.tuning.few_shot_loss import compute_focal_loss
from ...engine.tuning.gda import Labels
from ...engine.tuning.zo_sapt import Losses
from .context_training import Question
from .training_images import ImageBatches


def make_border_question(network: Forward) -> Question:
    """Return what BAR asks of images and labels `[N]`: focal losses `[C]` of borders `[C, H, W, 3]`.

    Args:
        network: of the classes.
    """

    def ask(images: ImageBatches, labels: Labels) -> Losses:
        def compute(borders: FloatArray) -> FloatArray:
            candidates = [{PIXELS: border[None]} for border in borders]
            logits = compute_logits(network, images, candidates)
            return np.asarray([compute_focal_loss(values, labels, FOCAL_GAMMA) for values in logits])

        return compute

    return ask


def compute_logits(network: Forward, images: ImageBatches, candidates: Sequence[Tunables]) -> FloatArray:
    """Return the logits of images under each of C candidates, `[C, N, K]`; the files are read once."""
    batches = [
        np.stack([outputs.logits for outputs in network.candidates(batch, candidates)]) for batch in images
    ]
    return np.concatenate(batches, axis=1)
