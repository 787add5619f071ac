"""Elements of pages: tables, legends and boxes."""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Sequence

from ..digest.provenance import FactSheet
from ..digest.tables import Cell, Row, Table
from .markup import Html, element, join
from .svg import SERIES

_ROW_CLASSES = {"single": None, "average": "average", "apart": "apart", "changed": "changed"}
_HEADING = re.compile(r"<(/?)h(\d)>")  # text has no such thing: it is escaped
_DASHES = ("", "5 2", "1.5 1.5", "6 2 1.5 2")  # as in svg.py


def table(content: Table) -> Html:
    """Return a table in a box that scrolls by itself, and its note."""
    has_notes = any(row.note for row in content.rows)
    head = [_render_heading(content.corner), *(_render_heading(column) for column in content.columns)]
    if has_notes:
        head.append(_render_heading("note"))
    group_headings = [
        element("th", element("span", text), scope="colgroup", colspan=span)
        for text, span in content.column_groups
    ]
    rows = [element("tr", element("td"), *group_headings, class_="over")] if group_headings else []
    rows.append(element("tr", *head))
    marked = [
        any(cell.noise for cell in column)
        for column in zip(*(row.cells for row in content.rows), strict=True)
    ]
    body = [_render_row(row, marked, has_notes) for row in content.rows]
    caption = element("caption", content.title)
    box = scrolling(
        element("table", caption, element("thead", *rows), element("tbody", *body)), content.title
    )
    return join(box, element("p", content.note, class_="quiet") if content.note else "")


def list_table(content: Table) -> Html:
    """Return a table of texts, without caption, marks and notes."""
    head = element("tr", *(element("th", text, scope="col") for text in (content.corner, *content.columns)))
    body = [
        element(
            "tr",
            element("th", row.name, scope="row"),
            *(element("td", cell.text) for cell in row.cells),
            class_=_ROW_CLASSES[row.kind],
        )
        for row in content.rows
    ]
    return scrolling(
        element("table", element("thead", head), element("tbody", *body), class_="list"), content.title
    )


def fact_table(sheet: FactSheet) -> Html:
    """Return a table of names and values."""
    body = [
        element(
            "tr",
            element("th", fact.name, scope="row"),
            element("td", element("code", fact.value) if fact.code else fact.value),
        )
        for fact in sheet.facts
    ]
    return scrolling(
        element("table", element("caption", sheet.title), element("tbody", *body), class_="facts"),
        sheet.title,
    )


def scrolling(content: Html, label: str) -> Html:
    """Return a box that scrolls sideways, also by keyboard."""
    return element("div", content, class_="scroll", tabindex="0", role="region", aria_label=label)


def legend(labels: Sequence[str], indices: Container[int] | None = None) -> Html:
    """Return a legend with the colour and dashes of each label, or of those whose index is in `indices`."""
    entries = (
        _render_entry(index, label)
        for index, label in enumerate(labels)
        if indices is None or index in indices
    )
    return element("ul", *entries, class_="legend")


def warning(text: str) -> Html:
    """Return a highlighted warning."""
    return element("p", text, class_="warning", role="note")


def deepen_headings(content: Html) -> Html:
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


def _render_entry(index: int, label: str) -> Html:
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


def _render_heading(text: object) -> Html:
    return element("th", element("span", text), scope="col")


def _render_row(row: Row, marked: Sequence[bool], has_notes: bool) -> Html:
    cells = [element("th", element("span", row.name), scope="row")]
    cells += [_render_cell(cell, has_marks) for cell, has_marks in zip(row.cells, marked, strict=True)]
    if has_notes:
        cells.append(element("td", row.note, class_="note"))
    return element("tr", *cells, class_=_ROW_CLASSES[row.kind])


def _render_cell(cell: Cell, has_marks: bool) -> Html:
    """Return a cell; `has_marks` reserves space for the mark so that the numbers of a column stay aligned."""
    spread = join(" ", element("span", cell.spread, class_="spread")) if cell.spread else ""
    mark = element("span", "~" if cell.noise else "", class_="mark") if has_marks else ""
    return element("td", cell.text, spread, mark, class_="best" if cell.best else None)
