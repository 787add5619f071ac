"""The recipes that ship with fozo: one JSON file each, read into `Recipe`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import resources

from ...engine.errors import InputError
from ...engine.records import load_record
from ..datasets.domain import Domain
from ..results.recipe_record import Recipe

_FOLDER = resources.files("fozo.data").joinpath("recipes")


def list_recipes() -> list[str]:
    """Return the names of all recipes, sorted."""
    names = (entry.name for entry in _FOLDER.iterdir())
    return sorted(name.removesuffix(".json") for name in names if name.endswith(".json"))


def load_recipe(name: str) -> Recipe:
    """Return a recipe.

    Raises:
        InputError: there is no recipe of this name.
    """
    if name not in list_recipes():
        raise InputError(f"there is no recipe {name!r}; there are: {', '.join(list_recipes())}")
    file = _FOLDER.joinpath(f"{name}.json")
    return load_record(Recipe, json.loads(file.read_text(encoding="utf-8")), file.name)


@contextmanager
def explain_recipe(recipe: Recipe | None) -> Iterator[None]:
    """Say in errors about the data that the recipe has chosen it, if there is a recipe.

    Raises:
        InputError: as raised inside, with this addition.
    """
    try:
        yield
    except InputError as error:
        if recipe is None:
            raise
        raise InputError(
            f"{error} (recipe {recipe.name} sets data set, corruptions, severities and subset; other ones "
            "need a run without --recipe)"
        ) from error


def check_recipe_data(recipe: Recipe, domains: Sequence[Domain]) -> None:
    """Refuse data that is too small for a recipe.

    Raises:
        InputError: a corruption has fewer images than the protocol takes.
    """
    small = [domain for domain in domains if len(domain) < recipe.images]
    if small:
        others = f" and too few in {len(small) - 1} others" if len(small) > 1 else ""
        raise InputError(
            f"recipe {recipe.name} takes {recipe.images:,} images of each corruption, found "
            f"{len(small[0]):,} in {small[0].name}{others}; complete the data, or run the methods without "
            "--recipe on a smaller --subset"
        )
