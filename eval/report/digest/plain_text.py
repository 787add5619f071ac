"""Any value as one harmless line of text."""

from __future__ import annotations

import re
import unicodedata

# Characters that change the direction of the text after them; no label needs one.
_TURNS = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
_NOT_XML = "\ufffe\uffff"


def plain(value: object) -> str:
    """Return a value as one line of text that can be shown and encoded.

    Line breaks become spaces; control characters, lone surrogates and changes of direction become U+FFFD.
    """
    return "".join(map(_replace_harmful, re.sub(r"\s+", " ", str(value))))


def shorten(value: object, length: int = 28) -> str:
    """Return `plain(value)`, cut to `length` characters."""
    text = plain(value)
    return text if len(text) <= length else text[: length - 1] + "…"


def _replace_harmful(character: str) -> str:
    is_harmful = (
        unicodedata.category(character) in ("Cc", "Cs") or character in _TURNS or character in _NOT_XML
    )
    return "\ufffd" if is_harmful else character
