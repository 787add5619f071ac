"""The page of the report, in a parser and in a browser."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from doubles import child_environment, run_fozo
from fozo.eval.report.digest import comparison
from fozo.eval.report.digest.chart_data import Point, ScatterChart, StepChart
from fozo.eval.report.digest.plain_text import plain
from fozo.eval.report.digest.sources import Source
from fozo.eval.report.html import charts
from fozo.eval.report.html.markup import element, escape
from fozo.eval.results.outcome import DomainResult
from fozo.eval.results.results_file import MethodEntry, read_results
from PIL import Image
from report_doubles import (
    HOSTILE,
    STYLE,
    Page,
    domain,
    method_result,
    render_page,
    results_of,
    rows,
    run_of,
    save_hostile,
    save_source,
)

pytest.importorskip("matplotlib", reason="the page needs matplotlib")


# --- the page ---


@pytest.fixture(scope="module")
def hostile_page(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Two results with such names, in files with such names."""
    folder = tmp_path_factory.mktemp("hostile")
    return render_page(
        save_hostile(folder / "<i>r&.json"), save_hostile(folder / f"{'$x$_name_' * 12}.json")
    ).decode()


def test_hostile_names_are_text_everywhere(hostile_page: str) -> None:
    report = Page.of(hostile_page.encode())
    assert not {"b", "i", "script", "img", "iframe", "object", "link"} & {tag for tag, _ in report.attributes}
    words = " ".join(report.text.split())
    for name in HOSTILE:
        assert " ".join(plain(name).split()) in words, name
    assert "<i>r&" in words
    assert not re.search("[\x00-\x08\x0e-\x1f\u202e\ufffe]", hostile_page)


def test_hostile_names_in_charts_are_drawn_as_they_are() -> None:
    names = [name[:20] for name in HOSTILE]
    points = tuple(Point(name, 1.0 + k, float(k), 0.0, k, k) for k, name in enumerate(names))
    drawn = charts.draw_scatter(ScatterChart("label", "x", "y", points, ""), "x")
    texts = [html.unescape(text).strip() for text in re.findall(r"<text[^>]*>([^<]*)</text>", drawn)]
    for name in names:
        assert plain(name).strip() in texts, name
    assert "DejaVu" not in drawn


def test_the_page_needs_nothing_from_elsewhere(hostile_page: str) -> None:
    report = Page.of(hostile_page.encode())
    assert "script" not in {tag for tag, _ in report.attributes}
    for tag, attributes in report.attributes:
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            if name in ("href", "src", "xlink:href", "srcset", "action"):
                assert str(value).startswith("#"), (tag, value)
    assert "@import" not in hostile_page
    assert not re.search(r"url\((?!#)", STYLE)
    policy = [a["content"] for tag, a in report.attributes if tag == "meta" and "http-equiv" in a]
    assert policy == ["default-src 'none'; style-src 'unsafe-inline'"]


def test_identifiers_are_unique_and_references_lead_somewhere(hostile_page: str) -> None:
    report = Page.of(hostile_page.encode())
    identifiers = [str(attributes["id"]) for _, attributes in report.attributes if "id" in attributes]
    assert len(identifiers) == len(set(identifiers)) > 20
    for _, attributes in report.attributes:
        values = [str(attributes.get(name, "")) for name in ("href", "style", "clip-path", "fill")]
        for reference in re.findall(r"(?:^|url\()#([\w-]+)", "\n".join(values), re.M):
            assert reference in identifiers


def test_tables_and_boxes_are_accessible(two_seeds: Source) -> None:
    report = Page.of(render_page(two_seeds, two_seeds))
    scopes = [attributes.get("scope") for tag, attributes in report.attributes if tag == "th"]
    assert set(scopes) == {"row", "col", "colgroup"}
    boxes = [attributes for _, attributes in report.attributes if attributes.get("class") == "scroll"]
    assert boxes
    assert all(box["tabindex"] == "0" and box["aria-label"] for box in boxes)
    assert len(report.pictures) == 13  # 6 of each, and the comparison
    assert all(report.pictures)
    assert ("html", {"lang": "en"}) in report.attributes


def test_what_changed_from_the_defaults_comes_first(tmp_path: Path) -> None:
    from fozo.engine.registry import get_options, parse_method

    label, method = parse_method("calm=fozo:rate=0.5,guard=rollback")
    results = results_of([run_of([domain("fog", 60, 75)])])
    results.methods = {
        "no_adapt": MethodEntry("no_adapt", 1, {}),
        "fozo": MethodEntry("fozo", 2, json.loads(json.dumps(get_options(method)))),
    }
    content = render_page(save_source(tmp_path / "r.json", results)).decode()
    assert label == "calm"
    assert "<code>fozo</code>, rate = 0.5, guard = rollback</summary>" in content
    body = content[content.index("Options of fozo") :]
    names = re.findall(r'<tr( class="changed")?><th scope="row">(\w+)</th>', body)
    assert names[:3] == [(' class="changed"', "rate"), (' class="changed"', "guard"), ("", "prompts")]
    results.methods["fozo"] = replace(results.methods["fozo"], method="from_elsewhere")
    assert "a method unknown to this version of fozo" in render_page(
        save_source(tmp_path / "r.json", results)
    ).decode().replace("\n", " ")


def test_several_files_are_compared(two_seeds: Source, tmp_path: Path) -> None:
    results = results_of([run_of([domain("fog", 40, 50), domain("rain", 30, 20)])])
    results.bundle["precision"] = "int8"
    other = save_source(tmp_path / "int8.json", results)
    report = Page.of(render_page(two_seeds, other, title="fp32 & int8"))
    assert "fp32 & int8" in report.text
    links = [str(attributes["href"])[1:] for tag, attributes in report.attributes if tag == "a"]
    assert links == ["compared", "r1", "r2"]
    assert set(links) <= {attributes.get("id") for _, attributes in report.attributes}

    assert rows(comparison.compare_methods([two_seeds, other]))["fozo"][2] == "35.00*"
    different = comparison.list_differences([two_seeds, other])
    assert different is not None
    assert rows(different)["precision"] == ["fp32", "int8"]
    assert rows(different)["seeds"] == ["2000, 2001", "2000"]
    assert not comparison.have_same_protocol([two_seeds, other])
    assert comparison.list_differences([two_seeds, two_seeds]) is None
    side = rows(comparison.compare_domains([two_seeds, other]))
    assert list(side) == ["fog", "snow", "rain", "average", "clean"]
    assert side["rain"] == ["–", "–", "30.0*", "20.0"]
    assert side["snow"][2:] == ["–", "–"]


def test_equal_results_give_equal_bytes(two_seeds: Source, tmp_path: Path) -> None:
    """In another process too, where sets come in another order and matplotlib is configured otherwise."""
    (tmp_path / "configured").mkdir()
    (tmp_path / "configured" / "matplotlibrc").write_text(
        "svg.hashsalt: other\nxtick.direction: in\nsavefig.bbox: tight\n"
    )
    outputs = []
    for seed, configuration in (("1", tmp_path / "configured"), ("2", tmp_path)):
        environment = child_environment(PYTHONHASHSEED=seed, MATPLOTLIBRC=str(configuration))
        run_fozo(
            "report", two_seeds.path.name, "--out", f"{seed}.html", env=environment, cwd=tmp_path, check=True
        )
        outputs.append((tmp_path / f"{seed}.html").read_bytes())
    assert outputs[0] == outputs[1]


def test_matplotlibs_settings_are_left_alone(two_seeds: Source) -> None:
    import matplotlib

    before = dict(matplotlib.rcParams)
    render_page(two_seeds)
    assert dict(matplotlib.rcParams) == before


def test_one_method_alone_and_one_image(tmp_path: Path) -> None:
    result = DomainResult("fog", {"no_adapt": method_result(1, 0)}, images=1, complete=True)
    result.methods["no_adapt"].seconds = 0.0
    results = results_of([run_of([result], labels=["no_adapt"])], ["no_adapt"])
    text = Page.of(render_page(save_source(tmp_path / "r.json", results))).text
    assert "no_adapt has an accuracy of 0.00 %." in text
    assert "No time was measured." in text
    assert "noise" not in text


def test_values_that_diverged_are_drawn(two_seeds: Source) -> None:
    for run in two_seeds.results.runs:
        points = len(run.traces["fozo"].images)
        run.traces["fozo"].values = {
            "loss": [(-1) ** k * 1e308 for k in range(points)],
            "rate": [1e-300] * points,
        }
    assert "loss over the stream: fozo" in Page.of(render_page(two_seeds)).pictures


def test_markup_escapes_all_but_itself() -> None:
    inside = element("b", "<&>", title='"')
    assert inside == '<b title="&quot;">&lt;&amp;&gt;</b>'
    assert element("i", inside, " & ") == f"<i>{inside} &amp; </i>"
    assert escape("\ud800") == "\ufffd"


# --- colours ---


_TO_SEEN = {  # Machado, Oliveira and Fernandes (2009), complete loss, for linear RGB
    "none": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "tritanopia": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}


def linear(colour: str) -> np.ndarray[Any, Any]:
    channels = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)


def contrast(one: str, other: str) -> float:
    """As WCAG 2 defines it."""
    low, high = sorted(float(linear(colour) @ [0.2126, 0.7152, 0.0722]) for colour in (one, other))
    return (high + 0.05) / (low + 0.05)


def lab(rgb: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    scaled = to_xyz @ np.clip(rgb, 0, 1) / [0.9505, 1, 1.089]
    f = np.where(scaled > 0.008856, np.cbrt(scaled), 7.787 * scaled + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def schemes() -> dict[str, Mapping[str, str]]:
    light, dark = STYLE.split("@media screen and (prefers-color-scheme: dark)")
    palettes = [dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", text)) for text in (light, dark)]
    assert palettes[0].keys() == palettes[1].keys()
    return dict(zip(("light", "dark"), palettes, strict=True))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_can_be_seen_and_told_apart(scheme: str) -> None:
    colours = schemes()[scheme]
    series = [colours[f"series-{i}"] for i in range(7)]
    assert min(contrast(colour, colours["surface"]) for colour in series) >= 3  # WCAG for graphics
    for name in ("ink", "muted", "accent"):
        assert contrast(colours[name], colours["surface"]) >= 4.5  # WCAG for text
    assert contrast(colours["warn"], colours["warn-surface"]) >= 4.5
    for kind, matrix in _TO_SEEN.items():
        perceived = [lab(matrix @ linear(colour)) for colour in series]
        distances = [np.linalg.norm(a - b) for i, a in enumerate(perceived) for b in perceived[:i]]
        assert min(distances) > 12, kind
    chroma = [float(np.hypot(*lab(linear(colour))[1:])) for colour in series]
    assert chroma[0] < 12 < 25 < min(chroma[1:])  # the first, and only that, is grey


# --- in a browser ---


BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


needs_browser = pytest.mark.skipif(
    BROWSER is None, reason="no Chromium is installed to look at the page with"
)


def browse(folder: Path, *arguments: str) -> str:
    command = [str(BROWSER), "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    command += [f"--user-data-dir={folder / 'profile'}", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=300).stdout


def luminance(path: Path) -> np.ndarray[Any, Any]:
    with Image.open(path) as image:
        return np.asarray(image.convert("L"), np.float64)


@needs_browser
@pytest.mark.parametrize(("scheme", "number"), [("dark", 0), ("light", 1)])
def test_the_page_follows_the_colour_scheme(
    scheme: str, number: int, two_seeds: Source, tmp_path: Path
) -> None:
    """Background and writing, in the page and within a chart that has nothing but writing and axes."""
    content = render_page(two_seeds).decode()
    chart = charts.draw_steps(
        StepChart("empty", "an axis with a name", ("some", "ticks"), ((1.0, 1.0),)), "x"
    )
    style = content[content.index("<style>") : content.index("</style>") + len("</style>")]
    pages = {"page": content, "chart": f"<!DOCTYPE html><meta charset=utf-8>{style}<body>{chart}"}
    for name, text in pages.items():
        source, shot = tmp_path / f"{name}.html", tmp_path / f"{name}.png"
        source.write_text(text, encoding="utf-8")
        browse(
            tmp_path,
            f"--blink-settings=preferredColorScheme={number}",
            "--window-size=1000,1200" if name == "page" else "--window-size=600,260",
            f"--screenshot={shot}",
            source.as_uri(),
        )
        pixels = luminance(shot)
        background = np.median(pixels)
        assert background < 40 if scheme == "dark" else background > 240
        writing = np.abs(pixels - background) > 150
        assert 0.002 < writing.mean() < 0.3, name  # as much ink as there is on a page, and in a chart


@needs_browser
@pytest.mark.parametrize("width", [390, 1200])
def test_the_page_is_never_wider_than_the_window(width: int, hostile_page: str, tmp_path: Path) -> None:
    """The browser measures the page in a frame of that width; with hostile, long names."""
    policy = r'<meta http-equiv="Content-Security-Policy"[^>]*>'  # forbids to look into the page
    frame = html.escape(re.sub(policy, "", hostile_page))
    probe = "document.title = frames[0].document.documentElement.scrollWidth + ' ' + frames[0].innerWidth"
    outer = tmp_path / "outer.html"
    shown = (
        f'<iframe style="width:{width}px;height:900px;border:0" srcdoc="{frame}" onload="{probe}"></iframe>'
    )
    outer.write_text(f"<!DOCTYPE html><title></title>{shown}", encoding="utf-8")
    dom = browse(tmp_path, "--window-size=1400,1000", "--dump-dom", outer.as_uri())
    measured = re.search(r"<title>(\d+) (\d+)</title>", dom)
    assert measured is not None
    assert int(measured[2]) == width
    assert int(measured[1]) <= width


def test_results_are_read_as_they_were_written(two_seeds: Source) -> None:
    """The report relies on `read_results` to return results as they were saved."""
    assert read_results(two_seeds.path).to_dict()["runs"] == two_seeds.results.to_dict()["runs"]
