"""Accuracy of a learnt context on test images, always beside the texts that it is to beat."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from ...engine.errors import InputError
from ...engine.files import hash_texts
from ...engine.model import FloatArray
from ..datasets.few_shots import choose_half
from ..datasets.open_split import open_split_data
from ..datasets.published_sets import PLAIN_TEMPLATE, PUBLISHED_SETS
from ..datasets.split_data import LabelledImage, SplitData
from ..results.outcome import MethodResult
from .context_training import TrainingState
from .head_evaluation import evaluate_classifiers
from .tuning_run import TuningRun

TEST, BASE, NEW = "test", "base", "new"  # what may stand for a folder
TUNED = "tuned"


@dataclass(frozen=True)
class Evaluation:
    """Counts of several prompts on the same images.

    Attributes:
        images: name of the images.
        classes: number of classes that are predicted among.
        images_sha256: hash of the images' labels and paths, in order.
        results: counts by prompt: templates, and `tuned` for the learnt context.
        target: `test`, `base`, `new`, or the folder of the images, as for `open_test`.
    """

    images: str
    classes: int
    images_sha256: str
    results: dict[str, MethodResult]
    target: str = TEST


def open_test(run: TuningRun, target: str) -> SplitData:
    """Return data whose test images are to be classified.

    Args:
        run: the run.
        target: `test`, the test images of the classes that are learnt; `base` or `new`, those of one half
            of all classes; or a folder with images of classes that are learnt.

    Raises:
        InputError: there are none, or the folder has other classes.
    """
    task = run.task
    if target == TEST:
        data = task.data
    elif target in (BASE, NEW):
        data = choose_half(task.all_classes, "new" if target == NEW else "base")
    else:
        data = _open_folder(Path(target), task.data)
    if not data.test:
        raise InputError(
            f"{data.name} has no test images; name a folder of labelled images with --evaluate DIR"
        )
    run.check_classes(data)
    data.check_files(data.test)
    return data


def _open_folder(folder: Path, trained: SplitData) -> SplitData:
    """Return the images of a folder as test images of the classes that are learnt."""
    data = open_split_data(folder)
    labels = {identifier: label for label, identifier in enumerate(trained.class_ids)}
    if unknown := [identifier for identifier in data.class_ids if identifier not in labels]:
        raise InputError(
            f"{folder} has classes that were not learnt: {', '.join(unknown[:3])}"
            f"{', …' if len(unknown) > 3 else ''}; the learnt ones are named like {trained.class_ids[0]}"
        )
    images = tuple(
        LabelledImage(image.path, labels[data.class_ids[image.label]]) for image in data.test or data.train
    )
    return replace(trained, name=data.name, folder=data.folder, train=(), test=images, origin=data.origin)


def evaluate_run(
    run: TuningRun,
    state: TrainingState,
    data: SplitData,
    on_images: Callable[[int], None] = lambda count: None,
    *,
    target: str = TEST,
    memory: list[FloatArray] | None = None,
) -> Evaluation:
    """Classify test images by the learnt context, by the plain template, and by the published one.

    Args:
        run: the run.
        state: its last state.
        data: whose test images are classified.
        on_images: is called with the number of images of every batch.
        target: where the images come from, for results.
        memory: features of these images, as in `evaluate_classifiers`.

    Raises:
        InputError: an image cannot be read.
    """
    templates = [PLAIN_TEMPLATE]
    if data.published is not None:
        templates.append(PUBLISHED_SETS[data.published].template)
    heads = {template: run.build_head(data, [template]) for template in dict.fromkeys(templates)}
    tuned, preprocessing = run.build_tuned_head(data, state), run.bundle.manifest.preprocessing
    if tuned.image_prompt is None:
        heads[TUNED] = tuned
    results = evaluate_classifiers(
        run.network, data, data.test, heads, preprocessing, run.reader, on_images, memory
    )
    if tuned.image_prompt is not None:
        network = run.network.with_image_prompt(tuned.image_prompt)
        preprocessing = replace(preprocessing, frame=tuned.image_prompt.frame)
        results |= evaluate_classifiers(
            network, data, data.test, {TUNED: tuned}, preprocessing, run.reader, on_images
        )
    sha256 = hash_texts(*(f"{image.label} {image.path}" for image in data.test))
    return Evaluation(data.name, data.classes, sha256, results, target)
