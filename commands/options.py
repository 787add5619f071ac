"""Kinds of arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path

import click

PROVIDER = click.Choice(["cpu", "openvino", "openvino-bf16"])  # engine/runtime/network.py, without loading it
FOLDER = click.Path(path_type=Path, file_okay=False)
FILE = click.Path(path_type=Path, dir_okay=False)
QUIET = click.option("--quiet", is_flag=True, help="No progress bar.")
WORKERS = click.option(
    "--workers", type=int, help="Threads that compute; default: as tuned, or all processors."
)
MICRO_BATCH = click.option(
    "--micro-batch", type=int, help="Images per call of the runtime; results do not depend on it."
)
ONE_PROVIDER = click.option(
    "--provider",
    type=PROVIDER,
    default="cpu",
    show_default=True,
    help="Who computes; openvino needs onnxruntime-openvino in place of onnxruntime.",
)
BUNDLE = click.argument("bundle", type=click.Path(path_type=Path), default="bundle")
CALIBRATION_IMAGES, HELD_OUT_IMAGES = 256, 512


class Numbers(click.ParamType):  # type: ignore[type-arg, unused-ignore]
    """Numbers and ranges like `1-5` or `3,5`, each once and in the order given."""

    def __init__(self, low: int, high: int) -> None:
        self.low, self.high = low, high
        self.name = f"{low}-{high}"

    def convert(
        self, value: str | tuple[int, ...], param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        """The numbers."""
        if isinstance(value, tuple):
            return value
        try:
            ranges = [[int(end) for end in part.split("-")] for part in value.split(",")]
            numbers = dict.fromkeys(n for ends in ranges for n in range(ends[0], ends[-1] + 1))
            if any(len(ends) > 2 or ends[0] > ends[-1] for ends in ranges) or not (
                self.low <= min(numbers) and max(numbers) <= self.high
            ):
                raise ValueError
        except ValueError:
            self.fail(
                f"expected numbers in {self.name}, like {self.name} or 3,5, found {value!r}", param, ctx
            )
        return tuple(numbers)


class Names(click.ParamType):  # type: ignore[type-arg, unused-ignore]
    """Names between commas."""

    name = "NAME,…"

    def convert(
        self, value: str | tuple[str, ...], param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        """The names."""
        return value if isinstance(value, tuple) else tuple(name.strip() for name in value.split(","))


class Blocks(click.ParamType):  # type: ignore[type-arg, unused-ignore]
    """Blocks of a network: `all` (None), `none`, or numbers and ranges like `0,2-5`."""

    name = "all|none|BLOCKS"

    def convert(
        self, value: str, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...] | None:
        """The blocks, each once and in order."""
        if value == "all":
            return None
        try:
            ranges = [part.split("-") for part in value.split(",")] if value != "none" else []
            blocks = {n for ends in ranges for n in range(int(ends[0]), int(ends[-1]) + 1)}
            if any(len(ends) > 2 or int(ends[0]) > int(ends[-1]) for ends in ranges):
                raise ValueError
        except ValueError:
            self.fail(f"expected all, none, or blocks like 1-8 or 0,2-5, found {value!r}", param, ctx)
        return tuple(sorted(blocks))
