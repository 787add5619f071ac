"""The ranges that activations take on clean images, without and with tunables; streamed, batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from functools import reduce

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper

from ..engine.errors import InputError
from ..engine.model import FloatArray, ImageArray
from .names import CALIBRATORS

PERCENTILE = 90.0
CALIBRATION_BATCH = 4


@dataclass(frozen=True)
class TunableCase:
    """What adaptation feeds, sooner or later.

    Attributes:
        scale, epsilon: of prompts `scale · U(-bound, bound) + epsilon · N(0, 1)`.
        norms: of addends `norms · N(0, 1)` to gains and biases, where they are tunable.
    """

    scale: float
    epsilon: float
    norms: float


# Without anything, as initialised, perturbed by what the schedules use, and grown.
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
        """What covers both."""
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
) -> dict[str, Range]:
    """The ranges of some tensors of a graph over clean images.

    Each batch runs with one of five kinds of tunables in turn (none, as initialised, perturbed, grown), since
    what these do to the activations would otherwise be clipped. Ranges cover all kinds.

    Args:
        model: a graph that follows the graph contract.
        tensors: float tensors inside it.
        batches: uint8 `[N, H, W, 3]`; together at least five, one for every kind of tunables.
        width: D, the width of a prompt.
        prompt_bound: prompts are initialised in `[-prompt_bound, prompt_bound]`.
        prompts: how many prompts, where there are any.
        norms: how many norms are tunable.
        calibrator: what becomes of the extremes that a channel has in each batch. `percentile` takes the 90th
            percentile over batches, so that what is rare is clipped rather than making all else coarse;
            `average` takes the mean, `minmax` the furthest.
        seed: of the tunables.
        threads: of the runtime; 0 is all.
        on_batch: called after each batch with its number of images.

    Raises:
        InputError: there are too few batches, the calibrator is unknown, or a tensor has non-finite values.
    """
    if calibrator not in CALIBRATORS:
        raise InputError(f"expected a calibrator out of {', '.join(CALIBRATORS)}, found {calibrator!r}")
    if not tensors:  # all that is left may read bytes
        return {}
    names = sorted(tensors)
    session = _observing(model, names, threads)
    generator = np.random.default_rng(seed)
    collected = [_Extremes() for _ in CASES]
    count = 0
    for index, images in enumerate(batches):
        count += 1
        case = index % len(CASES)
        feed = {"images": images, "prompts": _prompts(CASES[case], prompts, width, prompt_bound, generator)}
        if norms:
            feed["norms"] = _norms(CASES[case], (1, norms, 2, width), generator)
        for name, values in zip(names, session.run(names, feed), strict=True):
            collected[case].add(name, values)
        on_batch(len(images))
    if count < len(CASES):
        raise InputError(
            f"calibration needs at least {len(CASES)} batches of {CALIBRATION_BATCH} images, one for every "
            f"kind of tunables, found {count}; give it more images"
        )
    return {
        name: reduce(Range.union, (extremes.range(name, calibrator) for extremes in collected))
        for name in names
    }


class _Extremes:
    """The extremes of each channel in each batch, of one kind of tunables."""

    def __init__(self) -> None:
        self._batches: dict[str, list[Range]] = {}

    def add(self, name: str, values: FloatArray) -> None:
        flat = values.reshape(-1, values.shape[-1])
        found = Range(flat.min(axis=0), flat.max(axis=0))
        if not (np.isfinite(found.low).all() and np.isfinite(found.high).all()):
            raise InputError(f"{name} takes non-finite values on the calibration images; check the weights")
        self._batches.setdefault(name, []).append(found)

    def range(self, name: str, calibrator: str) -> Range:
        low = np.stack([found.low for found in self._batches[name]]).astype(np.float64)
        high = np.stack([found.high for found in self._batches[name]]).astype(np.float64)
        if calibrator == "minmax":
            return Range(low.min(axis=0), high.max(axis=0))
        if calibrator == "average":
            return Range(low.mean(axis=0), high.mean(axis=0))
        return Range(np.percentile(low, 100 - PERCENTILE, axis=0), np.percentile(high, PERCENTILE, axis=0))


def _observing(model: onnx.ModelProto, names: list[str], threads: int) -> ort.InferenceSession:
    """A session of the graph with further outputs."""
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


def _norms(case: TunableCase | None, shape: tuple[int, ...], generator: np.random.Generator) -> FloatArray:
    size = 0.0 if case is None else case.norms
    return (size * generator.normal(size=shape)).astype(np.float32)


def _prompts(
    case: TunableCase | None, count: int, width: int, bound: float, generator: np.random.Generator
) -> FloatArray:
    if case is None:
        return np.zeros((1, 0, width), np.float32)
    shape = (1, count, width)
    prompts = case.scale * generator.uniform(-bound, bound, shape)
    return (prompts + case.epsilon * generator.normal(size=shape)).astype(np.float32)
