"""The graph contract (docs/bundle.md): what a graph takes and returns, and what may be fed to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import BundleError, InputError
from ..model import BATCH_STATISTICS, NORMS, PIXELS, PROMPTS, RECENTRING, FloatArray, ModelInfo, Tunables

IMAGES = "images"
CLASSIFIER = "classifier"  # of models whose classes are made from texts
OUTPUTS = ("logits", "features", "embedding")
ACTIVATION_MOMENTS = "activation_moments"  # an output of graphs with the input `recentring`
# Inputs and outputs of a text graph.
TOKENS, LENGTHS, CONTEXTS = "tokens", "lengths", "contexts"
EMBEDDINGS, EMBEDDED = "embeddings", "embedded"
# Further inputs of a graph with gradients.
PULL_BACK = "pull_back"  # whether gradients are computed
LOGITS_SLOPES = "logits_slopes"
FEATURES_SLOPES = "features_slopes"
ENTROPY_WEIGHTS = "entropy_weights"
CLASS_OFFSETS = "class_offsets"  # to the logits, for the entropies
SLOPE_TYPES = {
    PULL_BACK: "tensor(bool)",
    **dict.fromkeys((LOGITS_SLOPES, FEATURES_SLOPES, ENTROPY_WEIGHTS, CLASS_OFFSETS), "tensor(float)"),
}


@dataclass(frozen=True)
class Tunable:
    """A graph input that adaptation may change.

    Attributes:
        name: name of the input.
        per_image: whether images may have values of their own: the first axis is then 1 or N, otherwise 1.
        axes: lengths of the other axes; None stands for any length.
    """

    name: str
    per_image: bool
    axes: tuple[int | None, ...]

    @property
    def neutral(self) -> FloatArray:
        """The value without effect, float32: no prompts, addends of zero."""
        return np.zeros((1, *(axis or 0 for axis in self.axes)), np.float32)

    def check(self, array: FloatArray, images: int) -> None:
        """Check that an array can be fed for a batch of so many images.

        Raises:
            InputError: its type or shape does not fit, or a share is outside of 0..1.
        """
        lengths = (1, images) if self.per_image else (1,)
        fits = array.dtype == np.float32 and array.ndim == 1 + len(self.axes) and len(array) in lengths
        if not fits or any(
            axis not in (None, length) for axis, length in zip(self.axes, array.shape[1:], strict=True)
        ):
            expected = [f"1 or {images}" if self.per_image else "1"]
            expected += ["any number" if axis is None else str(axis) for axis in self.axes]
            raise InputError(
                f"expected {self.name} of type float32 and shape [{', '.join(expected)}], "
                f"found {array.dtype} of shape {list(array.shape)}"
            )
        if self.name == BATCH_STATISTICS and not 0 <= array[0] <= 1:
            raise InputError(
                f"expected {self.name}, the share of the batch in the statistics, in 0..1, found {array[0]}"
            )


def name_gradient(tunable: str) -> str:
    """Return the name of the output that is the gradient with respect to a tunable."""
    return f"{tunable}_gradient"


def read_tunables(session: Any) -> dict[str, Tunable]:
    """Return the tunables of an ONNX Runtime session, by name."""
    return {
        node.name: Tunable(
            node.name,
            not isinstance(node.shape[0], int),
            tuple(axis if isinstance(axis, int) else None for axis in node.shape[1:]),
        )
        for node in session.get_inputs()
        if node.name not in (IMAGES, CLASSIFIER, *SLOPE_TYPES)
    }


def complete_feed(
    values: Tunables, tunables: Mapping[str, Tunable], images: int, model: str
) -> dict[str, FloatArray]:
    """Return the checked values of all tunables for one forward; those not given are neutral.

    Args:
        values: by name, what differs from the neutral values.
        tunables: all tunables of the graph.
        images: number of images in the batch.
        model: name of the model, for messages.

    Raises:
        InputError: a value does not fit, or there is no such tunable.
    """
    unknown = values.keys() - tunables.keys()
    if unknown:
        raise InputError(
            f"{model} has no tunable {', '.join(sorted(unknown))}; it has: {', '.join(tunables)}"
        )
    for name, array in values.items():
        tunables[name].check(array, images)
    neutral = {name: tunable.neutral for name, tunable in tunables.items() if name not in values}
    return {**neutral, **values}


def check_contract(session: Any, info: ModelInfo, graph: Path) -> tuple[int, int]:
    """Return height and width of the images, in pixels, after checking a graph's inputs and outputs.

    Those of a model with gradients are expected to be a pull-back graph's.

    Raises:
        BundleError: names, types or axes are not those of the contract and of the model.
    """
    inputs = {node.name: node for node in session.get_inputs()}
    outputs = {node.name: node for node in session.get_outputs()}
    types = {IMAGES: "tensor(uint8)", **dict.fromkeys(info.tunables, "tensor(float)")}
    types |= {CLASSIFIER: "tensor(float)"} if info.takes_classifier else {}
    output_types = dict.fromkeys(OUTPUTS if "embedding" in outputs else OUTPUTS[:2], "tensor(float)")
    contract, remedy = "the graph contract", "fozo export"
    if info.activations:
        types[RECENTRING] = output_types[ACTIVATION_MOMENTS] = "tensor(float)"
    if info.gradients:
        types |= SLOPE_TYPES
        output_types |= dict.fromkeys(map(name_gradient, info.gradients), "tensor(float)")
        contract, remedy = "the contract of pull-back graphs", "fozo export --gradients"
    for side, expected, nodes in (("inputs", types, inputs), ("outputs", output_types, outputs)):
        actual = {name: node.type for name, node in nodes.items()}
        if actual != expected:
            lacking, foreign = (
                ", ".join(f"{name} ({kind})" for name, kind in sorted(left.items() - right.items()))
                or "nothing"
                for left, right in ((expected, actual), (actual, expected))
            )
            raise BundleError(
                f"{graph} does not follow {contract}: its {side} lack {lacking}, and have {foreign} beside "
                f"the expected ones; export the model again with {remedy}"
            )
    height, width = (*inputs[IMAGES].shape[1:3], None, None)[:2]
    expected_axes = {
        IMAGES: [*(info.image_size or (height, width)), 3],
        "features": [info.layers, info.feature_width],
        **({CLASSIFIER: [info.feature_width]} if info.takes_classifier else {"logits": [info.classes]}),
    }
    if PROMPTS in inputs:
        expected_axes[PROMPTS] = [info.width]
    if NORMS in inputs:
        expected_axes[NORMS] = [len(info.norms), 2, max(info.norms.values(), default=0)]
    if PIXELS in inputs:
        expected_axes[PIXELS] = [height, width, 3]
    if BATCH_STATISTICS in inputs:
        expected_axes[BATCH_STATISTICS] = []
    nodes = {**inputs, **outputs}
    actual_axes = {name: nodes[name].shape[1:] for name in expected_axes}
    if PROMPTS in actual_axes:
        actual_axes[PROMPTS] = actual_axes[PROMPTS][1:]
    if actual_axes != expected_axes or not isinstance(height, int) or not isinstance(width, int):
        differing = [name for name in expected_axes if actual_axes[name] != expected_axes[name]] or [IMAGES]
        shapes = (f"{name} of axes {expected_axes[name]}, found {actual_axes[name]}" for name in differing)
        raise BundleError(
            f"{graph} does not fit its manifest: expected {'; '.join(shapes)}; export the model again"
        )
    return height, width
