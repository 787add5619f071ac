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
# Placeholders for the colours of the page, which matplotlib draws with.
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
    "text.parse_math": False,  # a `$` in a label is no formula
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


def series_color(index: int) -> str:
    """Return the colour of a series; the colours repeat, except that of the first series."""
    return f"#0400{index if index < SERIES else 1 + (index - 1) % (SERIES - 1):02x}"


def dash_of(index: int) -> Any:
    """Return the line style of a series: solid, until colours repeat."""
    return _DASHES[max(0, index - 1) // (SERIES - 1) % len(_DASHES)]


def marker_of(index: int) -> str:
    """Return the marker of a results file."""
    return _MARKERS[index % len(_MARKERS)]


def require_matplotlib() -> None:
    """Check that matplotlib is installed.

    Raises:
        InputError: matplotlib is not installed.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise InputError(
            'the page needs matplotlib; install it with: pip install "fozo[report]" '
            "(--csv and --markdown work without it)"
        ) from error


def draw_svg(
    name: str, label: str, width: float, height: float, draw: Callable[[Any], None], *, wide: bool = False
) -> Html:
    """Return a drawing as an element of a page.

    Args:
        name: prefix of all identifiers in the drawing; unique on the page.
        label: description for readers who cannot see the drawing.
        width, height: size in CSS pixels.
        draw: draws on a `matplotlib.figure.Figure`, whose points are CSS pixels.
        wide: true if the drawing takes the whole width of the page.
    """
    from matplotlib.figure import Figure

    content = io.BytesIO()
    with _style():
        figure = Figure(figsize=(width / 72, height / 72), dpi=72)
        draw(figure)
        no_metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(content, format="svg", transparent=True, metadata=no_metadata)
    root = ElementTree.fromstring(content.getvalue())
    _fit_into_page(root, name)
    root.attrib = {
        "class": "chart wide" if wide else "chart",
        "role": "img",
        "aria-label": plain(label),
        "viewBox": root.attrib["viewBox"],
        "width": f"{width:g}",
        "height": f"{height:g}",
    }
    return Html(ElementTree.tostring(root, encoding="unicode"))


def add_axes(figure: Any, left: float, right: float, top: float, bottom: float) -> Any:
    """Add axes with margins in pixels."""
    width, height = (72 * size for size in figure.get_size_inches())
    return figure.add_axes(
        (left / width, bottom / height, 1 - (left + right) / width, 1 - (top + bottom) / height)
    )


@contextmanager
def _style() -> Iterator[None]:
    """Draw with default settings instead of the user's, and without warnings about missing glyphs."""
    from matplotlib import style

    with warnings.catch_warnings(), style.context(["default", _STYLE]):
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from")
        yield


def _fit_into_page(root: ElementTree.Element, name: str) -> None:
    """Give a drawing the colours of the page and unique identifiers, and drop its namespaces."""
    referenced = set()
    for node in root.iter():
        if _HREF in node.attrib:
            node.attrib["href"] = node.attrib.pop(_HREF)
        for key in ("href", *_REFERRING):
            referenced |= {target for _, target in _REFERENCE.findall(node.attrib.get(key, ""))}
    for node in root.iter():
        node.tag = node.tag.removeprefix(_SVG)
        identifier = node.attrib.pop("id", None)
        if identifier in referenced:
            node.attrib["id"] = f"{name}-{identifier}"
        for key in {"href", *_REFERRING} & set(node.attrib):
            node.attrib[key] = _REFERENCE.sub(rf"\1{name}-\2", node.attrib[key])
        if "style" in node.attrib:
            node.attrib["style"] = "; ".join(
                filter(None, map(_convert_declaration, node.attrib["style"].split("; ")))
            )
        for key in {"d", "x", "y", "transform"} & set(node.attrib):
            node.attrib[key] = _NUMBER.sub(_round, " ".join(node.attrib[key].split()))
        node.text, node.tail = (node.text or "").strip("\n "), None
    for parent in list(root.iter()):
        for child in [child for child in parent if _is_invisible(child)]:
            parent.remove(child)


def _is_invisible(node: ElementTree.Element) -> bool:
    """Return true for backgrounds, and for elements that only stand-alone documents need."""
    return node.tag in ("metadata", "style") or node.attrib.get("style") == "fill: none"


def _round(number: re.Match[str]) -> str:
    return f"{float(number.group()):.2f}".rstrip("0").rstrip(".")


def _convert_declaration(text: str) -> str:
    """Return a style declaration for the page; of fonts only the size, as the page has its own."""
    name, _, value = text.partition(": ")
    if name == "font":
        name, value = "font-size", "".join(_SIZE.findall(value)[:1])
    return "" if name == "font-family" else f"{name}: {_PAGE.get(value, value)}"
