"""Progress of an interrupted evaluation: one file with all results and states, written atomically."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...engine.errors import StateError
from ...engine.files import from_npz, to_npz, write_atomic
from ...engine.ordinary_files import parse_json
from ...engine.records import load_record, to_dict
from ...engine.streams.adapter import Adapter
from ...engine.streams.checkpoint import flatten, unflatten
from .outcome import Run

SCHEMA = 4


@dataclass(frozen=True)
class _Header:
    """The JSON part of the file; `key` and `runs` are those of `save`."""

    schema: int
    key: dict[str, Any]
    runs: list[Run]


@dataclass(frozen=True)
class Saved:
    """Saved states of the methods of a run.

    Attributes:
        path: path of the file.
        arrays: arrays of all states, by name.
    """

    path: Path
    arrays: dict[str, NDArray[Any]]


def get_path(results: Path) -> Path:
    """Return the path for the progress of a run, given the path of its results."""
    return results.with_suffix(".progress.npz")


def save(path: Path, key: Mapping[str, Any], runs: Sequence[Run], adapters: Mapping[str, Adapter]) -> None:
    """Write runs, the last of which is unfinished, and the states of its methods.

    Args:
        path: path of the file.
        key: JSON values that must agree when the run is continued.
        runs: one per seed that was begun.
        adapters: adapters of the last run by label, in their current state.

    Raises:
        OutputError: the file cannot be written; an older one is left as it was.
    """
    header = to_dict(_Header(SCHEMA, dict(key), list(runs)))
    states: dict[str, NDArray[Any]] = {}
    for index, adapter in enumerate(adapters.values()):
        states.update(flatten(adapter.snapshot(), f"{index}/"))
    write_atomic(path, to_npz(header=np.frombuffer(json.dumps(header).encode(), np.uint8), **states))


def load(path: Path, key: Mapping[str, Any]) -> tuple[list[Run], Saved]:
    """Return the saved runs, and the states of the methods of the last one.

    Raises:
        StateError: the file is damaged, or belongs to a run with another key.
    """
    try:
        arrays: dict[str, Any] = dict(from_npz(path))
        header = load_record(_Header, parse_json(arrays.pop("header").tobytes()), "header")
        if header.schema != SCHEMA:
            raise ValueError(f"expected schema {SCHEMA}, found {header.schema}")
    except (ValueError, KeyError) as error:
        raise StateError(
            f"{path} is not readable progress of a run ({error}); remove it, and start without --resume"
        ) from error
    now = json.loads(json.dumps(key))  # tuples are lists there
    saved_key = header.key
    differing = [name for name in {**now, **saved_key} if now.get(name) != saved_key.get(name)]
    if differing:
        raise StateError(
            f"{path} is the progress of another run: "
            f"{'; '.join(_describe_difference(name, now, saved_key) for name in differing)}. "
            "Give the same options as then, or start without --resume"
        )
    return header.runs, Saved(path, arrays)


def resume(adapters: Mapping[str, Adapter], saved: Saved) -> None:
    """Restore the saved states of adapters.

    Raises:
        StateError: a saved state does not belong to the method.
    """
    for index, adapter in enumerate(adapters.values()):
        template = adapter.initial_state()
        state = unflatten(saved.path, saved.arrays, template, adapter.network.info, f"{index}/")
        adapter.restore(state)


def _describe_difference(name: str, current: Mapping[str, Any], saved: Mapping[str, Any]) -> str:
    """Describe the difference in one entry of the keys; of dictionaries, name only entries that differ."""
    now, then = current.get(name), saved.get(name)
    if isinstance(now, dict) and isinstance(then, dict):
        names = [entry for entry in {**now, **then} if now.get(entry) != then.get(entry)]
        now, then = ({entry: side.get(entry) for entry in names} for side in (now, then))
    return f"{name} is {now!r} now and was {then!r}"
