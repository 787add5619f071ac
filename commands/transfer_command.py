"""`fozo transfer`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .experiments import result_options, run_experiment
from .head_options import resolve_templates, template_options
from .image_options import on_error_option, reading_options, take_reading
from .option_types import Seeds
from .options import (
    BATCH_SIZE,
    MICRO_BATCH,
    ORDERS,
    PATH,
    PRECISION,
    PROVIDER,
    QUIET,
    WORKERS,
    method_option,
    seed_option,
    seeds_option,
)


@click.command()
@click.argument("bundle", type=PATH)
@click.option(
    "--head-context",
    "context",
    metavar="NAME",
    help="Head of fozo tune whose context every data set gets, in front of its own class names; default: the"
    " templates are the prompt.",
)
@click.option(
    "--context-seeds",
    type=Seeds(),
    default=(),
    metavar="N,…",
    help="Seeds of fozo tune: the heads are NAME-1, NAME-2 and so on. Each gets a run; tables show mean and"
    " standard deviation. A run's order and methods have the same seed.",
)
@click.option(
    "--data",
    "targets",
    multiple=True,
    required=True,
    metavar="[NAME=]DIR",
    help="Data set in its published layout; repeat it. NAME, where the folder does not say it: imagenet,"
    " imagenet-a, imagenet-v2, imagenet-r, imagenet-sketch, split, or a published one such as eurosat.",
)
@method_option(("no_adapt",), "Methods to compare, all with the same prompt; no_adapt is always there")
@template_options
@click.option(
    "--published-templates",
    is_flag=True,
    help="Take the template that CLIP's zero-shot baseline uses for each data set.",
)
@click.option(
    "--subset",
    default="all",
    show_default=True,
    metavar="all|N",
    help="Images per data set, drawn with the seed.",
)
@BATCH_SIZE
@seed_option("Seed of order, subset and methods; the first of several.")
@seeds_option(1)
@ORDERS
@reading_options
@on_error_option(": left out of its batch, and counted in tables and results.")
@PRECISION
@WORKERS
@MICRO_BATCH
@PROVIDER
@result_options
@QUIET
def transfer(
    bundle: Path,
    templates: tuple[str, ...],
    template_list: str | None,
    published_templates: bool,
    out: Path,
    resume: bool,
    overwrite: bool,
    save_every: float,
    quiet: bool,
    **options: Any,
) -> None:
    """Evaluate one prompt of a BUNDLE on many data sets, each with its own classes.

    With a context, the first column is the texts without it (zero-shot), and no_adapt is the context on the
    frozen network. Without one, no_adapt is the zero-shot baseline with the prompt of the other methods.

    \b
    Domain generalisation, and cross-dataset transfer, of a context that was learnt on ImageNet:
      fozo transfer clip/ --head-context sapt --data imagenet=VAL --data imagenet-a --data imagenet-r
      fozo transfer clip/ --head-context sapt --data caltech-101 --data oxford_pets --data eurosat -m stss
      fozo transfer clip/ --head-context zip --context-seeds 1,2,3 --data caltech-101 --data oxford_pets
    """
    from ..engine.bundle.bundle import Bundle
    from ..engine.errors import InputError
    from ..eval.datasets.published_sets import PLAIN_TEMPLATE
    from ..eval.transfer.transfer import prepare_transfer
    from ..eval.transfer.transfer_spec import PUBLISHED, TransferSpec

    if published_templates and (templates or template_list is not None):
        raise InputError("expected --template, --templates or --published-templates, found two; choose one")
    texts = (
        (PUBLISHED,) if published_templates else resolve_templates(templates, template_list, PLAIN_TEMPLATE)
    )
    spec = TransferSpec(templates=texts, reading=take_reading(options), **options)
    run_experiment(
        lambda: prepare_transfer(Bundle.open(bundle), spec),
        out,
        resume=resume,
        overwrite=overwrite,
        save_every=save_every,
        quiet=quiet,
    )
