"""Fixtures of the tests of the report."""

from __future__ import annotations

from pathlib import Path

import pytest
from fozo.eval.report.digest.sources import Source
from report_doubles import domain, results_of, run_of, save_source


@pytest.fixture
def two_seeds(tmp_path: Path) -> Source:
    """fog: 60 to 75 and 64 to 77 of 100 images; snow: no clear difference; and clean images."""
    seeds = [
        [domain("fog", 60, 75), domain("snow", 50, 51), domain("clean", 90, 88)],
        [domain("fog", 64, 77), domain("snow", 52, 51), domain("clean", 92, 91)],
    ]
    return save_source(tmp_path / "two.json", results_of([run_of(d, 2000 + s) for s, d in enumerate(seeds)]))
