"""`fozo adapt`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ..eval.protocol import SETTINGS
from .experiments import result_options, run_experiment
from .head_options import HEAD
from .options import (
    BUNDLE,
    MICRO_BATCH,
    ORDERS,
    PRECISION,
    QUIET,
    WORKERS,
    method_option,
    seeds_option,
)
from .recipe_options import RECIPE, apply_recipe
from .stream_options import DEFAULT_METHODS, stream_options


@click.command()
@BUNDLE
@RECIPE
@method_option(DEFAULT_METHODS, "Methods to compare; the others are compared with the first")
@click.option(
    "--setting",
    type=click.Choice(SETTINGS),
    default="reset",
    show_default=True,
    help="reset: start afresh for every corruption; continual: continue over all of them; rounds: continual,"
    " several times over; mixed: all corruptions in one stream; label_shift: like reset, ordered by class.",
)
@click.option(
    "--rounds",
    type=click.IntRange(1),
    help="For --setting rounds: number of passes over all corruptions; default: 10.",
)
@click.option(
    "--concentration",
    type=click.FloatRange(0, min_open=True),
    help="For --setting label_shift: spread classes by a Dirichlet distribution instead of sorting them; 0.1"
    " is nearly sorted, 10 nearly shuffled.",
)
@stream_options
@seeds_option(1)
@ORDERS
@HEAD
@PRECISION
@WORKERS
@MICRO_BATCH
@result_options
@QUIET
def adapt(
    bundle: Path,
    recipe: str | None,
    methods: tuple[str, ...],
    out: Path,
    resume: bool,
    overwrite: bool,
    save_every: float,
    quiet: bool,
    **options: Any,
) -> None:
    """Adapt a BUNDLE (default: ./bundle) over corrupted streams and compare methods side by side.

    \b
    Examples:
      fozo adapt --dataset imagenet-c --data IMAGENET_C --subset 5k --setting continual
      fozo adapt --dataset imagenet-r --data IMAGENET_R --seeds 3
      fozo adapt --dataset imagefolder --data DIR -m no_adapt -m fozo:shift=origin,samples=2
      fozo adapt --dataset imagefolder --data DIR -m no_adapt -m t3a --orders 20
      fozo adapt --recipe neo-512 --data IMAGENET_C
    """
    from ..eval.streaming.experiment import prepare
    from ..eval.streaming.spec import EvaluationSpec

    methods, options = apply_recipe(recipe, methods, options)
    spec = EvaluationSpec.from_options(bundle, methods, **options)
    run_experiment(
        lambda: prepare(spec),
        out,
        resume=resume,
        overwrite=overwrite,
        save_every=save_every,
        quiet=quiet,
    )
