"""Questions of methods without gradients about the images of a step, and how many images that is."""

from __future__ import annotations

from ...engine.model import FloatArray
from ...engine.runtime.class_head import scale_embeddings
from ...engine.runtime.text_encoder import TextEncoder
from ...engine.text.class_texts import ClassTexts
from ...engine.tuning.batch_order import BatchOrder
from ...engine.tuning.few_shot_loss import compute_batch_losses, compute_losses
from ...engine.tuning.gda import Examples, Labels
from ...engine.tuning.zo_sapt import Losses
from .context_training import Question
from .tuning_spec import TuningSpec


def make_order(spec: TuningSpec, images: int) -> BatchOrder:
    """Return the order of the training images; a step of BPT takes all full batches of an epoch."""
    batch = None if spec.batch is None else spec.batch * count_batches(spec, images)
    return BatchOrder(images, batch, spec.seed)


def count_batches(spec: TuningSpec, images: int) -> int:
    """Return the batches whose losses a step needs: those of an epoch in BPT, none in GDA, else one."""
    if spec.method == "bpt" and spec.batch is not None:
        return max(1, images // spec.batch)
    return 0 if spec.method == "gda" else 1


def make_question(encoder: TextEncoder, texts: ClassTexts, feature_width: int, spec: TuningSpec) -> Question:
    """Return what a method without gradients asks of features `[n, F]` and labels `[n]`.

    GDA gets them as they are. The others get a function from contexts `[C, M, D]` to their losses, from one
    call of the text graph: those of the batch, `[C]`, or for BPT of each batch of an epoch, `[C, B]`.
    """
    if spec.method == "gda":
        return Examples
    scale = encoder.entry.logit_scale

    def ask(features: FloatArray, labels: Labels) -> Losses:
        def compute(contexts: FloatArray) -> FloatArray:
            classifiers = scale_embeddings(encoder.encode(texts.tokens, contexts), scale, feature_width)
            if spec.method == "bpt":
                return compute_batch_losses(features, labels, classifiers, spec.batch or len(labels))
            return compute_losses(features, labels, classifiers)

        return compute

    return ask
