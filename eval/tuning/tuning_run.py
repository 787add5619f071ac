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
from ...engine.errors import InputError
from ...engine.model import FloatArray
from ...engine.records import to_dict
from ...engine.runtime.class_head import build_head
from ...engine.runtime.network import Network
from ...engine.runtime.text_encoder import TextEncoder, require_text
from ...engine.text.class_texts import ClassTexts, tokenize_classes
from ..datasets.split_data import SplitData
from ..results.run_facts import read_versions
from .context_training import ContextTraining, Question, TrainingState
from .few_shot_task import FewShotTask, prepare_task
from .image_features import CropFeatures
from .questions import count_batches, make_order, make_question
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
        """Return the head that was learnt, with the record of its making."""
        head = self.build_tuned_head(self.task.data, state)
        return replace(head, record={**head.record, "tuning": self.describe(state)})

    def check_classes(self, data: SplitData) -> None:
        """Check that images of some data can be classified by what is learnt.

        Raises:
            InputError: GDA has a classifier of the classes that it learns, and these are others.
        """
        if self.spec.method == "gda" and data.class_ids != self.task.data.class_ids:
            raise InputError(
                f"--method gda classifies the {self.task.data.classes} classes that it learns, and no "
                "others; evaluate it on test images of these"
            )

    def build_tuned_head(self, data: SplitData, state: TrainingState) -> Head:
        """Return a head of the classes of some data, with what was learnt.

        Raises:
            InputError: GDA has a classifier of the classes that it learnt, and these are others.
        """
        if self.spec.method != "gda":
            return self.build_head(data, (self.spec.ending,), state.tuned.values)
        self.check_classes(data)
        head = self.build_head(data, (f"{self.spec.words} {self.spec.ending}".strip(),))
        tuned, images = state.tuned, len(self.task.shots)
        return replace(head, weight=tuned.weight, bias=tuned.bias, images=images)

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
            **({"chosen_alpha": state.tuned.alpha} if self.spec.method == "gda" else {}),
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
        width = bundle.manifest.feature_width
        tuner = make_tuner(spec, order.steps_per_epoch, initial, encoder, texts, width)
        network = Network.open(bundle, spec.precision, workers=spec.workers, provider=spec.provider)
    except BaseException:
        encoder.close()
        raise
    batches = count_batches(spec, len(task.shots))
    steps = count_steps(spec, order.steps_per_epoch, tuner.losses_per_step * batches)
    question = (
        make_question(encoder, texts, width, spec)
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
        max(1, tuner.losses_per_step),
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


def make_key(bundle: Bundle, spec: TuningSpec, task: FewShotTask) -> dict[str, Any]:
    """Return the JSON values that decide a run, without options of other methods."""
    ignored = {*_FREE, *list_foreign_options(spec.method)}
    ignored |= set() if spec.budget is None else {"epochs"}
    options = {name: value for name, value in to_dict(spec).items() if name not in ignored}
    return {
        **options,
        "exif_orientation": spec.reading.exif_orientation,
        "reduced_above": spec.reading.reduced_above,
        "text_sha256": bundle.text_sha256,
        "graph_sha256": bundle.graph_sha256(spec.precision),
        "images_sha256": task.sha256,
    }
