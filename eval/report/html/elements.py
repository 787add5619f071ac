"""Elements of pages: tables, legends and boxes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from ..digest.tables import Cell, Line, Table
from .markup import Html, element, join
from .svg import SERIES

_ROWS = {"part": None, "average": "average", "clean": "clean"}
_HEADING = re.compile(r"<(/?)h(\d)>")  # text has no such thing: it is escaped
_DASHES = ("", "5 2", "1.5 1.5", "6 2 1.5 2")  # as in svg.py


def table(content: Table) -> Html:
    """Return a table in a box that scrolls by itself."""
    noted = any(line.note for line in content.lines)
    head = [_heading(content.corner), *(_heading(column) for column in content.columns)]
    if noted:
        head.append(_heading("note"))
    over = [
        element("th", element("span", text), scope="colgroup", colspan=span) for text, span in content.over
    ]
    rows = [element("tr", element("td"), *over, class_="over")] if over else []
    rows.append(element("tr", *head))
    marked = [
        any(cell.noise for cell in column)
        for column in zip(*(line.cells for line in content.lines), strict=True)
    ]
    body = [_row(line, marked, noted) for line in content.lines]
    caption = element("caption", content.title)
    return scrolling(
        element("table", caption, element("thead", *rows), element("tbody", *body)), content.title
    )


def facts(title: str, rows: Iterable[tuple[object, object]]) -> Html:
    """Return a table of names and values."""
    body = [element("tr", element("th", name, scope="row"), element("td", value)) for name, value in rows]
    return scrolling(
        element("table", element("caption", title), element("tbody", *body), class_="facts"), title
    )


def scrolling(content: Html, label: str) -> Html:
    """Return a box that scrolls sideways, also by keyboard."""
    return element("div", content, class_="scroll", tabindex="0", role="region", aria_label=label)


def legend(labels: Sequence[str], start: int = 0) -> Html:
    """Return a legend with the colour and dashes of each label."""
    return element(
        "ul", *(_entry(index, label) for index, label in enumerate(labels) if index >= start), class_="legend"
    )


def warning(text: str) -> Html:
    """Return a highlighted warning."""
    return element("p", text, class_="warning", role="note")


def deeper(content: Html) -> Html:
    """Return the content with all headings one level deeper."""
    return Html(_HEADING.sub(lambda match: f"<{match[1]}h{int(match[2]) + 1}>", content))


def figure(content: Html, caption: object, label: str | None = None) -> Html:
    """Return a picture with a caption; with a label it may be wider than the page and scrolls."""
    content_or_box = content if label is None else scrolling(content, label)
    return element("figure", content_or_box, element("figcaption", caption))


def gallery(pictures: Iterable[tuple[object, Html]]) -> Html:
    """Return small pictures with titles, side by side where they fit."""
    return element(
        "div",
        *(element("figure", element("figcaption", title), content) for title, content in pictures),
        class_="gallery",
    )


def _entry(index: int, label: str) -> Html:
    colour = index if index < SERIES else 1 + (index - 1) % (SERIES - 1)
    dashes = _DASHES[max(0, index - 1) // (SERIES - 1) % len(_DASHES)]
    line = element(
        "line",
        x1=1,
        y1=6,
        x2=23,
        y2=6,
        stroke=f"var(--series-{colour})",
        stroke_width=4,
        stroke_dasharray=dashes or None,
    )
    swatch = element("svg", line, width=24, height=12, aria_hidden="true")
    return element("li", swatch, element("span", label))


def _heading(text: object) -> Html:
    return element("th", element("span", text), scope="col")


def _row(line: Line, marked: Sequence[bool], noted: bool) -> Html:
    cells = [element("th", element("span", line.name), scope="row")]
    cells += [_cell(cell, room) for cell, room in zip(line.cells, marked, strict=True)]
    if noted:
        cells.append(element("td", line.note, class_="note"))
    return element("tr", *cells, class_=_ROWS[line.kind])


def _cell(cell: Cell, room: bool) -> Html:
    """Return a cell; `room` reserves space for the mark so that the numbers of a column stay aligned."""
    spread = join(" ", element("span", cell.spread, class_="spread")) if cell.spread else ""
    mark = element("span", "~" if cell.noise else "", class_="mark") if room else ""
    return element("td", cell.text, spread, mark, class_="best" if cell.best else None)
