"""The report as one self-contained HTML file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import resources

from ..digest.comparison import Comparison
from ..digest.report_digest import Digest, RunDigest
from .elements import deepen_headings, table, warning
from .figures import render_speed
from .markup import Html, element, join
from .sections import render_run
from .svg import require_matplotlib

# Nothing is loaded from anywhere, and no script runs, whatever a label may contain.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def render(digest: Digest, done: Callable[[int], None] = lambda count: None) -> bytes:
    """Return the page as UTF-8; equal results give equal bytes.

    Args:
        digest: content of the page.
        done: is called with 1 after every results file.

    Raises:
        InputError: matplotlib is not installed.
    """
    require_matplotlib()
    sections = []
    for number, run in enumerate(digest.runs, 1):
        sections.append(_render_section(run, number, len(digest.runs)))
        done(1)
    comparison = digest.comparison
    warnings = comparison.warnings if comparison else ()
    overview = [_render_contents(digest.runs), _render_comparison(comparison)] if comparison else []
    body = join(
        element("header", element("h1", digest.title), *map(warning, warnings)),
        element("main", *overview, *sections),
        element("footer", element("p", digest.origin)),
    )
    content = element("html", _render_head(digest.title), element("body", body), lang="en")
    return f"<!DOCTYPE html>\n{content}\n".encode()


def _render_head(title: str) -> Html:
    style = resources.files(__package__).joinpath("style.css").read_text(encoding="utf-8")
    return element(
        "head",
        Html('<meta charset="utf-8">'),
        Html(f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'),
        Html('<meta name="viewport" content="width=device-width, initial-scale=1">'),
        Html('<meta name="color-scheme" content="light dark">'),
        element("title", title),
        element("style", Html(style)),
    )


def _render_section(run: RunDigest, number: int, count: int) -> Html:
    prefix = f"r{number}"
    content = render_run(run, prefix)
    if count == 1:
        return content
    return element("section", element("h2", run.name, class_="run", id=prefix), deepen_headings(content))


def _render_contents(runs: Sequence[RunDigest]) -> Html:
    entries = [_render_entry(f"r{number}", run.name, run.about) for number, run in enumerate(runs, 1)]
    return element(
        "nav",
        element("ul", _render_entry("compared", "Side by side", ""), *entries),
        aria_label="Contents",
    )


def _render_entry(target: str, name: str, about: str) -> Html:
    return element("li", element("a", name, href=f"#{target}"), element("span", about, class_="quiet"))


def _render_comparison(comparison: Comparison) -> Html:
    return element(
        "section",
        element("h2", "Side by side", class_="run", id="compared"),
        warning(comparison.caution) if comparison.caution else "",
        table(comparison.methods),
        render_speed(comparison.speed, "compared-speed"),
        table(comparison.domains),
        table(comparison.differences) if comparison.differences else "",
    )
