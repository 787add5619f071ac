"""Commands on images that users have: what is skipped, left out or turned is said, and the work goes on."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from command_doubles import read_json, save_noise_images
from fozo.cli import cli
from PIL import Image


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, list(map(str, arguments)))


def adapt(bundle: Path, images: Path, *options: object) -> Result:
    return run("adapt", bundle, "--dataset", "imagefolder", "--data", images, "-m", "no_adapt", *options)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Save forty images in ten class folders: one is damaged, one is turned, others are of other kinds."""
    folder = save_noise_images(tmp_path / "images", 40)
    (folder / "3" / "013.png").write_bytes(b"no image")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 36), (9, 99, 199)).save(folder / "4" / "024.png", exif=exif)
    (folder / "5" / "x.heic").write_bytes(b"")
    (folder / "@eaDir" / "5").mkdir(parents=True)
    shutil.copy(folder / "5" / "005.png", folder / "@eaDir" / "5" / "SYNOPHOTO_THUMB_M.png")
    return folder


NOTES = (
    "Note: 1 file that looks like an image was left out (1 with .heic)",
    "Note: 1 image is turned by EXIF data",
)


def test_adapt_skips_and_counts_a_damaged_image(bundle: Path, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "r.json"
    arguments = ("--batch-size", "8", "--out", out, "-m", "shift")
    stopped = adapt(bundle, images, *arguments)
    assert "013.png" in str(stopped.exception)
    assert str(stopped.exception).endswith("; --on-error skip goes on without such images")
    continued = adapt(bundle, images, *arguments, "--resume", "--on-error", "skip")
    assert continued.exit_code == 0, continued.output
    assert "(1 unreadable)" in continued.stdout
    assert "Note: 1 unreadable image was skipped, the first: 3/013.png" in continued.stderr
    for note in NOTES:
        assert continued.stderr.count(note) == 1
    (domain,) = read_json(out)["runs"][0]["domains"]
    assert domain["unreadable"] == ["3/013.png"]
    assert (domain["remarks"], domain["left_out"]) == ({"orientation": 1}, {".heic": 1})
    assert {method["images"] for method in domain["methods"].values()} == {39}


def test_turned_images_are_another_protocol(bundle: Path, images: Path, tmp_path: Path) -> None:
    (images / "3" / "013.png").unlink()
    out = tmp_path / "r.json"
    turned = adapt(bundle, images, "--out", out, "--exif-orientation", "apply")
    assert "EXIF orientation applied" in turned.stdout
    assert "turned by EXIF data" not in turned.stderr
    assert read_json(out)["protocol"]["exif_orientation"] == "apply"


def test_source_skips_and_counts_a_damaged_image(bundle: Path, images: Path, tmp_path: Path) -> None:
    shutil.copytree(bundle, tmp_path / "bundle")
    stopped = run("source", tmp_path / "bundle", images)
    assert str(stopped.exception).endswith("; --on-error skip goes on without such images")
    result = run("source", tmp_path / "bundle", images, "--on-error", "skip")
    assert result.exit_code == 0, result.output
    assert "39 of the 40 images in images, seed 2000, without 1 unreadable" in result.stdout
    assert "Note: 1 unreadable image was skipped, the first: expected an image in one of" in result.stderr
    for note in NOTES:
        assert result.stderr.count(note) == 1


def test_corrupt_skips_and_counts_a_damaged_image(images: Path, tmp_path: Path) -> None:
    options = ("--corruptions", "contrast", "--processes", "1", "--size", "32")
    arguments = ("corrupt", images, tmp_path / "out", *options)
    stopped = str(run(*arguments).exception)
    assert "013.png" in stopped and stopped.endswith("; --on-error skip goes on without such images")
    shutil.rmtree(tmp_path / "out")
    for _ in range(2):  # repeated, it finds its work done
        result = run(*arguments, "--on-error", "skip")
        assert result.exit_code == 0, result.output
        assert "Note: 1 unreadable image was skipped" in result.stderr
    assert len(list((tmp_path / "out").rglob("*.JPEG"))) == 39
    assert read_json(tmp_path / "out" / "generated.json")["images"] == 39


def test_predict_says_what_it_left_out(bundle: Path, images: Path, tmp_path: Path) -> None:
    result = run(
        "predict", bundle, images, "-m", "no_adapt", "--on-error", "skip", "--out", tmp_path / "p.csv"
    )
    assert result.exit_code == 0, result.output
    for note in NOTES:
        assert result.stderr.count(note) == 1
    assert "@eaDir" not in (tmp_path / "p.csv").read_text()


def test_the_limit_of_pixels_can_be_raised(bundle: Path, images: Path) -> None:
    (images / "3" / "013.png").unlink()
    arguments = ("predict", bundle, images, "-m", "no_adapt", "--max-images", "1")
    refused = run(*arguments, "--max-pixels", "1000")
    assert "at most 1,000 pixels, found 36x40" in str(refused.exception)
    assert str(refused.exception).count("--max-pixels") == 1
    assert run(*arguments, "--max-pixels", "1440").exit_code == 0
