"""Options of the methods of a tuning, and their defaults: published ones where there are any."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

WORDS = "a photo of a"

_ZIP_PRESET = {"budget": 5000, "rate": 0.01, "dimension": 500}
# Defaults that differ between methods, as fields of `TuningSpec`. Without words, the context is random.
PRESETS: Mapping[str, Mapping[str, Any]] = {
    "sapt": {"epochs": 50, "batch": 32, "crops": 0, "rate": 0.002, "words": WORDS},
    "zo-sapt": {"epochs": 250, "batch": None, "crops": 0, "rate": 0.01, "words": WORDS},
    "zip": {**_ZIP_PRESET, "batch": 128, "crops": None, "words": "", "vectors": 8},
    "zip-cached": {**_ZIP_PRESET, "batch": None, "crops": 0, "words": WORDS},
    "gda": {"epochs": 1, "batch": None, "crops": 0, "words": WORDS},
    "bpt": {"budget": 5000, "batch": 128, "crops": None, "dimension": 2000, "words": "", "vectors": 5},
    "bar": {"budget": 5000, "batch": 128, "crops": None, "rate": 10.0, "words": WORDS},
    "blackvip": {"budget": 5000, "batch": 128, "crops": None, "rate": 0.01, "words": WORDS},
}
IMAGE_METHODS = ("bar", "blackvip")  # learn something that is added to the images, and leave the texts
_LOOP = ("epochs", "batch", "crops")
_TRAINING = ("vectors", *_LOOP)
_FORWARDS = (*_TRAINING, "budget")
_PAIRS = ("rate", "pairs", "perturbation")
_ZIP = (*_FORWARDS, *_PAIRS, "update", "dimension", "rank", "shared")
# Options that not every method has.
OPTIONS: Mapping[str, tuple[str, ...]] = {
    "sapt": (*_TRAINING, "rate", "radius", "sharpness", "momentum", "decay"),
    "zo-sapt": (*_FORWARDS, *_PAIRS, "radius", "sharpness"),
    "zip": _ZIP,
    "zip-cached": _ZIP,
    "bpt": (*_FORWARDS, "dimension", "population", "sigma", "first_batches", "visual"),
    "gda": ("alpha",),
    "bar": (*_LOOP, "budget", "rate", "directions", "perturbation"),
    "blackvip": (*_LOOP, "budget", *_PAIRS, "encoder"),
}


def list_foreign_options(method: str) -> list[str]:
    """Return the options that a method does not have, and others do, in alphabetical order.

    >>> list_foreign_options("zip")[:5]
    ['alpha', 'decay', 'directions', 'encoder', 'first_batches']
    """
    return sorted({name for names in OPTIONS.values() for name in names} - set(OPTIONS[method]))
