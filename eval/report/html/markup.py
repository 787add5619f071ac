"""HTML with automatic escaping."""

from __future__ import annotations

import html

from ..digest.plain_text import plain


class Html(str):
    """Text that is HTML already."""

    __slots__ = ()


def escape(value: object) -> Html:
    """Return a value as HTML, safe within the quotes of an attribute as well."""
    return value if isinstance(value, Html) else Html(html.escape(plain(value)))


def element(name: str, *content: object, **attributes: object) -> Html:
    """Return an element; `_` in attribute names becomes `-`, and attributes that are None are omitted."""
    named = {key.strip("_").replace("_", "-"): value for key, value in attributes.items()}
    opening = "".join(f' {key}="{escape(value)}"' for key, value in named.items() if value is not None)
    return Html(f"<{name}{opening}>{join(*content)}</{name}>")


def join(*content: object) -> Html:
    """Return the concatenation of several pieces."""
    return Html("".join(escape(piece) for piece in content))
