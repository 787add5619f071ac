"""Lists of classes, as people write them: identifiers and names in the order of a model's outputs."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from ..engine.errors import InputError
from .text_lists import read_entries

Labels = tuple[str, ...]
_WORDNET_ID = re.compile(r"n\d{8}")


def read_class_names(path: Path, classes: int) -> tuple[Labels, Labels]:
    """Read identifiers and names from a text file, one class per line in the order of the logits.

    The first word of a line, or all before its first tab, is the identifier (the folder name in a data set);
    the rest is the name.

    Raises:
        InputError: the file cannot be read, has another number of lines, or an identifier twice.
    """
    entries = read_entries(path, "list of classes")
    fields = [_split(line) for _, line in entries]
    identifiers = tuple(words[0].strip() for words in fields)
    lines: dict[str, int] = {}
    for (number, _), identifier in zip(entries, identifiers, strict=True):
        if lines.setdefault(identifier, number) != number:
            raise InputError(
                f"expected distinct classes, one per line, in {path}, found {identifier!r} in lines "
                f"{lines[identifier]} and {number}; end identifiers of several words with a tab"
            )
    if len(identifiers) != classes:
        raise InputError(
            f"expected {classes} distinct classes, one per line, in {path}; found {len(identifiers)} lines"
        )
    return identifiers, tuple(words[-1].strip() for words in fields)


def _split(line: str) -> list[str]:
    return line.split("\t" if "\t" in line else None, maxsplit=1)


def read_names(path: Path, ids: bool | None = None) -> tuple[Labels, Labels]:
    """Read identifiers and names of any number of classes from a text file, one per line.

    A line is a name, or an identifier, a space or tab, and a name. Underscores in names stand for spaces, as
    in names of folders. Names without identifiers are the identifiers themselves, as they are written.

    Args:
        path: the file.
        ids: whether lines begin with identifiers. None: they do if every line has a tab, or begins with a
            WordNet identifier like n01440764.

    Raises:
        InputError: the file cannot be read or is empty, a line has no name, or an identifier occurs twice; or
            it is unclear whether there are identifiers.
    """
    entries = read_entries(path, "list of class names")
    if not entries:
        raise InputError(f"expected names of classes, one per line, in {path}, found none")
    if ids is None:
        ids = _guess_ids(path, entries)
    fields = [_split(line) if ids else [line, line] for _, line in entries]
    for (number, line), words in zip(entries, fields, strict=True):
        if len(words) != 2 or not words[1].strip():
            raise InputError(
                f"expected an identifier and a name in line {number} of {path}, found {line!r}; put a tab "
                "between them, or leave identifiers out everywhere"
            )
    identifiers = tuple(words[0].strip() for words in fields)
    (most_frequent, count), *_ = Counter(identifiers).most_common(1)
    if count > 1:
        raise InputError(
            f"expected different {'identifiers' if ids else 'names'} in {path}, found {most_frequent!r} "
            f"{count} times; put a different identifier and a tab in front of each name"
        )
    return identifiers, tuple(" ".join(words[1].replace("_", " ").split()) for words in fields)


def _guess_ids(path: Path, entries: list[tuple[int, str]]) -> bool:
    """Return true if all lines begin with identifiers, and false if none does.

    Raises:
        InputError: some do, or all begin with numbers, which may be identifiers.
    """
    marked = ["\t" in line or bool(_WORDNET_ID.fullmatch(line.split()[0])) for _, line in entries]
    numbered = all(line.split()[0].isdigit() and len(line.split()) > 1 for _, line in entries)
    if all(marked) or not (any(marked) or numbered):
        return all(marked)
    number, line = entries[0] if numbered else entries[marked.index(not marked[0])]
    raise InputError(
        f"expected identifiers in all lines of {path} or in none, found {line!r} in line {number}; put a tab "
        "behind each identifier, or pass --ids or --no-ids to fozo classes"
    )
