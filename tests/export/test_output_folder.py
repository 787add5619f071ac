"""Folders that a command writes, when it is interrupted."""

from __future__ import annotations

from pathlib import Path

import pytest
from fozo.export.output_folder import swap_content


@pytest.mark.parametrize("moves", range(1, 12, 2))
def test_an_interrupted_replacement_leaves_the_old_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moves: int
) -> None:
    new, folder, names, rename = tmp_path / "new", tmp_path / "step", ("a", "b", "c", "d", "e"), Path.rename
    for path in (new, folder):
        path.mkdir()
        for name in names:
            (path / name).write_text(path.name)
    calls = 0

    def rename_some(path: Path, target: Path) -> Path:
        nonlocal calls
        calls += 1
        if calls == moves:
            raise OSError("disk failure")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", rename_some)
    if moves <= 2 * len(names):
        with pytest.raises(OSError, match="disk failure"):
            swap_content(new, folder, names)
    else:
        swap_content(new, folder, names)
    expected = "step" if moves <= 2 * len(names) else "new"
    assert {path.name: path.read_text() for path in folder.iterdir()} == dict.fromkeys(names, expected)
