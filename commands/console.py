"""Text for consoles and logs that cannot show every character: it degrades, and no run ends for that."""

from __future__ import annotations

import codecs
import io
import json
import sys

import click

_HANDLER = "fozo.degrade"
# Characters of fozo's own texts; any other becomes an escape as in JSON.
_PLAIN = {
    **{"…": "...", "–": "-", "—": "-", "→": "->", "←": "<-", "±": "+-", "×": "x", "·": "*", "−": "-"},
    **{"≤": "<=", "≥": ">=", "≈": "~", "µ": "u", "μ": "u", "σ": "sigma", "ε": "epsilon", "§": "section "},
}


def degrade_characters() -> None:
    """Make standard output and error replace characters that their encoding lacks, instead of failing."""
    codecs.register_error(_HANDLER, _replace_characters)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_HANDLER)


def echo_json(text: str) -> None:
    """Print JSON; characters that standard output cannot encode become escapes, so that no value changes."""
    try:
        text.encode(sys.stdout.encoding)
    except UnicodeEncodeError:
        text = "".join(character if character.isascii() else _escape(character) for character in text)
    click.echo(text)


def _replace_characters(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    characters = error.object[error.start : error.end]
    return "".join(_PLAIN.get(character) or _escape(character) for character in characters), error.end


def _escape(character: str) -> str:
    return json.dumps(character)[1:-1]
