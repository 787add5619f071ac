"""Sentences that explain the protocol, the tables and the charts."""

from __future__ import annotations

from collections.abc import Sequence

from ...protocol import OWN_CLASSES, Protocol
from .sources import Source
from .stream_curves import WINDOW

MARKS = """Bold is the best result at the displayed precision. ~ marks results statistically indistinguishable
from {first}: the difference is less than twice its standard error, computed from the images that exactly one
of the two methods classifies correctly."""
MACRO_F1 = """Macro-F1 is the mean, over the classes that have test images, of the harmonic mean of precision
and recall. What is noise is marked at the accuracies."""
MARKS_OF_RUNS = """Bold is the best result of a run at the displayed precision; ~ marks results statistically
indistinguishable from the first method of the run. Gains are relative to it, with standard errors."""
NOT_SAME_PROTOCOL = """These runs do not use the same images under the same protocol, so differences between
them are not due to the methods alone. The last table of this section lists the differences."""
GAINS = """Difference in accuracy to {first}; lines are 95 % confidence intervals. Pale bars, marked ~,
are statistically indistinguishable from zero."""
RELIABILITY = """Each bar is the accuracy of the images in one of 15 bins of confidence. On the dashed line,
accuracy equals confidence. The gap to the mean confidence is hatched: rising where the model is
overconfident, falling where it is underconfident. The diagrams pool all domains that enter the averages, so
their ECE differs from the mean over domains in the summary."""
RELIABILITY_OF_SEEDS = """Each bar is the accuracy of the images in one of 15 bins of confidence. The gap to
the mean confidence is hatched: rising where the prompt is overconfident. The diagrams pool all seeds."""
TUNING_MARKS = """Bold is the best result at the displayed precision. ± is the standard deviation over seeds
behind a rate, and the standard error behind a gain. Gains are differences in accuracy to {first}, in points;
~ marks those that are statistically indistinguishable from zero. Untuned texts learn nothing, so they have no
seeds. Macro-F1 is the unweighted mean over the classes that have test images, ECE the expected calibration
error over 15 bins, NLL the negative log-likelihood of the label in nats."""
TUNING_AVERAGE = """± is the standard deviation over seeds; ~ marks results that are statistically
indistinguishable from the first column. The average is the unweighted mean over the data sets, for prompts
that were evaluated on all of them with the same seeds."""
TUNING_COST = """A call is one batch of images under one context. An image counts again when it is encoded in
another crop. Seconds are the wall time of training, with encoding and without evaluation."""
LEARNING = """Cross-entropy of the batches of training images, averaged over consecutive steps. Thin lines are
single seeds, thick lines their mean. Methods without steps have no curve."""
SPEED = "Higher and further left is better. Vertical lines are standard deviations over seeds."
SPEED_OF_RUNS = "Colours distinguish methods, and shapes distinguish runs."

_FORGETFUL = ("reset", "label_shift")
_SETTINGS = {
    "reset": "Every domain is a stream of its own: methods are reset before each.",
    "continual": "All domains form one stream; methods are never reset.",
    "rounds": "All domains form one stream that is passed {rounds} times; methods are never reset.",
    "mixed": "The images of all domains are shuffled into one stream, with clean images, if any, at its end.",
    "label_shift": "Every domain is a stream of its own, {order}; methods are reset before each.",
}


def make_title(sources: Sequence[Source]) -> str:
    """Return a title with the model and the data."""
    models = ", ".join(dict.fromkeys(str(source.results.bundle.get("model", "")) for source in sources))
    if len(sources) > 1:
        return f"{models}: {len(sources)} runs compared"
    results = sources[0].results
    return f"{models} {results.bundle.get('precision', '')}: {results.protocol.dataset}"


def explain_protocol(protocol: Protocol) -> list[str]:
    """Return the protocol as sentences."""
    severities = _join_numbers(protocol.severities)
    graded = f" at {'severities' if len(protocol.severities) > 1 else 'severity'} {severities}"
    order = "sorted by class"
    if protocol.concentration is not None:
        order = f"ordered by class with a Dirichlet distribution of concentration {protocol.concentration:g}"
    seeds = "There is a run for each of the seeds" if len(protocol.seeds) > 1 else "The seed is"
    if protocol.orders:
        seeds = "Every run has the same images in another order, for each of the seeds"
    return [
        f"Data: {protocol.dataset}{graded if severities else ''}.",
        _SETTINGS[protocol.setting].format(rounds=protocol.rounds, order=order),
        f"Images of each domain: {_describe_subset(protocol.subset)}.",
        f"They arrive in batches of {protocol.batch_size}, in an order that depends on the seed.",
        "All methods get the same batches. Each batch is scored when it is first seen.",
        f"{seeds} {_join_numbers(protocol.seeds)}.",
        f"The methods predict {_describe_classes(protocol.classes)}.",
        *_describe_class_order(protocol.class_order),
        *(["Images were turned as their EXIF data say."] if protocol.exif_orientation == "apply" else []),
        *_describe_reduction(protocol.reduced_above),
    ]


def _describe_reduction(limit: int | None) -> list[str]:
    if limit is None:
        return []
    return [
        f"JPEG files above {limit:,} pixels were decoded at a half, a quarter or an eighth of their size."
    ]


def explain_summary(source: Source) -> str:
    """Return an explanation of the summary."""
    has_seeds = len(source.results.runs) > 1
    spread = "; ± is the standard deviation over seeds" if has_seeds else ""
    gain = (
        f"The gain is the difference in accuracy to {source.labels[0]}, in points, with its standard error."
    )
    return " ".join(
        [
            f"Rates are means over the domains without clean images{spread}.",
            *([gain] if len(source.labels) > 1 else []),
            "ECE is the expected calibration error over 15 bins, NLL the negative log-likelihood of the"
            " label in nats. Forwards are per batch; guarded are batches that the frozen network answered;"
            " memory is the peak of the whole process, not of the method alone.",
        ]
    )


def explain_running_accuracy(source: Source, seeds: int) -> str:
    """Return an explanation of the running accuracy."""
    setting = source.results.protocol.setting
    adaptation = "as do the methods" if setting in _FORGETFUL else "while the methods go on adapting"
    restart = "" if setting == "mixed" else f" It restarts with each domain, {adaptation}."
    mean = f" Mean over {seeds} seeds." if seeds > 1 else ""
    window = (
        f"Accuracy over the last {WINDOW} images or a few more, or over all images so far if there are fewer."
    )
    return f"{window}{restart}{mean}"


def _describe_subset(subset: str) -> str:
    count, _, kind = subset.partition("-")
    if kind == "seeded":
        return f"{count}, chosen by the seed"
    return f"{count}, of a published list ({kind})" if kind.startswith("list:") else subset


def _describe_classes(classes: str) -> str:
    if classes == OWN_CLASSES:
        return "the classes of each data set"
    return "all classes of the model" if classes == "all" else f"fewer classes than the model has: {classes}"


def _describe_class_order(order: str | None) -> list[str]:
    if order is None:
        return []
    program, _, digest = order.partition(" ")
    if digest:
        return [f"Class folders were numbered by a list (SHA-256 {digest}…)."]
    return [f"Class folders were numbered as {program} sorts them; the bundle does not name its classes."]


def _join_numbers(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))
