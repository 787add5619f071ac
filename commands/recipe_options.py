"""`--recipe`: the options of a published protocol in place of those of the command line."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click
from click.core import ParameterSource

from ..engine.errors import InputError

# What a recipe leaves open: model, places of the data, number of seeds, and how the work is done.
FREE_OPTIONS = (
    "bundle",
    "data",
    "labels",
    "class_ids",
    "class_order",
    "generate_from",
    "frost_textures",
    "subset_list",
    "precision",
    "provider",
    "workers",
    "micro_batch",
    "out",
    "resume",
    "overwrite",
    "save_every",
    "quiet",
    "recipe",
    "seeds",
)


def _print_list(context: click.Context, option: click.Parameter, value: str | None) -> str | None:
    """Print the names of the recipes if they are asked for, and end the command."""
    if value == "list":
        from ..eval.streaming.recipe_files import list_recipes, load_recipe

        for name in list_recipes():
            click.echo(f"{name:20}{load_recipe(name).summary}")
        context.exit()
    return value


RECIPE = click.option(
    "--recipe",
    metavar="NAME|list",
    is_eager=True,
    callback=_print_list,
    help="Run a published protocol with its methods, and show published beside measured figures. It sets all"
    " options but those on bundle, places of data, precision, number of seeds and speed. list names the"
    " recipes.",
)


def apply_recipe(
    name: str | None, methods: tuple[str, ...], options: dict[str, Any]
) -> tuple[tuple[str, ...], dict[str, Any]]:
    """Return methods and options of the command line, with those of a recipe if one is named.

    Raises:
        InputError: there is no such recipe, or an option was typed that it sets to something else.
    """
    if name is None:
        return methods, options
    from ..eval.streaming.recipe_files import load_recipe

    recipe = load_recipe(name)
    settings: dict[str, Any] = {**asdict(recipe.options), "methods": recipe.methods}
    context = click.get_current_context()
    if context.get_parameter_source("seeds") is ParameterSource.COMMANDLINE:
        settings["seeds"] = context.params["seeds"]  # further seeds show the noise of the figures
    for option in context.command.params:
        key = option.name or ""
        typed = context.get_parameter_source(key) is ParameterSource.COMMANDLINE
        if not typed or key in FREE_OPTIONS or (key in settings and context.params[key] == settings[key]):
            continue
        flag = option.opts[-1]
        rule = f"sets {flag} to {_format_value(settings[key])}" if key in settings else f"leaves {flag} out"
        raise InputError(
            f"recipe {name} {rule}, found "
            f"{_format_value(context.params[key])}; leave the option out, or run without --recipe"
        )
    return settings.pop("methods"), {**options, **settings, "recipe": recipe}


def _format_value(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
