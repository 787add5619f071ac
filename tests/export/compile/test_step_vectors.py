"""Stored steps: enough of them for the updates of a method."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from fozo.cli import cli
from fozo.engine.bundle.bundle import Bundle
from fozo.engine.files import from_npz
from fozo.engine.registry import method, parse_method
from fozo.export.compile.step_folder import StepRequest, compile_step
from fozo.export.compile.step_vectors import count_steps


@pytest.mark.parametrize(
    ("spec", "images", "expected"),
    [
        ("neo", 16, 5),
        ("pizo", 64, 5),
        ("pizo", 16, 8),
        ("pizo", 12, 12),
        ("pizo", 8, 16),
        ("pizo", 1, 65),  # one update and its effect
        ("pizo:update_images=128", 16, 16),
        ("pizo:update_images=128", 1, 5),  # no update: the command says so
    ],
)
def test_the_vectors_have_steps_for_updates(spec: str, images: int, expected: int) -> None:
    _, parsed = parse_method(spec)
    assert count_steps(parsed, images) == expected
    assert count_steps(parsed, images, 100) == 100


@pytest.mark.parametrize(("batch", "updates"), [(1, 1), (8, 2), (12, 2)])
def test_updates_take_place_in_the_vectors_of_a_fixed_batch(
    bundle_path: Path, tmp_path: Path, batch: int, updates: int
) -> None:
    request = StepRequest(Bundle.open(bundle_path), method("pizo"), batch=batch, vector_steps=2)
    compiled = compile_step(request, tmp_path / "step")
    assert compiled.steps_to_update is None
    vectors = from_npz(tmp_path / "step" / "vectors.npz")
    assert vectors["state.updates"][-1] == updates
    norms = vectors["state.norms"]
    assert len(norms) == compiled.steps + 1 and np.abs(norms[-2]).max() > 0


def test_a_warning_if_the_vectors_have_no_update(bundle_path: Path, tmp_path: Path) -> None:
    arguments = ["compile", str(bundle_path), "-m", "pizo:update_images=90", "--batch", "1"]
    result = CliRunner().invoke(cli, [*arguments, "--out", str(tmp_path / "step")], catch_exceptions=False)
    assert result.exit_code == 0
    assert "the 5 steps of the vectors have no update of pizo" in result.stderr
    assert "for one, compile with --vector-steps 91" in result.stderr
