"""The provenance of a run: protocol, model, methods, data and machine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ....engine.registry import METHODS, get_options, list_common_options
from ..digest import explanations as words
from ..digest import groups
from ..digest.sources import Source
from ..digest.tables import NONE
from .elements import facts, scrolling
from .markup import Html, element, join

_DIGITS = 12  # of a shortened hash


def manifest(source: Source) -> Html:
    """Return the section on protocol, model, methods, data and machine."""
    return join(
        element("h2", "How it was made"),
        element(
            "ul", *(element("li", text) for text in words.protocol(source.results.protocol)), class_="plain"
        ),
        element("h3", "Methods and their options"),
        *(_method(label, method) for label, method in source.results.methods.items()),
        element("h3", "Data"),
        _data(source),
        element("h3", "Model, program and machine"),
        element(
            "div",
            facts("Model", _model(source)),
            facts("Results", _file(source)),
            facts("Program", _program(source)),
            facts("Machine", _machine(source.results.machine)),
            class_="columns",
        ),
    )


def _method(label: str, method: Mapping[str, Any]) -> Html:
    name, options = str(method.get("method", NONE)), method["options"]
    defaults = defaults_of(name)
    changed = [key for key, value in options.items() if key in defaults and value != defaults[key]]
    ordered = [*changed, *(key for key in options if key not in changed)]
    rows = [_option(key, options[key], defaults, key in changed) for key in ordered]
    summary = ", ".join(f"{key} = {_value(options[key])}" for key in changed) or "default options"
    if options and not defaults:
        summary = "a method unknown to this version of fozo"
    title = join(label, ": ", element("code", name), f", {summary}" if options else ", no options")
    if not rows:
        return element("p", title)
    head = element("tr", *(element("th", text, scope="col") for text in ("option", "value", "default")))
    table = element("table", element("thead", head), element("tbody", *rows), class_="list")
    return element("details", element("summary", title), scrolling(table, f"Options of {label}"))


def _option(key: str, value: Any, defaults: Mapping[str, Any], changed: bool) -> Html:
    default = _value(defaults[key]) if key in defaults else NONE
    cells = (element("th", key, scope="row"), element("td", _value(value)), element("td", default))
    return element("tr", *cells, class_="changed" if changed else None)


def defaults_of(name: str) -> dict[str, Any]:
    """Return the defaults of a method and of the common options; empty if the method does not exist."""
    if name not in METHODS:
        return {}
    common = {option.name: option.default for option in list_common_options()}
    return {**common, **get_options(METHODS[name])}


def _data(source: Source) -> Html:
    rows = []
    for name in dict.fromkeys(domain.name for domain in groups.seen(source.results)):
        passes = [domain for domain in groups.seen(source.results) if domain.name == name]
        images = sorted({domain.images for domain in passes})
        expected = sorted({domain.expected for domain in passes if domain.expected is not None})
        hashes = dict.fromkeys(domain.ids_sha256[:_DIGITS] for domain in passes)
        cells = (
            _numbers(images),
            _numbers(expected) or NONE,
            "generated" if any(domain.generated for domain in passes) else "as found",
            f"{sum(domain.complete for domain in passes)} of {len(passes)}",
            ", ".join(hashes),
        )
        rows.append(element("tr", element("th", name, scope="row"), *(element("td", cell) for cell in cells)))
    columns = ("domain", "images", "officially", "corruption", "complete passes", "hash of the images")
    head = element("tr", *(element("th", column, scope="col") for column in columns))
    table = element("table", element("thead", head), element("tbody", *rows), class_="list")
    return scrolling(table, "Data")


def _model(source: Source) -> list[tuple[str, object]]:
    bundle = source.results.bundle
    statistics = bundle.get("source")
    rows = [
        ("model", bundle.get("model", NONE)),
        ("precision", bundle.get("precision", NONE)),
        ("bundle", bundle.get("path", NONE)),
        ("its SHA-256", _code(bundle.get("sha256"))),
        ("graph's SHA-256", _code(bundle.get("graph_sha256"))),
    ]
    if isinstance(statistics, dict):
        images, origin = statistics.get("images", NONE), statistics.get("origin", NONE)
        rows.append(("source statistics", f"{images} images: {origin}"))
    return rows


def _program(source: Source) -> list[tuple[str, object]]:
    names = {"workers": "threads", "micro_batch": "images per call"}
    engine = [(names.get(key, key), _value(value)) for key, value in source.results.engine.items()]
    return [*((key, _value(value)) for key, value in source.results.versions.items()), *engine]


def _machine(machine: Mapping[str, Any]) -> list[tuple[str, object]]:
    names = {
        "model": "processor",
        "int8_features": "its instructions for int8",
        "cpus": "processors usable",
        "cpus_online": "processors online",
    }
    return [(names.get(key, key), _value(value)) for key, value in machine.items()]


def _file(source: Source) -> list[tuple[str, object]]:
    results = source.results
    seconds = sum(domain.seconds for domain in groups.seen(results))
    return [
        ("file", source.path),
        ("its SHA-256", _code(source.sha256)),
        ("written", results.created),
        ("complete", "yes" if results.complete else "NO"),
        ("images seen", f"{sum(run.images for run in results.runs):,}"),
        ("time, loading included", _duration(seconds)),
    ]


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _code(value: object) -> Html:
    return element("code", NONE if value is None else value)


def _numbers(values: list[int]) -> str:
    return ", ".join(f"{value:,}" for value in values)


def _value(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return NONE if value is None or value == "" else str(value)
