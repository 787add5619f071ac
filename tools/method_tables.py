"""Write the tables of docs/methods.md from the code: `python tools/method_tables.py`.

The option tables stand between markers and are what `fozo methods NAME --markdown` prints. A method that the
page lacks gets a row in the overview and a section, to be completed by hand.
"""

from __future__ import annotations

import re
from pathlib import Path

from click.testing import CliRunner
from fozo.cli import cli
from fozo.engine.registry import METHODS, AnyMethod, describe

PAGE = Path(__file__).resolve().parent.parent / "docs" / "methods.md"
_OVERVIEW = re.compile(r"(?<=<!-- methods -->\n).*?(?=<!-- end -->)", re.DOTALL)
_OPTIONS = re.compile(r"(?<=<!-- options of )(\w+)( -->\n).*?(?=<!-- end -->)", re.DOTALL)
_END_OF_SECTIONS = "## Options of every method\n"


def update(page: str) -> str:
    """Return the text of docs/methods.md with tables that agree with the code."""
    for name, method in METHODS.items():
        if type(method).__module__.startswith("fozo."):  # no methods of other packages
            page = _add_missing(page, name, method)
    return _OPTIONS.sub(lambda match: f"{match[1]}{match[2]}{_format_options(match[1])}", page)


def _add_missing(page: str, name: str, method: AnyMethod) -> str:
    """Add what the page lacks of a method: its row of the overview, and the section of its class."""
    summary = (type(method).__doc__ or "").splitlines()[0]
    overview = _OVERVIEW.search(page)
    if overview and f"| `{name}` |" not in overview[0]:
        row = f"| `{name}` | | {method.forwards} | | {summary} |\n"
        page = page[: overview.end()] + row + page[overview.end() :]
    if describe(method) and f"<!-- options of {method.name} -->" not in page:
        section = f"## {method.name}\n\n{summary}\n\n<!-- options of {method.name} -->\n<!-- end -->\n\n"
        page = page.replace(_END_OF_SECTIONS, section + _END_OF_SECTIONS)
    return page


def _format_options(name: str) -> str:
    result = CliRunner().invoke(cli, ["methods", name, "--markdown"], catch_exceptions=False)
    return result.output


def main() -> None:
    """Update the page in place."""
    PAGE.write_text(update(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
