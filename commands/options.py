"""Kinds of arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path

import click

PROVIDER = click.Choice(["cpu", "openvino", "openvino-bf16"])  # engine/network.py, without loading it
FOLDER = click.Path(path_type=Path, file_okay=False)
FILE = click.Path(path_type=Path, dir_okay=False)
BUNDLE = click.argument("bundle", type=click.Path(path_type=Path), default="bundle")
CALIBRATION_IMAGES, HELD_OUT_IMAGES = 256, 512


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
