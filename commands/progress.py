"""The progress bar."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import click


class Progress:
    """A progress bar on standard error, as a context manager that returns the function to advance it."""

    def __init__(self, count: int, quiet: bool = False, unit: str = "images") -> None:
        self._bar: Any = click.progressbar(
            length=count,
            file=sys.stderr,
            show_pos=True,
            width=30,
            bar_template=f"%(bar)s %(info)s {unit}",
            hidden=quiet or not sys.stderr.isatty(),
        )

    def __enter__(self) -> Callable[[int], None]:
        self._bar.__enter__()
        return lambda count: self._bar.update(count)

    def __exit__(self, *error: Any) -> None:
        self._bar.__exit__(*error)


def clear_bar(quiet: bool = False) -> None:
    """Clear the line of the progress bar, so that a line of text can take its place."""
    if sys.stderr.isatty() and not quiet:
        click.echo("\r\033[K", nl=False, err=True)
