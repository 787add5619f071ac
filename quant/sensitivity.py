"""Sensitivity of a model to integers, measured for each layer on its own."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from ..engine.model import ImageArray, ModelInfo
from ..engine.runtime.network import Network
from .graph_comparison import Comparison, compare
from .layer_integers import LayerIntegers
from .products import Product
from .writer import write_integer_graph

BATCH = 16


@dataclass(frozen=True)
class LayerEffect:
    """Effect of computing one group of products, which share their input, with integers.

    Attributes:
        layers: names of the products.
        comparison: the graph with these integer products against the float graph.
    """

    layers: tuple[str, ...]
    comparison: Comparison

    @property
    def name(self) -> str:
        """Names of the layers, shortened: `blocks.0.attn.query, key, value`."""
        first, *siblings = self.layers
        return ", ".join([first, *(layer.rpartition(".")[2] for layer in siblings)])


def measure_layer_effects(
    model: onnx.ModelProto,
    products: Sequence[Product],
    layers: Mapping[str, LayerIntegers],
    reference: Network,
    images: ImageArray,
    labels: NDArray[np.int64] | None,
    *,
    on_layer: Callable[[int], None] = lambda count: None,
) -> list[LayerEffect]:
    """Measure every group of products on its own; the most harmful comes first.

    Args:
        model: the graph in float.
        products: the products to measure.
        layers: their integers, by name.
        reference: network of the graph in float.
        images: uint8 `[N, H, W, 3]`.
        labels: int64 `[N]`, or None.
        on_layer: called with 1 after each group.
    """
    batches = [images[start : start + BATCH] for start in range(0, len(images), BATCH)]
    expected = [reference(batch) for batch in batches]
    effects = []
    for group in group_products(products).values():
        integer = write_integer_graph(model, group, layers)
        with _open_network(integer, reference.info) as network:
            output_pairs = zip((network(batch) for batch in batches), expected, strict=True)
            comparison = compare(output_pairs, labels)
        effects.append(LayerEffect(tuple(product.name for product in group), comparison))
        on_layer(1)
    return sorted(
        effects, key=lambda effect: (effect.comparison.is_finite, effect.comparison.signal_to_noise)
    )


def group_products(products: Sequence[Product]) -> dict[str, list[Product]]:
    """Group the products that read the same quantised tensor, in order."""
    groups: dict[str, list[Product]] = {}
    for product in products:
        groups.setdefault(product.group, []).append(product)
    return groups


def format_effects(effects: Sequence[LayerEffect]) -> str:
    """Format the effects as a table, one line each."""
    lines = [f"{'signal/noise':>14s}{'agreement':>12s}{'top-1':>9s}   on integers alone"]
    for effect in effects:
        c = effect.comparison
        change = "" if c.loss is None else f"{0.0 - c.loss:+.2f}"
        lines.append(f"{c.signal_to_noise:11.1f} dB{c.agreement:10.2f} %{change:>9s}   {effect.name}")
    return "\n".join(lines)


def record_effects(effects: Sequence[LayerEffect]) -> list[dict[str, object]]:
    """Return the effects as values for a JSON document."""
    return [{"layers": list(effect.layers), **asdict(effect.comparison)} for effect in effects]


def _open_network(model: onnx.ModelProto, info: ModelInfo) -> Network:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "layer.onnx"
        onnx.save(model, path)
        return Network(path, info)
