"""Notes on the images of a run, as results files hold them, tables print them and reports show them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fozo.data.image_reader import ImageReader
from fozo.engine.bundle.preprocessing import Preprocessing
from fozo.eval.datasets.domain import Domain
from fozo.eval.report.digest.notes import list_warnings
from fozo.eval.results.data_notes import describe_notes
from fozo.eval.results.outcome import Run
from fozo.eval.streaming.stream import Segment
from PIL import Image
from report_doubles import domain, results_of, run_of, save_source

TURNED = {"orientation": 3}


def describe(*domains: Any) -> list[str]:
    return describe_notes([run_of([domain(name, 5, 6, **facts) for name, facts in domains])])


def test_one_domain_needs_no_name() -> None:
    first, second, third = describe(
        ("x", {"notes": ["as one severity"], "left_out": {".tif": 1}, "remarks": {"cmyk": 1}})
    )
    assert first == "as one severity"
    assert second.startswith("1 file that looks like an image was left out (1 with .tif)")
    assert third == "1 image is in CMYK, converted to RGB without regard to a colour profile"


def test_what_all_domains_share_is_said_once() -> None:
    (note,) = describe(("fog", {"remarks": TURNED}), ("snow", {"remarks": TURNED}))
    assert note.startswith("3 images in each domain are turned by EXIF data")


def test_domains_that_differ_are_named() -> None:
    notes = describe(
        ("fog", {"severity": 3, "remarks": TURNED}),
        ("fog", {"severity": 5, "remarks": TURNED}),
        ("snow\x1b[2J", {"remarks": {"orientation": 1}}),
        ("rain", {"left_out": {".tif": 2}}),
    )
    assert [note.split(" turned")[0].split(" (2")[0] for note in notes] == [
        "3 images in each of fog 3, fog 5 are",
        "1 image in snow\\x1b[2J is",
        "2 files that look like images were left out in rain",
    ]


def test_rounds_and_seeds_do_not_add_up() -> None:
    first, second = (run_of([domain("fog", 5, 6, remarks={"dark": count})], seed=count) for count in (2, 1))
    (note,) = describe_notes([first, second])
    assert note.startswith("2 images are of 16 bits")


def test_remarks_of_other_versions_are_told() -> None:
    assert describe(("x", {"remarks": {"new\n": 2}})) == ["2 images are remarked as 'new\\\\n'"]


def test_reports_show_the_notes(tmp_path: Path) -> None:
    source = save_source(tmp_path / "r.json", results_of([run_of([domain("x", 5, 6, remarks=TURNED)])]))
    assert any(warning.startswith("3 images are turned by EXIF data") for warning in list_warnings(source))


@pytest.fixture
def photographs(tmp_path: Path) -> Domain:
    """Return a domain of six files, of which every second one is turned."""
    reader, exif = ImageReader(), Image.Exif()
    exif[0x0112] = 6
    for index in range(6):
        image = Image.new("RGB", (8, 8), (index, 0, 0))
        image.save(tmp_path / f"{index}.png", **({"exif": exif} if index % 2 else {}))
    read = reader.prepare(Preprocessing((8, 8), 8))
    ids = tuple(map(str, range(6)))
    return Domain("x", ids, np.arange(6), lambda index: read(f"{tmp_path}/{index}.png"), reader=reader)


@pytest.mark.parametrize("start", [0, 1, 2])
def test_every_batch_has_the_remarks_on_its_images(photographs: Domain, start: int) -> None:
    """Images are read ahead by several threads, and an interrupted run may begin anywhere."""
    order = np.array([1, 3, 0, 5, 2, 4])
    batches = list(Segment((photographs,), lambda: order, True).batches(2, start))
    counts = [len(batch.remarks) for batch in batches]
    assert counts == [2, 1, 0][start:]
    assert {remark for batch in batches for remark in batch.remarks} <= {(0, "orientation")}


def test_runs_of_earlier_versions_have_no_notes() -> None:
    assert describe_notes([Run(0, [domain("x", 5, 6)], {})]) == []
