"""The table of a recipe: published figures beside measured ones."""

from __future__ import annotations

from typing import Any

from ...results.published_comparison import AVERAGE, ComparedMethod, compare_with_published
from .sources import Source
from .tables import NONE, Cell, Row, Table


def tabulate_published(source: Source) -> Table | None:
    """Return published accuracies beside measured ones, a row per corruption; None without a recipe."""
    comparison = compare_with_published(source.results)
    if comparison is None:
        return None
    recipe, methods = comparison.recipe, comparison.methods
    columns = [column for method in methods for column in ("published", "measured")[: _count_columns(method)]]
    rows = tuple(
        Row(
            name,
            tuple(cell for method in methods for cell in _make_cells(method, index)),
            "average" if name == AVERAGE else "single",
        )
        for index, name in enumerate(comparison.rows)
    )
    return Table(
        "Published beside measured, top-1 accuracy, %",
        "domain",
        tuple(columns),
        rows,
        tuple((method.name, _count_columns(method)) for method in methods),
        " ".join([f"{recipe.summary}. Published: {'. '.join(comparison.sources)}.", *recipe.notes]),
    )


def list_recipe_warnings(source: Source) -> list[str]:
    """Return the reasons why measured figures cannot be compared with those of the recipe."""
    comparison = compare_with_published(source.results)
    warnings = comparison.warnings if comparison else ()
    return [f"Not comparable with the published figures: {text[0].lower()}{text[1:]}" for text in warnings]


def list_published_columns(source: Source, domain: str, label: str) -> dict[str, Any]:
    """Return the columns of a recipe for a method on a domain: its name, published accuracies and source.

    Accuracies are in 0..1, and None where the recipe has no figure. Without a recipe there are no columns.
    """
    recipe = source.results.recipe
    if recipe is None:
        return {}
    figures = recipe.list_figures(str(source.results.bundle.get("precision")))
    row = next((row for row in figures if row.label == label), None)
    published = None if row is None else row.accuracy.get(domain)
    return {
        "recipe": recipe.name,
        "published_accuracy": None if published is None else published / 100,
        "published_average": None if row is None else row.average / 100,
        "published_source": None if row is None else row.source or recipe.source,
    }


def _count_columns(method: ComparedMethod) -> int:
    return 1 if method.measured is None else 2


def _make_cells(method: ComparedMethod, index: int) -> list[Cell]:
    columns = (method.published, *([] if method.measured is None else [method.measured]))
    values = [column[index] for column in columns]
    return [Cell(NONE if value is None else f"{value:.1f}") for value in values]
