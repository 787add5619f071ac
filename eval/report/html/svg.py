"""Drawings by matplotlib as SVG that takes colours and font from the page around it."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from xml.etree import ElementTree

from ....engine.errors import InputError
from ..digest.plain_text import plain
from .markup import Html

SERIES = 7  # colours in style.css; the first is for the method that the others are compared with
# Colours that stand for those of the page while matplotlib draws.
INK, MUTED, GRID = "#010101", "#020202", "#030303"
_PAGE = {
    INK: "currentColor",
    MUTED: "var(--muted)",
    GRID: "var(--grid)",
    **{f"#0400{i:02x}": f"var(--series-{i})" for i in range(SERIES)},
}
_DASHES = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1.5, 2)))
_MARKERS = "osD^vPX*"
_STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "fozo",
    "text.parse_math": False,  # a label is what it is, `$` and all
    "axes.formatter.use_mathtext": False,
    "axes.formatter.useoffset": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "font.size": 11.0,
    "axes.labelsize": 11.0,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "lines.linewidth": 1.8,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
}
_SVG = "{http://www.w3.org/2000/svg}"
_HREF = "{http://www.w3.org/1999/xlink}href"
_REFERRING = ("style", "clip-path", "fill")
_NUMBER = re.compile(r"-?\d+\.\d+")
_SIZE = re.compile(r"[\d.]+px")
_REFERENCE = re.compile(r"(^#|url\(#)([\w-]+)")


def colour(index: int) -> str:
    """Of the series at this place; the first colour is for the first series alone."""
    return f"#0400{index if index < SERIES else 1 + (index - 1) % (SERIES - 1):02x}"


def dash(index: int) -> Any:
    """The line of the series at this place: solid, until colours repeat."""
    return _DASHES[max(0, index - 1) // (SERIES - 1) % len(_DASHES)]


def marker(index: int) -> str:
    """The marker at this place."""
    return _MARKERS[index % len(_MARKERS)]


def require() -> None:
    """Finds out whether matplotlib is there.

    Raises:
        InputError: it is not.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise InputError(
            'the page needs matplotlib; install it with: pip install "fozo[report]" '
            "(--csv and --markdown work without it)"
        ) from error


def picture(
    name: str, label: str, width: float, height: float, draw: Callable[[Any], None], *, wide: bool = False
) -> Html:
    """A drawing as an element of a page.

    Args:
        name: begins all identifiers within, so it must be the only one of the page.
        label: what it shows, for those who cannot see it.
        width, height: in CSS pixels.
        draw: draws on a `matplotlib.figure.Figure`, whose points are these pixels.
        wide: it takes all of the room that there is.
    """
    from matplotlib.figure import Figure

    content = io.BytesIO()
    with _style():
        figure = Figure(figsize=(width / 72, height / 72), dpi=72)
        draw(figure)
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(content, format="svg", transparent=True, metadata=nothing)
    root = ElementTree.fromstring(content.getvalue())
    _adopt(root, name)
    root.attrib = {
        "class": "chart wide" if wide else "chart",
        "role": "img",
        "aria-label": plain(label),
        "viewBox": root.attrib["viewBox"],
        "width": f"{width:g}",
        "height": f"{height:g}",
    }
    return Html(ElementTree.tostring(root, encoding="unicode"))


def axes(figure: Any, left: float, right: float, top: float, bottom: float) -> Any:
    """Axes with these margins in pixels."""
    width, height = (72 * size for size in figure.get_size_inches())
    return figure.add_axes(
        (left / width, bottom / height, 1 - (left + right) / width, 1 - (top + bottom) / height)
    )


@contextmanager
def _style() -> Iterator[None]:
    """matplotlib as it comes, whatever is configured, and quiet about glyphs: the page has its own."""
    from matplotlib import style

    with warnings.catch_warnings(), style.context(["default", _STYLE]):
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from")
        yield


def _adopt(root: ElementTree.Element, name: str) -> None:
    """Makes a document part of a page: no names of its own, colours of the page, identifiers that differ."""
    used = set()
    for node in root.iter():
        if _HREF in node.attrib:
            node.attrib["href"] = node.attrib.pop(_HREF)
        for key in ("href", *_REFERRING):
            used |= {target for _, target in _REFERENCE.findall(node.attrib.get(key, ""))}
    for node in root.iter():
        node.tag = node.tag.removeprefix(_SVG)
        identifier = node.attrib.pop("id", None)
        if identifier in used:
            node.attrib["id"] = f"{name}-{identifier}"
        for key in {"href", *_REFERRING} & set(node.attrib):
            node.attrib[key] = _REFERENCE.sub(rf"\1{name}-\2", node.attrib[key])
        if "style" in node.attrib:
            node.attrib["style"] = "; ".join(
                filter(None, map(_declaration, node.attrib["style"].split("; ")))
            )
        for key in {"d", "x", "y", "transform"} & set(node.attrib):
            node.attrib[key] = _NUMBER.sub(_rounded, " ".join(node.attrib[key].split()))
        node.text, node.tail = (node.text or "").strip("\n "), None
    for parent in list(root.iter()):
        for child in [child for child in parent if _is_nothing(child)]:
            parent.remove(child)


def _is_nothing(node: ElementTree.Element) -> bool:
    """What shows nothing here: backgrounds, and what is for documents that stand alone."""
    return node.tag in ("metadata", "style") or node.attrib.get("style") == "fill: none"


def _rounded(number: re.Match[str]) -> str:
    return f"{float(number.group()):.2f}".rstrip("0").rstrip(".")


def _declaration(text: str) -> str:
    """A declaration of a style for the page; of fonts, whose form depends on the version, the size only."""
    name, _, value = text.partition(": ")
    if name == "font":
        name, value = "font-size", "".join(_SIZE.findall(value)[:1])
    return "" if name == "font-family" else f"{name}: {_PAGE.get(value, value)}"
