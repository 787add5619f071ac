"""The state that a method carries from batch to batch, and how its fields are declared."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any, TypeVar


@dataclass(frozen=True)
class State:
    """Everything that a method carries from batch to batch; each method adds its own fields.

    Randomness is a pure function of `seed` and `step`, so these two are the whole random state. A field is a
    number, an array of a fixed shape, another state, or another dataclass or named tuple of such fields. An
    array that is None at first is declared with `optional_array`, one whose length changes with
    `variable_length_array`, and any number of states with `state_list`, so that a checkpoint can be checked.

    Attributes:
        step: batches processed.
        seed: seed of the method's random draws.
    """

    step: int
    seed: int


StateT = TypeVar("StateT", bound=State)


def optional_array(*axes: str) -> Any:
    """Declare an array that is None at first, then float64 with these attributes of `ModelInfo` as axes."""
    return field(default=None, metadata={"axes": axes})


def variable_length_array(axes: int = 1, **options: Any) -> Any:
    """Declare an array whose first `axes` axes may change their length; the other axes stay as in `init`.

    Args:
        axes: number of leading axes of variable length.
        options: `default` or `default_factory` of the dataclass field.
    """
    return field(metadata={"variable_axes": axes}, **options)


def state_list(template: str, parallel_to: str) -> Any:
    """Declare a tuple of states, empty at first.

    Args:
        template: field whose state has the type and shapes of each.
        parallel_to: array field with one entry per state; it must come before this field.
    """
    return field(default=(), metadata={"template": template, "parallel_to": parallel_to})


def list_fields(record: Any) -> tuple[str, ...] | None:
    """Return the field names of a dataclass or named tuple (value or type), or None for any other value."""
    if is_dataclass(record):
        return tuple(f.name for f in fields(record))
    names = getattr(record, "_fields", None)
    return tuple(names) if isinstance(names, tuple) else None


def iterate_values(record: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield name and content of every number and array in a state.

    A field of a nested record is named `record.field`, one of a list of states `states.0.field`.
    """
    for name in list_fields(record) or ():
        value = getattr(record, name)
        if list_fields(value) is not None:
            yield from iterate_values(value, f"{prefix}{name}.")
        elif isinstance(value, tuple):
            for index, entry in enumerate(value):
                yield from iterate_values(entry, f"{prefix}{name}.{index}.")
        else:
            yield prefix + name, value


def replace_step_counts(state: StateT, later: State) -> StateT:
    """Return `state` with the step counts of a later state, so that no random direction is drawn twice.

    >>> replace_step_counts(State(step=3, seed=7), later=State(step=5, seed=7))
    State(step=5, seed=7)
    """
    nested: dict[str, Any] = {
        f.name: replace_step_counts(value, getattr(later, f.name))
        for f in fields(state)
        if isinstance(value := getattr(state, f.name), State)
    }
    return replace(state, step=later.step, **nested)
