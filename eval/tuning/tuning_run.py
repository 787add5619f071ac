"""A tuning run: the bundle, the images and the method, ready to train; and the head that comes of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from ...data.image_reader import ImageReader
from ...engine.bundle.bundle import Bundle
from ...engine.bundle.head import Head
from ...engine.model import FloatArray
from ...engine.records import to_dict
from ...engine.runtime.class_head import build_head, scale_embeddings
from ...engine.runtime.network import Network
from ...engine.runtime.text_encoder import TextEncoder, require_text
from ...engine.text.class_texts import ClassTexts, tokenize_classes
from ...engine.tuning.batch_order import BatchOrder
from ...engine.tuning.few_shot_loss import compute_batch_losses, compute_losses
from ..datasets.split_data import SplitData
from ..results.run_facts import read_versions
from .context_training import ContextTraining, Question, TrainingState
from .few_shot_task import FewShotTask, prepare_task
from .image_features import CropFeatures
from .tuners import make_tuner
from .tuning_cost import TuningCost, count_cost, count_steps
from .tuning_presets import list_foreign_options
from .tuning_spec import TuningSpec

INITIAL_STD = 0.02  # of random vectors, as in CoOp's code
# Returns what a method with gradients asks of a batch, as `export.text_gradient.ask_slopes` does.
AskSlopes = Callable[[Path, ClassTexts, TextEncoder, FloatArray, int | None], Question]
# Fields of a spec that decide no result.
_FREE = ("data", "split", "reading", "workers")


@dataclass
class TuningRun:
    """Everything that a run needs, opened and checked.

    Attributes:
        bundle: the bundle.
        spec: the run.
        task: classes and images.
        network: the image graph.
        encoder: the text side.
        reader: reads the images.
        training: the method on the data.
        initial: the context before the first step, float32 `[M, D]`.
        cost: counts of the run.
        on_images: is called with the number of images whenever some were encoded; may be replaced.
    """

    bundle: Bundle
    spec: TuningSpec
    task: FewShotTask
    network: Network
    encoder: TextEncoder
    reader: ImageReader
    training: ContextTraining
    initial: FloatArray
    cost: TuningCost
    on_images: Callable[[int], None] = field(default=lambda count: None)

    @property
    def initial_norm(self) -> float:
        """Length of the context before the first step, as one vector."""
        return float(np.linalg.norm(self.initial))

    def make_head(self, state: TrainingState) -> Head:
        """Return the head of the learnt context, with the record of its making."""
        context = state.tuned.values
        head = self.build_head(self.task.data, (self.spec.ending,), context)
        return replace(head, record={**head.record, "tuning": self.describe(state)})

    def build_head(
        self, data: SplitData, templates: Sequence[str], context: FloatArray | None = None
    ) -> Head:
        """Return a head of the classes of some data."""
        width, ids = self.bundle.manifest.feature_width, data.class_ids
        return build_head(self.encoder, width, data.class_names, templates, class_ids=ids, context=context)

    def describe(self, state: TrainingState) -> dict[str, Any]:
        """Return the run in JSON values: options, data, counts, and the lengths of the context."""
        return {
            **self.training.key,
            "data": self.task.data.name,
            "images": len(self.task.shots),
            "steps": state.step,
            "calls": self.cost.calls,
            "initial_norm": self.initial_norm,
            "norm": float(np.linalg.norm(state.tuned.values)),
            "versions": read_versions(),
        }

    def __enter__(self) -> TuningRun:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.network.close()
        self.encoder.close()


def open_run(bundle: Bundle, spec: TuningSpec, ask_slopes: AskSlopes | None = None) -> TuningRun:
    """Open and check everything, so that errors occur before the work begins.

    Args:
        bundle: the bundle.
        spec: the run.
        ask_slopes: makes the question of methods with gradients; None for methods without.

    Raises:
        FozoError: something cannot be used; the message says what to do about it.
    """
    require_text(bundle)
    task = prepare_task(spec, bundle)
    encoder = TextEncoder.open(bundle, workers=spec.workers)
    try:
        initial = make_initial_context(spec, encoder)
        texts = tokenize_classes(
            encoder.tokenizer,
            task.data.class_names,
            spec.ending,
            encoder.entry.context_length,
            len(initial),
        )
        order = make_order(spec, len(task.shots))
        tuner = make_tuner(spec, order.steps_per_epoch, initial.shape, encoder)
        network = Network.open(bundle, spec.precision, workers=spec.workers, provider=spec.provider)
    except BaseException:
        encoder.close()
        raise
    batches = count_batches(spec, len(task.shots))
    steps = count_steps(spec, order.steps_per_epoch, tuner.losses_per_step * batches)
    question = (
        ask_losses(encoder, texts, bundle.manifest.feature_width, spec)
        if ask_slopes is None
        else ask_slopes(bundle.file(encoder.entry.file), texts, encoder, initial, spec.workers)
    )
    reader = ImageReader(spec.reading)
    run: TuningRun
    features = CropFeatures(
        network,
        task.data,
        task.shots,
        bundle.manifest.preprocessing,
        reader,
        spec.crops,
        -(-steps // order.steps_per_epoch),
        spec.seed,
        on_images=lambda count: run.on_images(count),
    )
    training = ContextTraining(
        tuner,
        question,
        features.get,
        task.labels,
        order,
        steps,
        not features.repeats,
        network.info,
        make_key(bundle, spec, task),
    )
    cost = count_cost(
        spec,
        steps,
        tuner.losses_per_step,
        order,
        task.data.classes,
        batches=batches,
        repeats=features.repeats,
    )
    run = TuningRun(bundle, spec, task, network, encoder, reader, training, initial, cost)
    return run


def make_initial_context(spec: TuningSpec, encoder: TextEncoder) -> FloatArray:
    """Return the context before the first step: the vectors of words, or random ones, float32 `[M, D]`.

    Without words, that of BPT is zero.

    Raises:
        InputError: the words cannot be used.
    """
    if spec.words:
        return encoder.embed_words(spec.words)
    generator = np.random.default_rng([spec.seed, 0])
    shape = (spec.vectors, encoder.entry.width)
    if spec.method == "bpt":  # its search starts around the origin
        return np.zeros(shape, np.float32)
    return INITIAL_STD * generator.standard_normal(shape, dtype=np.float32)


def make_order(spec: TuningSpec, images: int) -> BatchOrder:
    """Return the order of the training images; a step of BPT takes all full batches of an epoch."""
    batch = None if spec.batch is None else spec.batch * count_batches(spec, images)
    return BatchOrder(images, batch, spec.seed)


def count_batches(spec: TuningSpec, images: int) -> int:
    """Return the batches of a step: those of an epoch in BPT, one in other methods."""
    return max(1, images // spec.batch) if spec.method == "bpt" and spec.batch is not None else 1


def ask_losses(encoder: TextEncoder, texts: ClassTexts, feature_width: int, spec: TuningSpec) -> Question:
    """Return the question of methods without gradients: one call of the text graph for all candidates.

    Losses are those of the batch, `[C]`, or for BPT of each batch of an epoch, `[C, B]`.
    """
    scale = encoder.entry.logit_scale

    def ask(features: FloatArray, labels: Any) -> Any:
        def compute(contexts: FloatArray) -> FloatArray:
            classifiers = scale_embeddings(encoder.encode(texts.tokens, contexts), scale, feature_width)
            if spec.method == "bpt":
                return compute_batch_losses(features, labels, classifiers, spec.batch or len(labels))
            return compute_losses(features, labels, classifiers)

        return compute

    return ask


def make_key(bundle: Bundle, spec: TuningSpec, task: FewShotTask) -> dict[str, Any]:
    """Return the JSON values that decide a run, without options of other methods."""
    ignored = {*_FREE, *list_foreign_options(spec.method)}
    options = {name: value for name, value in to_dict(spec).items() if name not in ignored}
    return {
        **options,
        "exif_orientation": spec.reading.exif_orientation,
        "reduced_above": spec.reading.reduced_above,
        "text_sha256": bundle.text_sha256,
        "graph_sha256": bundle.graph_sha256(spec.precision),
        "images_sha256": task.sha256,
    }
