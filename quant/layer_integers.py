"""Integers of a product: the grids of its activations, its weights, and the bias that goes with them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from ..engine.model import FloatArray
from .calibration import Range
from .grid import Grid, make_signed_grid, make_unsigned_grid, quantise_weight
from .products import Product
from .settings import BitWidths
from .weight_blocks import LARGEST, SMALLEST, repeat_scales, search_block_scales

BYTES = Grid(1.0, 0, signed=False)  # the values of pixels


@dataclass(frozen=True)
class LayerIntegers:
    """Integers of one product.

    Attributes:
        left: grid of the activation on the left; None where that stays in float.
        right: grid of the activation on the right; None where that is a weight.
        weight: int8 `[K, M]`; None where the right side is an activation.
        scale: of the columns of the weight, float32 `[M]`, or `[B, M]` of blocks of 4-bit weights, which go
            with activations in float; None where there is no weight.
        bias: float32 `[M]` to add in place of the layer's own; None keeps that.
        single_row: whether an image has one row on the left.
    """

    left: Grid | None
    right: Grid | None = None
    weight: NDArray[np.int8] | None = None
    scale: FloatArray | None = None
    bias: FloatArray | None = None
    single_row: bool = False


def choose_integers(
    model: onnx.ModelProto,
    products: Collection[Product],
    ranges: Mapping[str, Range],
    bits: BitWidths,
    pixel_bits: int | None = None,
) -> dict[str, LayerIntegers]:
    """Return the integers of some products by name: whole ranges, weights rounded to the nearest integer.

    Args:
        model: the graph in float.
        products: the products.
        ranges: range of every activation that these quantise, by name of the tensor.
        bits: of weights, activations and keys.
        pixel_bits: of the weights of products that read pixels; None: of weights.
    """
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    layers = {}
    for product in products:
        left = choose_activation_grid(product, ranges, bits.activations)
        if product.weight is None:
            assert product.right is not None
            right = make_signed_grid(ranges[product.right.tensor], bits.keys)
            layers[product.name] = LayerIntegers(left, right)
        else:
            count = (product.left.is_bytes and pixel_bits) or bits.weights
            integers, scale = quantise_weight(numpy_helper.to_array(weights[product.weight]), count)
            layers[product.name] = LayerIntegers(left, weight=integers, scale=scale)
    return layers


def choose_block_integers(
    model: onnx.ModelProto, products: Collection[Product], pixel_bits: int, single_rows: Collection[str]
) -> dict[str, LayerIntegers]:
    """Return weights of 4 bits in blocks, rounded to the nearest integer, for products that read no pixels.

    Args:
        model: the graph in float.
        products: products with weights.
        pixel_bits: of the weights of products that read pixels, which are integers already.
        single_rows: tensors with one row per image.
    """
    pixel_products = [product for product in products if product.left.is_bytes]
    layers = choose_integers(model, pixel_products, {}, BitWidths(pixel_bits))
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    for product in products:
        if product.weight is not None and not product.left.is_bytes:
            weight = numpy_helper.to_array(weights[product.weight])
            scale = search_block_scales(weight)
            rounded = np.rint(weight / repeat_scales(scale, len(weight)))
            integers = np.clip(rounded, SMALLEST, LARGEST).astype(np.int8)
            single = product.input in single_rows
            layers[product.name] = LayerIntegers(None, weight=integers, scale=scale, single_row=single)
    return layers


def choose_activation_grid(product: Product, ranges: Mapping[str, Range], bits: int = 8) -> Grid:
    """Return the grid of integers for the left side of a product. Pixels are bytes, whatever `bits` says."""
    if product.left.is_bytes:
        return BYTES
    return make_unsigned_grid(ranges[product.left.tensor], bits, outliers=is_separable(product))


def is_separable(product: Product) -> bool:
    """Return whether a channel on the left meets a row of a weight, so that it can be multiplied on its own.

    So it does only where the weight reads the tensor as it is.
    """
    return product.weight is not None and not product.left.moves
