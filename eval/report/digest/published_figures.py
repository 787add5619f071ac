"""The table of a recipe: published figures beside measured ones."""

from __future__ import annotations

from typing import Any

from ...results.published_comparison import AVERAGE, compare_with_published
from .sources import Source
from .tables import Cell, Row, Table


def tabulate_published(source: Source) -> Table | None:
    """Return published accuracies beside measured ones, a row per corruption; None without a recipe."""
    comparison = compare_with_published(source.results)
    if comparison is None:
        return None
    recipe, methods = comparison.recipe, comparison.methods
    columns = [column for method in methods for column in ("published", "measured")[: method.columns]]
    rows = tuple(
        Row(
            name,
            tuple(Cell(text) for method in methods for text in method.format_row(index)),
            "average" if name == AVERAGE else "single",
        )
        for index, name in enumerate(comparison.rows)
    )
    return Table(
        f"{comparison.title.capitalize()}, top-1 accuracy, %",
        "domain",
        tuple(columns),
        rows,
        tuple((method.name, method.columns) for method in methods),
        " ".join([f"{recipe.summary}. Published: {'. '.join(comparison.sources)}.", *recipe.notes]),
    )


def list_recipe_warnings(source: Source) -> list[str]:
    """Return the reasons why measured figures cannot be compared with those of the recipe."""
    obstacles = source.results.not_comparable
    return [f"Not comparable with the published figures: {text[0].lower()}{text[1:]}" for text in obstacles]


def list_published_columns(source: Source, domain: str, label: str) -> dict[str, Any]:
    """Return the columns of a recipe for a method on a domain: its name and figures, and if they compare.

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
        "published_precision": None if row is None else row.precision,
        "not_comparable": " ".join(source.results.not_comparable),
    }
