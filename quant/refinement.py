"""Integers of fewer than 8 bits that are chosen by the errors which they cause on calibration images."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import onnx
from onnx import numpy_helper

from ..engine.model import FloatArray
from .activation_samples import ActivationSamples
from .calibration import Range
from .clip_search import search_signed_grid, search_unsigned_grid
from .error_compensation import compensate_errors
from .grid import Grid
from .input_moments import InputMoments, MomentSums
from .layer_integers import LayerIntegers, is_separable
from .products import Product
from .settings import BitWidths

PASS_BYTES = 2**29  # memory for the moments of the inputs that one pass over the images measures

Input = tuple[str, Grid | None]
Observe = Callable[[Collection[str]], Iterator[tuple[int, dict[str, FloatArray]]]]


def refine_grids(
    products: Sequence[Product],
    layers: Mapping[str, LayerIntegers],
    ranges: Mapping[str, Range],
    samples: ActivationSamples,
    bits: BitWidths,
) -> dict[str, LayerIntegers]:
    """Return the layers with grids of activations that have the least squared error on a sample.

    With activations of 8 bits, all grids stay as they are, and those of pixels always do.

    Args:
        products: all products on integers.
        layers: their integers, by name.
        ranges: of the activations, by name of the tensor.
        samples: of the activations.
        bits: of activations and keys.
    """
    lefts: dict[tuple[str, bool], Grid] = {}
    refined = dict(layers)
    for product in products:
        tensor, outliers = product.left.tensor, is_separable(product)
        if bits.activations < 8 and not product.left.is_bytes:
            if (tensor, outliers) not in lefts:
                sample = samples.get(tensor)
                lefts[tensor, outliers] = search_unsigned_grid(
                    ranges[tensor], sample, bits.activations, outliers=outliers
                )
            refined[product.name] = replace(refined[product.name], left=lefts[tensor, outliers])
        if bits.activations < 8 and product.right is not None:
            tensor = product.right.tensor
            right = search_signed_grid(ranges[tensor], samples.get(tensor), bits.keys)
            refined[product.name] = replace(refined[product.name], right=right)
    return refined


def plan_passes(products: Sequence[Product], layers: Mapping[str, LayerIntegers]) -> list[list[Input]]:
    """Return the inputs of products with weights, in groups whose moments fit into memory together."""
    passes: list[list[Input]] = []
    free = 0
    for key, size in _measure_inputs(products, layers).items():
        if size > free or not passes:
            passes.append([])
            free = PASS_BYTES
        passes[-1].append(key)
        free -= size
    return passes


def refine_weights(
    model: onnx.ModelProto,
    products: Sequence[Product],
    layers: Mapping[str, LayerIntegers],
    observe: Observe,
    bits: int,
    seed: int,
) -> dict[str, LayerIntegers]:
    """Return the layers with weights and biases that make up for errors of rounding.

    Weights that multiply pixels stay as they are, with 8 bits like the pixels.

    Args:
        model: the graph in float.
        products: all products on integers.
        layers: their integers, by name.
        observe: returns the activations of all calibration images, batch by batch, given names of tensors.
            It is called once for each of `plan_passes`.
        bits: of a weight.
        seed: of the choice of tokens.
    """
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    refined = dict(layers)
    for inputs in plan_passes(products, layers):
        moments = _collect_moments(inputs, observe, seed)
        for product in products:
            key = (product.input, layers[product.name].left)
            if product.weight is None or product.left.is_bytes or key not in moments:
                continue
            weight = numpy_helper.to_array(weights[product.weight])
            integers, scale, bias = compensate_errors(weight, moments[key], bits, blocks=key[1] is None)
            if product.bias is not None:
                bias = bias + numpy_helper.to_array(weights[product.bias])
            refined[product.name] = replace(
                layers[product.name], weight=integers, scale=scale, bias=bias.astype(np.float32)
            )
    return refined


def _measure_inputs(products: Sequence[Product], layers: Mapping[str, LayerIntegers]) -> dict[Input, int]:
    """Return the bytes that the sums of each input take."""
    sizes = {}
    for product in products:
        layer = layers[product.name]
        if layer.weight is not None and not product.left.is_bytes:
            sizes[product.input, layer.left] = 2 * 8 * len(layer.weight) ** 2
    return sizes


def _collect_moments(inputs: Sequence[Input], observe: Observe, seed: int) -> dict[Input, InputMoments]:
    sums = {key: MomentSums(key[1], seed) for key in inputs}
    for images, activations in observe({tensor for tensor, _ in inputs}):
        for key, total in sums.items():
            total.add(activations[key[0]], images)
    return {key: total.summarise() for key, total in sums.items()}
