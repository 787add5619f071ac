"""What quantisation did to a model, and whether the result may be used."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from .comparison import Comparison
from .sensitivity import LayerEffect, effect_table

MAX_LOSS = 1.0
MIN_AGREEMENT = 95.0


@dataclass(frozen=True)
class Report:
    """What quantisation did to a model.

    Attributes:
        comparison: int8 against fp32 on images that were not used for calibration.
        integer: number of matrix products that ONNX Runtime computes with integers.
        intended: number of those that were written so.
        float_layers: matrix products that were kept in float on request.
        outlier_layers: layers in which some channels are beyond the integers, and how many.
        megabytes: size of the int8 and the fp32 graph.
        milliseconds: per image in int8, on this machine.
        speedup: time of fp32 over time of int8 on this machine, in turn.
        weight_bits: 8 or 7.
        processor: what was measured on, and why the weights have so many bits.
        refusals: why the graph should not be used; none if it may.
        effects: what single layers lose, the most harmful first, where that was measured.
    """

    comparison: Comparison
    integer: int
    intended: int
    float_layers: tuple[str, ...]
    outlier_layers: dict[str, int]
    megabytes: tuple[float, float]
    milliseconds: float
    speedup: float
    weight_bits: int
    processor: str
    refusals: tuple[str, ...] = ()
    effects: tuple[LayerEffect, ...] = ()


def refusals(report: Report) -> tuple[str, ...]:
    """Why a graph should not be used, in words; nothing where it may."""
    reasons = list(inaccuracies(report.comparison))
    if report.integer < report.intended:
        reasons.append(
            f"ONNX Runtime computes {report.integer} of its {report.intended} integer products with integers "
            "and has put the others back into float"
        )
    if report.speedup < 1:
        reasons.append(
            f"it is slower than fp32 on this machine, {report.speedup:.2f} times as fast: its products "
            "are too small, or this processor lacks fast integer kernels (fozo bench says what it has)"
        )
    return tuple(reasons)


def inaccuracies(found: Comparison) -> Iterator[str]:
    """In what a graph is too far from the reference."""
    if not np.isfinite([found.cosine_logits, found.cosine_features]).all():
        yield "its logits or features are not finite"
    if found.loss is not None and found.loss > MAX_LOSS:
        yield (
            f"it loses {found.loss:.2f} points of top-1 accuracy on {found.images} held-out images "
            f"({found.reference_accuracy:.2f} % in fp32, {found.accuracy:.2f} % in int8); "
            f"{MAX_LOSS:.1f} is allowed"
        )
    if found.loss is None and found.agreement < MIN_AGREEMENT:
        yield (
            f"it agrees with fp32 on {found.agreement:.1f} % of {found.images} held-out images without known "
            f"labels; {MIN_AGREEMENT:.0f} % is asked for"
        )


def describe(report: Report) -> str:
    """The report for people, a few lines."""
    c = report.comparison
    size, original = report.megabytes
    accuracy = "" if c.loss is None else f"top-1 {c.reference_accuracy:.2f} % → {c.accuracy:.2f} %, "
    lines = [
        f"int8 against fp32 on {c.images} held-out images",
        f"  accuracy  {accuracy}{c.agreement:.2f} % the same class",
        f"  cosine    {c.cosine_logits:.4f} of logits, {c.cosine_features:.4f} of features "
        f"({c.signal_to_noise:.1f} dB signal to noise)",
        f"  size      {original:.1f} MB → {size:.1f} MB",
        f"  speed     {report.speedup:.2f} times as fast on this machine, "
        f"{report.milliseconds:.1f} ms per image",
        f"  integers  {report.integer} of {report.intended} matrix products, "
        f"{report.weight_bits}-bit weights ({report.processor})",
    ]
    if report.outlier_layers:
        counts = report.outlier_layers.values()
        lines.append(
            f"  outliers  up to {max(counts)} channels of {len(counts)} layers are beyond the integers and "
            "added in float"
        )
    if report.float_layers:
        lines.append(f"  float     as asked for: {', '.join(report.float_layers)}")
    lines += [f"  refused   {refusal}" for refusal in report.refusals]
    if report.effects:
        lines += ["", effect_table(report.effects)]
    return "\n".join(lines)
