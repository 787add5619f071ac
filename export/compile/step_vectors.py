"""Steps of a graph that were computed by the engine too: proof for this file, and for every other program."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from ...engine.errors import ExportError
from ...engine.interface.method import AnyMethod
from ...engine.model import FloatArray, ImageArray
from ...engine.runtime.network import Network
from ...engine.streams.adapter import Adapter
from .embedded_network import LOGITS
from .step_graph import DIAGNOSTIC, NEXT_STATE, STATE, VALID

STEPS = 5  # at least
IMAGES = 16  # of a step, where the graph takes any number
MOST_STEPS = 80  # for the sake of updates: the state of a step may have some megabytes
SMALLEST_LOGIT = 1e-9  # to divide by
LARGEST_DIFFERENCE = 1e-3  # of logits, relative to the largest one; rounding alone is far below


@dataclass(frozen=True)
class StepVectors:
    """Some steps, one after the other.

    Attributes:
        arrays: by name. `images` uint8 `[steps, N, H, W, 3]`; `logits` float32 `[steps, N, K]`;
            `state.NAME` `[steps + 1, …]`, before the first step and after every one; `diagnostic.NAME`
            `[steps]`.
        expected: the engine's logits, float32 `[steps, N, K]`.
    """

    arrays: Mapping[str, NDArray[Any]]
    expected: FloatArray

    @property
    def difference(self) -> float:
        """Largest difference of a logit to the engine's, relative to the largest logit of its step."""
        return compare_logits(self.arrays[LOGITS], self.expected)

    @property
    def updates(self) -> int | None:
        """Updates within the steps, by a method that counts them; None by the others."""
        counts = self.arrays.get(f"{STATE}updates")
        return None if counts is None else int(counts[-1])


def count_steps(method: AnyMethod, images: int, least: int = STEPS) -> int:
    """Return the number of steps for the vectors.

    A method that collects images before it updates gets steps for two updates, since its momentum matters
    from the second one on. Where these would be more than 80, it gets those for one update and its effect;
    where these are still more, `least`.

    Args:
        method: with or without an option `update_images`.
        images: of every step.
        least: steps that are asked for.
    """
    for steps in (2 * count_steps_per_update(method, images), count_steps_to_effect(method, images)):
        if steps <= MOST_STEPS:
            return max(least, steps)
    return least


def count_steps_to_effect(method: AnyMethod, images: int) -> int:
    """Return the steps up to the first one that predicts with updated values."""
    return count_steps_per_update(method, images) + 1


def count_steps_per_update(method: AnyMethod, images: int) -> int:
    """Return the steps in which a method collects the images of an update."""
    return math.ceil(getattr(method, "update_images", 1) / images)


def compute_vectors(
    step: bytes,
    first_state: Mapping[str, NDArray[Any]],
    network: Network,
    method: AnyMethod,
    images: int,
    steps: int = STEPS,
) -> StepVectors:
    """Return steps on random images, compared with the engine's.

    Args:
        step: the step graph.
        first_state: by name, without `state.`.
        network: the engine's, of the same graph.
        method: with the generator `philox`, if it draws anything.
        images: of every step.
        steps: number of steps.

    Raises:
        ExportError: a step is not finite.
    """
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = 1  # as in the engine: with more, sums have other last bits
    session = onnxruntime.InferenceSession(step, settings, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    batches = draw_images(steps, images, network.image_size)
    adapter = Adapter(network, method, int(first_state["seed"]))
    state = {f"{STATE}{name}": array for name, array in first_state.items()}
    records: dict[str, list[NDArray[Any]]] = {name: [array] for name, array in state.items()}
    expected = []
    for batch in batches:
        outputs = dict(zip(names, session.run(None, {"images": batch, **state}), strict=True))
        expected.append(adapter.step(batch).logits)
        if not outputs[VALID]:
            raise ExportError(f"{method.name}: a step on random images is not finite; check the model")
        state = {f"{STATE}{name}": outputs[f"{NEXT_STATE}{name}"] for name in first_state}
        for name, array in state.items():
            records[name].append(array)
        for name in names:
            if name == LOGITS or name.startswith(DIAGNOSTIC):
                records.setdefault(name, []).append(outputs[name])
    arrays = {name: np.stack(values) for name, values in records.items()}
    return StepVectors({"images": batches, **arrays}, np.stack(expected))


def check_difference(vectors: StepVectors, name: str, limit: float = LARGEST_DIFFERENCE) -> None:
    """Check that a graph predicts as the engine does.

    Args:
        vectors: its steps.
        name: of the method.
        limit: largest difference of a logit, relative to the largest logit.

    Raises:
        ExportError: it does not.
    """
    if vectors.difference > limit:
        raise ExportError(
            f"the graph of {name} differs from the engine by {vectors.difference:.1e} of the largest logit, "
            f"expected at most {limit:.0e}; nothing was written"
        )


def compare_logits(logits: FloatArray, expected: FloatArray) -> float:
    """Return the largest difference of a logit `[steps, N, K]`, relative to the largest logit of its step."""
    scales = np.maximum(np.abs(expected).max(axis=(1, 2)), SMALLEST_LOGIT)
    return float((np.abs(logits - expected).max(axis=(1, 2)) / scales).max())


def draw_images(steps: int, count: int, size: tuple[int, int]) -> ImageArray:
    """Return images of coloured patches with noise, uint8 `[steps, count, H, W, 3]`."""
    generator = np.random.default_rng(0)
    height, width = size
    patches = generator.integers(0, 256, (steps, count, 5, 5, 3))
    rows, columns = np.arange(height) * 5 // height, np.arange(width) * 5 // width
    large = patches[:, :, rows][:, :, :, columns]
    noise = generator.integers(-40, 41, large.shape)
    result: ImageArray = np.clip(large + noise, 0, 255).astype(np.uint8)
    return result
