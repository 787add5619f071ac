"""Fit of a state dict to a timm model: by its names, behind a common prefix, or as timm converts it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from timm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn
from torch import nn

from .checkpoint_file import State, holds_its_values

_MAX_LISTED_KEYS = 8
_POSITIONS = "pos_embed"
# Names of tensors that inference does not use: counters of averaging and of batch norms, and the token that
# stands for hidden patches in DINOv2's training.
_UNUSED = ("n_averaged", "mask_token")
_COUNTER = "num_batches_tracked"


@dataclass(frozen=True)
class Fit:
    """A state dict, named as the model names its tensors, and where it does not fit.

    Attributes:
        state: tensors by name; only those that are loaded, if all fit.
        prefix: common beginning of the names in the file, which is left out here.
        missing: names that the model has and the file has not.
        unexpected: names that the file has and the model has not.
        misshapen: names whose shapes differ.
        notes: what was changed beside names, in sentences.
    """

    state: State
    prefix: str
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    misshapen: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        """True if every name and shape is that of the model."""
        return not (self.missing or self.unexpected or self.misshapen)

    @property
    def problems(self) -> int:
        """Number of names that do not fit."""
        return len(self.missing) + len(self.unexpected) + len(self.misshapen)

    def describe(self, model: Any) -> str:
        """Return what does not fit, in words."""
        expected = model.state_dict()
        shapes = [
            f"{key} {list(self.state[key].shape)} instead of {list(expected[key].shape)}"
            for key in self.misshapen
        ]
        texts = [
            _list_keys("missing", self.missing),
            _list_keys("unexpected", self.unexpected),
            _list_keys("of another shape", shapes),
        ]
        prefix = f"behind the prefix {self.prefix!r}, " if self.prefix else ""
        return prefix + "; ".join(filter(None, texts))


def fit_state(model: nn.Module, state: State, *, resample: bool = False) -> Fit:
    """Fit a state dict to a model without guessing: every tensor is used, and every one has its place.

    Args:
        model: the model.
        state: tensors by their names in the file.
        resample: resample position embeddings of another image size, as timm does.
    """
    expected = model.state_dict()
    prefix = find_prefix(state, expected)
    renamed = {key.removeprefix(prefix): value for key, value in state.items()}
    if len(renamed) < len(state):  # names with and without the prefix: those without it are others
        prefix, renamed = "", dict(state)
    for key in _UNUSED:
        if key not in expected:
            renamed.pop(key, None)
    for key in expected:
        if key.endswith(_COUNTER):
            renamed.setdefault(key, expected[key])
    fit = _compare(expected, renamed, prefix)
    if fit.complete or not isinstance(model, VisionTransformer):
        return fit
    return _convert(model, fit, resample) or fit


def find_prefix(state: Iterable[str], expected: Iterable[str]) -> str:
    """Return the text before the model's names that most of a file's names share; empty if there is none."""
    names = frozenset(expected)
    prefixes: Counter[str] = Counter()
    for key in state:
        words = key.split(".")
        places = (place for place in range(len(words)) if ".".join(words[place:]) in names)
        if (place := next(places, None)) is not None:
            prefixes[".".join([*words[:place], ""]) if place else ""] += 1
    return prefixes.most_common(1)[0][0] if prefixes else ""


def count_pixels(model: Any, positions: int) -> int | None:
    """Return the side of the square images that so many position embeddings are for, if there is one."""
    tokens = positions - (0 if model.no_embed_class else model.num_prefix_tokens)
    side = math.isqrt(max(0, tokens))
    return side * int(model.patch_embed.patch_size[0]) if side * side == tokens > 0 else None


def _compare(expected: State, state: State, prefix: str, notes: tuple[str, ...] = ()) -> Fit:
    both = sorted(expected.keys() & state.keys())
    return Fit(
        state,
        prefix,
        tuple(sorted(expected.keys() - state.keys())),
        tuple(sorted(state.keys() - expected.keys())),
        tuple(key for key in both if state[key].shape != expected[key].shape),
        notes,
    )


def _convert(model: Any, fit: Fit, resample: bool) -> Fit | None:
    """Return what timm's loader makes of a state dict, if it then fits and nothing was dropped."""
    resized = fit.misshapen == (_POSITIONS,)
    if (resized and not resample) or not all(map(holds_its_values, fit.state.values())):
        return None
    try:
        converted = checkpoint_filter_fn(dict(fit.state), model, adapt_layer_scale=True)
    except Exception:  # it is written for files that it knows
        return None
    if _count_values(converted, resized) != _count_values(fit.state, resized):
        return None
    notes: tuple[str, ...] = ()
    if resized:
        old, new = (count_pixels(model, state[_POSITIONS].shape[1]) for state in (fit.state, converted))
        notes = (describe_resampling(old, new),)
    result = _compare(model.state_dict(), converted, fit.prefix, notes)
    return result if result.complete else None


def describe_resampling(old: int | None, new: int | None) -> str:
    """Return the note on position embeddings that were resampled from one image size to another."""
    return (
        f"position embeddings were resampled from images of {old} × {old} pixels to {new} × {new}, as timm "
        "does"
    )


def _count_values(state: State, without_positions: bool) -> int:
    return sum(value.numel() for key, value in state.items() if not (without_positions and key == _POSITIONS))


def _list_keys(label: str, keys: Iterable[str]) -> str:
    names = list(keys)
    more = f" and {len(names) - _MAX_LISTED_KEYS} more" if len(names) > _MAX_LISTED_KEYS else ""
    return f"{len(names)} {label} ({', '.join(names[:_MAX_LISTED_KEYS])}{more})" if names else ""
