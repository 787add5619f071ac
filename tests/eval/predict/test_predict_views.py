"""Predictions of photographs with methods that look at views."""

from __future__ import annotations

from pathlib import Path

import fozo
import numpy as np
from doubles import draw_picture
from fozo.engine.bundle.bundle import Bundle
from PIL import Image
from predict_doubles import agree, run, table


def save_photographs(folder: Path, count: int = 5) -> list[Path]:
    folder.mkdir()
    paths = [folder / f"{index}.png" for index in range(count)]
    for index, path in enumerate(paths):
        Image.fromarray(draw_picture(index, (60, 45 + index))).save(path)
    return paths


def test_views_are_parts_of_the_photographs(bundle_path: Path, tmp_path: Path) -> None:
    paths = save_photographs(tmp_path / "photos")
    preprocessing = Bundle.open(bundle_path).manifest.preprocessing
    adapter = fozo.Adapter.open(bundle_path, method="zero", views=6, seed=3, workers=1)
    expected = adapter.step(
        [fozo.views(path, 6, preprocessing, seed=3, image_id=str(path)) for path in paths]
    )
    for size in (2, 64):
        rows = table(
            run(
                bundle_path, *paths, "-m", "zero:views=6", "--seed", "3", "--batch-size", size, "--workers", 1
            )
        )
        assert [row["path"] for row in rows] == list(map(str, paths))
        agree(rows, expected.probabilities)


def test_unreadable_photographs_are_skipped(bundle_path: Path, tmp_path: Path) -> None:
    paths = save_photographs(tmp_path / "photos")
    good = table(run(bundle_path, *paths, "-m", "zero:views=4"))
    paths[2].write_bytes(b"broken")
    rows = table(run(bundle_path, *paths, "-m", "zero:views=4", "--on-error", "skip"))
    assert [bool(row["error"]) for row in rows] == [False, False, True, False, False]
    kept = [0, 1, 3, 4]
    assert [rows[index]["confidence"] for index in kept] == [good[index]["confidence"] for index in kept]


def test_other_kinds_of_views_are_other_predictions(bundle_path: Path, tmp_path: Path) -> None:
    paths = save_photographs(tmp_path / "photos")
    confidences = [
        [row["confidence"] for row in table(run(bundle_path, *paths, "-m", f"zero:views=6,vote=soft{more}"))]
        for more in ("", ",view_kind=augmix", ",view_area=0.6")
    ]
    assert len({tuple(values) for values in confidences}) == 3
    assert np.isfinite(np.array(confidences, float)).all()
