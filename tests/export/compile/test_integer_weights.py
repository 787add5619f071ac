"""Bits of the weights of compiled steps, which other runtimes and older processors have to add."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from fozo.cli import cli
from fozo.engine.runtime.cpu import CpuFeatures, read_cpu_features
from fozo.export.compile import integer_weights
from fozo.export.compile.integer_weights import find_weight_bits, warn_of_overflow

OLD = CpuFeatures("Old", "x86_64", ("avx2",))


@pytest.mark.parametrize(
    ("values", "bits"),
    [([1, -127], 8), ([-128, 3], 8), ([63, -2], 7), ([-31, 30], 6), ([-7, 7], 4), ([], None)],
)
def test_bits_are_those_of_the_largest_weight(values: list[int], bits: int | None) -> None:
    """Constants with fewer axes are zeros and limits of grids, not weights."""
    arrays = [np.asarray(127, np.int8), np.full(4, 127, np.int8), np.full((2, 2), 255, np.uint8)]
    arrays += [np.ones((2, 2), np.float32), *([np.asarray([values], np.int8)] if values else [])]
    tensors = [onnx.numpy_helper.from_array(array, str(index)) for index, array in enumerate(arrays)]
    model = onnx.helper.make_model(onnx.helper.make_graph([], "weights", [], [], tensors))
    assert find_weight_bits(model) == bits


@pytest.mark.parametrize("features", [(), ("avx2",), ("avx2", "avx512_vnni")])
@pytest.mark.parametrize("bits", [None, 7, 8])
def test_steps_that_would_overflow_here_give_a_warning(
    bits: int | None,
    features: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    recwarn: pytest.WarningsRecorder,
) -> None:
    monkeypatch.setattr(integer_weights, "read_cpu_features", lambda: CpuFeatures("Some", "x86_64", features))
    warn_of_overflow(bits, "int8")
    expected = bits == 8 and "avx512_vnni" not in features
    assert len(recwarn) == expected
    if expected:
        message = str(recwarn.pop().message)
        assert "\n" not in message and "fozo quantize --weight-bits 7" in message


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_command_says_the_bits(
    precision: str, int8_bundle_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bits = None if precision == "fp32" else 8 if read_cpu_features().full_int8 else 7
    monkeypatch.setattr(integer_weights, "read_cpu_features", lambda: OLD)
    arguments = ["compile", str(int8_bundle_path), "-m", "neo", "--precision", precision]
    result = CliRunner().invoke(cli, [*arguments, "--out", str(tmp_path / "step")], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "step" / "step.json").read_text())["weight_bits"] == bits
