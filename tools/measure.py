"""Measure names, docstrings and structure of the code base: `python tools/measure.py [--json] [--list]`.

The limits that the project holds itself to are in `LIMITS`; tests/test_words.py compares. Only code that is
installed counts, so tests, benches and examples are left out.
"""

from __future__ import annotations

import argparse
import ast
import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

PACKAGES = ("engine", "export", "quant", "data", "eval", "commands")

# Names that do not say what they stand for.
_EMPTY_NAMES = """
ahead alike apart asked back begun chosen each every following found given heard how kept known learnt
left_over need odd oddities others own part parts place places rest said seen several shown taken there
wanted what whole
"""
EMPTY_NAMES = frozenset(_EMPTY_NAMES.split())
# A docstring that begins with one of these describes a question or a circumstance, not a result.
EMPTY_OPENINGS = frozenset(["What", "Whether", "Which", "How", "Of", "In", "Those", "That", "With", "Such"])
# Irregular past participles; regular ones end in -ed.
_PARTICIPLES = """
begun brought drawn found given gone heard held kept known learnt left lost made met moved paid put seen
sent slid spent stood taken thought told thrown written
"""
PARTICIPLES = frozenset(_PARTICIPLES.split())
# Words that end in -ed and are no participles.
NOT_PARTICIPLES = frozenset(["need", "feed", "seed", "speed", "embed", "exceed", "proceed", "shed", "shred"])

LIMITS = {
    "empty_names_percent": 0.3,
    "participle_functions_percent": 1.0,
    "empty_openings_percent": 0.0,
}


@dataclass(frozen=True)
class Occurrence:
    """One name or docstring, and the line it stands in."""

    path: str
    line: int
    text: str


@dataclass
class Measurement:
    """Counts over the code base, and the occurrences behind each count that has a limit."""

    files: int = 0
    lines: int = 0
    bindings: int = 0
    functions: int = 0
    docstrings: int = 0
    empty_names: list[Occurrence] = field(default_factory=list)
    participle_functions: list[Occurrence] = field(default_factory=list)
    empty_openings: list[Occurrence] = field(default_factory=list)
    function_lines: list[int] = field(default_factory=list)

    def summary(self) -> dict[str, float]:
        """Return counts and percentages by name."""
        lengths = sorted(self.function_lines) or [0]
        return {
            "files": self.files,
            "lines": self.lines,
            "bindings": self.bindings,
            "functions": self.functions,
            "docstrings": self.docstrings,
            "empty_names_percent": _percent(len(self.empty_names), self.bindings),
            "participle_functions_percent": _percent(len(self.participle_functions), self.functions),
            "empty_openings_percent": _percent(len(self.empty_openings), self.docstrings),
            "function_lines_median": lengths[len(lengths) // 2],
            "function_lines_90th_percentile": lengths[len(lengths) * 9 // 10],
            "function_lines_most": lengths[-1],
        }


def _percent(count: int, total: int) -> float:
    return round(100 * count / total, 2) if total else 0.0


def source_files(root: Path) -> list[Path]:
    """Return the Python files that are installed, sorted by path."""
    inside = [path for package in PACKAGES for path in (root / package).rglob("*.py")]
    return sorted([*root.glob("*.py"), *inside])


def measure(root: Path) -> Measurement:
    """Measure every installed file below the root of the repository."""
    result = Measurement()
    for path in source_files(root):
        text = path.read_text(encoding="utf-8")
        result.files += 1
        result.lines += text.count("\n")
        _measure_file(result, str(path.relative_to(root)), ast.parse(text))
    return result


def _measure_file(result: Measurement, path: str, tree: ast.Module) -> None:
    for line, name in bound_names(tree):
        result.bindings += 1
        if name.strip("_") in EMPTY_NAMES:
            result.empty_names.append(Occurrence(path, line, name))
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            result.functions += 1
            result.function_lines.append((node.end_lineno or node.lineno) - node.lineno + 1)
            if not _is_property(node) and is_led_by_participle(node.name):
                result.participle_functions.append(Occurrence(path, node.lineno, node.name))
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and (
            text := ast.get_docstring(node)
        ):
            result.docstrings += 1
            if re.split(r"\W", text, maxsplit=1)[0] in EMPTY_OPENINGS:
                line = getattr(node, "lineno", 1)
                result.empty_openings.append(Occurrence(path, line, text.splitlines()[0]))


def bound_names(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield the line and name of everything that code binds: variables, arguments, attributes, functions."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            yield node.lineno, node.name
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.attr


def is_led_by_participle(name: str) -> bool:
    """Return whether the first word of a function's name is a past participle."""
    first = name.strip("_").split("_")[0]
    if first in PARTICIPLES:
        return True
    return first.endswith("ed") and len(first) > 3 and first not in NOT_PARTICIPLES


def _is_property(node: ast.FunctionDef) -> bool:
    names = {decorator.id for decorator in node.decorator_list if isinstance(decorator, ast.Name)}
    return bool(names & {"property", "cached_property"})


@dataclass(frozen=True)
class Structure:
    """Rooms on one level of a package (files and folders), and imports between them."""

    rooms: list[str]
    arrows: list[tuple[str, str]]
    circles: list[tuple[str, str]]


def structure(root: Path, package: str) -> Structure:
    """Return the rooms of a package, the imports between them, and the pairs that import each other.

    Args:
        root: of the repository.
        package: a folder below it, such as `eval`.
    """
    base = root / package
    rooms = {_room(path, base) for path in base.rglob("*.py")} - {"__init__"}
    arrows: set[tuple[str, str]] = set()
    for path in base.rglob("*.py"):
        source = _room(path, base)
        for target in imported_modules(path, root):
            if target[:1] == (package,) and len(target) > 1 and target[1] in rooms - {source, "__init__"}:
                arrows.add((source, target[1]))
    arrows = {(a, b) for a, b in arrows if a in rooms}
    reachable = _closure(arrows)
    circles = sorted((a, b) for a, b in reachable if a < b and (b, a) in reachable)
    return Structure(sorted(rooms), sorted(arrows), circles)


def _room(path: Path, base: Path) -> str:
    return path.relative_to(base).parts[0].removesuffix(".py")


def imported_modules(path: Path, root: Path) -> set[tuple[str, ...]]:
    """Return what a file imports by relative imports, as names below the root of the repository."""
    package = path.relative_to(root).parent.parts
    modules: set[tuple[str, ...]] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = package[: len(package) - node.level + 1]
            target = (*base, *(node.module.split(".") if node.module else ()))
            modules |= {(*target, alias.name) for alias in node.names}
    return modules


def _closure(arrows: set[tuple[str, str]]) -> set[tuple[str, str]]:
    reachable = set(arrows)
    while new := {(a, d) for a, b in reachable for c, d in reachable if b == c} - reachable:
        reachable |= new
    return reachable


def repeated_file_names(root: Path) -> dict[str, int]:
    """Return how often each file name occurs, for those that occur more than once."""
    names = Counter(path.name for path in source_files(root) if path.name != "__init__.py")
    return {name: count for name, count in sorted(names.items()) if count > 1}


def main() -> None:
    """Print the measurements of a checkout."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("root", nargs="?", type=Path, default=Path(__file__).resolve().parent.parent)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--list", action="store_true", help="list every occurrence as well")
    options = parser.parse_args()
    result = measure(options.root)
    levels = {package: structure(options.root, package) for package in ("engine", "eval")}
    repeated = repeated_file_names(options.root)
    if options.json:
        record = {"summary": result.summary(), "repeated_file_names": repeated}
        print(json.dumps({**record, **{name: asdict(level) for name, level in levels.items()}}, indent=2))
        return
    for name, value in result.summary().items():
        limit = f"  (limit {LIMITS[name]:g})" if name in LIMITS else ""
        print(f"{name:32} {value:>10g}{limit}")
    for name, level in levels.items():
        circles = ", ".join("-".join(pair) for pair in level.circles) or "none"
        print(f"{name}/: {len(level.rooms)} rooms, {len(level.arrows)} arrows, circles: {circles}")
    print("file names that occur more than once:", ", ".join(repeated) or "none")
    if options.list:
        for kind in ("empty_names", "participle_functions", "empty_openings"):
            print(f"\n{kind}")
            for item in getattr(result, kind):
                print(f"  {item.path}:{item.line}: {item.text}")


if __name__ == "__main__":
    main()
