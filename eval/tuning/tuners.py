"""Methods that learn a context, by name."""

from __future__ import annotations

from ...engine.model import FloatArray
from ...engine.runtime.class_head import scale_embeddings
from ...engine.runtime.text_encoder import TextEncoder
from ...engine.search.spsa_gains import PowerGains
from ...engine.text.class_texts import ClassTexts
from ...engine.tuning.bpt import Bpt, draw_projection
from ...engine.tuning.cosine_schedule import CosineSchedule
from ...engine.tuning.gda import Gda
from ...engine.tuning.low_rank_context import make_low_rank_context
from ...engine.tuning.sapt import Sapt
from ...engine.tuning.zip import Zip
from ...engine.tuning.zo_sapt import ZoSapt
from .context_training import Tuner
from .tuning_spec import TuningSpec

MOMENTUM = 0.8  # of the update spsa-gc, in ZIP's and BlackVIP's code


def make_tuner(
    spec: TuningSpec,
    steps_per_epoch: int,
    initial: FloatArray,
    encoder: TextEncoder,
    texts: ClassTexts,
    feature_width: int,
) -> Tuner:
    """Return the method of a run.

    Args:
        spec: the run.
        steps_per_epoch: number of batches.
        initial: the context before the first step, `[M, D]`.
        encoder: its token embeddings decide the spread of BPT's first contexts.
        texts: of the classes, for GDA.
        feature_width: F.

    Raises:
        InputError: an option of the method has no meaning.
        ComputeError: ONNX Runtime fails.
    """
    vectors, width = initial.shape
    if spec.method == "gda":
        units = encoder.encode(texts.tokens, initial[None])[0]
        classifier = scale_embeddings(units, encoder.entry.logit_scale, feature_width)
        return Gda(classifier, encoder.entry.embedding_width, spec.alpha)
    if spec.method == "bpt":
        std = encoder.compute_token_std()
        projection = draw_projection(spec.seed, (vectors, width), spec.dimension, std, spec.sigma)
        return Bpt(projection, spec.population, spec.sigma, first_batches=spec.first_batches)
    if spec.method == "sapt":
        schedule = CosineSchedule(spec.rate, spec.epochs, steps_per_epoch)
        return Sapt(schedule, spec.sharpness, spec.radius, spec.momentum, spec.decay)
    gains = PowerGains(rate=spec.rate, size=spec.perturbation)
    if spec.method == "zo-sapt":
        return ZoSapt(gains, spec.pairs, spec.sharpness, spec.radius)
    space = make_low_rank_context((vectors, width), spec.seed, spec.dimension, spec.rank, shared=spec.shared)
    momentum = MOMENTUM if spec.update == "spsa-gc" else 0.0
    return Zip(space, gains, spec.pairs, spec.update == "spsa-clip", momentum)
