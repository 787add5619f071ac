"""Tables about tunings: rates on test images, base to new, side by side over data sets, and cost."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import replace

from ...results.average import MethodAverage, compute_averages, compute_spread
from ...results.outcome import Run
from ...tuning.seed_summary import average_values
from ...tuning.tuning_evaluation import BASE, NEW, TEST
from .evaluated_sets import EvaluatedSet, name_template
from .explanations import TUNING_AVERAGE, TUNING_COST, TUNING_MARKS
from .groups import Kind
from .tables import NONE, Cell, Column, Row, Table, format_column
from .tuning_sources import Tuning, describe_data

_RATES = (
    Column("accuracy, %", "accuracy", 100, best=1),
    Column("gain ± error", "gain", 100, "+.2f"),
    Column("macro-F1, %", "macro_f1", 100, best=1),
    Column("ECE, %", "ece", 100, best=-1),
    Column("NLL", "nll", 1, ".3f", best=-1),
)
_SIDE_BY_SIDE = (
    ("Accuracy per data set, %", Column("", "accuracy", 100, best=1), TUNING_AVERAGE),
    ("Macro-F1 per data set, %", Column("", "macro_f1", 100, best=1), ""),
)


def tabulate_set(image_set: EvaluatedSet, *, explained: bool) -> Table:
    """Return the rates of every prompt on some test images, untuned texts first.

    Args:
        image_set: the test images.
        explained: whether the table has a note on how to read it.
    """
    averages = image_set.average()
    cells = zip(*(format_column(column, list(averages.values())) for column in _RATES), strict=True)
    seeds = [_list_seeds(image_set, label) for label in averages]
    rows = tuple(
        Row(label, (*row, Cell(text))) for label, row, text in zip(averages, cells, seeds, strict=True)
    )
    headings = (*(column.heading for column in _RATES), "seeds")
    note = TUNING_MARKS.format(first=next(iter(averages))) if explained else ""
    return Table(f"Rates on {image_set.key.name}", "prompt", headings, rows, note=note)


def _list_seeds(image_set: EvaluatedSet, label: str) -> str:
    return ", ".join(str(run.seed) for run in image_set.runs.get(label, ())) or NONE


def tabulate_side_by_side(sets: Sequence[EvaluatedSet]) -> list[Table]:
    """Return accuracy and macro-F1 per set of test images and prompt; empty for a single set."""
    if len(sets) < 2:
        return []
    averages = [image_set.average() for image_set in sets]
    labels = list(dict.fromkeys(label for by_label in averages for label in by_label))
    names = [image_set.key.name for image_set in sets]
    models = [image_set.key.model for image_set in sets]
    if len(set(models)) > 1:
        names = [f"{name} ({model})" for name, model in zip(names, models, strict=True)]
    averages.append(_average_sets(sets))
    kinds: list[Kind] = ["single"] * len(sets)
    tables = []
    for title, column, note in _SIDE_BY_SIDE:
        rows = tuple(
            Row(name, _format_rates(column, by_label, labels), kind)
            for name, by_label, kind in zip((*names, "average"), averages, (*kinds, "average"), strict=True)
        )
        tables.append(Table(title, "data", tuple(labels), rows, note=note))
    return tables


def _format_rates(
    column: Column, averages: Mapping[str, MethodAverage], labels: Sequence[str]
) -> tuple[Cell, ...]:
    known_labels = [label for label in labels if label in averages]
    # What is noise is known of the accuracy alone.
    cells = format_column(column, [averages[label] for label in known_labels], column.key == "accuracy")
    by_label = dict(zip(known_labels, cells, strict=True))
    return tuple(by_label.get(label, Cell(NONE)) for label in labels)


def _average_sets(sets: Sequence[EvaluatedSet]) -> dict[str, MethodAverage]:
    """Return the averages over all sets of the prompts that all of them have, tunings with equal seeds."""
    plain = sets[0].templates[0]
    labels = [label for label in sets[0].runs if all(label in image_set.runs for image_set in sets)]
    averages: dict[str, MethodAverage] = {}
    for label in labels:
        seeds = [[run.seed for run in image_set.runs[label]] for image_set in sets]
        if any(other != seeds[0] for other in seeds) or any(
            image_set.templates[0] != plain for image_set in sets
        ):
            continue
        joined = compute_averages(
            [_join_runs(runs) for runs in zip(*(s.runs[label] for s in sets), strict=True)]
        )
        averages[label] = joined[label]
    first = _join_runs([next(iter(image_set.runs.values()))[0] for image_set in sets])
    untuned = compute_averages([first])
    shared = [text for text in sets[0].templates if all(text in image_set.templates for image_set in sets)]
    return {**{name_template(text): untuned[text] for text in shared}, **averages}


def _join_runs(runs: Sequence[Run]) -> Run:
    """Return runs of one seed on several sets as one, with the methods that all of them have."""
    names = [name for name in runs[0].traces if all(name in run.traces for run in runs)]
    domains = [
        replace(domain, methods={name: domain.methods[name] for name in names})
        for run in runs
        for domain in run.domains
    ]
    return replace(runs[0], domains=domains, traces={name: runs[0].traces[name] for name in names})


def tabulate_base_to_new(tunings: Sequence[Tuning], sets: Sequence[EvaluatedSet]) -> list[Table]:
    """Return for each data set the accuracy on learnt and on new classes, and their harmonic mean."""
    base_labels = {tuning.label for tuning in tunings if tuning.facts["classes"] == BASE}
    tables = []
    for new in (
        image_set for image_set in sets if image_set.key.target == NEW and base_labels & set(image_set.runs)
    ):
        halves = [image_set for image_set in sets if _is_other_half(image_set, new)]
        if halves:
            tables.append(_tabulate_halves(halves[0], new, base_labels))
    return tables


def _is_other_half(image_set: EvaluatedSet, new: EvaluatedSet) -> bool:
    facts = ("images", "model", "graph_sha256")
    same = all(getattr(image_set.key, name) == getattr(new.key, name) for name in facts)
    return same and image_set.key.target in (BASE, TEST) and bool(set(image_set.runs) & set(new.runs))


def _tabulate_halves(base: EvaluatedSet, new: EvaluatedSet, base_labels: Container[str]) -> Table:
    """Return the table of one data set; the harmonic mean is of accuracies that are means over the seeds."""
    on_base, on_new = base.average(), new.average()
    means = {}
    for label in (
        label for label in on_base if label in on_new and (label in base_labels or label not in base.runs)
    ):
        one, other = on_base[label].accuracy, on_new[label].accuracy
        means[label] = one, other, 2 * one * other / (one + other) if one + other else 0.0
    best = [max(values[column] for values in means.values()) for column in range(3)]
    rows = tuple(
        Row(
            label,
            tuple(
                Cell(f"{100 * value:.2f}", best=len(means) > 1 and f"{value:.4f}" == f"{largest:.4f}")
                for value, largest in zip(values, best, strict=True)
            ),
        )
        for label, values in means.items()
    )
    columns = ("learnt classes", "new classes", "harmonic mean")
    return Table(f"Base to new on {new.key.images}: accuracy, %", "prompt", columns, rows)


def tabulate_cost(tunings: Sequence[Tuning]) -> Table:
    """Return what every tuning needed."""
    rows = []
    for tuning, name in zip(tunings, name_tunings(tunings), strict=True):
        cost = tuning.record.cost
        seconds = [source.record.seconds for source in tuning.sources]
        spread = compute_spread(seconds)
        texts = (cost.steps, cost.calls, cost.text_encodes, cost.image_encodes)
        cells = [Cell(f"{count:,}") for count in texts]
        cells.append(Cell("yes" if cost.gradients else "no"))
        cells.append(Cell(f"{average_values(seconds):.1f}", "" if spread is None else f"± {spread:.1f}"))
        rows.append(Row(name, tuple(cells)))
    columns = ("steps", "calls", "texts encoded", "images encoded", "gradients", "seconds")
    return Table("Cost of each seed", "tuning", columns, tuple(rows), note=TUNING_COST)


def name_tunings(tunings: Sequence[Tuning]) -> list[str]:
    """Return the label of each tuning, with its data if they are not the same for all."""
    data = {(tuning.facts["data"], tuning.facts["classes"]) for tuning in tunings}
    if len(data) == 1:
        return [tuning.label for tuning in tunings]
    names = []
    for tuning in tunings:
        suffix = f" on {describe_data(tuning)}"
        names.append(tuning.label.removesuffix(suffix) + suffix)
    return names
