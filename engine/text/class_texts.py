"""Texts of classes as tokens: what all classes share in front of their names, and what each has behind it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import InputError, has_controls
from .templates import PLACEHOLDER, split_template
from .tokenizer import Tokenizer

MAX_CLASSES = 100_000
SHOWN_DUPLICATES = 3


@dataclass(frozen=True)
class ClassTexts:
    """Texts of K classes.

    Attributes:
        words: tokens of the words in front of every name; none where learnt vectors are, or the name begins.
        tokens: for each class its tokens behind that: name, what the template has after it, and end token.
    """

    words: tuple[int, ...]
    tokens: tuple[tuple[int, ...], ...]


def check_names(names: Sequence[str]) -> tuple[str, ...]:
    """Return names of classes without space around them.

    Raises:
        InputError: there is none, or too many; or one is empty, or has control characters.
    """
    if isinstance(names, str) or not 0 < len(names) <= MAX_CLASSES:
        actual = f"the text {names[:40]!r}" if isinstance(names, str) else f"{len(names):,}"
        raise InputError(f"expected a list of 1 to {MAX_CLASSES:,} names of classes, found {actual}")
    for index, name in enumerate(names):
        if not isinstance(name, str) or not name.strip() or has_controls(name):
            raise InputError(
                f"expected names without control characters for all classes, found {name!r} for class {index}"
            )
    return tuple(name.strip() for name in names)


def tokenize_classes(
    tokenizer: Tokenizer,
    names: Sequence[str],
    template: str,
    context_length: int,
    context_vectors: int | None = None,
) -> ClassTexts:
    """Return the texts of all classes for one template.

    Args:
        tokenizer: of the text tower.
        names: of the classes.
        template: with `{}` for the name.
        context_length: tokens of a text at most, start and end included.
        context_vectors: number of the learnt vectors in front of every name; None: the template's words are.

    Raises:
        InputError: names or template cannot be used, or a text has too many tokens.
    """
    names, (words, ending) = check_names(names), split_template(template)
    if words and context_vectors is not None:
        raise InputError(
            f"expected a template that begins with the name, as learnt vectors come in front of it, like "
            f"'{{}}.', found {template!r}"
        )
    shared = tokenizer.encode(words)
    tokens = tuple(_tokenize(tokenizer, name, words, ending, shared) for name in names)
    longest = max(range(len(tokens)), key=lambda index: len(tokens[index]))
    count = 1 + (len(shared) if context_vectors is None else context_vectors) + len(tokens[longest])
    if count > context_length:
        raise InputError(
            f"expected at most {context_length} tokens for a text of this model, start and end included, "
            f"found {count} for the class {names[longest][:100]!r} in the template {template!r}; shorten them"
        )
    return ClassTexts(shared, tokens)


def _tokenize(
    tokenizer: Tokenizer, name: str, words: str, ending: str, shared: tuple[int, ...]
) -> tuple[int, ...]:
    """Return the tokens of one class behind the shared words, and the end token."""
    if not tokenizer.encode(name):
        raise InputError(f"expected a name with text for every class, found {name!r}")
    tokens = tokenizer.encode(f"{words} {ending.replace(PLACEHOLDER, name)}")
    if tokens[: len(shared)] != shared:
        raise InputError(f"the tokens of {words!r} change in front of the class {name!r}; name it otherwise")
    return (*tokens[len(shared) :], tokenizer.vocabulary.end)


def describe_duplicates(names: Sequence[str], texts: ClassTexts) -> str | None:
    """Return a warning about classes with the same text, or None.

    Args:
        names: of the classes.
        texts: of the same classes, for any template.
    """
    first: dict[tuple[int, ...], int] = {}
    pairs = [(first.setdefault(tokens, index), index) for index, tokens in enumerate(texts.tokens)]
    repeated = [pair for pair in pairs if pair[0] != pair[1]]
    if not repeated:
        return None
    shown = ", ".join(
        f"{names[later]!r} ({earlier} and {later})" for earlier, later in repeated[:SHOWN_DUPLICATES]
    )
    more = ", …" if len(repeated) > SHOWN_DUPLICATES else ""
    return (
        f"{len(repeated)} of {len(names)} classes have the text of an earlier class: {shown}{more}; their "
        "logits are equal, and the first of them is predicted"
    )
