"""Names, docstrings and structure, as tools/measure.py measures them."""

from __future__ import annotations

import ast
from pathlib import Path
from types import ModuleType

import pytest
from doubles import load_script

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def measure() -> ModuleType:
    return load_script(ROOT / "tools" / "measure.py")


def test_words_stay_within_the_limits(measure: ModuleType) -> None:
    result = measure.measure(ROOT)
    summary = result.summary()
    assert summary["files"] > 100
    for name, limit in measure.LIMITS.items():
        occurrences = getattr(result, name.removesuffix("_percent"))
        shown = "\n".join(f"{item.path}:{item.line}: {item.text}" for item in occurrences)
        assert summary[name] <= limit, f"{name} is {summary[name]}, above {limit}:\n{shown}"


def test_file_names_are_unique(measure: ModuleType) -> None:
    assert measure.repeated_file_names(ROOT) == {}


@pytest.mark.parametrize(
    ("package", "rooms", "arrows"),
    [("engine", 18, 58), ("eval", 13, 26)],
)
def test_packages_stay_as_simple(measure: ModuleType, package: str, rooms: int, arrows: int) -> None:
    structure = measure.structure(ROOT, package)
    assert len(structure.rooms) <= rooms, structure.rooms
    assert len(structure.arrows) <= arrows, structure.arrows
    assert structure.circles == []


def test_the_measure_sees_what_it_is_for(measure: ModuleType, tmp_path: Path) -> None:
    code = (
        '"""What it is."""\n'
        "def _moved(found):\n    each = 1\n    self.whole: int = each\n\n"
        "class A:\n    @property\n    def guarded(self): ...\n    def speed_up(self): ...\n"
    )
    names = [name for _, name in measure.bound_names(ast.parse(code))]
    assert sorted(names) == sorted(
        ["_moved", "found", "each", "whole", "A", "guarded", "self", "speed_up", "self"]
    )
    (tmp_path / "engine").mkdir()
    (tmp_path / "engine" / "a.py").write_text(code, encoding="utf-8")
    result = measure.measure(tmp_path)
    assert {item.text for item in result.empty_names} == {"found", "each", "whole"}
    assert [item.text for item in result.participle_functions] == ["_moved"]
    assert [item.text for item in result.empty_openings] == ["What it is."]


def test_the_measure_sees_circles(measure: ModuleType, tmp_path: Path) -> None:
    for name, content in (
        ("a", "from .b import x"),
        ("b", "from .c import x"),
        ("c", "from .a import x"),
        ("d", "from .a import x"),
    ):
        (tmp_path / "engine").mkdir(exist_ok=True)
        (tmp_path / "engine" / f"{name}.py").write_text(content, encoding="utf-8")
    structure = measure.structure(tmp_path, "engine")
    assert structure.rooms == ["a", "b", "c", "d"]
    assert structure.arrows == [("a", "b"), ("b", "c"), ("c", "a"), ("d", "a")]
    assert structure.circles == [("a", "b"), ("a", "c"), ("b", "c")]
