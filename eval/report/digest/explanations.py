"""What a page explains in sentences: the protocol, and how its tables and charts are to be read."""

from __future__ import annotations

from collections.abc import Sequence

from ...protocol import Protocol
from .sources import Source
from .stream_curves import WINDOW

MARKS = """Bold is the best at the precision shown. ~ marks what differs from {first} by no more than noise:
by less than twice the standard error of the difference, for which only those images count that one of the
two got right and the other wrong."""
MARKS_OF_RUNS = """Bold is the best of a run at the precision shown; ~ marks what differs from the first
method of the run by no more than noise. Gains are over that method, with their standard error."""
NOT_ALIKE = """These runs are not of the same images under the same protocol, so differences between them
are not due to the methods alone. The last table here says in what they differ."""
GAINS = """Difference in accuracy to {first}; the lines are intervals of 95 % confidence. Pale bars, marked
~, are no more than noise."""
CALIBRATION = """A bar is the accuracy of the images whose confidence lies in that fifteenth; on the dashed
line the two agree. The gap to the mean confidence is hatched: rising where the model is too sure, falling
where it is not sure enough. All domains that enter the averages are pooled here, so the ECE above a diagram
is not the mean over domains that the summary has."""
SPEED = "Higher and further left is better. Lines up and down are the standard deviation over seeds."
SPEED_OF_RUNS = "Colours are methods, shapes are runs."

_FORGETFUL = ("reset", "label_shift")
_SETTINGS = {
    "reset": "Every domain is a stream of its own: methods forget everything before it.",
    "continual": "All domains form one stream; methods carry on from each to the next.",
    "rounds": "All domains form one stream that is passed {rounds} times; methods forget nothing.",
    "mixed": "The images of all domains are shuffled into one stream; clean images, if any, come at its end.",
    "label_shift": "Every domain is a stream of its own, ordered by class {order}; methods forget everything"
    " before it.",
}


def default_title(sources: Sequence[Source]) -> str:
    """What was measured, in a few words."""
    models = ", ".join(dict.fromkeys(str(source.results.bundle.get("model", "")) for source in sources))
    if len(sources) > 1:
        return f"{models}: {len(sources)} runs compared"
    results = sources[0].results
    return f"{models} {results.bundle.get('precision', '')}: {results.protocol.dataset}"


def protocol(of: Protocol) -> list[str]:
    """The protocol as sentences."""
    severities = _listed(of.severities)
    graded = f" at {'severities' if len(of.severities) > 1 else 'severity'} {severities}"
    order = "strictly"
    if of.concentration is not None:
        order = f"as a Dirichlet distribution with concentration {of.concentration:g} spreads classes"
    seeds = "Everything is repeated with the seeds" if len(of.seeds) > 1 else "The seed is"
    return [
        f"Data: {of.dataset}{graded if severities else ''}.",
        _SETTINGS[of.setting].format(rounds=of.rounds, order=order),
        f"Images of each domain: {_subset(of.subset)}.",
        f"They arrive in batches of {of.batch_size}, in an order that depends on the seed.",
        "All methods get the same batches, each of which is scored as it is first seen.",
        f"{seeds} {_listed(of.seeds)}.",
        f"Predicted are {_classes(of.classes)}.",
    ]


def summary(source: Source) -> str:
    """How the summary is to be read."""
    several = len(source.results.runs) > 1
    spread = ", ± is the standard deviation over seeds" if several else ""
    gain = (
        f"The gain is the difference in accuracy to {source.labels[0]}, in points, with its standard error."
    )
    return " ".join(
        [
            f"Rates are means over the domains, clean images left out{spread}.",
            *([gain] if len(source.labels) > 1 else []),
            "ECE is the expected calibration error over 15 bins; NLL the negative log-likelihood of the"
            " label, in nats. Forwards are per batch; guarded are batches on which the guard stepped in;"
            " memory is the peak of the whole process, not of the method alone.",
        ]
    )


def running(source: Source, seeds: int) -> str:
    """How accuracy along the stream is to be read."""
    setting = source.results.protocol.setting
    carried = "as do the methods" if setting in _FORGETFUL else "while the methods carry on"
    anew = "" if setting == "mixed" else f" It begins anew with each domain, {carried}."
    mean = f" Mean over {seeds} seeds." if seeds > 1 else ""
    window = f"Accuracy over the last {WINDOW} images or a few more, or all so far where there are fewer."
    return f"{window}{anew}{mean}"


def _subset(subset: str) -> str:
    count, _, kind = subset.partition("-")
    if kind == "seeded":
        return f"{count}, chosen by the seed"
    return f"{count}, of a published list ({kind})" if kind.startswith("list:") else subset


def _classes(classes: str) -> str:
    return "all classes of the model" if classes == "all" else f"fewer classes than the model has: {classes}"


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))
