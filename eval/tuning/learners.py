"""Methods on the data of a run: where they begin, how they step, and what they may ask."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ...engine.bundle.bundle import Bundle
from ...engine.errors import BundleError
from ...engine.model import PIXELS, Coordinator, FloatArray, ImageArray, ImagePrompt
from ...engine.runtime.class_head import build_head
from ...engine.runtime.cpu import count_cpus
from ...engine.runtime.feature_encoder import FeatureEncoder
from ...engine.runtime.image_decoder import choose_layout, draw_parameters
from ...engine.runtime.image_prompt import Encode
from ...engine.runtime.network import Network
from ...engine.runtime.text_encoder import TextEncoder
from ...engine.search.spsa_gains import PowerGains
from ...engine.text.class_texts import ClassTexts, tokenize_classes
from ...engine.tuning.bar import Bar, choose_frame, compute_border, draw_border, make_published_schedule
from ...engine.tuning.blackvip import Blackvip
from ...engine.tuning.bpt import VISUAL_PROMPTS, Bpt, draw_visual_projection
from .context_training import Question, Tuner
from .few_shot_task import FewShotTask
from .image_questions import make_border_question, make_decoder_question, make_prompt_question
from .questions import make_question
from .tuners import MOMENTUM, make_tuner
from .tuning_spec import TuningSpec

INITIAL_STD = 0.02  # of random vectors, as in CoOp's code
# Returns what a method with gradients asks of a batch, as `export.text_gradient.ask_slopes` does.
AskSlopes = Callable[[Path, ClassTexts, TextEncoder, FloatArray, int | None], Question]


@dataclass(frozen=True)
class Learner:
    """A method on the data of a run.

    Attributes:
        tuner: the method.
        initial: the values before the first step: a context `[M, D]`, a border `[H, W, 3]`, or the parameters
            of a decoder `[δ]`.
        question: of a batch: of its features, or of its images.
        frame: width in pixels of the black frame of the images that it learns from.
        coordinator: encoder and scale of a decoder that is learnt, with its first values; None: none is.
    """

    tuner: Tuner
    initial: FloatArray
    question: Question
    frame: int = 0
    coordinator: Coordinator | None = None

    def make_image_prompt(self, tuned: Any) -> ImagePrompt | None:
        """Return what was learnt for the images, given the state of the method; None where nothing was."""
        if isinstance(self.tuner, Bar):
            return ImagePrompt(self.frame, compute_border(tuned.values, self.frame))
        if isinstance(self.tuner, Bpt) and self.tuner.visual is not None:
            return ImagePrompt(prompts=tuned.prompts)
        if self.coordinator is not None:
            moments = tuned.moments
            arrays = [a.astype(np.float32) for a in (tuned.values, moments.mean, moments.variance)]
            names = ("parameters", "mean", "variance")
            return ImagePrompt(coordinator=replace(self.coordinator, **dict(zip(names, arrays, strict=True))))
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
    if spec.method == "blackvip":
        return _prepare_decoder(spec, bundle, task, network, encoder)
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


def _prepare_decoder(
    spec: TuningSpec, bundle: Bundle, task: FewShotTask, network: Network, encoder: TextEncoder
) -> Learner:
    network.info.require_tunable(PIXELS, "--method blackvip")
    std = bundle.manifest.provenance.get("std")
    if not isinstance(std, list | tuple) or len(std) != 3:
        raise BundleError(f"expected the standard deviation of images in {bundle.path}, found {std!r}")
    scale, encode = np.asarray(std, np.float32), _make_own_encoder(network)
    layer, width, graph = -2, network.info.width, None
    if spec.encoder is not None:
        info, graph = Bundle.open(spec.encoder).info("fp32"), Bundle.open(spec.encoder).graph("fp32")
        if not info.takes_classifier:
            layer, width = -1, info.feature_width
        workers = count_cpus() if spec.workers is None else spec.workers
        encode = FeatureEncoder(graph, layer, width, network.image_size, workers).encode
    layout = choose_layout(width, network.image_size)
    gains = PowerGains(rate=spec.rate, size=spec.perturbation)
    initial, zeros = draw_parameters(layout, spec.seed), np.zeros(layout.norm_channels, np.float32)
    head = build_head(encoder, network.info.feature_width, task.data.class_names, (spec.template,))
    return Learner(
        Blackvip(layout, gains, spec.pairs, MOMENTUM),
        initial,
        make_decoder_question(network.with_classifier(head.weight), encode, scale),
        coordinator=Coordinator(initial.astype(np.float32), zeros, zeros + 1, scale, layer, width, graph),
    )


def _make_own_encoder(network: Network) -> Encode:
    """Return the class token after the last block and the final norm, by the network itself."""
    width = network.info.width

    def encode(images: ImageArray) -> FloatArray:
        features: FloatArray = network(images).features[:, -2, :width]
        return features

    return encode


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
