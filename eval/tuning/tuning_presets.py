"""Options of the methods that learn a context, and their defaults: published ones where there are any."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

WORDS = "a photo of a"

# Defaults that differ between methods, as fields of `TuningSpec`. Without words, the context is random.
PRESETS: Mapping[str, Mapping[str, Any]] = {
    "sapt": {"epochs": 50, "batch": 32, "crops": 0, "rate": 0.002, "words": WORDS},
    "zo-sapt": {"epochs": 250, "batch": None, "crops": 0, "rate": 0.01, "words": WORDS},
    "zip": {"budget": 5000, "batch": 128, "crops": None, "rate": 0.01, "words": "", "vectors": 8},
    "zip-cached": {"budget": 5000, "batch": None, "crops": 0, "rate": 0.01, "words": WORDS},
}
_ZIP = ("epochs", "budget", "pairs", "perturbation", "update", "dimension", "rank", "shared")
# Options that not every method has.
OPTIONS: Mapping[str, tuple[str, ...]] = {
    "sapt": ("epochs", "radius", "sharpness", "momentum", "decay"),
    "zo-sapt": ("epochs", "budget", "radius", "sharpness", "pairs", "perturbation"),
    "zip": _ZIP,
    "zip-cached": _ZIP,
}


def list_foreign_options(method: str) -> list[str]:
    """Return the options that a method does not have, and others do, in alphabetical order.

    >>> list_foreign_options("zo-sapt")
    ['decay', 'dimension', 'momentum', 'rank', 'shared', 'update']
    """
    return sorted({name for names in OPTIONS.values() for name in names} - set(OPTIONS[method]))
