"""Searched ends of grids, and weights that compensate errors, against independent computations."""

from __future__ import annotations

import numpy as np
import pytest
from fozo.engine.model import FloatArray

onnx = pytest.importorskip("onnx", reason="the room of quantisation needs onnx")

import onnxruntime  # noqa: E402
from fozo.quant.calibration import Range  # noqa: E402
from fozo.quant.clip_search import (  # noqa: E402
    SHARES,
    search_signed_grid,
    search_unsigned_grid,
    search_weight_scales,
)
from fozo.quant.error_compensation import RIDGE, compensate_errors, round_rows  # noqa: E402
from fozo.quant.grid import Grid, fit_unsigned_grid  # noqa: E402
from fozo.quant.input_moments import MomentSums  # noqa: E402
from fozo.quant.weight_blocks import (  # noqa: E402
    list_attributes,
    pack_blocks,
    repeat_scales,
    search_block_scales,
)


def make_inputs(seed: int, tokens: int = 4000, width: int = 24) -> FloatArray:
    """Return correlated activations with a mean."""
    generator = np.random.default_rng(seed)
    mixed = generator.normal(size=(tokens, width)) @ generator.normal(size=(width, width)) / 4
    return (mixed + generator.normal(size=width)).astype(np.float32)


def eliminate_rows(weight: FloatArray, hessian: FloatArray, scale: FloatArray, largest: int) -> FloatArray:
    """Round row by row with the inverse of what is left of the Hessian, as optimal brain surgeons do."""
    weight, inverse = weight.copy(), np.linalg.inv(hessian)
    result, left = np.zeros_like(weight), list(range(len(weight)))
    for k in np.argsort(-np.diag(hessian), kind="stable"):
        result[k] = np.clip(np.rint(weight[k] / scale), -largest, largest)
        error = (weight[k] - result[k] * scale) / inverse[k, k]
        for row in left:
            weight[row] = weight[row] - inverse[row, k] * error
        inverse = inverse - np.outer(inverse[:, k], inverse[k]) / inverse[k, k]
        left.remove(int(k))
    return result


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("bits", [3, 4, 6])
def test_rounding_is_that_of_optimal_brain_surgery(
    seed: int, bits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fozo.quant.error_compensation.BLOCK", 7)  # several blocks, the last one shorter
    generator = np.random.default_rng(seed)
    x = make_inputs(seed)
    hessian = np.cov(x.T.astype(np.float64)) + 0.01 * np.eye(24)
    weight = generator.normal(size=(24, 10))
    largest = 2 ** (bits - 1) - 1
    scale = np.abs(weight).max(axis=0) / largest
    found = round_rows(weight, hessian, np.broadcast_to(scale, weight.shape), (-largest, largest))
    np.testing.assert_array_equal(found, eliminate_rows(weight, hessian, scale, largest))


@pytest.mark.parametrize("seed", range(4))
def test_moments_are_those_of_all_tokens(seed: int) -> None:
    x = make_inputs(seed, tokens=600)
    x[:, 5] *= 40
    grid = Grid(0.25, 7, signed=False, outliers=(5,), bits=4)
    sums = MomentSums(grid, seed)
    for start in range(0, 600, 100):
        sums.add(x[start : start + 100].reshape(2, 50, 24), 2)
    moments = sums.summarise()
    clipped = x.astype(np.float64)
    clipped[:, 5] = np.clip(clipped[:, 5], -7 * 0.25, 8 * 0.25)
    rounded = 0.25 * np.clip(np.rint(x.astype(np.float64) / 0.25), -7, 8)
    joint = np.cov(np.concatenate([rounded, clipped], axis=1).T, bias=True)
    np.testing.assert_allclose(moments.mean, clipped.mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(moments.rounded_mean, rounded.mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(moments.gram, joint[:24, :24], atol=1e-4)
    np.testing.assert_allclose(moments.cross, joint[:24, 24:], atol=1e-4)


@pytest.mark.parametrize("seed", range(4))
def test_at_most_64_tokens_of_an_image_count(seed: int) -> None:
    x = make_inputs(seed, tokens=300)
    sums = MomentSums(Grid(0.1, 8, signed=False, bits=4), seed)
    sums.add(x.reshape(2, 150, 24), 2)
    assert sums._tokens == 128


@pytest.mark.parametrize("seed", range(6))
def test_compensation_is_least_squares_that_is_rounded(seed: int) -> None:
    generator = np.random.default_rng(seed)
    x, weight = make_inputs(seed), generator.normal(size=(24, 10)).astype(np.float32)
    grid = fit_unsigned_grid(float(x.min()), float(x.max()), 4)
    sums = MomentSums(grid, seed)
    sums.add(x, 1000)  # all tokens
    integers, scale, bias = compensate_errors(weight, sums.summarise(), 4)
    r = grid.round(x).astype(np.float64)
    centred, target = r - r.mean(axis=0), (x - x.mean(axis=0)) @ weight.astype(np.float64)
    ridge = RIDGE * np.square(centred).mean()
    rows = np.sqrt(ridge * len(x)) * np.eye(24)
    joined = np.concatenate([centred, rows]), np.concatenate([target, rows @ weight])
    best = np.linalg.lstsq(*joined, rcond=None)[0]
    # Sums in float32 may turn a half, or a choice among scales, the other way.
    assert (np.abs(scale / search_weight_scales(best, 4) - 1) < 1e-3).mean() >= 0.9
    hessian = centred.T @ centred / len(x) + ridge * np.eye(24)
    expected = eliminate_rows(best, hessian, scale.astype(np.float64), 7)
    assert (integers == expected).mean() > 0.98

    exact, nearest_scale = x @ weight, search_weight_scales(weight, 4)
    nearest = np.clip(np.rint(weight / nearest_scale), -7, 7) * nearest_scale
    difference = r @ (integers * scale) + bias - exact
    assert np.abs(difference.mean(axis=0)).max() < 1e-3  # nothing is left of the mean
    assert np.square(difference).sum() < 0.8 * np.square(r @ nearest - exact).sum()


@pytest.mark.parametrize("bits", [3, 4, 6])
def test_ends_have_the_least_squared_error(bits: int) -> None:
    generator = np.random.default_rng(bits)
    x = generator.standard_t(3, (512, 16)).astype(np.float32)
    range_ = Range(x.min(axis=0).astype(np.float64), x.max(axis=0).astype(np.float64))
    low, high, top = float(x.min()), float(x.max()), 2**bits - 1
    errors = {}
    for a in SHARES:
        for b in SHARES:
            scale = np.float32((high * b - low * a) / top)
            zero = round(-low * a / float(scale))
            q = np.clip(np.rint(x / scale) + zero, 0, top)
            errors[float(scale), zero] = float(np.square((q - zero) * scale - x, dtype=np.float64).sum())
    found = search_unsigned_grid(range_, x, bits, outliers=False)
    assert errors[found.scale, found.zero] <= min(errors.values()) * 1.001
    assert found.scale < 0.8 * (high - low) / top
    assert found.bits == bits
    signed = search_signed_grid(range_, x, bits)
    assert signed.signed and signed.zero == 0
    assert signed.scale * (2 ** (bits - 1) - 1) < 0.9 * max(high, -low)


def test_ends_of_a_positive_range() -> None:
    x = np.abs(np.random.default_rng(1).normal(size=(100, 8))).astype(np.float32)
    grid = search_unsigned_grid(Range(x.min(axis=0), x.max(axis=0)), x, 4, outliers=False)
    assert grid.zero == 0 and grid.limits[0] == 0


@pytest.mark.parametrize("bits", [3, 4, 8])
def test_scales_of_weights(bits: int) -> None:
    generator = np.random.default_rng(bits)
    weight = generator.standard_t(3, (400, 6)).astype(np.float32)
    weight[:, 2] = 0
    largest = 2 ** (bits - 1) - 1
    found = search_weight_scales(weight, bits)
    for column, scale in zip(weight.T, found, strict=True):
        candidates = np.abs(column).max() * np.array(SHARES) / largest
        if not candidates.any():
            assert np.isfinite(1 / scale)
            continue
        errors = [
            np.square(s * np.clip(np.rint(column / s), -largest, largest) - column).sum() for s in candidates
        ]
        assert scale == pytest.approx(candidates[int(np.argmin(errors))], rel=1e-5)


@pytest.mark.parametrize("rows", [32, 64, 50])
def test_blocks_are_what_the_runtime_multiplies(rows: int) -> None:
    generator = np.random.default_rng(rows)
    weight = generator.normal(size=(rows, 12)).astype(np.float32)
    weight[:32, 4] = 0
    scale = search_block_scales(weight)
    scales = repeat_scales(scale, rows)
    assert scale.shape == (-(-rows // 32), 12) and scales.shape == weight.shape
    integers = np.clip(np.rint(weight / scales), -8, 7).astype(np.int8)
    assert np.abs(integers * scales - weight).max() < 0.4 * np.abs(weight).max()
    tensors = {"b": pack_blocks(integers), "s": scale.T.ravel()}
    node = onnx.helper.make_node(
        "MatMulNBits", ["x", "b", "s"], ["y"], domain="com.microsoft", **list_attributes(integers)
    )
    kinds = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in "xy"]
    stored = [onnx.numpy_helper.from_array(values, name) for name, values in tensors.items()]
    graph = onnx.helper.make_graph([node], "blocks", kinds[:1], kinds[1:], stored)
    opsets = [onnx.helper.make_opsetid("", 20), onnx.helper.make_opsetid("com.microsoft", 1)]
    content = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    x = generator.normal(size=(2, 5, rows)).astype(np.float32)
    (found,) = session.run(None, {"x": x})
    np.testing.assert_allclose(found, x.astype(np.float64) @ (integers * scales), atol=1e-4)


def test_compensation_of_blocks() -> None:
    generator = np.random.default_rng(3)
    x, weight = make_inputs(3, width=80), generator.normal(size=(80, 10)).astype(np.float32)
    sums = MomentSums(None, 0)
    sums.add(x, 1000)
    integers, scale, bias = compensate_errors(weight, sums.summarise(), 4, blocks=True)
    scales = repeat_scales(scale, 80)
    nearest_scales = repeat_scales(search_block_scales(weight), 80)
    nearest = np.clip(np.rint(weight / nearest_scales), -8, 7) * nearest_scales
    assert integers.min() >= -8 and integers.max() <= 7
    difference = x @ (integers * scales) + bias - x @ weight
    assert np.square(difference).sum() < 0.7 * np.square(x @ nearest - x @ weight).sum()
