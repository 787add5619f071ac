"""Steps of a quantisation: bits of weights, sensitivity of layers, outlier channels, refused files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fozo.data.source import SourceImages
from fozo.engine.bundle.bundle import Bundle
from fozo.engine.errors import BundleError
from fozo.engine.runtime.cpu import parse_cpuinfo
from quant_doubles import PRODUCTS, ignore_progress

onnx = pytest.importorskip("onnx", reason="quantisation reads and writes graphs with onnx")

from fozo.quant import layer_integers  # noqa: E402
from fozo.quant.grid import make_unsigned_grid  # noqa: E402
from fozo.quant.quantizer import Quantizer, choose_weight_bits  # noqa: E402
from fozo.quant.sensitivity import format_effects  # noqa: E402
from fozo.quant.settings import Options  # noqa: E402


def test_bits_of_weights(bundle: Bundle, images: tuple[SourceImages, SourceImages], tmp_path: Path) -> None:
    made = Quantizer(bundle, Options(weight_bits=7))
    made.calibrate(images[0], ignore_progress)
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


def test_a_damaged_layer_comes_first(bundle: Bundle, images: tuple[SourceImages, SourceImages]) -> None:
    made = Quantizer(bundle, Options())
    made.calibrate(images[0], ignore_progress)
    advanced: list[int] = []
    sound = made.measure_effects(images[1], advanced.append)
    damaged = made.layers["blocks.1.mlp.fc1"]
    grid = replace(damaged.left, scale=damaged.left.scale / 20)
    made.layers["blocks.1.mlp.fc1"] = replace(damaged, left=grid)
    effects = made.measure_effects(images[1], ignore_progress)
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
        with monkeypatch.context() as patch:
            if not rule:
                patch.setattr(
                    layer_integers,
                    "make_unsigned_grid",
                    lambda r, bits, outliers: make_unsigned_grid(r, bits, outliers=False),
                )
            made.calibrate(images[0], ignore_progress)
            made.write(tmp_path / "int8.onnx", "fused")
            report = made.check(tmp_path / "int8.onnx", images[1], ignore_progress)
        found[rule] = report.comparison
        fc2 = {f"blocks.{index}.mlp.fc2": 1 for index in range(3)} if rule else {}
        assert {k: v for k, v in report.outlier_layers.items() if k.endswith("fc2")} == fc2
        assert report.integer == report.intended == PRODUCTS
    assert found[True].cosine_features >= 0.99
    assert 1 - found[False].cosine_features > 5 * (1 - found[True].cosine_features)
    assert found[False].signal_to_noise < found[True].signal_to_noise - 6


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
