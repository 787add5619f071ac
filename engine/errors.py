"""The exceptions that fozo raises on purpose.

Every message says what was expected, what was found, where, and what to do.
"""


def reason(error: BaseException) -> str:
    """Return the first line of an error's message, or its kind where it has none."""
    return (str(error).splitlines() or [type(error).__name__])[0]


class FozoError(Exception):
    """Base of all errors that fozo raises on purpose; the command line prints it as one line."""


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
