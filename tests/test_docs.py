"""Documents that must follow the code."""

import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from click.testing import CliRunner
from doubles import child_environment, load_script
from fozo._version import __version__
from fozo.cli import cli
from fozo.engine.registry import METHODS, parse_methods

ROOT = Path(__file__).parent.parent


def load_tool(name: str) -> ModuleType:
    return load_script(ROOT / "tools" / f"{name}.py")


def test_method_tables_are_those_of_the_code() -> None:
    """`python tools/method_tables.py` writes them."""
    page = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")
    assert load_tool("method_tables").update(page) == page
    overview = page[page.index("<!-- methods -->") : page.index("<!-- end -->")]
    for name, method in METHODS.items():
        (row,) = [line for line in overview.splitlines() if line.startswith(f"| `{name}` |")]
        assert row.split("|")[3].split()[0] == str(method.forwards), row


def test_a_new_method_gets_a_row_and_a_section() -> None:
    tool = load_tool("method_tables")
    page = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")
    start, end = page.index("## zoa\n"), page.index("## pizo\n")
    without = re.sub(r"\| `zoa` \|.*\n", "", page[:start] + page[end:], count=1)
    updated = tool.update(without)
    assert "\n| `zoa` |" in updated and "## zoa\n\n" in updated
    table = CliRunner().invoke(cli, ["methods", "zoa", "--markdown"]).output
    assert f"<!-- options of zoa -->\n{table}<!-- end -->\n" in updated
    assert tool.update(updated) == updated


def test_the_site_can_be_built(tmp_path: Path) -> None:
    """A broken link or anchor ends the build."""
    pytest.importorskip("mkdocs")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    result = subprocess.run(command, cwd=ROOT, env=child_environment(), capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    for module in ("fozo", "methods", "testing", "evaluation"):
        assert (tmp_path / "api" / f"{module}.html").stat().st_size > 15_000
    assert (tmp_path / "repository" / "examples" / "camera_loop.py").is_file()


def test_the_citation_names_version_and_licences() -> None:
    """Its format joins several licences of one work by "or" alone, so the digits are a reference."""
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {__version__}\n" in citation
    package = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    expression = re.search(r'^license = "(.+)"', package, re.MULTILINE)
    assert expression is not None
    licences = re.findall(r"^\s*license: (\S+)", citation, re.MULTILINE)
    assert licences == expression[1].split(" AND ")
    assert "10.24432/C50P49" in citation
    assert "10.24432/C50P49" in (ROOT / "data" / "demo_digits_license.txt").read_text(encoding="utf-8")


def test_links_between_documents_lead_somewhere() -> None:
    documents = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md")]
    for document in documents:
        if "node_modules" in document.parts:
            continue
        for part in document.read_text(encoding="utf-8").split("](")[1:]:
            target = part.split(")")[0].split("#")[0]
            assert "://" in target or not target or (document.parent / target).exists(), (document, target)


@pytest.mark.parametrize("name", ["index", "architecture", "extending", "methods"])
def test_files_in_the_guides_exist(name: str) -> None:
    text = (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8")
    paths = re.findall(r"`((?:\w+/)+[\w.]*)`", text)
    assert paths
    assert [path for path in paths if not (ROOT / path).exists()] == []


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
    try:
        module = load_script(path)
    finally:
        del sys.modules[path.stem]
    is_script = "__main__" in path.read_text(encoding="utf-8")
    assert is_script == callable(getattr(module, "main", None))
