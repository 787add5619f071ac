"""Ranges of activations on clean images, without and with tunables, measured batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import reduce

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper

from ..engine.errors import InputError
from ..engine.model import NORMS, PIXELS, PROMPTS, FloatArray, ImageArray
from ..engine.runtime.graph_contract import CLASSIFIER, IMAGES
from .settings import CALIBRATORS

PERCENTILE = 90.0
CALIBRATION_BATCH = 4


@dataclass(frozen=True)
class TunableCase:
    """Distribution of the tunables of a calibration batch, like those that adaptation reaches.

    Attributes:
        scale: factor of the initial prompts in `scale · U(-bound, bound) + epsilon · N(0, 1)`.
        epsilon: standard deviation of the noise on them.
        norms: standard deviation of the addends to gains and biases, where these are tunable.
    """

    scale: float
    epsilon: float
    norms: float


# No tunables, prompts as initialised, perturbed as by the schedules of the methods, and grown.
CASES = (
    None,
    TunableCase(1, 0, 0),
    TunableCase(1, 0.1, 0.02),
    TunableCase(3, 0.3, 0.05),
    TunableCase(3, 0.5, 0.05),
)


@dataclass(frozen=True)
class Range:
    """Lowest and highest value of every channel (index of the last axis), float64 `[C]`."""

    low: FloatArray
    high: FloatArray

    def union(self, other: Range) -> Range:
        """Return the smallest range that contains both."""
        return Range(np.minimum(self.low, other.low), np.maximum(self.high, other.high))


def calibrate(
    model: onnx.ModelProto,
    tensors: Collection[str],
    batches: Iterable[ImageArray],
    *,
    width: int,
    prompt_bound: float,
    prompts: int = 3,
    norms: int = 0,
    calibrator: str = "percentile",
    seed: int = 0,
    threads: int = 0,
    on_batch: Callable[[int], None] = lambda images: None,
    on_activations: Callable[[Mapping[str, FloatArray]], None] | None = None,
) -> dict[str, Range]:
    """Measure the ranges of some tensors of a graph over clean images.

    Each batch runs with one of five kinds of tunables in turn (none, initial, perturbed, grown). Ranges
    cover all kinds, since the integers would otherwise clip activations that tunables change.

    Args:
        model: a graph that follows the graph contract.
        tensors: float tensors inside it.
        batches: uint8 `[N, H, W, 3]`; together at least five, one for every kind of tunables.
        width: D, the width of a prompt.
        prompt_bound: prompts are initialised in `[-prompt_bound, prompt_bound]`.
        prompts: number of prompts, in the kinds that have any.
        norms: number of tunable norms.
        calibrator: summary of the extremes of a channel over batches. `percentile` takes the 90th percentile,
            so that rare values are clipped rather than making the grid coarse; `average` takes the mean,
            `minmax` the extreme of all.
        seed: seed of the tunables.
        threads: number of threads of the runtime; 0 takes all cores.
        on_batch: called after each batch with its number of images.
        on_activations: called with the values of the tensors in each batch, by name.

    Raises:
        InputError: there are too few batches, the calibrator is unknown, or a tensor has non-finite values.
    """
    if calibrator not in CALIBRATORS:
        raise InputError(f"expected a calibrator out of {', '.join(CALIBRATORS)}, found {calibrator!r}")
    if not tensors:  # the products may read bytes only
        return {}
    collected = [_Extremes() for _ in CASES]
    count = 0
    activations = observe_activations(
        model, tensors, batches, width, prompt_bound, prompts=prompts, norms=norms, seed=seed, threads=threads
    )
    for images, values_by_name in activations:
        for name, values in values_by_name.items():
            collected[count % len(CASES)].add(name, values)
        if on_activations is not None:
            on_activations(values_by_name)
        count += 1
        on_batch(images)
    require_batches(count)
    return {
        name: reduce(Range.union, (extremes.summarise(name, calibrator) for extremes in collected))
        for name in sorted(tensors)
    }


def require_batches(count: int) -> None:
    """Raise an InputError if there are fewer batches than kinds of tunables."""
    if count < len(CASES):
        raise InputError(
            f"calibration needs at least {len(CASES)} batches of {CALIBRATION_BATCH} images, one for every "
            f"kind of tunables, found {count}; give it more images"
        )


def observe_activations(
    model: onnx.ModelProto,
    tensors: Collection[str],
    batches: Iterable[ImageArray],
    width: int,
    prompt_bound: float,
    *,
    prompts: int = 3,
    norms: int = 0,
    seed: int = 0,
    threads: int = 0,
) -> Iterator[tuple[int, dict[str, FloatArray]]]:
    """Run the graph on batches, each with the next of five kinds of tunables, and yield activations.

    The arguments are those of `calibrate`.

    Yields:
        The number of images of a batch, and the values of the tensors by name.

    Raises:
        InputError: a tensor has non-finite values.
    """
    names = sorted(tensors)
    session = _open_session(model, names, threads)
    generator = np.random.default_rng(seed)
    constant_feed = _feed_constants(model)
    for index, images in enumerate(batches):
        case = CASES[index % len(CASES)]
        feed = {IMAGES: images, **constant_feed}
        feed[PROMPTS] = _draw_prompts(case, prompts, width, prompt_bound, generator)
        if norms:
            feed[NORMS] = _draw_norms(case, (1, norms, 2, width), generator)
        activations = dict(zip(names, session.run(names, feed), strict=True))
        for name, values in activations.items():
            if not np.isfinite([values.min(), values.max()]).all():
                raise InputError(
                    f"{name} takes non-finite values on the calibration images; check the weights"
                )
        yield len(images), activations


class _Extremes:
    """Extremes of each channel in each batch, for one kind of tunables."""

    def __init__(self) -> None:
        self._batches: dict[str, list[Range]] = {}

    def add(self, name: str, values: FloatArray) -> None:
        flat = values.reshape(-1, values.shape[-1])
        self._batches.setdefault(name, []).append(Range(flat.min(axis=0), flat.max(axis=0)))

    def summarise(self, name: str, calibrator: str) -> Range:
        low = np.stack([extremes.low for extremes in self._batches[name]]).astype(np.float64)
        high = np.stack([extremes.high for extremes in self._batches[name]]).astype(np.float64)
        if calibrator == "minmax":
            return Range(low.min(axis=0), high.max(axis=0))
        if calibrator == "average":
            return Range(low.mean(axis=0), high.mean(axis=0))
        return Range(np.percentile(low, 100 - PERCENTILE, axis=0), np.percentile(high, PERCENTILE, axis=0))


def _open_session(model: onnx.ModelProto, names: list[str], threads: int) -> ort.InferenceSession:
    """Open a session of the graph that also returns the named tensors."""
    observed = onnx.ModelProto()
    observed.CopyFrom(model)
    for name in names:
        observed.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.enable_mem_pattern = False
    options.log_severity_level = 3
    content = observed.SerializeToString()
    del observed
    return ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def _feed_constants(model: onnx.ModelProto) -> dict[str, FloatArray]:
    """Return zeros for a classifier of one class and for the pixels, where the graph asks for them.

    No product is calibrated that reads a classifier.
    """
    axes = {value.name: value.type.tensor_type.shape.dim for value in model.graph.input}
    shapes = {
        name: [axis.dim_value for axis in axes[name][1:]] for name in (CLASSIFIER, PIXELS) if name in axes
    }
    return {name: np.zeros((1, *shape), np.float32) for name, shape in shapes.items()}


def _draw_norms(
    case: TunableCase | None, shape: tuple[int, ...], generator: np.random.Generator
) -> FloatArray:
    size = 0.0 if case is None else case.norms
    return (size * generator.normal(size=shape)).astype(np.float32)


def _draw_prompts(
    case: TunableCase | None, count: int, width: int, bound: float, generator: np.random.Generator
) -> FloatArray:
    if case is None:
        return np.zeros((1, 0, width), np.float32)
    shape = (1, count, width)
    prompts = case.scale * generator.uniform(-bound, bound, shape)
    return (prompts + case.epsilon * generator.normal(size=shape)).astype(np.float32)
