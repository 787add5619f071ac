"""Documents that must follow the code."""

from pathlib import Path

import pytest
from click.testing import CliRunner
from fozo.cli import cli
from fozo.engine.methods import METHODS

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("name", ["shift", "fozo"])
def test_option_tables_are_those_of_the_code(name: str) -> None:
    table = CliRunner().invoke(cli, ["methods", name, "--markdown"]).output.strip()
    assert table in (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")


def test_every_method_is_documented() -> None:
    text = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")
    assert [name for name in METHODS if f"| `{name}` |" not in text] == []


def test_links_between_documents_lead_somewhere() -> None:
    for document in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for part in document.read_text(encoding="utf-8").split("](")[1:]:
            target = part.split(")")[0].split("#")[0]
            assert "://" in target or not target or (document.parent / target).exists(), (document, target)
