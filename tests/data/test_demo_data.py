"""The demonstration's images and model."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fozo.data.demo import DEMO_CLASSES, DEMO_DIGITS, demo_images
from fozo.engine.errors import InputError


def test_the_shipped_digits_are_those_of_scikit_learn() -> None:
    """`make demo-files` writes them."""
    digits = pytest.importorskip("sklearn.datasets").load_digits()
    with np.load(DEMO_DIGITS) as arrays:
        np.testing.assert_array_equal(arrays["images"], digits.images)
        np.testing.assert_array_equal(arrays["labels"], digits.target)


def test_the_shipped_digits_are_small_and_have_their_licence() -> None:
    assert DEMO_DIGITS.stat().st_size <= 100_000
    licence = DEMO_DIGITS.with_name("demo_digits_license.txt").read_text(encoding="utf-8")
    for words in ("Alpaydin", "Kaynak", "10.24432/C50P49", "creativecommons.org/licenses/by/4.0", "Changes"):
        assert words in licence


@pytest.mark.parametrize("content", [None, b"", b"no archive", b"PK\x03\x04"])
def test_a_damaged_file_of_digits_is_named(
    content: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "digits.npz"
    if content is not None:
        path.write_bytes(content)
    monkeypatch.setattr("fozo.data.demo.DEMO_DIGITS", path)
    with pytest.raises(InputError, match=r"digits\.npz .*install fozo again"):
        demo_images("train")


def test_an_unknown_split_is_refused() -> None:
    with pytest.raises(InputError, match="'train' or 'test', found 'val'"):
        demo_images("val")  # type: ignore[arg-type]


@pytest.mark.parametrize(("split", "count"), [("train", 1000), ("test", 797)])
def test_shapes_and_ranges(split: Any, count: int) -> None:
    images, labels = demo_images(split)
    assert images.shape == (count, 32, 32, 3)
    assert images.dtype == np.uint8
    assert (images.min(), images.max()) == (0, 255)
    assert np.array_equal(images[..., 0], images[..., 2])
    assert labels.shape == (count,)
    assert labels.dtype == np.int64
    assert sorted(set(labels.tolist())) == list(range(len(DEMO_CLASSES)))


def test_the_split_is_stratified_disjoint_and_complete() -> None:
    datasets = pytest.importorskip("sklearn.datasets")
    (train, train_labels), (test, test_labels) = demo_images("train"), demo_images("test")
    counts, in_train = np.bincount(datasets.load_digits().target), np.bincount(train_labels)
    assert np.array_equal(in_train + np.bincount(test_labels), counts)
    assert np.abs(in_train - counts * 1000 / 1797).max() <= 1
    distinct = {hashed.tobytes() for hashed in datasets.load_digits().images}
    both = {pixels.tobytes() for pixels in np.concatenate([train, test])}
    assert len(both) == len(distinct) == 1797  # no image twice, hence none on both sides


@pytest.mark.parametrize(
    ("split", "pixels", "classes"),
    [("train", "5a9336381375860d", "f1d720ed46800769"), ("test", "6fd4d58c5235ecd2", "ddd1d8bfaf3cd335")],
)
def test_images_and_split_never_change(split: Any, pixels: str, classes: str) -> None:
    """The shipped bundle was made of these; other images need `make demo-files`."""
    images, labels = demo_images(split)
    assert hash_bytes(images.tobytes()) == pixels
    assert hash_bytes(labels.astype(np.uint8).tobytes()) == classes


def hash_bytes(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def test_enlarging_keeps_the_amount_of_ink() -> None:
    datasets = pytest.importorskip("sklearn.datasets")
    ink = np.concatenate([demo_images(split)[0].mean(axis=(1, 2, 3)) for split in ("train", "test")])
    assert ink.mean() == pytest.approx(datasets.load_digits().images.mean() * 255 / 16, rel=0.02)


def test_the_shipped_model_knows_clean_digits() -> None:
    pytest.importorskip("timm")
    torch = pytest.importorskip("torch")
    from fozo.export.demo_model import DEMO_WEIGHTS, create_demo_model
    from safetensors.torch import load_file

    state = torch.random.get_rng_state()
    model = create_demo_model().eval()
    assert torch.equal(torch.random.get_rng_state(), state)
    model.load_state_dict(load_file(DEMO_WEIGHTS))
    images, labels = demo_images("test")
    with torch.inference_mode():
        logits = model(torch.from_numpy(images.transpose(0, 3, 1, 2) / np.float32(127.5) - 1))
    assert (logits.argmax(1).numpy() == labels).mean() >= 0.97
    assert DEMO_WEIGHTS.stat().st_size <= 2_000_000


def test_timm_resolves_the_models_preprocessing() -> None:
    timm_data = pytest.importorskip("timm.data")
    from fozo.export.demo_model import create_demo_model

    resolved = timm_data.resolve_model_data_config(create_demo_model())
    assert resolved["input_size"] == (3, 32, 32)
    assert resolved["interpolation"] == "bicubic"
    assert resolved["mean"] == resolved["std"] == (0.5, 0.5, 0.5)
    assert resolved["crop_pct"] == 1.0
