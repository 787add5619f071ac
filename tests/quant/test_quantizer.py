"""From a bundle to a bundle with an int8 graph: comparison, gates, sensitivity, command line, real images."""

from __future__ import annotations

import hashlib
import json
import math
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from doubles import real_data
from fozo import cli
from fozo.data.source import SourceImages, folder_source
from fozo.engine.bundle.bundle import Bundle
from fozo.engine.errors import BundleError, FozoError, InputError, OutputError
from fozo.engine.model import FloatArray, ImageArray, Outputs
from fozo.engine.runtime.cpu import parse_cpuinfo
from fozo.engine.runtime.network import Network
from PIL import Image

onnx = pytest.importorskip("onnx", reason="quantisation reads and writes graphs with onnx")

from fozo.quant import graph_comparison, quantizer, writer  # noqa: E402
from fozo.quant.graph_comparison import Comparison, compare, measure_relative_time  # noqa: E402
from fozo.quant.grid import make_unsigned_grid  # noqa: E402
from fozo.quant.image_split import split_images  # noqa: E402
from fozo.quant.operators import count_integer_products  # noqa: E402
from fozo.quant.products import find_products  # noqa: E402
from fozo.quant.quantization import QuantizationError, quantize  # noqa: E402
from fozo.quant.quantization_report import Report, describe_report, list_refusals  # noqa: E402
from fozo.quant.quantizer import Quantizer, choose_weight_bits  # noqa: E402
from fozo.quant.sensitivity import format_effects  # noqa: E402
from fozo.quant.settings import Options  # noqa: E402

CleanImages = Callable[..., SourceImages]
PRODUCTS = 1 + 3 * 7


def nothing(count: int) -> None:
    """Nobody watches the progress."""


def times(monkeypatch: pytest.MonkeyPatch, ratio: float) -> None:
    """Says how long int8 takes, in terms of fp32: machines differ."""
    monkeypatch.setattr(quantizer, "measure_relative_time", lambda *arguments: (0.004, ratio))


@pytest.fixture
def bundle(bundle_path: Path, tmp_path: Path) -> Bundle:
    """A copy to write to."""
    shutil.copytree(bundle_path, tmp_path / "bundle")
    return Bundle.open(tmp_path / "bundle")


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    times(monkeypatch, 0.5)


@pytest.fixture
def lenient(fast: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The classes of a random model are close to each other."""
    monkeypatch.setattr("fozo.quant.quantization_report.MIN_AGREEMENT", 50.0)


@pytest.fixture
def images(clean_images: CleanImages) -> tuple[SourceImages, SourceImages]:
    return clean_images(22, 31), clean_images(40, 32)


def content(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


# --- what is added ---


@pytest.mark.usefixtures("lenient")
def test_an_int8_graph_is_added(
    bundle: Bundle, images: tuple[SourceImages, SourceImages], clean_images: CleanImages
) -> None:
    fp32 = bundle.graph("fp32").read_bytes()
    labels = np.random.default_rng(0).integers(0, 20, 40)
    steps: dict[str, int] = {}

    class Step:
        def __init__(self, what: str, count: int) -> None:
            self.what, self.count = what, count

        def __enter__(self) -> Callable[[int], None]:
            steps[self.what] = -self.count
            return self.advance

        def advance(self, count: int) -> None:
            steps[self.what] += count

        def __exit__(self, *error: object) -> None:
            return None

    held_out = replace(images[1], labels=None)
    changed, report = quantize(bundle, images[0], held_out, Options(), sensitivity=True, progress=Step)
    assert changed == Bundle.open(bundle.path)
    assert list(changed.manifest.graphs) == ["fp32", "int8"]
    assert set(changed.manifest.source) == {"fp32"}
    assert changed.graph("fp32").read_bytes() == fp32
    graph = changed.graph("int8")
    assert graph.name == f"model-int8-{changed.graph_sha256('int8')[:8]}.onnx"
    assert {p.name for p in bundle.path.iterdir()} == {"bundle.json", *changed.manifest.files}
    assert {p.name for p in bundle.path.parent.iterdir()} == {"bundle"}
    assert len(steps) == 3 and set(steps.values()) == {0}

    assert (report.integer, report.intended) == (count_integer_products(graph), PRODUCTS)
    assert report.integer == PRODUCTS
    assert (report.float_layers, report.refusals) == ((), ())
    assert (report.milliseconds, report.speedup) == (4, 2)
    assert report.megabytes == (graph.stat().st_size / 1e6, len(fp32) / 1e6)

    # What was measured, measured again.
    pixels = np.stack([images[1].load(i) for i in range(40)])
    with Network.open(changed, "int8", workers=1) as ours, Network.open(changed, workers=1) as theirs:
        a, b = ours(pixels), theirs(pixels)
    found = report.comparison
    check_comparison(found, a, b, None)
    assert found.cosine_features > 0.998
    assert compare([(a, b)], labels).accuracy == pytest.approx(100 * (a.logits.argmax(1) == labels).mean())

    entry = changed.manifest.graphs["int8"]
    assert (entry.reference, entry.opset) == ("fp32", bundle.manifest.graphs["fp32"].opset)
    assert entry.max_abs_difference == found.max_abs_difference
    record = entry.record
    assert record["calibration"] == "22 of random images, seed 31"
    assert record["calibrator"] == "percentile"
    assert record["comparison"]["images"] == 40
    assert len(record["effects"]) == len(report.effects)
    assert record["versions"]["onnx"] == onnx.__version__
    json.dumps(record, allow_nan=False)


@pytest.mark.usefixtures("lenient")
def test_the_portable_graph(bundle: Bundle, images: tuple[SourceImages, SourceImages]) -> None:
    changed, _ = quantize(bundle, *images, Options(portable=True))
    assert list(changed.manifest.graphs) == ["fp32", "int8", "int8-qdq"]
    portable = onnx.load(changed.graph("int8-qdq"))
    onnx.checker.check_model(portable, full_check=True)
    assert {node.domain for node in portable.graph.node} == {""}
    pixels = np.stack([images[1].load(i) for i in range(8)])
    with (
        Network.open(changed, "int8-qdq", workers=1) as ours,
        Network.open(changed, "int8", workers=1) as theirs,
    ):
        a, b = ours(pixels), theirs(pixels)
    assert np.median(np.abs(a.features - b.features)) < 1e-5
    np.testing.assert_allclose(a.logits, b.logits, atol=0.1)
    again, _ = quantize(changed, *images, Options(seed=1))
    assert list(again.manifest.graphs) == ["fp32", "int8", "int8-qdq"]
    assert again.graph_sha256("int8") != changed.graph_sha256("int8")
    assert {p.name for p in bundle.path.iterdir()} == {"bundle.json", *again.manifest.files}


@pytest.mark.usefixtures("lenient")
def test_two_runs_give_the_same_graph(
    bundle: Bundle, images: tuple[SourceImages, SourceImages], tmp_path: Path
) -> None:
    shutil.copytree(bundle.path, tmp_path / "other")
    first, one = quantize(bundle, *images, Options(seed=3))
    second, two = quantize(Bundle.open(tmp_path / "other"), *images, Options(seed=3))
    assert first.graph_sha256("int8") == second.graph_sha256("int8")
    assert one == two
    assert first.sha256 == second.sha256


@pytest.mark.usefixtures("lenient")
def test_layers_stay_in_float(bundle: Bundle, images: tuple[SourceImages, SourceImages]) -> None:
    patterns = ("blocks.1.mlp.fc2", "*.attn/scores")
    changed, report = quantize(bundle, *images, Options(keep_float=patterns))
    kept = {"blocks.1.mlp.fc2", *(f"blocks.{i}.attn/scores" for i in range(3))}
    assert set(report.float_layers) == kept
    assert report.integer == report.intended == PRODUCTS - 4
    graph = onnx.load(changed.graph("int8")).graph
    names = {tensor.name for tensor in graph.initializer}
    assert "blocks.1.mlp.fc2.weight" in names and "blocks.0.mlp.fc2.weight" not in names
    assert all(name in describe_report(report) for name in kept)


@pytest.mark.usefixtures("lenient")
def test_only_the_patches_on_integers(bundle: Bundle, images: tuple[SourceImages, SourceImages]) -> None:
    _, report = quantize(bundle, *images, Options(keep_float=("blocks.*",)))
    assert report.integer == report.intended == 1


@pytest.mark.usefixtures("lenient")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (Options(keep_float=("*.fc2", "blocks.9.*")), r"no layer is called 'blocks.9.\*'.*blocks\.0\.attn"),
        (Options(keep_float=("*",)), "float"),
        (Options(calibrator="entropy"), "percentile, average, minmax, found 'entropy'"),
        (Options(weight_bits=9), "bits"),
    ],
)
def test_options_without_meaning(
    options: Options, message: str, bundle: Bundle, images: tuple[SourceImages, SourceImages]
) -> None:
    before = content(bundle.path)
    with pytest.raises(InputError, match=message):
        quantize(bundle, *images, replace(options, force=True))
    assert content(bundle.path) == before


def test_bits_of_weights(bundle: Bundle, images: tuple[SourceImages, SourceImages], tmp_path: Path) -> None:
    made = Quantizer(bundle, Options(weight_bits=7))
    made.calibrate(images[0], nothing)
    made.write(tmp_path / "seven.onnx", "fused")
    weights = [
        onnx.numpy_helper.to_array(t)
        for t in onnx.load(tmp_path / "seven.onnx").graph.initializer
        if t.name.endswith(".weight/s8")
    ]
    assert len(weights) == PRODUCTS - 3
    assert {int(np.abs(weight.astype(int)).max()) for weight in weights} == {63}


@pytest.mark.parametrize(
    ("architecture", "flags", "bits"),
    [
        ("x86_64", "flags : avx2 avx512f avx512_vnni", 8),
        ("x86_64", "flags : avx2 avx_vnni", 8),
        ("AMD64", "flags : avx2 avx512f avx512_vnni amx_int8", 8),
        ("x86_64", "flags : avx2", 7),
        ("x86_64", "flags : avx2 avx512f", 7),
        ("aarch64", "Features : asimd asimddp i8mm", 8),
    ],
)
def test_bits_that_a_processor_can_add(architecture: str, flags: str, bits: int) -> None:
    found, reason = choose_weight_bits(parse_cpuinfo(f"model name : Some CPU\n{flags}\n", architecture))
    assert found == bits
    assert ("32 bits" if bits == 8 else "16 bits") in reason


# --- what is refused ---


def a_report(**changes: Any) -> Report:
    found = Comparison(400, 99.0, None, None, 0.999, 0.999, 30.0, 0.1)
    fields = {name: changes.pop(name) for name in list(changes) if hasattr(found, name)}
    good = Report(replace(found, **fields), 22, 22, (), {}, (1.0, 4.0), 5.0, 1.5, 8, "Some CPU")
    return replace(good, **changes)


LABELLED = {"accuracy": 75.0, "reference_accuracy": 76.0}


@pytest.mark.parametrize(
    ("changes", "reasons"),
    [
        ({}, []),
        (LABELLED, []),  # one point is allowed
        ({**LABELLED, "agreement": 80.0}, []),  # labels count more
        ({**LABELLED, "accuracy": 80.0}, []),
        (
            {**LABELLED, "accuracy": 74.9},
            [r"loses 1\.10 points .* 400 held-out .*76\.00 % in fp32, 74\.90 %"],
        ),
        ({"agreement": 95.0}, []),
        ({"agreement": 94.9}, [r"agrees with fp32 on 94\.9 % of 400.*95 %"]),
        ({"integer": 21}, ["computes 21 of its 22"]),
        ({"speedup": 1.0}, []),
        ({"speedup": 0.93}, [r"slower than fp32 .*0\.93 times"]),
        ({"speedup": 0.5, "integer": 0, "agreement": 10.0}, ["agrees", "computes 0", "slower"]),
        ({"cosine_features": math.nan, "cosine_logits": math.nan}, ["finite|nan"]),
    ],
)
def test_reasons_to_refuse(changes: dict[str, Any], reasons: list[str]) -> None:
    report = a_report(**changes)
    found = tuple(list_refusals(report))
    assert len(found) == len(reasons)
    for pattern, reason in zip(reasons, found, strict=True):
        assert re.search(pattern, reason), reason
    text = describe_report(replace(report, refusals=found))
    assert all(reason in text for reason in found)


def test_a_report_for_people() -> None:
    text = describe_report(
        a_report(**LABELLED, float_layers=("blocks.7.mlp.fc2",), outlier_layers={"a": 2, "b": 5})
    )
    for part in ("76.00 % → 75.00 %", "4.0 MB → 1.0 MB", "1.50 times", "22 of 22", "8-bit", "Some CPU"):
        assert part in text
    assert "up to 5 channels of 2 layers" in text
    assert "blocks.7.mlp.fc2" in text
    assert "top-1" not in describe_report(a_report())


@pytest.mark.parametrize("gate", ["slow", "inaccurate", "float"])
def test_a_refused_graph_is_added_only_by_force(
    gate: str, bundle: Bundle, images: tuple[SourceImages, SourceImages], monkeypatch: pytest.MonkeyPatch
) -> None:
    times(monkeypatch, 2.0 if gate == "slow" else 0.5)
    monkeypatch.setattr(
        "fozo.quant.quantization_report.MIN_AGREEMENT", 101.0 if gate == "inaccurate" else 50.0
    )
    if gate == "float":
        monkeypatch.setattr(quantizer, "count_integer_products", lambda graph: 20)
    before = content(bundle.path)
    with pytest.raises(QuantizationError, match=r"refused and not added.*--force") as caught:
        quantize(bundle, *images, Options())
    assert content(bundle.path) == before
    assert {p.name for p in bundle.path.parent.iterdir()} == {"bundle"}
    message = str(caught.value)
    assert "\n" not in message
    assert {"slow": "slower", "inaccurate": "agrees", "float": "computes 20 of its 22"}[gate] in message
    assert ("--keep-float" in message) is (gate == "inaccurate")
    if gate == "inaccurate":
        assert "patch_embed.proj (" in message  # what loses most in this model
    changed, report = quantize(bundle, *images, Options(force=True))
    assert "int8" in changed.manifest.graphs
    assert len(report.refusals) == 1
    assert changed.manifest.graphs["int8"].record["refusals"] == list(report.refusals)


@pytest.mark.usefixtures("lenient")
@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device")])
@pytest.mark.parametrize(
    "where", ["onnx.save", "fozo.engine.bundle.bundle.write_atomic", "compare", "calibrate"]
)
def test_what_goes_wrong_leaves_the_bundle(
    where: str,
    error: BaseException,
    bundle: Bundle,
    images: tuple[SourceImages, SourceImages],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = content(bundle.path)

    def fail(*arguments: Any, **options: Any) -> None:
        if where == "fozo.engine.bundle.bundle.write_atomic" and isinstance(error, OSError):
            raise OutputError("No space left on device")
        raise error

    name = where if "." in where else f"fozo.quant.quantizer.{where}"
    monkeypatch.setattr(name, fail)
    expected = type(error) if isinstance(error, KeyboardInterrupt) or where == "calibrate" else OutputError
    with pytest.raises(expected):
        quantize(bundle, *images, Options(portable=True))
    monkeypatch.undo()
    assert {p.name for p in bundle.path.parent.iterdir()} == {"bundle"}
    after = content(bundle.path)
    assert {name: after[name] for name in before} == before
    assert Bundle.open(bundle.path) == bundle
    assert where == "fozo.engine.bundle.bundle.write_atomic" or after == before


@pytest.mark.usefixtures("lenient")
def test_an_unreadable_image(bundle: Bundle, images: tuple[SourceImages, SourceImages]) -> None:
    def broken(index: int) -> ImageArray:
        if index == 17:
            raise InputError("cannot read 17.png")
        return images[0].load(index)

    before = content(bundle.path)
    for part in (0, 1):
        both = list(images)
        both[part] = replace(both[part], load=broken)
        with pytest.raises(InputError, match=r"17\.png"):
            quantize(bundle, both[0], both[1], Options())
    assert content(bundle.path) == before


@pytest.mark.usefixtures("fast")
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_weights_that_are_not_finite(
    bundle: Bundle, images: tuple[SourceImages, SourceImages], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the last layer: no calibrated tensor comes after it."""
    made = onnx.load(bundle.graph("fp32"))
    tensor = next(t for t in made.graph.initializer if t.name == "blocks.2.mlp.fc2.weight")
    values = onnx.numpy_helper.to_array(tensor).copy()
    values[3, 5] = np.nan
    tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    onnx.save(made, bundle.path / "model.onnx")
    monkeypatch.setattr(Bundle, "file", lambda self, name: self.path / name)
    with pytest.raises(FozoError):
        quantize(bundle, *images, Options())


# --- comparison ---


def outputs(generator: np.random.Generator, count: int) -> Outputs:
    values = generator.normal(size=(count, 3, 8)).astype(np.float32)
    return Outputs(generator.normal(size=(count, 5)).astype(np.float32), values)


def noisy(generator: np.random.Generator, found: Outputs) -> Outputs:
    shifted = (
        (v + generator.normal(0, 0.3, v.shape)).astype(np.float32) for v in (found.logits, found.features)
    )
    return Outputs(*shifted)


def check_comparison(found: Comparison, a: Outputs, b: Outputs, labels: Any) -> None:
    def cosine(x: FloatArray, y: FloatArray) -> float:
        x, y = x.astype(np.float64), y.astype(np.float64)
        products = np.einsum("...i,...i->...", x, y)
        return float((products / np.sqrt((x * x).sum(-1) * (y * y).sum(-1))).mean())

    signal = b.features.astype(np.float64)
    noise = a.features - signal
    assert found.images == len(a.logits)
    assert found.agreement == pytest.approx(100 * np.mean(a.logits.argmax(1) == b.logits.argmax(1)))
    assert found.cosine_logits == pytest.approx(cosine(a.logits, b.logits), abs=1e-5)
    assert found.cosine_features == pytest.approx(cosine(a.features, b.features), abs=1e-5)
    assert found.signal_to_noise == pytest.approx(
        10 * np.log10((signal**2).sum() / (noise**2).sum()), abs=0.01
    )
    furthest = max(np.abs(a.logits - b.logits).max(), np.abs(noise).max())
    assert found.max_abs_difference == pytest.approx(furthest, rel=1e-4)
    if labels is None:
        assert found.accuracy is found.reference_accuracy is found.loss is None
    else:
        assert found.accuracy == pytest.approx(100 * np.mean(a.logits.argmax(1) == labels))
        assert found.reference_accuracy == pytest.approx(100 * np.mean(b.logits.argmax(1) == labels))
        assert found.loss == pytest.approx(found.reference_accuracy - found.accuracy)


@pytest.mark.parametrize("sizes", [(40,), (16, 16, 8), (1,) * 40])
@pytest.mark.parametrize("labelled", [True, False])
def test_comparison_is_that_of_all_images_at_once(sizes: Sequence[int], labelled: bool) -> None:
    generator = np.random.default_rng(0)
    reference = outputs(generator, 40)
    ours = noisy(generator, reference)
    labels = generator.integers(0, 5, 40) if labelled else None
    edges = np.cumsum([0, *sizes])
    parts = [slice(a, b) for a, b in pairwise(edges)]
    batches = (
        tuple(Outputs(each.logits[part], each.features[part]) for each in (ours, reference)) for part in parts
    )
    check_comparison(compare(batches, labels), ours, reference, labels)  # type: ignore[arg-type]


def test_comparison_with_itself_and_with_zeros() -> None:
    same = outputs(np.random.default_rng(0), 6)
    found = compare([(same, same)])
    assert (found.agreement, found.max_abs_difference) == (100, 0)
    assert found.cosine_features == pytest.approx(1)
    assert 100 < found.signal_to_noise < math.inf  # JSON has no infinity
    zero = Outputs(np.zeros_like(same.logits), np.zeros_like(same.features))
    assert compare([(zero, same)]).cosine_features == 0


def test_relative_time_is_a_median_of_rounds_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, called = [0.0], []

    def network(name: str, seconds: Iterator[float]) -> Any:
        def run(images: ImageArray) -> None:
            called.append(name)
            clock[0] += next(seconds)

        return run

    monkeypatch.setattr(graph_comparison.time, "perf_counter", lambda: clock[0])
    ours = network("ours", iter([100, 2, 4, 9]))
    theirs = network("theirs", iter([1, 4, 4, 90]))
    seconds, ratio = measure_relative_time(ours, theirs, np.zeros((8, 1, 1, 3), np.uint8), rounds=3)
    assert seconds == pytest.approx(4 / 8)
    assert ratio == pytest.approx(0.5)
    assert called == ["ours", "theirs"] * 4


# --- sensitivity ---


def test_a_damaged_layer_comes_first(bundle: Bundle, images: tuple[SourceImages, SourceImages]) -> None:
    made = Quantizer(bundle, Options())
    made.calibrate(images[0], nothing)
    damaged = made.ranges["blocks.1.norm2"]
    advanced: list[int] = []
    sound = made.measure_effects(images[1], advanced.append)
    made.ranges["blocks.1.norm2"] = replace(damaged, low=damaged.low / 20, high=damaged.high / 20)
    effects = made.measure_effects(images[1], nothing)
    assert effects[0].layers == ("blocks.1.mlp.fc1",)
    assert sound[0].layers != effects[0].layers
    assert len(effects) == len(advanced) == 1 + 5 + 5 + 6
    ratios = [effect.comparison.signal_to_noise for effect in effects]
    assert ratios == sorted(ratios)
    assert effects[0].comparison.signal_to_noise < 20 < ratios[1]
    names = {effect.name for effect in effects}
    assert {"blocks.0.attn.query, key, value", "blocks.2.attn.key, value", "blocks.2.attn.query"} <= names
    assert sorted(name for e in effects for name in e.layers) == sorted(p.name for p in made.products)
    lines = format_effects(effects).splitlines()
    assert len(lines) == 1 + len(effects)
    assert lines[1].endswith("blocks.1.mlp.fc1")


# --- outlier channels ---


def test_outlier_channels_are_made_up_for(
    bundle: Bundle,
    images: tuple[SourceImages, SourceImages],
    randomised_vit: Callable[..., Any],
    save_graph: Callable[..., None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One channel between fc1 and fc2 a few hundred times larger than all others, as trained models have."""
    vit = randomised_vit(64, 3, 20, 64)
    for block in vit.blocks:
        block.mlp.fc1.weight.data[9] *= 200
        block.mlp.fc1.bias.data[9] *= 200
        block.mlp.fc2.weight.data[:, 9] /= 200
    save_graph(vit, tmp_path / "model.onnx", norms=True)
    monkeypatch.setattr(Bundle, "graph", lambda self, precision: tmp_path / "model.onnx")
    found = {}
    for rule in (True, False):
        made = Quantizer(bundle, Options())
        made.calibrate(images[0], nothing)
        with monkeypatch.context() as patch:
            if not rule:
                patch.setattr(
                    writer, "make_unsigned_grid", lambda r, outliers: make_unsigned_grid(r, outliers=False)
                )
            made.write(tmp_path / "int8.onnx", "fused")
            report = made.check(tmp_path / "int8.onnx", images[1], nothing)
        found[rule] = report.comparison
        fc2 = {f"blocks.{index}.mlp.fc2": 1 for index in range(3)} if rule else {}
        assert {k: v for k, v in report.outlier_layers.items() if k.endswith("fc2")} == fc2
        assert report.integer == report.intended == PRODUCTS
    assert found[True].cosine_features >= 0.99
    assert 1 - found[False].cosine_features > 5 * (1 - found[True].cosine_features)
    assert found[False].signal_to_noise < found[True].signal_to_noise - 6


# --- images ---


def test_split_of_images(clean_images: CleanImages) -> None:
    images = clean_images(100, labels=np.arange(100) % 7)
    pixels = [images.load(i).tobytes() for i in range(100)]

    def indices(part: SourceImages) -> list[int]:
        found = [pixels.index(part.load(i).tobytes()) for i in range(part.count)]
        assert part.labels is not None
        assert part.labels.tolist() == [index % 7 for index in found]
        return found

    first, second = (indices(part) for part in split_images(images, 30, 50, 0))
    assert (len(first), len(second)) == (30, 50)
    assert not set(first) & set(second)
    assert len(set(first)) == 30 and len(set(second)) == 50
    assert [indices(part) for part in split_images(images, 30, 50, 0)] == [first, second]
    assert [indices(part) for part in split_images(images, 30, 50, 1)] != [first, second]
    assert max(first) > 50 and max(second) > 50
    for wanted, counts in (((60, 60), (50, 50)), ((30, 500), (30, 70)), ((60, 40), (60, 40))):
        assert tuple(part.count for part in split_images(images, *wanted, 0)) == counts


def test_too_few_images_to_split(clean_images: CleanImages) -> None:
    with pytest.raises(InputError, match=r"at least 20 images.*found 39 in all.*more clean images"):
        split_images(clean_images(39), 256, 512, 0)
    with pytest.raises(InputError, match=r"at least 20 images.*19 were asked for"):
        split_images(clean_images(100), 19, 512, 0)


def test_external_data_is_refused_before_the_work(bundle: Bundle) -> None:
    graph = onnx.load(bundle.path / "model.onnx")
    entry = graph.graph.initializer[0].external_data.add()
    entry.key, entry.value = "location", "elsewhere.bin"
    graph.graph.initializer[0].data_location = onnx.TensorProto.EXTERNAL
    content = graph.SerializeToString()
    (bundle.path / "model.onnx").write_bytes(content)
    manifest = json.loads((bundle.path / "bundle.json").read_text())
    listed = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    manifest["files"]["model.onnx"] = listed
    (bundle.path / "bundle.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match="external"):
        Quantizer(Bundle.open(bundle.path), Options())


# --- the command line ---


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
    code, out, err = fozo("quantize", bundle.path, folder, *FEW, "--portable", "--sensitivity")
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
    assert "blocks.2.mlp.fc2" in out and "7-bit weights" in out


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
    ],
)
def test_command_with_bad_input(
    arguments: list[Any], message: str, bundle: Bundle, folder: Path, fozo: Callable[..., Any]
) -> None:
    before = content(bundle.path)
    code, _, err = fozo("quantize", bundle.path, *(str(a).format(folder=folder) for a in arguments))
    assert code in (1, 2)
    assert message in err
    assert content(bundle.path) == before


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
    times(monkeypatch, 1.25)
    monkeypatch.setattr("fozo.quant.quantization_report.MIN_AGREEMENT", 50.0)
    before = content(bundle.path)
    code, _, err = fozo("quantize", bundle.path, folder, *FEW)
    assert code == 1
    assert err.startswith("Error: the int8 graph was refused and not added: it is slower than fp32")
    assert err.count("\n") == 1
    assert content(bundle.path) == before
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
    before = content(bundle.path)
    code, _, err = fozo("quantize", bundle.path, folder, *FEW)
    assert (code, err.strip()) == (130, "Interrupted.")
    assert content(bundle.path) == before
    assert {p.name for p in bundle.path.parent.iterdir()} == {"bundle"}


def test_command_without_onnx(
    bundle: Bundle, folder: Path, fozo: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("quantization", "quantizer"):
        monkeypatch.delitem(sys.modules, f"fozo.quant.{module}")
    monkeypatch.setitem(sys.modules, "onnx", None)
    code, _, err = fozo("quantize", bundle.path, folder)
    assert code == 1
    assert err.startswith("Error: quantize needs onnx")
    assert 'pip install "fozo[quant]"' in err


@pytest.fixture
def quick_export(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sklearn", reason="the demonstration's images come with scikit-learn")
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
    times(monkeypatch, 1.25)
    code, out, _ = fozo("export", "--model", "fozo_demo_vit", "--out", tmp_path / "bundle")
    assert code == 0
    assert "No int8 graph: the int8 graph was refused and not added: it is slower than fp32" in out
    bundle = Bundle.open(tmp_path / "bundle")
    assert list(bundle.manifest.graphs) == list(bundle.manifest.source) == ["fp32"]


# --- real images ---


def test_vit_tiny_on_real_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = real_data("models", "vit_tiny_patch16_224.augreg_in21k_ft_in1k.safetensors")
    pytest.importorskip("timm", reason="the graph is exported from timm")
    from fozo.export.exporter import export_model
    from fozo.export.model_request import Request

    monkeypatch.setattr("fozo.export.verify.BATCHES", (1, 2))
    times(monkeypatch, 0.5)
    bundle = export_model(Request("vit_tiny_patch16_224", weights), tmp_path / "bundle").bundle
    m = bundle.manifest
    source, val = (
        folder_source(real_data("imagenet", part), m.preprocessing, count, 0, m.class_ids)
        for part, count in (("source", 128), ("val", 400))
    )
    assert (source.count, val.count) == (128, 400)
    assert source.labels is not None and val.labels is not None
    changed, report = quantize(bundle, source, val, Options(force=True))
    found = report.comparison
    assert found.images == 400
    assert found.reference_accuracy is not None and found.reference_accuracy > 70
    assert found.loss is not None and abs(found.loss) <= 1.5
    assert found.cosine_features >= 0.995
    assert report.integer == report.intended == 1 + 12 * 7
    assert report.megabytes[0] < 0.4 * report.megabytes[1]
    assert len(find_products(onnx.load(changed.graph("fp32")))) == report.intended
