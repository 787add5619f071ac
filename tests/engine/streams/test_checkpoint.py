"""Checkpoints: only what fits is loaded, and a file on disk is always a whole one."""

from __future__ import annotations

import errno
import io
import json
import os
import zipfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from doubles import STAND_IN_METHODS, state_bits
from fozo.engine.errors import InputError, OutputError, StateError
from fozo.engine.model import ImageArray
from fozo.engine.registry import METHODS, AnyMethod, Fozo, Shift, method
from fozo.engine.state import State
from fozo.engine.streams.adapter import Adapter

StandIn = Callable[..., Any]


def images(count: int, seed: int = 0) -> ImageArray:
    made: ImageArray = np.random.default_rng(seed).integers(0, 256, (count, 2, 2, 3), dtype=np.uint8)
    return made


def same(left: State, right: State) -> bool:
    """Return whether two states of one type agree in every bit."""
    assert type(left) is type(right)
    return bool(state_bits(left) == state_bits(right))


def running(stand_in: StandIn, method: AnyMethod | None = None, batches: int = 3) -> Adapter:
    adapter = Adapter(stand_in(), Fozo() if method is None else method, seed=11)
    for batch in range(batches):
        adapter.step(images(5, batch))
    return adapter


@pytest.fixture
def adapter(stand_in: StandIn) -> Adapter:
    return running(stand_in)


@pytest.fixture
def saved(adapter: Adapter, tmp_path: Path) -> Path:
    path = tmp_path / "state.npz"
    adapter.save(path)
    return path


def members(path: Path) -> dict[str, Any]:
    with np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def rewrite(path: Path, **changes: Any) -> None:
    """Rewrite a checkpoint with some members replaced, or left out where the new value is None."""
    content = {**members(path), **changes}
    stream = io.BytesIO()
    np.savez(stream, **{name: value for name, value in content.items() if value is not None})
    path.write_bytes(stream.getvalue())


def assert_refused(path: Path, adapter: Adapter, match: str | None = None) -> None:
    """Expect a StateError that names the file and the remedy, and an adapter that is as it was."""
    before, frozen = adapter.state, adapter.frozen_batches
    with pytest.raises(StateError, match=match) as caught:
        adapter.load(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert adapter.state is before
    assert adapter.frozen_batches == frozen
    adapter.step(images(5))


@pytest.mark.parametrize("batches", [0, 1, 4])
@pytest.mark.parametrize("name", STAND_IN_METHODS)
def test_round_trip(stand_in: StandIn, tmp_path: Path, name: str, batches: int) -> None:
    norms = {f"blocks.{block}.norm{norm}": 3 for block in (0, 1) for norm in (1, 2)}
    with_norms = partial(stand_in, norms=norms)
    adapter = running(with_norms, METHODS[name], batches)
    adapter.save(tmp_path / "state.npz")
    other = Adapter(with_norms(), METHODS[name], seed=11)
    other.load(tmp_path / "state.npz")
    assert same(other.state, adapter.state)
    for batch in range(3):
        assert (
            other.step(images(5, batch)).logits.tobytes() == adapter.step(images(5, batch)).logits.tobytes()
        )
    assert same(other.state, adapter.state)


def test_loading_replaces_what_was_learnt_since(adapter: Adapter, saved: Path) -> None:
    then = adapter.state
    adapter.step(images(5, 9))
    assert not same(adapter.state, then)
    adapter.load(str(saved))
    assert same(adapter.state, then)


def test_loading_an_early_state_forgets_what_it_did_not_have(stand_in: StandIn, tmp_path: Path) -> None:
    adapter = running(stand_in, batches=0)
    adapter.save(tmp_path / "initial.npz")
    adapter.step(images(5))
    adapter.load(tmp_path / "initial.npz")
    assert isinstance(adapter.state, type(Adapter(stand_in(), Fozo()).state))
    assert getattr(adapter.state, "center", 0) is None
    assert adapter.state.schedule.loss_average is None  # type: ignore[attr-defined]


def test_count_of_guarded_batches_is_kept(stand_in: StandIn, tmp_path: Path) -> None:
    adapter = running(stand_in)
    adapter.restore(replace(adapter.snapshot(), frozen_batches=3))
    adapter.save(tmp_path / "state.npz")
    other = running(stand_in, batches=0)
    other.load(tmp_path / "state.npz")
    assert other.frozen_batches == 3


def test_equal_states_give_equal_files(stand_in: StandIn, tmp_path: Path) -> None:
    for name in ("a", "b"):
        running(stand_in).save(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]  # the name is taken as given


# --- files that are no checkpoints


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"not a checkpoint", b"\x00" * 1000])
def test_not_an_npz(adapter: Adapter, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "state.npz"
    path.write_bytes(content)
    assert_refused(path, adapter)


def test_a_single_array(adapter: Adapter, tmp_path: Path) -> None:
    path = tmp_path / "state.npz"
    with path.open("wb") as stream:
        np.save(stream, np.zeros(3))
    assert_refused(path, adapter)


def test_missing_and_folder(adapter: Adapter, tmp_path: Path) -> None:
    assert_refused(tmp_path / "none.npz", adapter)
    assert_refused(tmp_path, adapter)


def test_truncated_anywhere(adapter: Adapter, saved: Path, tmp_path: Path) -> None:
    content = saved.read_bytes()
    path = tmp_path / "cut.npz"
    for length in [*range(0, len(content), 37), len(content) - 1]:
        path.write_bytes(content[:length])
        assert_refused(path, adapter)


def test_flipped_bits_are_refused_or_harmless(adapter: Adapter, saved: Path, tmp_path: Path) -> None:
    content = saved.read_bytes()
    path = tmp_path / "flipped.npz"
    then = adapter.state
    adapter.load(saved)
    then = adapter.state
    refused = 0
    for position in range(0, len(content), 3):
        changed = bytearray(content)
        changed[position] ^= 1 << position % 8
        path.write_bytes(bytes(changed))
        try:
            adapter.load(path)
        except StateError:
            refused += 1
        assert same(adapter.state, then), position  # dates and flags of the archive may differ
    assert refused > len(content) / 3 / 2


class Payload:
    """Runs when it is unpickled."""

    ran = False

    def __reduce__(self) -> Any:
        return (setattr, (Payload, "ran", True))


@pytest.mark.parametrize(
    "name", ["header", "method.prompts", "method.center", "method.schedule.loss_average", "extra"]
)
def test_pickled_content_is_never_read(adapter: Adapter, saved: Path, name: str) -> None:
    poison = np.empty(1, object)
    poison[0] = Payload()
    content = {**members(saved), name: poison}
    np.savez(saved, **content)
    assert_refused(saved, adapter)
    assert not Payload.ran


def test_a_bare_pickle(adapter: Adapter, tmp_path: Path) -> None:
    poison = np.empty(1, object)
    poison[0] = Payload()
    path = tmp_path / "state.npz"
    poison.dump(path)
    assert_refused(path, adapter)
    assert not Payload.ran


# --- checkpoints of something else


def test_another_bundle(stand_in: StandIn, saved: Path) -> None:
    network = stand_in()
    network.info = replace(network.info, identity="another")
    assert_refused(
        saved, Adapter(network, Fozo(), seed=11), "belongs to another model: another bundle, precision"
    )


def test_another_precision_is_called_by_its_name(stand_in: StandIn, tmp_path: Path) -> None:
    network = stand_in()
    network.info = replace(network.info, precision="int8")
    Adapter(network, Fozo(), seed=11).save(tmp_path / "state.npz")
    other = stand_in()
    other.info = replace(other.info, identity="another", precision="fp32")
    with pytest.raises(
        StateError, match=r"stream in the precision int8, and this one runs fp32; .*--precision"
    ):
        Adapter(other, Fozo(), seed=11).load(tmp_path / "state.npz")
    other.info = replace(other.info, identity=network.info.identity)  # the same graph under another name
    Adapter(other, Fozo(), seed=11).load(tmp_path / "state.npz")


def test_another_selection_of_classes(stand_in: StandIn, saved: Path) -> None:
    network = stand_in()
    network.info = network.info.select([2, 1, 0])
    with pytest.raises(StateError, match="another model"):
        Adapter(network, Fozo(), seed=11).load(saved)


@pytest.mark.parametrize("method", [Shift(), METHODS["no_adapt"]])
def test_another_method(stand_in: StandIn, saved: Path, method: AnyMethod) -> None:
    assert_refused(saved, Adapter(stand_in(), method, seed=11), "method")


@pytest.mark.parametrize(
    "changes", [{"prompts": 4}, {"samples": 2}, {"shift": "none"}, {"spike_ratio": 1.06}]
)
def test_other_options(stand_in: StandIn, saved: Path, changes: dict[str, Any]) -> None:
    assert_refused(saved, Adapter(stand_in(), replace(Fozo(), **changes), seed=11), "options")


def test_shifts_to_different_targets_are_different(stand_in: StandIn, tmp_path: Path) -> None:
    running(stand_in, METHODS["shift"]).save(tmp_path / "state.npz")
    assert_refused(tmp_path / "state.npz", Adapter(stand_in(), METHODS["shift_origin"], seed=11), "options")


def test_another_seed(stand_in: StandIn, saved: Path) -> None:
    assert_refused(saved, Adapter(stand_in(), Fozo(), seed=12), "seed")


@pytest.mark.parametrize("header", [{}, [], 3, None, {"schema": 3}, {"schema": 1}])
def test_a_header_of_another_kind(adapter: Adapter, saved: Path, header: Any) -> None:
    rewrite(saved, header=np.frombuffer(json.dumps(header).encode(), np.uint8))
    assert_refused(saved, adapter, "schema")


def test_an_older_schema_says_to_start_again(adapter: Adapter, saved: Path) -> None:
    rewrite(saved, header=np.frombuffer(json.dumps({"schema": 1}).encode(), np.uint8))
    assert_refused(saved, adapter, "older version of fozo.*start again")


@pytest.mark.parametrize("header", [b"", b"{", b"\xff\xfe"])
def test_a_header_that_is_no_json(adapter: Adapter, saved: Path, header: bytes) -> None:
    rewrite(saved, header=np.frombuffer(header, np.uint8))
    assert_refused(saved, adapter)


# --- content that does not fit

WRONG: list[tuple[str, Any]] = [
    ("prompts", np.zeros((4, 3), np.float32)),
    ("prompts", np.zeros((3, 3), np.float64)),
    ("prompts", np.zeros(9, np.float32)),
    ("prompts", np.full((3, 3), np.nan, np.float32)),
    ("prompts", None),
    ("prompts", np.array("text")),
    ("epsilon", np.array([0.5])),
    ("epsilon", np.array(np.inf)),
    ("epsilon", np.array(1)),
    ("epsilon", None),
    ("rate", np.array("0.1")),
    ("step", np.array(1.5)),
    ("step", np.array([1, 2])),
    ("step", None),
    ("seed", np.array([11])),
    ("loss_average", np.array(np.nan)),
    ("loss_average", np.array([1.0, 2.0])),
    ("loss_average", np.array("text")),
    ("center", np.zeros(4)),
    ("center", np.zeros((1, 3))),
    ("center", np.zeros(3, np.int64)),
    ("center", np.array("text")),
    ("center", np.array([1.0, np.inf, 0.0])),
]


@pytest.mark.parametrize(
    ("name", "value"), WRONG, ids=[f"{name}-{index}" for index, (name, _) in enumerate(WRONG)]
)
def test_a_field_that_does_not_fit(adapter: Adapter, saved: Path, name: str, value: Any) -> None:
    nested = "schedule." if name in ("epsilon", "rate", "loss_average") else ""
    rewrite(saved, **{f"method.{nested}{name}": value})
    assert_refused(saved, adapter, name)


def test_rewriting_alone_changes_nothing(adapter: Adapter, saved: Path) -> None:
    """The refusals above are due to what was changed, and not to how it was written."""
    then = adapter.state
    rewrite(saved)
    adapter.step(images(5))
    adapter.load(saved)
    assert same(adapter.state, then)


# --- writing


def test_missing_folder(adapter: Adapter, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="none"):
        adapter.save(tmp_path / "none" / "state.npz")
    assert not list(tmp_path.iterdir())


def test_parent_is_a_file(adapter: Adapter, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="file"):
        adapter.save(tmp_path / "file" / "state.npz")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_folder_is_in_the_way(adapter: Adapter, tmp_path: Path) -> None:
    (tmp_path / "state.npz").mkdir()
    with pytest.raises(OutputError, match=r"state\.npz"):
        adapter.save(tmp_path / "state.npz")
    assert [path.name for path in tmp_path.iterdir()] == ["state.npz"]


@pytest.mark.parametrize("function", ["fsync", "replace"])
def test_a_failing_write_keeps_the_old_file(
    adapter: Adapter, saved: Path, monkeypatch: pytest.MonkeyPatch, function: str
) -> None:
    old, then = saved.read_bytes(), adapter.state
    adapter.step(images(5, 7))

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        if function == "fsync":
            patch.setattr(os, "fsync", full)
        else:
            patch.setattr(Path, "replace", full)
        with pytest.raises(OutputError, match="No space left"):
            adapter.save(saved)
    assert saved.read_bytes() == old
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]
    adapter.load(saved)
    assert same(adapter.state, then)


def test_an_interrupted_write_leaves_nothing(
    adapter: Adapter, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = saved.read_bytes()

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", interrupt)
        with pytest.raises(KeyboardInterrupt):
            adapter.save(saved)
    assert saved.read_bytes() == old
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]


def test_no_temporary_files_are_left(adapter: Adapter, saved: Path) -> None:
    for _ in range(3):
        adapter.step(images(5))
        adapter.save(saved)
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]


def test_permissions_follow_the_umask(adapter: Adapter, tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        adapter.save(tmp_path / "state.npz")
    finally:
        os.umask(old)
    assert (tmp_path / "state.npz").stat().st_mode & 0o777 == 0o640


def test_the_file_is_plain(saved: Path) -> None:
    """An ordinary uncompressed archive that any NumPy opens without pickle."""
    with zipfile.ZipFile(saved) as archive:
        assert archive.testzip() is None
        assert all(entry.compress_type == zipfile.ZIP_STORED for entry in archive.infolist())
    assert {
        "header",
        "frozen_batches",
        "method.step",
        "method.seed",
        "method.prompts",
        "method.schedule.rate",
    } <= set(members(saved))


@pytest.mark.parametrize("seed", [-1, 2**63, 1.5, "1", True, None])
def test_seeds_that_are_none(stand_in: StandIn, seed: Any) -> None:
    with pytest.raises(InputError, match="a seed must be an integer"):
        Adapter(stand_in(), method("fozo"), seed)


def test_a_numpy_seed_is_a_seed(stand_in: StandIn, tmp_path: Path) -> None:
    adapter = Adapter(stand_in(), method("fozo"), np.int64(7))
    adapter.save(tmp_path / "state.npz")
    Adapter(stand_in(), method("fozo"), 7).load(tmp_path / "state.npz")
