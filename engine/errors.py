"""The exceptions that fozo raises on purpose.

Every message says what was expected, what was found, where, and what to do.
"""

from __future__ import annotations

import re

# Control characters, which terminals obey, and those that turn the direction of text or break lines.
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def escape_controls(text: object) -> str:
    r"""Return a text as one line that no terminal obeys.

    >>> escape_controls("cat\x1b[2J")
    'cat\\x1b[2J'
    """
    return _CONTROLS.sub(lambda match: repr(match.group())[1:-1], str(text))


def has_controls(text: str) -> bool:
    """Return true if `escape_controls` would change a text."""
    return _CONTROLS.search(text) is not None


def reason(error: BaseException) -> str:
    """Return the first line of an error's message, or its kind where it has none.

    Errors of the system say what happened, without number and path: messages name the path themselves.
    """
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return (text.splitlines() or [type(error).__name__])[0]


class FozoError(Exception):
    """Base of all errors that fozo raises on purpose; the command line prints it as one line.

    File names and other texts in a message may come from strangers, so controls are escaped.
    """

    def __str__(self) -> str:
        return escape_controls(super().__str__())


class BundleError(FozoError):
    """A bundle is missing, truncated, tampered with, or lacks something that was asked for."""


class InputError(FozoError):
    """Images, folders or options that cannot be used."""


class StateError(FozoError):
    """A checkpoint that cannot be read, or that belongs to another bundle or method."""


class ExportError(FozoError):
    """A model that cannot be exported, or weights that do not fit it."""


class OutputError(FozoError):
    """A result that cannot be written: no permission, no space, or something in the way."""


class ComputeError(FozoError):
    """ONNX Runtime failed while it computed a batch, most often for lack of memory."""
