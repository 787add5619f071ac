"""Arguments and options that several commands share: each name is defined once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from ..engine.names import DEFAULT_SEED, PROVIDERS
from .option_types import Names, Numbers

Decorator = Callable[[Any], Any]

FOLDER = click.Path(path_type=Path, file_okay=False)
FILE = click.Path(path_type=Path, dir_okay=False)
PATH = click.Path(path_type=Path)
DEFAULT_BUNDLE = Path("bundle")
CALIBRATION_IMAGES, HELD_OUT_IMAGES = 256, 512
METHOD_FORM = "[LABEL=]NAME[:OPTION=VALUE,…]"

BUNDLE = click.argument("bundle", type=PATH, default=DEFAULT_BUNDLE)
QUIET = click.option("--quiet", is_flag=True, help="Show no progress bar.")
WORKERS = click.option(
    "--workers",
    type=click.IntRange(1),
    help="Number of threads; default: what `fozo bench --tune` stored, else all processors. "
    "Results do not depend on it.",
)
MICRO_BATCH = click.option(
    "--micro-batch",
    type=click.IntRange(1),
    help="Images per call of the runtime; default: what `fozo bench --tune` stored. "
    "Results do not depend on it.",
)
PROVIDER = click.option(
    "--provider",
    type=click.Choice(list(PROVIDERS)),
    default="cpu",
    show_default=True,
    help="Execution provider; openvino needs onnxruntime-openvino in place of onnxruntime.",
)
PRECISION = click.option(
    "--precision", default="fp32", show_default=True, help="Graph of the bundle to run, such as int8."
)
BATCH_SIZE = click.option(
    "--batch-size", type=click.IntRange(1), default=64, show_default=True, help="Images per batch."
)
CORRUPTIONS = click.option(
    "--corruptions",
    type=Names(),
    help="Names, separated by commas. Default: all 15 of ImageNet-C; generated ones leave out frost unless"
    " its textures are given. Also: speckle_noise, gaussian_blur, spatter, saturate.",
)
SEVERITIES = click.option(
    "--severities",
    type=Numbers(1, 5),
    default="5",
    show_default=True,
    help="Severities of the corruptions: one, or several like 3,5 or 1-5.",
)
FROST_TEXTURES = click.option(
    "--frost-textures",
    type=FOLDER,
    help="Folder with frost1.png to frost6.jpg from ImageNet-C's code; frost is generated only with it.",
)
SOURCE_IMAGES = click.option(
    "--source-images",
    type=click.IntRange(1),
    default=512,
    show_default=True,
    help="Number of clean images for source statistics.",
)


def json_option(help: str) -> Decorator:
    """Return the option that makes a command print JSON."""
    return click.option("--json", "as_json", is_flag=True, help=help)


def method_option(default: tuple[str, ...], help: str) -> Decorator:
    """Return the option that names methods and may be repeated."""
    return click.option(
        "-m",
        "--method",
        "methods",
        multiple=True,
        default=default,
        show_default=True,
        metavar=METHOD_FORM,
        help=f"{help}; repeat it. See: fozo methods.",
    )


def out_option(default: str, help: str, kind: click.Path = FILE) -> Decorator:
    """Return the option that says where results are written."""
    return click.option("--out", type=kind, default=default, show_default=True, help=help)


def overwrite_option(help: str) -> Decorator:
    """Return the flag that permits a command to replace what exists."""
    return click.option("--overwrite", is_flag=True, help=help)


def seed_option(help: str, most: int | None = None) -> Decorator:
    """Return the option for the seed of everything random; `most` is the largest one, if there is a limit."""
    kind = click.IntRange(0, most)
    return click.option("--seed", type=kind, default=DEFAULT_SEED, show_default=True, help=help)


ORDERS = click.option(
    "--orders",
    type=click.IntRange(2),
    help="Run over so many orders of the same images, one for each seed from --seed on. Tables show mean ±"
    " standard deviation and, from ten orders on, the mean of the worst tenth of the runs.",
)


def seeds_option(default: int) -> Decorator:
    """Return the option for the number of seeds."""
    return click.option(
        "--seeds",
        type=click.IntRange(1),
        default=default,
        show_default=True,
        help="Number of seeds, counting up from --seed; tables show mean ± standard deviation.",
    )
