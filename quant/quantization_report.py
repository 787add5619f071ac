"""Report of a quantisation, and the reasons to refuse its result."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ..engine.statistics.chance import find_chance_limit
from .graph_comparison import Comparison
from .sensitivity import LayerEffect, format_effects
from .settings import INT8, WEIGHTS_ONLY, Bits

MAX_LOSS = 1.0
MIN_AGREEMENT = 95.0
LABELLED_AGREEMENT = 25.0  # percent of predictions that must stay where accuracy decides


@dataclass(frozen=True)
class Limits:
    """Losses that a graph may have.

    Attributes:
        points: of top-1 accuracy that it may lose.
        agreement: percent of predictions that must stay where accuracy is unknown.
        share: part of fp32's accuracy above guessing that it may lose, whatever `points` says.
    """

    points: float
    agreement: float
    share: float = 0.5


# By the smaller number of bits. Few bits cost accuracy, so these limits are wide; those of
# `find_allowed_loss` and `find_required_agreement` hold besides and catch broken graphs.
LOW_BIT_LIMITS = {
    7: Limits(2.0, 90.0),
    6: Limits(5.0, 80.0),
    5: Limits(15.0, 60.0),
    4: Limits(50.0, 25.0),
    3: Limits(75.0, 10.0, share=0.9),
}
WEIGHTS_ONLY_LIMITS = Limits(3.0, 85.0)


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
        always_float: layers that stay in float at any number of bits, in words.
        batch_comparison: `comparison` with batch statistics; None for graphs without.
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
    always_float: str = "attention mix and classifier"
    batch_comparison: Comparison | None = None
    refusals: tuple[str, ...] = ()
    effects: tuple[LayerEffect, ...] = ()

    @property
    def is_finite(self) -> bool:
        """True if all outputs on the compared images are finite."""
        comparisons = (self.comparison, self.batch_comparison)
        return all(comparison is None or comparison.is_finite for comparison in comparisons)


def list_refusals(report: Report) -> tuple[str, ...]:
    """Return the reasons not to use a graph, in words; none if it is good."""
    reasons = list(list_inaccuracies(report.comparison, report.bits))
    if report.batch_comparison is not None:
        inaccuracies = list_inaccuracies(report.batch_comparison, report.bits)
        reasons += [f"with batch statistics, {inaccuracy}" for inaccuracy in inaccuracies]
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


def find_limits(bits: Bits) -> Limits:
    """Return the losses that a graph of these bits may have."""
    if bits == WEIGHTS_ONLY:
        return WEIGHTS_ONLY_LIMITS
    return LOW_BIT_LIMITS.get(bits.smallest, Limits(MAX_LOSS, MIN_AGREEMENT))


def find_allowed_loss(comparison: Comparison, limits: Limits) -> float:
    """Return the points of accuracy that a graph may lose.

    It has to keep a part of what fp32 has above guessing, and to be right more often than guessing may be.
    One point is allowed in any case.

    Args:
        comparison: with accuracies.
        limits: those of its bits.
    """
    assert comparison.reference_accuracy is not None
    above_guessing = comparison.reference_accuracy - 100 / comparison.classes
    above_chance = comparison.reference_accuracy - _find_chance_percent(comparison)
    return max(MAX_LOSS, min(limits.points, limits.share * above_guessing, above_chance))


def find_required_agreement(comparison: Comparison, limits: Limits) -> float:
    """Return the percent of predictions that must stay: more than guessing, also where accuracy decides."""
    agreement = limits.agreement
    if comparison.accuracy_decides:
        agreement = min(agreement, LABELLED_AGREEMENT)
    return max(agreement, _find_chance_percent(comparison))


def list_inaccuracies(comparison: Comparison, bits: Bits) -> Iterator[str]:
    """Yield the ways in which a graph of these bits differs too much from the reference, in words."""
    limits = find_limits(bits)
    if not comparison.is_finite:
        yield "its logits or features are not finite"
    if comparison.accuracy_decides and comparison.loss is not None:
        allowed = find_allowed_loss(comparison, limits)
        if comparison.loss > allowed:
            yield (
                f"it loses {comparison.loss:.2f} points of top-1 accuracy on {comparison.images} held-out "
                f"images ({comparison.reference_accuracy:.2f} % in fp32, {comparison.accuracy:.2f} % in "
                f"{bits.name}); {allowed:.1f} is allowed"
            )
    required = find_required_agreement(comparison, limits)
    if comparison.agreement < required:
        yield (
            f"it agrees with fp32 on {comparison.agreement:.1f} % of {comparison.images} held-out images"
            f"{_name_doubt(comparison)}; {round(required, 1):g} % is asked for"
        )


def _find_chance_percent(comparison: Comparison) -> float:
    return 100 * find_chance_limit(comparison.images, comparison.classes)


def _name_doubt(comparison: Comparison) -> str:
    """Return the reason why agreement decides and not accuracy, if that is so."""
    if comparison.accuracy_decides:
        return ""
    if comparison.reference_accuracy is None:
        return " without known labels"
    return (
        f" whose labels are probably not the model's (fp32 gets {comparison.reference_accuracy:.2f} % right, "
        f"and guessing {100 / comparison.classes:.2f} %)"
    )


def _describe_bits(report: Report) -> str:
    if report.bits == INT8:
        return f"{report.weight_bits}-bit weights"
    if report.bits == WEIGHTS_ONLY:
        return f"{report.bits.weights}-bit weights in blocks"
    return f"{report.bits.weights}-bit weights and {report.bits.activations}-bit activations"


def _describe_accuracy(comparison: Comparison) -> str:
    accuracy = ""
    if comparison.loss is not None:
        accuracy = (
            f"top-1 {comparison.reference_accuracy:.2f} % → {comparison.accuracy:.2f} % "
            f"({-comparison.loss:+.2f}), "
        )
    return f"{accuracy}{comparison.agreement:.2f} % the same class"


def describe_report(report: Report) -> str:
    """Describe the report in a few lines of text."""
    c = report.comparison
    size, original = report.megabytes
    lines = [
        f"{report.bits.name} against fp32 on {c.images} held-out images",
        f"  accuracy  {_describe_accuracy(c)}",
        f"  cosine    {c.cosine_logits:.4f} of logits, {c.cosine_features:.4f} of features "
        f"({c.signal_to_noise:.1f} dB signal to noise)",
        f"  size      {original:.1f} MB → {size:.1f} MB",
        f"  speed     {report.speedup:.2f} times as fast on this machine, "
        f"{report.milliseconds:.1f} ms per image",
        f"  integers  {report.integer} of {report.intended} {report.kind}, "
        f"{_describe_bits(report)} ({report.processor})",
    ]
    if report.batch_comparison is not None:
        lines.insert(2, f"  in batch  {_describe_accuracy(report.batch_comparison)}, with batch statistics")
    if report.bits == WEIGHTS_ONLY:
        lines.append("  sums      in float: fewer bits save space, and pixels alone are integers")
    elif report.bits != INT8:
        lines.append("  registers of 8 bits, as in int8: fewer bits save neither memory nor time")
        lines.append(f"  float     {report.always_float}, as in int8")
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
