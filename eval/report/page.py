"""The page: one file that needs nothing else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import resources

from ..._version import __version__
from . import comparison
from .elements import table, warning
from .inputs import Source
from .markup import Html, element, join
from .sections import section, speed
from .svg import require

# Nothing is loaded from anywhere, and no script runs, whatever a label may contain.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
_NOT_ALIKE = (
    "These runs are not of the same images under the same protocol, so that differences between them are not due to"
    " the methods alone; the last table here says in what they differ."
)
_MARKS = (
    "Bold is the best of a run at the precision shown; ~ marks what differs from the first method of the run by no"
    " more than noise. Gains are against that method, with their standard error."
)


def render(
    sources: Sequence[Source], title: str | None = None, done: Callable[[int], None] = lambda count: None
) -> bytes:
    """The page of some results, as UTF-8; equal results give equal bytes.

    Args:
        sources: the results, at least one.
        title: its heading; by default it says what was measured.
        done: is told of every results file that has been drawn, with 1.

    Raises:
        InputError: matplotlib is not installed.
    """
    require()
    heading = title or default_title(sources)
    sections = []
    for number, source in enumerate(sources, 1):
        sections.append(_section(source, number, len(sources)))
        done(1)
    several = len(sources) > 1
    parts = [_contents(sources), _side_by_side(sources)] if several else []
    body = join(
        element("header", element("h1", heading), *_incomplete(sources if several else [])),
        element("main", *parts, *sections),
        element("footer", element("p", f"Made by fozo {__version__} from {_counted(sources)}.")),
    )
    return f"<!DOCTYPE html>\n{element('html', _head(heading), element('body', body), lang='en')}\n".encode()


def default_title(sources: Sequence[Source]) -> str:
    """What was measured, in a few words."""
    models = dict.fromkeys(str(source.results.bundle.get("model", "")) for source in sources)
    if len(sources) > 1:
        return f"{', '.join(models)}: {len(sources)} runs compared"
    results = sources[0].results
    return f"{', '.join(models)} {results.bundle.get('precision', '')}: {results.protocol.dataset}"


def _head(title: str) -> Html:
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


def _section(source: Source, number: int, of: int) -> Html:
    prefix = f"r{number}"
    heading = element("h2", source.name, id=prefix) if of > 1 else ""
    return element("section", heading, section(source, prefix))


def _contents(sources: Sequence[Source]) -> Html:
    entries = [("compared", "Side by side"), *((f"r{n}", source.name) for n, source in enumerate(sources, 1))]
    links = [element("li", element("a", text, href=f"#{target}")) for target, text in entries]
    return element("nav", element("ul", *links), aria_label="Contents")


def _incomplete(sources: Sequence[Source]) -> list[Html]:
    """One line at the top for what the sections say about themselves."""
    names = [source.name for source in sources if not source.results.complete]
    return [warning(f"Incomplete: {', '.join(names)}.")] if names else []


def _side_by_side(sources: Sequence[Source]) -> Html:
    """What differs between the runs, and their accuracies beside each other."""
    different = comparison.differences(sources)
    return element(
        "section",
        element("h2", "Side by side", id="compared"),
        *([] if comparison.alike(sources) else [warning(_NOT_ALIKE)]),
        table(comparison.overall(sources)),
        element("p", _MARKS, class_="quiet"),
        speed(sources, "compared-speed"),
        table(comparison.domains(sources)),
        *([] if different is None else [table(different)]),
    )


def _counted(sources: Sequence[Source]) -> str:
    return f"{len(sources)} results files" if len(sources) > 1 else sources[0].path.name
