"""Report of a quantisation, and the reasons to refuse its result."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from .graph_comparison import Comparison
from .sensitivity import LayerEffect, format_effects
from .settings import INT8, WEIGHTS_ONLY, Bits

MAX_LOSS = 1.0
MIN_AGREEMENT = 95.0
# Points of accuracy that a graph may lose, and percent of predictions that must stay, by its smaller number
# of bits. Fewer bits cost accuracy, so these only catch a graph that is broken.
LOW_BIT_LIMITS = {7: (2.0, 90.0), 6: (5.0, 80.0), 5: (15.0, 60.0), 4: (50.0, 25.0), 3: (75.0, 5.0)}


@dataclass(frozen=True)
class Report:
    """Accuracy, size and speed of an integer graph.

    Attributes:
        comparison: the graph against fp32 on images that were not used for calibration.
        integer: number of layers that ONNX Runtime computes with integers; with `w4`, with weights in blocks.
        intended: number of layers that were written so.
        float_layers: layers that were kept in float on request.
        outlier_layers: number of outlier channels by layer, for layers that have any.
        megabytes: size of the integer and the fp32 graph.
        milliseconds: per image on integers, on this machine.
        speedup: time of fp32 over time of the integer graph on this machine, measured in turn.
        weight_bits: bits of a weight.
        processor: this machine's processor, and the reason for the bits of the weights.
        bits: of weights and activations, as asked for.
        kind: plural name of the layers that are counted.
        refusals: reasons not to use the graph; none if it is good.
        effects: losses of single layers, the most harmful first, if these were measured.
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
    bits: Bits = INT8
    kind: str = "matrix products"
    refusals: tuple[str, ...] = ()
    effects: tuple[LayerEffect, ...] = ()


def list_refusals(report: Report) -> tuple[str, ...]:
    """Return the reasons not to use a graph, in words; none if it is good."""
    reasons = list(list_inaccuracies(report.comparison, report.bits))
    if report.integer < report.intended:
        reasons.append(
            f"ONNX Runtime computes {report.integer} of its {report.intended} integer products with integers "
            "and has put the others back into float"
        )
    if report.bits == WEIGHTS_ONLY:  # for size, not for speed
        if report.megabytes[0] >= report.megabytes[1]:
            reasons.append("its file is not smaller than that of fp32")
    elif report.speedup < 1:
        reasons.append(
            f"it is slower than fp32 on this machine, {report.speedup:.2f} times as fast: its products "
            "are too small, or this processor lacks fast integer kernels (fozo bench says what it has)"
        )
    return tuple(reasons)


def find_limits(bits: Bits) -> tuple[float, float]:
    """Return the points of accuracy that a graph may lose, and the percent of predictions that must stay."""
    return LOW_BIT_LIMITS.get(bits.smallest, (MAX_LOSS, MIN_AGREEMENT))


def list_inaccuracies(comparison: Comparison, bits: Bits) -> Iterator[str]:
    """Yield the ways in which a graph of these bits differs too much from the reference, in words."""
    max_loss, min_agreement = find_limits(bits)
    if not np.isfinite([comparison.cosine_logits, comparison.cosine_features]).all():
        yield "its logits or features are not finite"
    unlabelled = comparison.loss is None or comparison.labels_are_doubtful
    if not unlabelled and comparison.loss is not None and comparison.loss > max_loss:
        yield (
            f"it loses {comparison.loss:.2f} points of top-1 accuracy on {comparison.images} held-out images "
            f"({comparison.reference_accuracy:.2f} % in fp32, {comparison.accuracy:.2f} % in {bits.name}); "
            f"{max_loss:.1f} is allowed"
        )
    if unlabelled and comparison.agreement < min_agreement:
        yield (
            f"it agrees with fp32 on {comparison.agreement:.1f} % of {comparison.images} held-out images "
            f"{_name_doubt(comparison)}; {min_agreement:.0f} % is asked for"
        )


def _name_doubt(comparison: Comparison) -> str:
    """Return the reason why agreement decides and not accuracy."""
    if comparison.reference_accuracy is None:
        return "without known labels"
    return (
        f"whose labels are probably not the model's (fp32 gets {comparison.reference_accuracy:.2f} % right, "
        f"and guessing {100 / comparison.classes:.2f} %)"
    )


def _describe_bits(report: Report) -> str:
    if report.bits == INT8:
        return f"{report.weight_bits}-bit weights"
    if report.bits == WEIGHTS_ONLY:
        return f"{report.bits.weights}-bit weights in blocks"
    return f"{report.bits.weights}-bit weights and {report.bits.activations}-bit activations"


def describe_report(report: Report) -> str:
    """Describe the report in a few lines of text."""
    c = report.comparison
    size, original = report.megabytes
    accuracy = "" if c.loss is None else f"top-1 {c.reference_accuracy:.2f} % → {c.accuracy:.2f} %, "
    lines = [
        f"{report.bits.name} against fp32 on {c.images} held-out images",
        f"  accuracy  {accuracy}{c.agreement:.2f} % the same class",
        f"  cosine    {c.cosine_logits:.4f} of logits, {c.cosine_features:.4f} of features "
        f"({c.signal_to_noise:.1f} dB signal to noise)",
        f"  size      {original:.1f} MB → {size:.1f} MB",
        f"  speed     {report.speedup:.2f} times as fast on this machine, "
        f"{report.milliseconds:.1f} ms per image",
        f"  integers  {report.integer} of {report.intended} {report.kind}, "
        f"{_describe_bits(report)} ({report.processor})",
    ]
    if report.bits == WEIGHTS_ONLY:
        lines.append("  sums      in float: fewer bits save space, and pixels alone are integers")
    elif report.bits != INT8:
        lines.append("  registers of 8 bits, as in int8: fewer bits save neither memory nor time")
    if c.labels_are_doubtful:
        lines.append(
            f"  labels    probably not the model's, guessing among {c.classes} classes is as good; "
            "agreement decides"
        )
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
        lines += ["", format_effects(report.effects)]
    return "\n".join(lines)
