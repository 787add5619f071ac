"""HTML in which everything is escaped that is not HTML already."""

from __future__ import annotations

import html
import re
import unicodedata

# Characters that turn the direction of what follows; a label needs none.
_TURNS = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
_NOT_XML = "\ufffe\uffff"


class Html(str):
    """Text that is HTML already."""

    __slots__ = ()


def plain(value: object) -> str:
    """A value as one line of text that can be shown and encoded.

    Line breaks become spaces; control characters, lone surrogates and turns of direction become U+FFFD.
    """
    return "".join(map(_harmless, re.sub(r"\s+", " ", str(value))))


def shorten(value: object, length: int = 28) -> str:
    """`plain`, cut to a number of characters."""
    text = plain(value)
    return text if len(text) <= length else text[: length - 1] + "…"


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


def _harmless(character: str) -> str:
    odd = unicodedata.category(character) in ("Cc", "Cs") or character in _TURNS or character in _NOT_XML
    return "\ufffd" if odd else character
