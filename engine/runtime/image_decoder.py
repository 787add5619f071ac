"""BlackVIP's decoder (Oh et al., CVPR 2023): a small network from features of an image to a prompt for it.

Features and a learnt trigger are laid out as a map `[channels, H / 32, W / 32]`. Four stages double its
sides: a transposed convolution of 2 x 2 that works in groups, one of 1 x 1, a batch norm, and GELU. A fifth
transposed convolution gives three channels. Values are those of normalised images. Arrays are channels last
here, and the parameters in the order of the official code: 9,920 for 768 features and 224 pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import cast

import numpy as np

from ..errors import InputError
from ..model import FloatArray

SCALE = 32  # of an image to the map
EPSILON, MOMENTUM = 1e-5, 0.1  # of batch norms
_LEAST_CHANNELS, _MOST_GROUPS = 32, 64
_STAGES = ((64, 64), (64, 32), (32, 32), (32, 16))  # channels after each of the two convolutions
_TERMS = (0.254829592, -0.284496736, 1.421413741, -1.453152027, 1.061405429)
_STEEPNESS = 0.3275911


@dataclass(frozen=True)
class Stage:
    """Channels of a stage: before it, between its convolutions, after it, and groups of the first."""

    inputs: int
    middle: int
    outputs: int
    groups: int

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shapes of both weights, of the bias of the first, and of gain and bias, as in the parameters."""
        first = (self.inputs, self.middle // self.groups, 2, 2)
        return first, (self.middle,), (self.middle, self.outputs), (self.outputs,), (self.outputs,)


@dataclass(frozen=True)
class DecoderLayout:
    """Sizes of a decoder.

    Attributes:
        features: Z, features of an image.
        grid: height and width of the map.
        channels: of the map.
    """

    features: int
    grid: tuple[int, int]
    channels: int

    @property
    def trigger(self) -> int:
        """Number of learnt values beside the features."""
        return self.channels * self.grid[0] * self.grid[1] - self.features

    @cached_property
    def stages(self) -> tuple[Stage, ...]:
        """The stages before the last convolution."""
        stages, inputs = [], self.channels
        for index, (middle, outputs) in enumerate(_STAGES):
            groups = min(_MOST_GROUPS, inputs) if index == 0 else inputs
            stages.append(Stage(inputs, middle, outputs, groups))
            inputs = outputs
        return tuple(stages)

    @cached_property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shapes of all parameters in their order; the trigger is the first."""
        body = [shape for stage in self.stages for shape in stage.shapes]
        return ((self.trigger,), *body, (self.stages[-1].outputs, 3, 2, 2))

    @property
    def size(self) -> int:
        """Number of parameters."""
        return sum(int(np.prod(shape)) for shape in self.shapes)

    @property
    def norm_channels(self) -> int:
        """Channels of all batch norms."""
        return sum(stage.outputs for stage in self.stages)


def choose_layout(features: int, image_size: tuple[int, int]) -> DecoderLayout:
    """Return the layout for Z features and images of a size, with as few channels as leave a trigger.

    >>> choose_layout(768, (224, 224)).size
    9920

    Raises:
        InputError: a side of the images is no multiple of 32.
    """
    if any(side % SCALE for side in image_size) or features < 1:
        raise InputError(
            f"expected features, and images whose sides are multiples of {SCALE} pixels, as the decoder "
            f"doubles its map five times, found {features} and {image_size[0]} x {image_size[1]}; "
            "use another model"
        )
    grid, channels = (image_size[0] // SCALE, image_size[1] // SCALE), _LEAST_CHANNELS
    while channels * grid[0] * grid[1] <= features:
        channels *= 2
    return DecoderLayout(features, grid, channels)


def draw_parameters(layout: DecoderLayout, seed: int) -> FloatArray:
    """Draw the parameters before the first step, as PyTorch and the official code do, float64 `[δ]`.

    The trigger is uniform in 0..0.1. Weights and biases of convolutions are uniform up to one over the root
    of the values that a weight has for each input channel; gains are 1 and biases of norms 0.
    """
    generator = np.random.default_rng([seed, 0, 3])
    drawn = [generator.uniform(0, 0.1, layout.trigger)]
    for stage in layout.stages:
        first, bias, second, gain, shift = stage.shapes
        bounds = (first[1] * 4) ** -0.5, second[1] ** -0.5
        drawn += [generator.uniform(-bounds[0], bounds[0], shape).ravel() for shape in (first, bias)]
        drawn += [generator.uniform(-bounds[1], bounds[1], second).ravel(), np.ones(gain), np.zeros(shift)]
    bound = (3 * 4) ** -0.5
    drawn.append(generator.uniform(-bound, bound, layout.shapes[-1]).ravel())
    return np.concatenate(drawn)


@dataclass(frozen=True)
class Moments:
    """Mean and variance of every channel of the batch norms, in their order, float64 `[C]`."""

    mean: FloatArray
    variance: FloatArray


def start_moments(layout: DecoderLayout) -> Moments:
    """Return the moments before the first batch."""
    return Moments(np.zeros(layout.norm_channels), np.ones(layout.norm_channels))


def decode_batch(
    layout: DecoderLayout, parameters: FloatArray, features: FloatArray, running: Moments
) -> tuple[FloatArray, Moments]:
    """Return prompts `[N, H, W, 3]` with the moments of this batch, and the running moments after it.

    A tenth of the new running moments is of the batch, whose variance is unbiased there.

    Args:
        layout: of the decoder.
        parameters: `[δ]`.
        features: `[N, Z]`.
        running: the moments before.
    """
    arrays = _split(layout, parameters)
    x = _lay_out(layout, arrays[0], features)
    means, variances = [], []
    for index, stage in enumerate(layout.stages):
        first, bias, second, gain, shift = arrays[1 + 5 * index : 6 + 5 * index]
        x = _double_and_mix(x, first, bias, second, stage.groups)
        mean, variance, count = x.mean((0, 1, 2), np.float64), x.var((0, 1, 2), np.float64), x[..., 0].size
        x = _normalise(x, mean, variance, gain, shift)
        means.append(mean)
        variances.append(variance * count / (count - 1))
    batch = Moments(np.concatenate(means), np.concatenate(variances))
    mean, variance = (
        (1 - MOMENTUM) * old + MOMENTUM * new
        for old, new in ((running.mean, batch.mean), (running.variance, batch.variance))
    )
    return _double(x, arrays[-1], 1), Moments(mean, variance)


def decode(
    layout: DecoderLayout, parameters: FloatArray, features: FloatArray, running: Moments
) -> FloatArray:
    """Return prompts `[N, H, W, 3]` with running moments; each depends on one image, to the bit.

    Args:
        layout: of the decoder.
        parameters: `[δ]`.
        features: `[N, Z]`.
        running: moments of the batch norms.
    """
    arrays = _split(layout, parameters)
    return np.concatenate([_decode_image(layout, arrays, row[None], running) for row in features])


def _decode_image(
    layout: DecoderLayout, arrays: list[FloatArray], features: FloatArray, running: Moments
) -> FloatArray:
    x, start = _lay_out(layout, arrays[0], features), 0
    for index, stage in enumerate(layout.stages):
        first, bias, second, gain, shift = arrays[1 + 5 * index : 6 + 5 * index]
        x, rows = _double_and_mix(x, first, bias, second, stage.groups), slice(start, start + stage.outputs)
        x = _normalise(x, running.mean[rows], running.variance[rows], gain, shift)
        start += stage.outputs
    return _double(x, arrays[-1], 1)


def _split(layout: DecoderLayout, parameters: FloatArray) -> list[FloatArray]:
    """Return the parameters as float32 arrays, in their order."""
    ends = np.cumsum([np.prod(shape) for shape in layout.shapes])[:-1]
    flat = np.split(parameters.astype(np.float32), ends)
    return [values.reshape(shape) for values, shape in zip(flat, layout.shapes, strict=True)]


def _lay_out(layout: DecoderLayout, trigger: FloatArray, features: FloatArray) -> FloatArray:
    """Return the map `[N, H / 32, W / 32, channels]` of features and trigger."""
    rows = np.broadcast_to(trigger, (len(features), len(trigger)))
    cube = np.concatenate([features.astype(np.float32), rows], axis=1)
    result: FloatArray = cube.reshape(-1, layout.channels, *layout.grid).transpose(0, 2, 3, 1)
    return result


def _double_and_mix(
    x: FloatArray, first: FloatArray, bias: FloatArray, second: FloatArray, groups: int
) -> FloatArray:
    doubled = _double(x, first, groups)
    doubled += bias
    return cast(FloatArray, doubled @ second)


def _double(x: FloatArray, weight: FloatArray, groups: int) -> FloatArray:
    """Return a transposed convolution of 2 x 2 with a stride of 2, `[n, 2 h, 2 w, O]`.

    Args:
        x: `[n, h, w, I]`.
        weight: `[I, O / groups, 2, 2]`.
        groups: into which inputs and outputs are divided.
    """
    n, h, w, inputs = x.shape
    outputs = weight.shape[1]
    grouped = x.reshape(n, h, w, groups, 1, inputs // groups)
    result = np.empty((n, h, 2, w, 2, groups * outputs), np.float32)
    for row in range(2):
        for column in range(2):
            matrices = weight[:, :, row, column].reshape(groups, inputs // groups, outputs)
            result[:, :, row, :, column] = np.matmul(grouped, matrices).reshape(n, h, w, -1)
    return cast(FloatArray, result.reshape(n, 2 * h, 2 * w, -1))


def _normalise(
    x: FloatArray, mean: FloatArray, variance: FloatArray, gain: FloatArray, shift: FloatArray
) -> FloatArray:
    """Return GELU of a batch norm, computed in place and image by image, which takes less memory."""
    factor = gain / np.sqrt(variance + EPSILON)
    offset = (shift - mean * factor).astype(np.float32)
    factor = factor.astype(np.float32)
    for image in x:
        image *= factor
        image += offset
        image *= np.float32(0.5) * (1 + compute_erf(image * np.float32(0.5**0.5)))
    return x


def compute_erf(x: FloatArray) -> FloatArray:
    """Return the error function, right to 0.00000015 (Abramowitz and Stegun, formula 7.1.26).

    >>> print(compute_erf(np.array([-1.0, 0.5, 3.0])).round(6))
    [-0.842701  0.5205    0.999978]
    """
    size = np.abs(x)
    t = 1 / (1 + _STEEPNESS * size)
    total = t * np.polyval(_TERMS[::-1], t)
    return cast(FloatArray, np.sign(x) * (1 - total * np.exp(-size * size)))
