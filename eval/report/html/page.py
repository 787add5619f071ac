"""The report as one self-contained HTML file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import resources

from ..digest.comparison import Comparison
from ..digest.report_digest import Digest
from .elements import deepen_headings, table, warning
from .figures import render_speed
from .markup import Html, element, join
from .sections import render_run
from .svg import require_matplotlib
from .tuning_sections import render_tunings

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
    sections = list(_render_sections(digest, done))
    comparison = digest.comparison
    warnings = comparison.warnings if comparison else ()
    body = join(
        element("header", element("h1", digest.title), *map(warning, warnings)),
        element("main", *_arrange(sections)),
        element("footer", element("p", digest.origin)),
    )
    content = element("html", _render_head(digest.title), element("body", body), lang="en")
    return f"<!DOCTYPE html>\n{content}\n".encode()


@dataclass(frozen=True)
class _Section:
    """A section of the page: identifier, heading, what it is about in a few words, and content."""

    identifier: str
    name: str
    about: str
    content: Html


def _render_sections(digest: Digest, done: Callable[[int], None]) -> Iterator[_Section]:
    if digest.tunings is not None:
        yield _Section("tunings", "Tunings", digest.tunings.about, render_tunings(digest.tunings, "t"))
        done(len(digest.tunings.provenance.files.rows))
    if digest.comparison is not None:
        yield _Section("compared", "Side by side", "", _render_comparison(digest.comparison))
    for number, run in enumerate(digest.runs, 1):
        yield _Section(f"r{number}", run.name, run.about, render_run(run, f"r{number}"))
        done(1)


def _arrange(sections: Sequence[_Section]) -> list[Html]:
    """Return the sections below their headings, with contents before them; a single one stands for itself."""
    if len(sections) == 1:
        return [sections[0].content]
    rendered = (
        element(
            "section",
            element("h2", section.name, class_="run", id=section.identifier),
            deepen_headings(section.content),
        )
        for section in sections
    )
    return [_render_contents(sections), *rendered]


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


def _render_contents(sections: Sequence[_Section]) -> Html:
    entries = (_render_entry(section.identifier, section.name, section.about) for section in sections)
    return element("nav", element("ul", *entries), aria_label="Contents")


def _render_entry(target: str, name: str, about: str) -> Html:
    return element("li", element("a", name, href=f"#{target}"), element("span", about, class_="quiet"))


def _render_comparison(comparison: Comparison) -> Html:
    return join(
        warning(comparison.caution) if comparison.caution else "",
        table(comparison.methods),
        render_speed(comparison.speed, "compared-speed"),
        table(comparison.domains),
        table(comparison.differences) if comparison.differences else "",
    )
