"""The report as one self-contained HTML file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import resources

from ...._version import __version__
from ..digest import comparison
from ..digest import explanations as words
from ..digest.groups import seen
from ..digest.sources import Source
from .elements import deeper, table, warning
from .figures import speed
from .markup import Html, element, join
from .sections import section
from .svg import require

# Nothing is loaded from anywhere, and no script runs, whatever a label may contain.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def render(
    sources: Sequence[Source], title: str | None = None, done: Callable[[int], None] = lambda count: None
) -> bytes:
    """Return the page of some results as UTF-8; equal results give equal bytes.

    Args:
        sources: the results, at least one.
        title: heading of the page; by default the model and the data.
        done: is called with 1 after every results file.

    Raises:
        InputError: matplotlib is not installed.
    """
    require()
    heading = title or words.default_title(sources)
    sections = []
    for number, source in enumerate(sources, 1):
        sections.append(_section(source, number, len(sources)))
        done(1)
    compares = len(sources) > 1
    overview = [_contents(sources), _side_by_side(sources)] if compares else []
    body = join(
        element("header", element("h1", heading), *_warnings(sources if compares else [])),
        element("main", *overview, *sections),
        element("footer", element("p", f"Made by fozo {__version__} from {_describe_files(sources)}.")),
    )
    return f"<!DOCTYPE html>\n{element('html', _head(heading), element('body', body), lang='en')}\n".encode()


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
    content = section(source, prefix)
    if of == 1:
        return content
    return element("section", element("h2", source.name, class_="run", id=prefix), deeper(content))


def _contents(sources: Sequence[Source]) -> Html:
    entries = [_entry("compared", "Side by side", "")]
    for number, source in enumerate(sources, 1):
        bundle, protocol = source.results.bundle, source.results.protocol
        about = (
            f"{bundle.get('model', '')} {bundle.get('precision', '')}, {protocol.dataset}, {protocol.setting}"
        )
        entries.append(_entry(f"r{number}", source.name, about))
    return element("nav", element("ul", *entries), aria_label="Contents")


def _entry(target: str, name: str, about: str) -> Html:
    return element("li", element("a", name, href=f"#{target}"), element("span", about, class_="quiet"))


def _warnings(sources: Sequence[Source]) -> list[Html]:
    """Return short versions of the warnings of all sections."""
    named = {
        "Incomplete": [source.name for source in sources if not source.results.complete],
        "With corruptions that fozo generated, not the official data set": [
            source.name for source in sources if any(domain.generated for domain in seen(source.results))
        ],
    }
    return [warning(f"{text}: {', '.join(names)}.") for text, names in named.items() if names]


def _side_by_side(sources: Sequence[Source]) -> Html:
    """Return a comparison of the runs: accuracies and different facts."""
    different = comparison.differences(sources)
    return element(
        "section",
        element("h2", "Side by side", class_="run", id="compared"),
        *([] if comparison.have_same_protocol(sources) else [warning(words.NOT_ALIKE)]),
        table(comparison.overall(sources)),
        element("p", words.MARKS_OF_RUNS, class_="quiet"),
        speed(sources, "compared-speed"),
        table(comparison.domains(sources)),
        *([] if different is None else [table(different)]),
    )


def _describe_files(sources: Sequence[Source]) -> str:
    return f"{len(sources)} results files" if len(sources) > 1 else sources[0].path.name
