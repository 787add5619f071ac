"""Checkpoints of streams with a state for each domain."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from domain_doubles import Scripted, Tally, batch, tally
from doubles import state_bits
from fozo.engine.errors import StateError
from fozo.engine.registry import Domains, Interval
from fozo.engine.streams.adapter import Adapter
from fozo.eval.results import partial_results as progress


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """Save a checkpoint with two earlier domains."""
    adapter = Adapter(Scripted(), Domains(Tally()))
    for letter in "ABC":
        adapter.step(batch(64 * letter))
    adapter.save(tmp_path / "state.npz")
    return tmp_path / "state.npz"


def rewrite(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    with np.load(path, allow_pickle=False) as archive:
        content = {name: archive[name] for name in archive.files}
    change(content)
    stream = io.BytesIO()
    np.savez(stream, **content)
    path.write_bytes(stream.getvalue())


def test_what_a_checkpoint_holds(saved: Path) -> None:
    rewrite(saved, lambda content: None)  # the refusals below are not due to how it is written
    adapter = Adapter(Scripted(), Domains(Tally()))
    adapter.load(saved)
    assert [tally(each) for each in adapter.state.earlier] == [{"A": 64}, {"B": 64}]  # type: ignore[attr-defined]
    with np.load(saved, allow_pickle=False) as archive:
        assert {name for name in archive.files if name.startswith("method.earlier.")} == {
            f"method.earlier.{place}.{name}"
            for place in (0, 1)
            for name in ("step", "seed", "learnt", "drawn")
        }


DAMAGES: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "a state less": (
        lambda content: [content.pop(name) for name in list(content) if name.startswith("method.earlier.1")],
        r"field method\.earlier\.1\.step does not fit",
    ),
    "the first state less": (
        lambda content: [content.pop(name) for name in list(content) if name.startswith("method.earlier.0")],
        r"field method\.earlier\.0\.step does not fit",
    ),
    "a domain less": (
        lambda content: content.update(
            {"method.earlier_statistics": content["method.earlier_statistics"][:1]}
        ),
        r"more states method\.earlier than method\.earlier_statistics has entries, 1",
    ),
    "no domain": (
        lambda content: content.update({"method.earlier_statistics": np.zeros((0, 0, 0))}),
        r"more states method\.earlier than method\.earlier_statistics has entries, 0",
    ),
    "a domain more": (
        lambda content: content.update(
            {"method.earlier_statistics": content["method.earlier_statistics"][[0, 1, 1]]}
        ),
        r"field method\.earlier\.2\.step does not fit",
    ),
    "no statistics at all": (
        lambda content: content.pop("method.earlier_statistics"),
        "field method.earlier_statistics does not fit",
    ),
    "statistics that are no numbers": (
        lambda content: content.update({"method.earlier_statistics": np.full((2, 2, 4), np.nan)}),
        "field method.earlier_statistics does not fit",
    ),
    "half a state": (
        lambda content: content.pop("method.earlier.1.learnt"),
        r"field method\.earlier\.1\.learnt does not fit",
    ),
    "a state of another shape": (
        lambda content: content.update({"method.earlier.0.learnt": np.zeros(5)}),
        r"field method\.earlier\.0\.learnt does not fit",
    ),
    "a state that is no number": (
        lambda content: content.update({"method.earlier.0.learnt": np.full(4, np.inf)}),
        r"field method\.earlier\.0\.learnt does not fit",
    ),
    "no last check": (
        lambda content: content.pop("method.checked.learnt"),
        r"field method\.checked\.learnt does not fit",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_checkpoints_that_do_not_fit(saved: Path, damage: str) -> None:
    change, message = DAMAGES[damage]
    rewrite(saved, change)
    adapter = Adapter(Scripted(), Domains(Tally()))
    before = adapter.state
    with pytest.raises(StateError, match=message) as caught:
        adapter.load(saved)
    assert str(saved) in str(caught.value)
    assert adapter.state is before


@pytest.mark.parametrize("other", [Domains(Tally(), 3), Domains(Tally(), 16, 0.06), Tally()])
def test_checkpoints_of_other_options(saved: Path, other: Any) -> None:
    with pytest.raises(StateError, match="options"):
        Adapter(Scripted(), other).load(saved)


def test_progress_of_an_evaluation_keeps_them(tmp_path: Path) -> None:
    """Two methods in one file, interrupted with earlier domains and a pool that is not full."""
    stream = [64 * "A", 64 * "B", 20 * "A", 64 * "C", 64 * "A", 64 * "B"]
    made = {"two": Domains(Tally(), 2), "updates": Domains(Interval(Tally(), 80), 5)}
    whole, stopped, resumed = (
        {label: Adapter(Scripted(), each, seed=6) for label, each in made.items()} for _ in range(3)
    )
    expected = {label: [adapter.step(batch(each)) for each in stream] for label, adapter in whole.items()}
    for adapter in stopped.values():
        for each in stream[:3]:
            adapter.step(batch(each))
    progress.save(tmp_path / "progress.npz", {}, [], stopped)
    progress.resume(resumed, progress.load(tmp_path / "progress.npz", {})[1])
    for label, adapter in resumed.items():
        assert state_bits(adapter.state) == state_bits(stopped[label].state)
        assert len(adapter.state.earlier) == 1  # type: ignore[attr-defined]
        assert [state_bits(adapter.step(batch(each))) for each in stream[3:]] == [
            state_bits(each) for each in expected[label][3:]
        ]
        assert state_bits(adapter.state) == state_bits(whole[label].state)
