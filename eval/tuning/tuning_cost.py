"""The cost of a tuning run, counted before it begins."""

from __future__ import annotations

from dataclasses import dataclass

from ...engine.tuning.batch_order import BatchOrder
from .tuning_presets import IMAGE_METHODS
from .tuning_spec import TuningSpec


@dataclass(frozen=True)
class TuningCost:
    """Counts of a run.

    Attributes:
        steps: steps of the method.
        calls: losses of one batch under one candidate, as publications count queries.
        text_encodes: texts through the text tower: classes times contexts.
        image_encodes: images through the image tower.
        gradients: whether calls compute gradients, which costs about three times as much.
        encoder_encodes: images through the encoder of BlackVIP, which publications do not count.
    """

    steps: int
    calls: int
    text_encodes: int
    image_encodes: int
    gradients: bool
    encoder_encodes: int = 0

    def describe(self) -> str:
        """Return the counts in one line."""
        encoder = f" and {self.encoder_encodes:,} through the encoder" if self.encoder_encodes else ""
        kind = "forwards and backwards" if self.gradients else "forwards"
        return (
            f"{self.steps:,} steps, {self.calls:,} calls of a batch under one candidate; "
            f"{self.text_encodes:,} texts through the text tower ({kind}), {self.image_encodes:,} images "
            f"through the image tower{encoder}"
        )


def count_steps(spec: TuningSpec, steps_per_epoch: int, calls_per_step: int) -> int:
    """Return the number of steps: those of all epochs, or as many as use up the budget of calls.

    A step that the budget covers in part is taken, as in ZIP's code.
    """
    return spec.epochs * steps_per_epoch if spec.budget is None else -(-spec.budget // calls_per_step)


def count_cost(
    spec: TuningSpec,
    steps: int,
    candidates: int,
    order: BatchOrder,
    classes: int,
    *,
    batches: int,
    repeats: bool,
) -> TuningCost:
    """Count what a run will need.

    Args:
        spec: the run.
        steps: its number of steps.
        candidates: contexts, or changes of the images, in each of them.
        order: of the training images.
        classes: number of classes that are learnt.
        batches: batches in each of them.
        repeats: whether crops come again, as `CropFeatures.repeats`.
    """
    image_encodes = max(1, spec.crops or 0) * order.images if repeats else steps * order.size
    texts = steps * candidates * classes
    if spec.changes_images:
        image_encodes = steps * order.size * candidates
    if spec.method in IMAGE_METHODS:
        texts = classes
    calls, encoded = steps * candidates * batches, steps * order.size if spec.method == "blackvip" else 0
    return TuningCost(steps, calls, texts, image_encodes, spec.method == "sapt", encoded)
