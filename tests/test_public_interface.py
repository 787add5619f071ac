"""The public modules: what they export, statically and at run time."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import fozo
import pytest

ROOT = Path(str(fozo.__file__)).parent
PUBLIC = ["", "evaluation", "methods", "testing"]


def tree_of(name: str) -> ast.Module:
    return ast.parse((ROOT / f"{name or '__init__'}.py").read_text(encoding="utf-8"))


def declared_names(tree: ast.Module) -> list[str]:
    """Return the names in a literal `__all__`, as a type checker reads it."""
    (value,) = [
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == ["__all__"]
    ]
    names: list[str] = ast.literal_eval(value)
    return names


def static_names(tree: ast.Module) -> set[str]:
    """Return the names that a type checker finds at the top of a module, behind `TYPE_CHECKING` too."""
    names: set[str] = set()
    for node in [
        inner for outer in tree.body for inner in ([outer] if not isinstance(outer, ast.If) else outer.body)
    ]:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return names


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_exists(name: str) -> None:
    module = import_module(f"fozo.{name}".rstrip("."))
    names = declared_names(tree_of(name))
    assert names == module.__all__
    assert len(set(names)) == len(names)
    for public in names:
        assert getattr(module, public) is not None


@pytest.mark.parametrize("name", PUBLIC)
def test_a_type_checker_sees_every_public_name(name: str) -> None:
    tree = tree_of(name)
    assert set(declared_names(tree)) <= static_names(tree)


def test_names_that_load_late_are_the_public_ones() -> None:
    assert {*fozo._MODULES, "__version__"} == set(fozo.__all__)
    with pytest.raises(AttributeError, match="nonsense"):
        fozo.nonsense  # noqa: B018


def test_every_public_module_is_described() -> None:
    page = (ROOT / "docs" / "stability.md").read_text(encoding="utf-8")
    for name in PUBLIC:
        assert f"`fozo{'.' if name else ''}{name}`" in page


def test_evaluation_loads_neither_torch_nor_drawing() -> None:
    code = "import sys, fozo.evaluation; print(*{name.split('.')[0] for name in sys.modules})"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not set(result.stdout.split()) & {"torch", "timm", "onnx", "click", "matplotlib", "sklearn", "ray"}


@pytest.mark.parametrize(
    ("file", "module"),
    [
        ("bundle", "engine.bundle.manifest"),
        ("state of an adapter", "engine.streams.checkpoint"),
        ("results", "eval.results.results_file"),
        ("progress of a run", "eval.results.partial_results"),
        ("sweep", "eval.sweep.folder"),
        ("samples", "eval.bench.bench_document"),
    ],
)
def test_schema_versions_are_those_of_the_code(file: str, module: str) -> None:
    page = (ROOT / "docs" / "stability.md").read_text(encoding="utf-8")
    (row,) = [line for line in page.splitlines() if line.startswith(f"| {file} (")]
    assert row.split(" | ")[1] == str(import_module(f"fozo.{module}").SCHEMA)
