"""Options that say which images are streamed: the same for `fozo adapt` and `fozo sweep`."""

from __future__ import annotations

from typing import Any

import click

from ..eval.datasets.dataset_registry import DATASETS
from ..eval.datasets.dataset_request import CLASS_ORDERS
from .image_options import on_error_option, reading_options
from .options import (
    BATCH_SIZE,
    CORRUPTIONS,
    FILE,
    FOLDER,
    FROST_TEXTURES,
    PROVIDER,
    SEVERITIES,
    Decorator,
    seed_option,
)

DEFAULT_METHODS = ("no_adapt", "shift", "fozo", "pizo")

_DATA = (
    click.option(
        "--dataset",
        type=click.Choice(list(DATASETS)),
        default="imagenet-c",
        show_default=True,
        help="Data set, see docs/datasets.md; demo ships with fozo and needs no --data.",
    ),
    click.option(
        "--data",
        type=FOLDER,
        help="Folder with the data, as its archives unpack; for imagenet-v2 the folder of one variant, or of"
        " several.",
    ),
    click.option(
        "--clean",
        type=FOLDER,
        help="For imagenet-c: clean validation images by class folder, streamed last, to show what adaptation"
        " costs on them.",
    ),
    click.option(
        "--labels",
        type=FILE,
        help="Classes of clean images that are not in class folders: lines `<file> <0..999>` (val.txt) or"
        " `<file>,<wnid>` (LOC_val_solution.csv). For imagenet, --clean and --generate-from.",
    ),
    click.option(
        "--class-ids",
        type=FILE,
        help="Names of the class folders in the order of the model's outputs, one per line; default: the"
        " bundle's.",
    ),
    click.option(
        "--class-order",
        type=click.Choice(CLASS_ORDERS),
        help="For bundles that do not name their classes: number class folders as timm sorts them (2 before"
        " 10) or as torchvision does (10 before 2). Needed only where these differ.",
    ),
    click.option(
        "--generate-from",
        type=FOLDER,
        help="For imagenet-c: clean images by class folder, corrupted while streaming (not the official"
        " ImageNet-C, and labelled so).",
    ),
    click.option("--split", type=FILE, help="For split: the split file, if the folder has several."),
    FROST_TEXTURES,
    CORRUPTIONS,
    SEVERITIES,
)
_IMAGES = (
    click.option(
        "--subset",
        default="all",
        show_default=True,
        metavar="all|50k|5k|N",
        help="Images per corruption; 5k and N are drawn with the seed unless --subset-list is given.",
    ),
    click.option("--subset-list", type=FILE, help="A published list of images, <wnid>/<file> per line."),
    click.option(
        "--classes",
        type=click.Choice(["auto", "all", "present"]),
        default="auto",
        show_default=True,
        help="Classes to predict among: those of the data set (200 in imagenet-r and -a), all of the model,"
        " or those that occur in the data (before a subset is drawn).",
    ),
    BATCH_SIZE,
    seed_option("Seed of order, subset, generated corruptions and methods; the first of several."),
)


def stream_options(command: Any) -> Any:
    """Add the options to a command, in the order in which its help lists them."""
    on_error = on_error_option(": left out of its batch, and counted in tables and results.")
    decorators: tuple[Decorator, ...] = (*_DATA, reading_options, on_error, *_IMAGES, PROVIDER)
    for decorator in reversed(decorators):
        command = decorator(command)
    return command
