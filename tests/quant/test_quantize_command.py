"""The commands fozo quantize and fozo export, as far as they write int8 graphs."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fozo import cli
from fozo.engine.bundle.bundle import Bundle
from fozo.engine.model import ImageArray
from PIL import Image
from quant_doubles import read_folder, set_relative_time

onnx = pytest.importorskip("onnx", reason="quantisation reads and writes graphs with onnx")

from fozo.quant import quantizer  # noqa: E402


@pytest.fixture
def fozo(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """`fozo(*arguments)`: exit code, standard output, standard error."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["fozo", *map(str, arguments)])
        code = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, random_images: Callable[..., ImageArray]) -> Path:
    path = tmp_path_factory.mktemp("clean")
    for index, image in enumerate(random_images(80, seed=5)):
        Image.fromarray(image).save(path / f"{index:03d}.png")
    return path


FEW = ("--calibration-images", 24, "--held-out-images", 40, "--source-images", 32)


@pytest.mark.usefixtures("lenient")
def test_command(bundle: Bundle, folder: Path, fozo: Callable[..., Any]) -> None:
    code, out, err = fozo(
        "quantize", bundle.path, folder, *FEW, "--portable", "--sensitivity", "--bits", "int8"
    )
    assert (code, err) == (0, "")
    for part in ("Calibrating: 24 images", "int8 against fp32 on 40 held-out images", "22 of 22", "int8-qdq"):
        assert part in out
    assert "on integers alone" in out and "blocks.0.attn.query, key, value" in out
    changed = Bundle.open(bundle.path)
    assert list(changed.manifest.graphs) == ["fp32", "int8", "int8-qdq"]
    for precision in ("int8", "int8-qdq"):
        source = changed.source(precision)
        assert source is not None and source.images == 32
    assert changed.manifest.source["fp32"] == bundle.manifest.source["fp32"]
    assert fozo("inspect", bundle.path)[0] == 0
    code, out, _ = fozo("quantize", bundle.path, folder, *FEW, "--keep-float", "*.fc2", "--weight-bits", 7)
    assert code == 0
    assert "removed   int8-qdq, the portable form of the replaced graph" in out
    assert list(Bundle.open(bundle.path).manifest.graphs) == ["fp32", "int8"]
    assert "blocks.2.mlp.fc2" in out and "7-bit weights" in out


@pytest.mark.usefixtures("fast")
def test_bits(bundle: Bundle, folder: Path, fozo: Callable[..., Any]) -> None:
    """A precision of few bits has source statistics of its own, and works like any other."""
    quantize = ("quantize", bundle.path, folder, *FEW, "--force")
    assert fozo(*quantize)[0] == 0
    code, out, err = fozo(*quantize, "--bits", "w6a6", "--portable")
    assert (code, err) == (0, "")
    for part in ("Making up for rounding: 24 images", "w6a6 against fp32 on 40", "22 of 22", "w6a6-qdq"):
        assert part in out
    assert "6-bit weights and 6-bit activations" in out and "registers of 8 bits, as in int8" in out
    changed = Bundle.open(bundle.path)
    assert list(changed.manifest.graphs) == ["fp32", "int8", "w6a6", "w6a6-qdq"]
    sources = {changed.manifest.source[precision].file for precision in changed.manifest.graphs}
    assert len(sources) == 4
    assert fozo("inspect", bundle.path)[0] == 0
    predict = ("predict", bundle.path, folder, "--out", bundle.path.parent / "out.csv", "-m", "neo")
    assert fozo(*predict, "--precision", "w6a6")[0] == 0
    code, _, err = fozo(*predict, "--precision", "w4a4", "--overwrite")
    assert code == 1
    assert "has no w4a4 graph, it has: fp32, int8, w6a6, w6a6-qdq" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{folder}", "--keep-float", "blocks.77.*"], "no layer is called 'blocks.77.*'"),
        (["{folder}/missing"], "missing"),
        ([], "name one after the bundle"),
        (["{folder}", "--calibration-images", 16, "--held-out-images", 40], "at least 20 images"),
        (["{folder}", "--calibration-images", 0], "--calibration-images"),
        (["{folder}", "--calibrator", "entropy"], "entropy"),
        (["{folder}", "--weight-bits", 4], "--weight-bits"),
        (
            ["{folder}", "--bits", "w2a4"],
            "expected int8, w4, or bits of weights and activations from 3 to 8, as in w6a6, found 'w2a4'",
        ),
        (["{folder}", "--bits", "w4", "--calibrator", "minmax"], "--calibrator minmax has no effect"),
    ],
)
def test_command_with_bad_input(
    arguments: list[Any], message: str, bundle: Bundle, folder: Path, fozo: Callable[..., Any]
) -> None:
    before = read_folder(bundle.path)
    code, _, err = fozo("quantize", bundle.path, *(str(a).format(folder=folder) for a in arguments))
    assert code in (1, 2)
    assert message in err
    assert read_folder(bundle.path) == before


def test_command_with_few_images_says_what_for(
    bundle: Bundle, folder: Path, tmp_path: Path, fozo: Callable[..., Any]
) -> None:
    (tmp_path / "few").mkdir()
    for path in sorted(folder.iterdir())[:36]:
        shutil.copy(path, tmp_path / "few")
    code, _, err = fozo("quantize", bundle.path, tmp_path / "few")
    assert code == 1
    assert err.startswith("Error: quantisation needs at least 20 images for calibration and as many")


def test_refusing_command(
    bundle: Bundle, folder: Path, fozo: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    set_relative_time(monkeypatch, 1.25)
    monkeypatch.setattr("fozo.quant.quantization_report.MIN_AGREEMENT", 50.0)
    before = read_folder(bundle.path)
    code, _, err = fozo("quantize", bundle.path, folder, *FEW)
    assert code == 1
    assert err.startswith("Error: the int8 graph was refused and not added: it is slower than fp32")
    assert err.count("\n") == 1
    assert read_folder(bundle.path) == before
    code, out, _ = fozo("quantize", bundle.path, folder, *FEW, "--force")
    assert code == 0
    assert "refused   it is slower" in out
    assert "int8" in Bundle.open(bundle.path).manifest.graphs


def test_interrupted_command(
    bundle: Bundle, folder: Path, fozo: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*arguments: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(quantizer, "compare", interrupt)
    before = read_folder(bundle.path)
    code, _, err = fozo("quantize", bundle.path, folder, *FEW)
    assert (code, err.strip()) == (130, "Interrupted.")
    assert read_folder(bundle.path) == before
    assert {p.name for p in bundle.path.parent.iterdir()} == {"bundle"}


def test_command_without_onnx(
    bundle: Bundle, folder: Path, fozo: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("quantization", "convolution_quantizer", "quantizer"):
        monkeypatch.delitem(sys.modules, f"fozo.quant.{module}")
    monkeypatch.setitem(sys.modules, "onnx", None)
    code, _, err = fozo("quantize", bundle.path, folder)
    assert code == 1
    assert err.startswith("Error: quantize needs onnx")
    assert 'pip install "fozo[quant]"' in err


@pytest.fixture
def quick_export(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fozo.export.verify.BATCHES", (1, 2))
    monkeypatch.setattr("fozo.commands.export_command.CALIBRATION_IMAGES", 64)


@pytest.mark.usefixtures("quick_export", "fast")
def test_export_adds_int8(tmp_path: Path, fozo: Callable[..., Any]) -> None:
    export = ("export", "--model", "fozo_demo_vit", "--out")
    code, out, _ = fozo(*export, tmp_path / "bundle")
    assert code == 0
    bundle = Bundle.open(tmp_path / "bundle")
    assert list(bundle.manifest.graphs) == list(bundle.manifest.source) == ["fp32", "int8"]
    assert "top-1" in out  # the demonstration's images have labels
    record = bundle.manifest.graphs["int8"].record
    assert record["refusals"] == []
    assert abs(record["comparison"]["accuracy"] - record["comparison"]["reference_accuracy"]) <= 1
    assert record["integer"] == record["intended"] == 1 + 7 * bundle.manifest.layers
    code, out, _ = fozo(*export, tmp_path / "plain", "--no-int8")
    assert code == 0
    assert list(Bundle.open(tmp_path / "plain").manifest.graphs) == ["fp32"]


@pytest.mark.usefixtures("quick_export")
def test_export_goes_on_without_a_refused_int8(
    tmp_path: Path, fozo: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    set_relative_time(monkeypatch, 1.25)
    code, out, _ = fozo("export", "--model", "fozo_demo_vit", "--out", tmp_path / "bundle")
    assert code == 0
    assert "No int8 graph: the int8 graph was refused and not added: it is slower than fp32" in out
    bundle = Bundle.open(tmp_path / "bundle")
    assert list(bundle.manifest.graphs) == list(bundle.manifest.source) == ["fp32"]
