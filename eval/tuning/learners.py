"""Methods on the data of a run: where they begin, how they step, and what they may ask."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ...engine.bundle.bundle import Bundle
from ...engine.errors import BundleError
from ...engine.model import PIXELS, FloatArray, ImagePrompt
from ...engine.runtime.class_head import build_head
from ...engine.runtime.network import Network
from ...engine.runtime.text_encoder import TextEncoder
from ...engine.text.class_texts import ClassTexts, tokenize_classes
from ...engine.tuning.bar import Bar, choose_frame, compute_border, draw_border, make_published_schedule
from ...engine.tuning.bpt import VISUAL_PROMPTS, Bpt, draw_visual_projection
from .context_training import Question, Tuner
from .few_shot_task import FewShotTask
from .image_questions import make_border_question, make_prompt_question
from .questions import make_question
from .tuners import make_tuner
from .tuning_spec import TuningSpec

INITIAL_STD = 0.02  # of random vectors, as in CoOp's code
# Returns what a method with gradients asks of a batch, as `export.text_gradient.ask_slopes` does.
AskSlopes = Callable[[Path, ClassTexts, TextEncoder, FloatArray, int | None], Question]


@dataclass(frozen=True)
class Learner:
    """A method on the data of a run.

    Attributes:
        tuner: the method.
        initial: the values before the first step: a context `[M, D]`, or a border `[H, W, 3]`.
        question: of a batch: of its features, or of its images.
        frame: width in pixels of the black frame of the images that it learns from.
    """

    tuner: Tuner
    initial: FloatArray
    question: Question
    frame: int = 0

    def make_image_prompt(self, tuned: Any) -> ImagePrompt | None:
        """Return what was learnt for the images, given the state of the method; None where nothing was."""
        if isinstance(self.tuner, Bar):
            return ImagePrompt(self.frame, compute_border(tuned.values, self.frame))
        if isinstance(self.tuner, Bpt) and self.tuner.visual is not None:
            return ImagePrompt(prompts=tuned.prompts)
        return None


def prepare_learner(
    spec: TuningSpec,
    bundle: Bundle,
    task: FewShotTask,
    network: Network,
    encoder: TextEncoder,
    steps_per_epoch: int,
    ask_slopes: AskSlopes | None,
) -> Learner:
    """Return the method of a run.

    Args:
        spec: the run.
        bundle: the bundle.
        task: classes and images.
        network: the image graph.
        encoder: the text side.
        steps_per_epoch: number of batches.
        ask_slopes: makes the question of methods with gradients; None for methods without.

    Raises:
        InputError: words, names or options cannot be used.
        BundleError: the graph lacks what the method tunes.
        ComputeError: ONNX Runtime fails.
    """
    if spec.method == "bar":
        size = bundle.manifest.preprocessing.size
        return _prepare_border(spec, task, network, encoder, size, steps_per_epoch)
    width, initial = network.info.feature_width, make_initial_context(spec, encoder)
    length = encoder.entry.context_length
    texts = tokenize_classes(encoder.tokenizer, task.data.class_names, spec.ending, length, len(initial))
    tuner = make_tuner(spec, steps_per_epoch, initial, encoder, texts, width)
    if ask_slopes is not None:
        graph = bundle.file(encoder.entry.file)
        return Learner(tuner, initial, ask_slopes(graph, texts, encoder, initial, spec.workers))
    if spec.visual and isinstance(tuner, Bpt):
        tuner = replace(tuner, visual=_draw_visual_projection(spec, bundle))
        return Learner(tuner, initial, make_prompt_question(network, encoder, texts, spec.batch))
    return Learner(tuner, initial, make_question(encoder, texts, width, spec))


def _draw_visual_projection(spec: TuningSpec, bundle: Bundle) -> FloatArray:
    """Return the map to BPT's prompts of the image tower.

    Raises:
        BundleError: the bundle does not tell how its weights spread.
    """
    manifest = bundle.manifest
    if manifest.patch_mean is None or manifest.patch_std is None:
        raise BundleError(
            f"--visual needs mean and standard deviation of the weights that embed patches, and "
            f"{bundle.path} does not tell them: an earlier version of fozo made it; export the model again"
        )
    shape = (VISUAL_PROMPTS, manifest.width)
    spread = manifest.patch_mean, manifest.patch_std
    return draw_visual_projection(spec.seed, shape, spec.dimension, *spread, spec.sigma)


def _prepare_border(
    spec: TuningSpec,
    task: FewShotTask,
    network: Network,
    encoder: TextEncoder,
    size: tuple[int, int],
    steps_per_epoch: int,
) -> Learner:
    network.info.require_tunable(PIXELS, "--method bar")
    frame, schedule = choose_frame(size), make_published_schedule(spec.rate, steps_per_epoch)
    head = build_head(encoder, network.info.feature_width, task.data.class_names, (spec.template,))
    return Learner(
        Bar(frame, schedule, spec.directions, spec.perturbation),
        draw_border(spec.seed, size),
        make_border_question(network.with_classifier(head.weight)),
        frame,
    )


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
