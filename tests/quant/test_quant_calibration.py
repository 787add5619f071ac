"""Ranges of activations against extremes that ONNX Runtime gives directly, with every kind of prompts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fozo.engine.errors import InputError
from fozo.engine.model import FloatArray, ImageArray

onnx = pytest.importorskip("onnx", reason="quantisation reads graphs with onnx")

import onnxruntime as ort  # noqa: E402
from fozo.quant import calibration  # noqa: E402
from fozo.quant.calibration import CASES, Range, calibrate  # noqa: E402
from fozo.quant.settings import CALIBRATORS  # noqa: E402

TENSORS = ("blocks.0.norm1", "blocks.1.attn.key/bias", "blocks.2.mlp/act")
BOUND, WIDTH, NORMS, BATCHES = 0.0625, 64, 6, 12
Feed = dict[str, Any]


@pytest.fixture(scope="module")
def model(bundle_path: Path) -> Any:
    return onnx.load(bundle_path / "model.onnx")


@pytest.fixture(scope="module")
def batches(random_images: Any) -> list[ImageArray]:
    return [random_images(size, seed=70 + i) for i, size in enumerate([4] * (BATCHES - 1) + [1])]


def found(model: Any, batches: Any, **options: Any) -> dict[str, Range]:
    facts = {"width": WIDTH, "prompt_bound": BOUND, "norms": NORMS}
    return calibrate(model, TENSORS, batches, threads=1, **facts, **options)


@pytest.fixture
def feeds(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Feed]]:
    """Record the inputs that calibration passes to ONNX Runtime."""
    seen: list[Feed] = []
    create = ort.InferenceSession

    class Session:
        def __init__(self, *arguments: Any, **options: Any) -> None:
            self.session = create(*arguments, **options)

        def run(self, names: list[str], feed: Feed) -> Any:
            seen.append(feed)
            return self.session.run(names, feed)

    with monkeypatch.context() as patch:
        patch.setattr(calibration.ort, "InferenceSession", Session)
        yield seen


def extremes(model: Any, feeds: list[Feed]) -> dict[str, tuple[FloatArray, FloatArray]]:
    """Lowest and highest value of each channel in each batch, `[batches, C]`, in our own session."""
    observed = onnx.ModelProto()
    observed.CopyFrom(model)
    observed.graph.output.extend(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in TENSORS
    )
    session = ort.InferenceSession(observed.SerializeToString(), providers=["CPUExecutionProvider"])
    answers = [session.run(list(TENSORS), feed) for feed in list(feeds)]
    return {
        name: (np.stack([a[i].min((0, 1)) for a in answers]), np.stack([a[i].max((0, 1)) for a in answers]))
        for i, name in enumerate(TENSORS)
    }


@pytest.mark.parametrize("calibrator", CALIBRATORS)
def test_ranges_are_those_of_the_batches(
    calibrator: str, model: Any, batches: list[ImageArray], feeds: list[Feed]
) -> None:
    ranges = found(model, batches, calibrator=calibrator)
    assert [feed["images"].tobytes() for feed in feeds] == [images.tobytes() for images in batches]
    assert set(ranges) == set(TENSORS)
    summary = {
        "minmax": (lambda v: v.min(0), lambda v: v.max(0)),
        "average": (lambda v: v.mean(0), lambda v: v.mean(0)),
        "percentile": (lambda v: np.percentile(v, 10, axis=0), lambda v: np.percentile(v, 90, axis=0)),
    }[calibrator]
    for name, (low, high) in extremes(model, feeds).items():
        cases = [slice(case, None, 5) for case in range(5)]
        expected_low = np.min([summary[0](low[case].astype(np.float64)) for case in cases], axis=0)
        expected_high = np.max([summary[1](high[case].astype(np.float64)) for case in cases], axis=0)
        assert ranges[name].low.shape == low[0].shape
        np.testing.assert_allclose(ranges[name].low, expected_low, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(ranges[name].high, expected_high, rtol=1e-4, atol=1e-5)


def test_every_kind_of_prompts_has_its_turn(model: Any, batches: list[ImageArray], feeds: list[Feed]) -> None:
    found(model, batches)
    assert len(CASES) == 5
    for index, feed in enumerate(feeds):
        prompts = feed["prompts"]
        assert prompts.dtype == np.float32
        if index % 5 == 0:
            assert prompts.shape == (1, 0, WIDTH)
            continue
        scale, noise = {1: (1, 0), 2: (1, 0.1), 3: (3, 0.3), 4: (3, 0.5)}[index % 5]
        assert prompts.shape == (1, 3, WIDTH)
        assert prompts.std() == pytest.approx((scale**2 * BOUND**2 / 3 + noise**2) ** 0.5, rel=0.2)
        assert (np.abs(prompts).max() <= scale * BOUND) is np.bool_(noise == 0)
    assert not np.array_equal(feeds[1]["prompts"], feeds[6]["prompts"])


def test_norms_are_moved_as_well(model: Any, batches: list[ImageArray], feeds: list[Feed]) -> None:
    found(model, batches)
    for index, feed in enumerate(feeds):
        norms = feed["norms"]
        assert (norms.dtype, norms.shape) == (np.float32, (1, NORMS, 2, WIDTH))
        assert norms.std() == pytest.approx([0, 0, 0.02, 0.05, 0.05][index % 5], rel=0.2)
    assert not np.array_equal(feeds[2]["norms"], feeds[7]["norms"])


def test_seed_images_and_batches(model: Any, batches: list[ImageArray]) -> None:
    counted: list[int] = []
    first = found(model, iter(batches), seed=1, on_batch=counted.append)
    assert counted == [len(images) for images in batches]
    again, other = found(model, batches, seed=1), found(model, batches, seed=2)
    for name in TENSORS:
        np.testing.assert_array_equal(first[name].low, again[name].low)
        np.testing.assert_array_equal(first[name].high, again[name].high)
    # Prompts are tokens of their own: what they do shows where tokens are mixed.
    assert not np.array_equal(first[TENSORS[2]].high, other[TENSORS[2]].high)


def test_the_model_is_left_as_it_is(model: Any, batches: list[ImageArray]) -> None:
    before = model.SerializeToString(deterministic=True)
    found(model, batches[:5])
    assert model.SerializeToString(deterministic=True) == before


def test_nothing_to_observe(model: Any, batches: list[ImageArray]) -> None:
    assert calibrate(model, (), batches[:5], width=WIDTH, prompt_bound=BOUND) == {}


@pytest.mark.parametrize("count", [0, 1, 4])
def test_too_few_batches(count: int, model: Any, batches: list[ImageArray]) -> None:
    with pytest.raises(InputError, match=rf"at least 5 batches of 4 images.*found {count}.*more images"):
        found(model, batches[:count])


def test_unknown_calibrator(model: Any, batches: list[ImageArray]) -> None:
    with pytest.raises(InputError, match=r"percentile, average, minmax, found 'entropy'"):
        found(model, batches, calibrator="entropy")


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("weight", ["norms.stored", "blocks.1.attn.key.weight"])
def test_values_that_are_not_finite(value: float, weight: str, model: Any, batches: list[ImageArray]) -> None:
    broken = onnx.ModelProto()
    broken.CopyFrom(model)
    tensor = next(t for t in broken.graph.initializer if t.name == weight)
    array = onnx.numpy_helper.to_array(tensor).copy()
    array.reshape(-1)[5] = value
    tensor.CopyFrom(onnx.numpy_helper.from_array(array, weight))
    with pytest.raises(InputError, match="non-finite values on the calibration images"):
        found(broken, batches)
