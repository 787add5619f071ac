"""Texts as CLIP's tokenizer cleans them before it splits them, and refusal of texts that are damaged.

The published tokenizer repairs damaged text with the package ftfy first. The steps of it that have one right
answer are done here as well: entities of HTML, straight quotes, letters instead of ligatures, ordinary width,
and Unicode's composed form (NFC). Guesses are not made: a text with wrongly decoded characters is refused.
"""

from __future__ import annotations

import html
import re
import unicodedata

from ..errors import InputError

MAX_CHARACTERS = 2000  # the longest token of the published vocabulary has 32, and a sentence 77 tokens
_ENTITY = re.compile(r"&#?[0-9A-Za-z]{1,24};")
_QUOTES = dict.fromkeys(map(ord, "\u02bc\u2018\u2019\u201a\u201b"), "'")
_QUOTES |= dict.fromkeys(map(ord, "\u201c\u201d\u201e\u201f"), '"')
_LIGATURES = (0x132, 0x133, 0x149, *range(0x1C4, 0x1CD), 0x1F1, 0x1F2, 0x1F3, *range(0xFB00, 0xFB07))
_FULL_WIDTH = (0x3000, *range(0xFF01, 0xFFF0))
# Characters that show nothing and that ftfy removes, and the one that stands for damaged bytes.
_INVISIBLE = frozenset("\ufeff\ufff9\ufffa\ufffb\ufffc\ufffd" + "".join(map(chr, range(0x206A, 0x2070))))
# The bytes of Windows-1252 behind characters outside of Latin-1, as characters of Latin-1.
_WINDOWS = {
    ord(bytes([byte]).decode("cp1252")): chr(byte)
    for byte in range(0x80, 0xA0)
    if byte not in (0x81, 0x8D, 0x8F, 0x90, 0x9D)
}
# UTF-8 that was read as Latin-1 or Windows-1252. A capital letter may well stand before a sign, so two such
# bytes count only for the letters of Western and Central Europe, or in a row.
_MISREAD = re.compile(
    "[\xc2-\xc5][\x80-\xbf]|(?:[\xc6-\xdf][\x80-\xbf]){2}|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}"
)


def _decompose(code: int) -> str:
    """Return the characters that a ligature consists of."""
    return "".join(chr(int(digits, 16)) for digits in unicodedata.decomposition(chr(code)).split()[1:])


_ORDINARY = {
    **{code: unicodedata.normalize("NFKC", chr(code)) for code in _FULL_WIDTH},
    **{code: _decompose(code) for code in _LIGATURES},
    **_QUOTES,
}


def clean_text(text: str) -> str:
    """Return a text in lower case, with single spaces, and with plain characters where it had fancy ones.

    >>> clean_text("  Children\u2019s  Caf\u0065\u0301 &amp; Bar")
    "children's café & bar"

    Raises:
        InputError: it has more than 2,000 characters; or characters that are damaged, invisible, or unknown
            to this version of Python, so that nobody can tell which tokens it has.
    """
    if len(text) > MAX_CHARACTERS:
        raise InputError(
            f"expected a text of at most {MAX_CHARACTERS:,} characters, found {len(text):,}: {text[:40]!r}…"
        )
    unescaped, fixed = "<" not in text, text
    while True:
        before = fixed
        if unescaped:
            fixed = _ENTITY.sub(lambda match: html.unescape(match.group()), fixed)
        _check_characters(fixed, text)
        fixed = unicodedata.normalize("NFC", fixed.translate(_ORDINARY))
        if fixed == before:
            break
    fixed = html.unescape(html.unescape(fixed))
    _check_characters(fixed, text)
    if match := _ENTITY.search(fixed):
        raise InputError(f"unknown HTML entity {match.group()!r} in {text!r}; write the character itself")
    return " ".join(fixed.split()).lower()


def _check_characters(text: str, original: str) -> None:
    """Refuse characters that are no text.

    Raises:
        InputError: there is one; the message names it.
    """
    if text.isascii() and text.isprintable():
        return
    for character in text:
        category = unicodedata.category(character)
        if (category == "Cc" and character != "\t") or category == "Cs" or character in _INVISIBLE:
            raise InputError(
                f"found the control or invisible character U+{ord(character):04X} in {original!r}, "
                "expected a line of text; remove it"
            )
        if category == "Cn":
            raise InputError(
                f"the character U+{ord(character):04X} in {original!r} is unknown to this Python, which has "
                f"Unicode {unicodedata.unidata_version}; use other characters"
            )
    if _MISREAD.search(text.translate(_WINDOWS)):
        raise InputError(
            f"{original!r} looks like UTF-8 that was read as Latin-1, as Ã© is read for é; save the text as "
            "UTF-8, or write it with other characters"
        )
