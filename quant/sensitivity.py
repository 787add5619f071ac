"""What each layer alone loses by computing with integers."""

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
from .calibration import Range
from .comparison import Comparison, compare
from .products import Product
from .writer import write_integer

BATCH = 16


@dataclass(frozen=True)
class LayerEffect:
    """A group of products that share their input, alone on integers.

    Attributes:
        layers: their names.
        comparison: of that graph with the graph in float.
    """

    layers: tuple[str, ...]
    comparison: Comparison

    @property
    def name(self) -> str:
        """All of them in one: `blocks.0.attn.query, key, value`."""
        first, *others = self.layers
        return ", ".join([first, *(other.rpartition(".")[2] for other in others)])


def layer_effects(
    model: onnx.ModelProto,
    products: Sequence[Product],
    ranges: Mapping[str, Range],
    reference: Network,
    images: ImageArray,
    labels: NDArray[np.int64] | None,
    *,
    weight_bits: int = 8,
    on_layer: Callable[[int], None] = lambda count: None,
) -> list[LayerEffect]:
    """Measures every group of products alone, the most harmful first.

    Args:
        model: the graph in float.
        products: those to measure.
        ranges: of the activations that they quantise.
        reference: the graph in float, loaded.
        images: uint8 `[N, H, W, 3]`.
        labels: int64 `[N]`, or None.
        weight_bits: as in `write_integer`.
        on_layer: called with 1 after each group.
    """
    batches = [images[start : start + BATCH] for start in range(0, len(images), BATCH)]
    expected = [reference(batch) for batch in batches]
    effects = []
    for group in group_products(products).values():
        integer = write_integer(model, group, ranges, weight_bits=weight_bits)
        with _loaded(integer, reference.info) as network:
            answers = zip((network(batch) for batch in batches), expected, strict=True)
            comparison = compare(answers, labels)
        effects.append(LayerEffect(tuple(product.name for product in group), comparison))
        on_layer(1)
    return sorted(effects, key=lambda effect: effect.comparison.signal_to_noise)


def group_products(products: Sequence[Product]) -> dict[str, list[Product]]:
    """Products by group, in order."""
    groups: dict[str, list[Product]] = {}
    for product in products:
        groups.setdefault(product.group, []).append(product)
    return groups


def effect_table(effects: Sequence[LayerEffect]) -> str:
    """The effects as a table for people, a line each."""
    lines = [f"{'signal/noise':>14s}{'agreement':>12s}{'top-1':>9s}   on integers alone"]
    for effect in effects:
        c = effect.comparison
        change = "" if c.loss is None else f"{0.0 - c.loss:+.2f}"
        lines.append(f"{c.signal_to_noise:11.1f} dB{c.agreement:10.2f} %{change:>9s}   {effect.name}")
    return "\n".join(lines)


def effect_records(effects: Sequence[LayerEffect]) -> list[dict[str, object]]:
    """The effects for a JSON document."""
    return [{"layers": list(effect.layers), **asdict(effect.comparison)} for effect in effects]


def _loaded(model: onnx.ModelProto, info: ModelInfo) -> Network:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "layer.onnx"
        onnx.save(model, path)
        return Network(path, info)
