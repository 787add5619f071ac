"""Steps and digits that the programs of all languages are tested with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from host_doubles import COMPILED, STEPS, compile_demo, measure_engine_accuracy, save_photos, write_digits


@pytest.fixture(scope="session")
def compiled_step(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`compiled_step(method, precision="fp32", *arguments)`: a folder that is compiled once; read-only."""
    folders: dict[tuple[str, ...], Path] = {}

    def compile_once(method: str, precision: str = "fp32", *arguments: str) -> Path:
        key = (method, precision, *arguments)
        if key not in folders:
            folder = tmp_path_factory.mktemp("step") / "step"
            steps = ("--vector-steps", str(STEPS)) if key in COMPILED else ()
            folders[key] = compile_demo(folder, method, precision, *steps, *arguments)
        return folders[key]

    return compile_once


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of corrupted digits; read-only."""
    return write_digits(tmp_path_factory.mktemp("digits"))


@pytest.fixture(scope="session")
def engine_accuracy(digits: Path) -> Callable[[str, str, int], float]:
    """`engine_accuracy(method, precision, batch)`: of the engine on the digits, in percent."""
    known: dict[tuple[str, str, int], float] = {}

    def measure_once(method: str, precision: str, batch: int) -> float:
        key = (method, precision, batch)
        if key not in known:
            known[key] = measure_engine_accuracy(digits, *key)
        return known[key]

    return measure_once


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of 20 photos of several formats and sizes; read-only."""
    return save_photos(tmp_path_factory.mktemp("photos"))
