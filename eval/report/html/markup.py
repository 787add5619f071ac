"""HTML in which everything is escaped that is not HTML already."""

from __future__ import annotations

import html

from ..digest.plain_text import plain


class Html(str):
    """Text that is HTML already."""

    __slots__ = ()


def escape(value: object) -> Html:
    """A value as HTML, also within an attribute's quotes."""
    return value if isinstance(value, Html) else Html(html.escape(plain(value)))


def element(name: str, *content: object, **attributes: object) -> Html:
    """An element. Attributes are written with `-` for `_`; those that are None are left out."""
    given = {key.strip("_").replace("_", "-"): value for key, value in attributes.items()}
    opening = "".join(f' {key}="{escape(value)}"' for key, value in given.items() if value is not None)
    return Html(f"<{name}{opening}>{join(*content)}</{name}>")


def join(*content: object) -> Html:
    """Several pieces after each other."""
    return Html("".join(escape(piece) for piece in content))
