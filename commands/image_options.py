"""Options on how image files are read, for all commands that read images, and the notes that follow."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import click

from ..data.reading import LARGE_JPEGS, MAX_PIXELS, ORIENTATIONS, Reading
from .options import Decorator

T = TypeVar("T", bound=Callable[..., Any])

_READING: tuple[Callable[[Any], Any], ...] = (
    click.option(
        "--max-pixels",
        type=click.IntRange(1),
        default=MAX_PIXELS,
        show_default=True,
        help="Largest image to decode, width times height; raise it for large images that you trust.",
    ),
    click.option(
        "--exif-orientation",
        type=click.Choice(ORIENTATIONS),
        default="ignore",
        show_default=True,
        help="What to do with photographs that EXIF data turn; timm and torchvision ignore it.",
    ),
    click.option(
        "--large-jpegs",
        type=click.Choice(LARGE_JPEGS),
        default="refuse",
        show_default=True,
        help="What to do with JPEG files above --max-pixels: reduce decodes them at a half, a quarter or an"
        " eighth of their size.",
    ),
)


def reading_options(command: T) -> T:
    """Add the options on how image files are read to a command."""
    for decorator in reversed(_READING):
        command = decorator(command)
    return command


def on_error_option(help: str, default: str | None = "stop") -> Decorator:
    """Return the option that says what to do at an unreadable image; `help` ends its text."""
    return click.option(
        "--on-error",
        type=click.Choice(["stop", "skip"]),
        default=default,
        show_default=default is not None,
        help=f"At an unreadable image: stop (exit code 1), or skip it{help}",
    )


def take_reading(options: dict[str, Any]) -> Reading:
    """Remove the options of `reading_options` from others, and return them as a value."""
    return Reading(options.pop("max_pixels"), options.pop("exif_orientation"), options.pop("large_jpegs"))


def print_notes(sentences: Iterable[str]) -> None:
    """Print notes on standard error."""
    for sentence in sentences:
        click.echo(f"Note: {sentence}", err=True)
