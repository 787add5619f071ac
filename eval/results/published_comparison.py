"""Published figures beside measured ones."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .average import compute_averages, compute_spread
from .recipe_record import PublishedFigures, Recipe
from .results_file import Results

AVERAGE = "average"
NONE = "–"
_FIRST, _CELL = 20, 8


@dataclass(frozen=True)
class MeasuredAccuracy:
    """Top-1 accuracy in percent: the mean over seeds, and their standard deviation if there are several."""

    mean: float
    deviation: float | None = None


@dataclass(frozen=True)
class ComparedMethod:
    """Figures of a method by row, top-1 accuracy in percent; None where there is none.

    Attributes:
        name: name in the publication, with asterisks if the figures have a source of their own.
        published: what was published.
        measured: what was measured; None if the recipe does not run the method.
    """

    name: str
    published: tuple[float | None, ...]
    measured: tuple[MeasuredAccuracy | None, ...] | None

    @property
    def columns(self) -> int:
        """Number of columns: two, or one if the recipe does not run the method."""
        return 1 if self.measured is None else 2

    def format_row(self, index: int) -> list[str]:
        """Return the cells of a row: what was published, and what was measured if the recipe runs it.

        Published figures have the decimals that they were published with, and measured ones as many.
        """
        value = self.published[index]
        cells = [NONE if value is None else repr(value)]
        if self.measured is None:
            return cells
        measured = self.measured[index]
        if measured is None:
            return [*cells, NONE]
        decimals = max(len(repr(value).partition(".")[2]) for value in self.published if value is not None)
        deviation = "" if measured.deviation is None else f" ± {measured.deviation:.{decimals}f}"
        return [*cells, f"{measured.mean:.{decimals}f}{deviation}"]


@dataclass(frozen=True)
class PublishedComparison:
    """Published figures beside measured ones.

    Attributes:
        recipe: the recipe.
        published_precision: name of the graph that the published figures are of.
        precision: name of the graph that was run.
        rows: corruptions in the order of the recipe, and the average.
        methods: one per published row.
        obstacles: sentences that say why measured figures cannot be compared with published ones.
        sources: where published figures were read: those without asterisks, and those with one, two, ….
    """

    recipe: Recipe
    published_precision: str
    precision: str
    rows: tuple[str, ...]
    methods: tuple[ComparedMethod, ...]
    obstacles: tuple[str, ...]
    sources: tuple[str, ...]

    @property
    def title(self) -> str:
        """Heading that says which graphs the figures are of."""
        return f"published ({self.published_precision}) beside measured ({self.precision})"


def compare_with_published(results: Results) -> PublishedComparison | None:
    """Return the comparison of a run of a recipe; None for other runs."""
    recipe = results.recipe
    if recipe is None:
        return None
    measured = _collect_accuracies(results)
    rows = (*recipe.options.corruptions, AVERAGE)
    precision = str(results.bundle.get("precision"))
    published = recipe.list_figures(precision)
    marks = _mark_sources(published)
    return PublishedComparison(
        recipe,
        recipe.choose_precision(precision),
        precision,
        rows,
        tuple(_compare_method(figures, measured, rows, marks[figures.source]) for figures in published),
        tuple(results.not_comparable),
        tuple(f"{mark} {source or recipe.source}".strip() for source, mark in marks.items()),
    )


def _mark_sources(published: Sequence[PublishedFigures]) -> dict[str | None, str]:
    """Return asterisks by source: none for that of the recipe, if it has figures, one for the next, …."""
    sources = dict.fromkeys(figures.source for figures in published)
    others = [source for source in sources if source is not None]
    marks: dict[str | None, str] = {None: ""} if None in sources else {}
    return {**marks, **{source: "*" * number for number, source in enumerate(others, 1)}}


def _compare_method(
    figures: PublishedFigures,
    measured: Mapping[str, Mapping[str, MeasuredAccuracy]],
    rows: Sequence[str],
    mark: str,
) -> ComparedMethod:
    published = {**figures.accuracy, AVERAGE: figures.average}
    label = figures.label
    return ComparedMethod(
        figures.name + mark,
        tuple(map(published.get, rows)),
        None if label is None else tuple(measured.get(row, {}).get(label) for row in rows),
    )


def _collect_accuracies(results: Results) -> dict[str, dict[str, MeasuredAccuracy]]:
    """Return accuracies by row and label, over the seeds whose domain is complete."""
    collected: dict[str, dict[str, list[float]]] = {}
    for domain in (domain for run in results.runs for domain in run.domains if domain.complete):
        for label, result in domain.methods.items():
            collected.setdefault(domain.name, {}).setdefault(label, []).append(100 * result.tally.accuracy)
    accuracies = {
        name: {label: _average(values) for label, values in by_label.items()}
        for name, by_label in collected.items()
    }
    if results.complete:
        accuracies[AVERAGE] = {
            label: MeasuredAccuracy(
                100 * average.accuracy,
                None if average.accuracy_std is None else 100 * average.accuracy_std,
            )
            for label, average in compute_averages(results.runs).items()
        }
    return accuracies


def _average(values: Sequence[float]) -> MeasuredAccuracy:
    return MeasuredAccuracy(statistics.fmean(values), compute_spread(values))


def format_comparison(comparison: PublishedComparison) -> str:
    """Return the comparison as a table for a terminal, with its obstacles, sources and notes."""
    heads = [head for method in comparison.methods for head in ("publ.", "here")[: method.columns]]
    rows = [
        [cell for method in comparison.methods for cell in method.format_row(index)]
        for index in range(len(comparison.rows))
    ]
    widths = [max(_CELL, 2 + max(map(len, column))) for column in zip(heads, *rows, strict=True)]
    spans, start = [], 0
    for method in comparison.methods:  # a name stands above its one or two columns
        end = start + method.columns
        widths[end - 1] += max(0, len(method.name) + 2 - sum(widths[start:end]))
        spans.append(method.name.rjust(sum(widths[start:end])))
        start = end

    def format_row(name: str, cells: Sequence[str]) -> str:
        texts = (cell.rjust(width) for cell, width in zip(cells, widths, strict=True))
        return name.ljust(_FIRST) + "".join(texts)

    return "\n".join(
        [
            f"{comparison.title}: {comparison.recipe.summary}",
            *(f"not comparable: {text}" for text in comparison.obstacles),
            " " * _FIRST + "".join(spans),
            format_row("top-1 accuracy, %", heads),
            *(format_row(name, cells) for name, cells in zip(comparison.rows, rows, strict=True)),
            *(f"published: {source}" for source in comparison.sources),
            *(f"note: {note}" for note in comparison.recipe.notes),
        ]
    )
