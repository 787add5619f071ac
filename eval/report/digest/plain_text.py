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
    """Return `plain(value)`, cut to `length` characters in its middle: names often differ at their end.

    >>> shorten("vit_base_patch16_224 fp32", 16)
    'vit_base_…4 fp32'
    """
    text = plain(value)
    if len(text) <= length:
        return text
    tail = (length - 1) * 2 // 5
    return f"{text[: length - 1 - tail]}…{text[-tail:]}"


def _replace_harmful(character: str) -> str:
    is_harmful = (
        unicodedata.category(character) in ("Cc", "Cs") or character in _TURNS or character in _NOT_XML
    )
    return "\ufffd" if is_harmful else character
