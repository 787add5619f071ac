"""Questions of methods that change the images: losses of a batch under candidates, by the image graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ...engine.model import PIXELS, PROMPTS, FloatArray, Forward, Outputs, Tunables
from ...engine.runtime.class_head import scale_embeddings
from ...engine.runtime.image_prompt import Encode
from ...engine.runtime.text_encoder import TextEncoder
from ...engine.text.class_texts import ClassTexts
from ...engine.tuning.bar import FOCAL_GAMMA
from ...engine.tuning.blackvip import EncodedBatch
from ...engine.tuning.bpt import PromptLosses
from ...engine.tuning.few_shot_loss import compute_batch_losses, compute_focal_loss
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
            logits = compute_outputs(network, images, candidates, lambda outputs: outputs.logits)
            return np.asarray([compute_focal_loss(values, labels, FOCAL_GAMMA) for values in logits])

        return compute

    return ask


def make_prompt_question(
    network: Forward, encoder: TextEncoder, texts: ClassTexts, batch: int | None
) -> Question:
    """Return what BPT asks of the images of an epoch and labels `[N]`.

    That is a function from contexts `[C, M, D]` and prompts of the image tower `[C, P, D]` to the losses of
    each batch under each pair, `[C, B]`.

    Args:
        network: the image graph.
        encoder: the text side.
        texts: of the classes.
        batch: images in a batch; None: all.
    """
    scale, width = encoder.entry.logit_scale, network.info.feature_width

    def ask(images: ImageBatches, labels: Labels) -> PromptLosses:
        def compute(contexts: FloatArray, prompts: FloatArray) -> FloatArray:
            classifiers = scale_embeddings(encoder.encode(texts.tokens, contexts), scale, width)
            candidates = [{PROMPTS: prompt[None]} for prompt in prompts]
            features = compute_outputs(network, images, candidates, lambda outputs: outputs.features[:, -1])
            losses = [
                compute_batch_losses(values, labels, classifier[None], batch or len(labels))
                for values, classifier in zip(features, classifiers, strict=True)
            ]
            return np.concatenate(losses)

        return compute

    return ask


def make_decoder_question(network: Forward, encode: Encode, scale: FloatArray) -> Question:
    """Return what BlackVIP asks of images and labels `[N]`: features, and cross-entropies under prompts.

    Args:
        network: of the classes.
        encode: returns the features of images.
        scale: standard deviation of images of each channel, by which prompts become pixels, `[3]`.
    """

    def ask(images: ImageBatches, labels: Labels) -> EncodedBatch:
        batches = list(images)
        ends = np.cumsum([len(batch) for batch in batches])[:-1]

        def compute_loss(prompts: FloatArray) -> float:
            pixels = np.split((prompts * scale).astype(np.float32), ends)
            logits = [network(batch, pixels=rows).logits for batch, rows in zip(batches, pixels, strict=True)]
            return compute_focal_loss(np.concatenate(logits), labels, 0.0)

        return EncodedBatch(np.concatenate([encode(batch) for batch in batches]), compute_loss)

    return ask


def compute_outputs(
    network: Forward,
    images: ImageBatches,
    candidates: Sequence[Tunables],
    select: Callable[[Outputs], FloatArray],
) -> FloatArray:
    """Return an output of images under each of C candidates, `[C, N, …]`; the files are read once.

    Args:
        network: the image graph.
        images: N images.
        candidates: tunables.
        select: returns the output `[n, …]` of a batch.
    """
    batches = [
        np.stack([select(outputs) for outputs in network.candidates(batch, candidates)]) for batch in images
    ]
    return np.concatenate(batches, axis=1)
