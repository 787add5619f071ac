"""A tuning run: the bundle, the images and the method, ready to train; and the head that comes of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
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
from ..datasets.split_data import SplitData
from ..results.run_facts import read_versions
from .context_training import ContextTraining, TrainingState
from .few_shot_task import FewShotTask, prepare_task
from .image_features import CropFeatures
from .learners import AskSlopes, Learner, prepare_learner
from .questions import count_batches, make_order
from .training_images import TrainingImages, make_batch_reader
from .tuning_cost import TuningCost, count_cost, count_steps
from .tuning_presets import list_foreign_options
from .tuning_spec import TuningSpec

# Fields of a spec that decide no result.
_FREE = ("data", "split", "reading", "workers", "encoder")


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
        learner: the method.
        training: the method on the data.
        cost: counts of the run.
        on_images: is called with the number of images whenever some were encoded; may be replaced.
    """

    bundle: Bundle
    spec: TuningSpec
    task: FewShotTask
    network: Network
    encoder: TextEncoder
    reader: ImageReader
    learner: Learner
    training: ContextTraining
    cost: TuningCost
    on_images: Callable[[int], None] = field(default=lambda count: None)

    @property
    def initial(self) -> FloatArray:
        """The values before the first step, as in `Learner`."""
        return self.learner.initial

    @property
    def initial_norm(self) -> float:
        """Length of the values before the first step, as one vector."""
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
        prompt = self.learner.make_image_prompt(state.tuned)
        if self.spec.learns_context:
            head = self.build_head(data, (self.spec.ending,), state.tuned.values)
            return replace(head, image_prompt=prompt)
        if self.spec.method != "gda":
            return replace(self.build_head(data, (self.spec.template,)), image_prompt=prompt)
        self.check_classes(data)
        head = self.build_head(data, (self.spec.template,))
        tuned, images = state.tuned, len(self.task.shots)
        return replace(head, weight=tuned.weight, bias=tuned.bias, images=images)

    def build_head(
        self, data: SplitData, templates: Sequence[str], context: FloatArray | None = None
    ) -> Head:
        """Return a head of the classes of some data."""
        width, ids = self.bundle.manifest.feature_width, data.class_ids
        return build_head(self.encoder, width, data.class_names, templates, class_ids=ids, context=context)

    def describe(self, state: TrainingState) -> dict[str, Any]:
        """Return the run in JSON values: options, data, counts, and the lengths of the values."""
        return {
            **self.training.key,
            "data": self.task.data.name,
            "images": len(self.task.shots),
            "steps": state.step,
            "calls": self.cost.calls,
            "initial_norm": self.initial_norm,
            "norm": float(np.linalg.norm(state.tuned.values)),
            **({"chosen_alpha": state.tuned.alpha} if self.spec.method == "gda" else {}),
            **({"frame": self.learner.frame} if self.learner.frame else {}),
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
    order, batches = make_order(spec, len(task.shots)), count_batches(spec, len(task.shots))
    encoder = TextEncoder.open(bundle, workers=spec.workers)
    try:
        network = Network.open(bundle, spec.precision, workers=spec.workers, provider=spec.provider)
        learner = prepare_learner(spec, bundle, task, network, encoder, order.steps_per_epoch, ask_slopes)
    except BaseException:
        encoder.close()
        raise
    steps = count_steps(spec, order.steps_per_epoch, learner.tuner.losses_per_step * batches)
    reader = ImageReader(spec.reading)
    preprocessing = replace(bundle.manifest.preprocessing, frame=learner.frame)
    images = TrainingImages(task.data, task.shots, preprocessing, reader, spec.crops, spec.seed)
    run: TuningRun

    def report(count: int) -> None:
        run.on_images(count)

    features = CropFeatures(network, images, -(-steps // order.steps_per_epoch), report)
    of_images = spec.changes_images
    training = ContextTraining(
        learner.tuner,
        learner.question,
        make_batch_reader(images, report) if of_images else features.get,
        task.labels,
        order,
        steps,
        of_images or not features.repeats,
        network.info,
        make_key(bundle, spec, task),
    )
    cost = count_cost(
        spec,
        steps,
        max(1, learner.tuner.losses_per_step),
        order,
        task.data.classes,
        batches=batches,
        repeats=features.repeats,
    )
    run = TuningRun(bundle, spec, task, network, encoder, reader, learner, training, cost)
    return run


def make_key(bundle: Bundle, spec: TuningSpec, task: FewShotTask) -> dict[str, Any]:
    """Return the JSON values that decide a run, without options of other methods."""
    ignored = {*_FREE, *list_foreign_options(spec.method)}
    ignored |= set() if spec.budget is None else {"epochs"}
    encoder = None if spec.encoder is None else Bundle.open(spec.encoder).graph_sha256("fp32")
    options = {name: value for name, value in to_dict(spec).items() if name not in ignored}
    return {
        **options,
        "exif_orientation": spec.reading.exif_orientation,
        "reduced_above": spec.reading.reduced_above,
        "text_sha256": bundle.text_sha256,
        "graph_sha256": bundle.graph_sha256(spec.precision),
        "images_sha256": task.sha256,
        **({} if encoder is None else {"encoder_sha256": encoder}),
    }
