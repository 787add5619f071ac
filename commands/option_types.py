"""Types of option values: numbers, names and blocks of a network."""

from __future__ import annotations

import click

from ..quant.settings import Bits, parse_bits


class Numbers(click.ParamType):  # type: ignore[type-arg, unused-ignore]
    """Numbers and ranges like `1-5` or `3,5`, without repetition and in the order typed."""

    def __init__(self, low: int, high: int) -> None:
        self.low, self.high = low, high
        self.name = f"{low}-{high}"

    def convert(
        self, value: str | tuple[int, ...], param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        """Return the numbers."""
        if isinstance(value, tuple):
            return value
        try:
            numbers = tuple(dict.fromkeys(_expand(value)))
            if not (self.low <= min(numbers) and max(numbers) <= self.high):
                raise ValueError
        except ValueError:
            self.fail(
                f"expected numbers in {self.name}, like {self.name} or 3,5, found {value!r}", param, ctx
            )
        return numbers


class Names(click.ParamType):  # type: ignore[type-arg, unused-ignore]
    """Names separated by commas."""

    name = "NAME,…"

    def convert(
        self, value: str | tuple[str, ...], param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        """Return the names."""
        return value if isinstance(value, tuple) else tuple(name.strip() for name in value.split(","))


class Channels(click.ParamType):  # type: ignore[type-arg, unused-ignore]
    """A number, or one per channel, separated by commas or spaces."""

    name = "NUMBER|R,G,B"

    def convert(
        self, value: str | tuple[float, ...], param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[float, ...]:
        """Return the numbers."""
        if isinstance(value, tuple):
            return value
        try:
            numbers = tuple(float(word) for word in value.replace(",", " ").split())
        except ValueError:
            numbers = ()
        if len(numbers) not in (1, 3):
            self.fail(f"expected a number or three like 0.485,0.456,0.406, found {value!r}", param, ctx)
        return numbers


class Blocks(click.ParamType):  # type: ignore[type-arg, unused-ignore]
    """Blocks of a network: `all` (None), `none`, or numbers and ranges like `0,2-5`."""

    name = "all|none|BLOCKS"

    def convert(
        self, value: str, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...] | None:
        """Return the blocks in ascending order, without repetition."""
        if value == "all":
            return None
        try:
            blocks = [] if value == "none" else _expand(value)
        except ValueError:
            self.fail(f"expected all, none, or blocks like 1-8 or 0,2-5, found {value!r}", param, ctx)
        return tuple(sorted(set(blocks)))


def _expand(text: str) -> list[int]:
    """Return the numbers of a list like `0,2-5`.

    Raises:
        ValueError: an item is neither a number nor an ascending range.
    """
    numbers: list[int] = []
    for item in text.split(","):
        ends = [int(end) for end in item.split("-")]
        if len(ends) > 2 or ends[0] > ends[-1]:
            raise ValueError(item)
        numbers += range(ends[0], ends[-1] + 1)
    return numbers


class Batch(click.ParamType):  # type: ignore[type-arg, unused-ignore]
    """A number of images above 0, or `all`, which becomes `Batch.ALL`."""

    name = "N|all"
    ALL = 0

    def convert(self, value: str | int, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the number."""
        if value == "all" or isinstance(value, int):
            return self.ALL if value == "all" else int(value)
        if not value.isdecimal() or int(value) < 1:
            self.fail(f"expected a number of images above 0, or all, found {value!r}", param, ctx)
        return int(value)


class Crops(click.ParamType):  # type: ignore[type-arg, unused-ignore]
    """A number of random crops of each image, or `fresh`, which becomes `Crops.FRESH`."""

    name = "N|fresh"
    FRESH = -1

    def convert(self, value: str | int, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the number."""
        if value == "fresh" or isinstance(value, int):
            return self.FRESH if value == "fresh" else int(value)
        if not value.isdecimal():
            self.fail(f"expected a number of crops, or fresh, found {value!r}", param, ctx)
        return int(value)


class Seeds(click.ParamType):  # type: ignore[type-arg, unused-ignore]
    """Different numbers of at least 0, separated by commas."""

    name = "N,…"

    def convert(
        self, value: str | tuple[int, ...], param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        """Return the numbers in the order typed."""
        if isinstance(value, tuple):
            return value
        words = [word.strip() for word in value.split(",")]
        if not all(word.isdecimal() for word in words) or len(set(map(int, words))) < len(words):
            self.fail(f"expected different numbers of at least 0, like 1,2,3, found {value!r}", param, ctx)
        return tuple(map(int, words))


class BitNames(click.ParamType):  # type: ignore[type-arg, unused-ignore]
    """Bits of weights and activations, like `int8`, `w6a6` or `w4`, as `Bits`."""

    name = "int8|wXaY|w4"

    def convert(self, value: str | Bits, param: click.Parameter | None, ctx: click.Context | None) -> Bits:
        """Return the bits."""
        if isinstance(value, Bits):
            return value
        try:
            return parse_bits(value)
        except ValueError:
            self.fail(
                "expected int8, w4, or bits of weights and activations from 3 to 8, as in w6a6, "
                f"found {value!r}",
                param,
                ctx,
            )
