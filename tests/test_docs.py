"""Documents that must follow the code."""

import importlib.util
import re
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from fozo.cli import cli
from fozo.engine.registry import METHODS, parse_methods

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize(
    "name", ["shift", "moments", "lame", "t3a", "bn_adapt", "foa", "fozo", "zoa", "pizo", "common"]
)
def test_option_tables_are_those_of_the_code(name: str) -> None:
    table = CliRunner().invoke(cli, ["methods", name, "--markdown"]).output.strip()
    assert table in (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")


def test_every_method_is_documented() -> None:
    text = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")
    assert [name for name in METHODS if f"| `{name}` |" not in text] == []


def test_links_between_documents_lead_somewhere() -> None:
    for document in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        for part in document.read_text(encoding="utf-8").split("](")[1:]:
            target = part.split(")")[0].split("#")[0]
            assert "://" in target or not target or (document.parent / target).exists(), (document, target)


def test_no_document_is_unfinished() -> None:
    for document in [ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("*.md")]:
        text = document.read_text(encoding="utf-8")
        assert len(text) > 200, document
        assert "@@" not in text, document


def test_methods_in_the_documents_can_be_typed() -> None:
    for document in (ROOT / "README.md", ROOT / "docs" / "benchmarks.md"):
        specs = re.findall(r"(?<!python )-m ([\w=:.,]+)", document.read_text(encoding="utf-8"))
        assert specs
        for spec in specs:
            parse_methods([spec])


@pytest.mark.parametrize("path", sorted((ROOT / "bench").glob("*.py")), ids=lambda path: path.name)
def test_benches_can_be_loaded(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are run by hand; an import that is gone would go unnoticed."""
    monkeypatch.syspath_prepend(path.parent)  # as `python bench/…` does
    specification = importlib.util.spec_from_file_location(path.stem, path)
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[path.stem] = module  # dataclasses look their module up
    try:
        specification.loader.exec_module(module)
    finally:
        del sys.modules[path.stem]
    assert callable(module.main)
