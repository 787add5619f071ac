"""The CLIP-like model of the benchmarks: its image tower is the ViT, and its text tower can be trained."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from doubles import load_script

torch = pytest.importorskip("torch", reason="export needs PyTorch")
timm = pytest.importorskip("timm", reason="export needs timm")
open_clip = pytest.importorskip("open_clip", reason="export of CLIP needs open_clip")

from open_clip.model import CLIP  # noqa: E402
from timm.models.vision_transformer import VisionTransformer  # noqa: E402
from vit_doubles import randomise  # noqa: E402

BENCH = Path(__file__).resolve().parent.parent / "bench"


@pytest.fixture(scope="module")
def image_side() -> ModuleType:
    return load_script(BENCH / "clip_like_image.py")


@pytest.fixture(scope="module")
def text_side() -> ModuleType:
    return load_script(BENCH / "clip_like_text.py")


def draw_rows(count: int, width: int) -> Any:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(count, width))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True) * rng.uniform(0.9, 1.1, (count, 1))


def test_rows_become_equal_in_length_and_logits_stay(image_side: ModuleType) -> None:
    weight, features = draw_rows(60, 24), np.random.default_rng(1).normal(size=(10, 24))
    equal = image_side.equalise_rows(weight)
    np.testing.assert_allclose(np.linalg.norm(equal.rows, axis=1), 1)
    logits, cosines = features @ weight.T, features @ equal.projection @ equal.rows.T
    np.testing.assert_allclose(cosines / cosines[:, :1], logits / logits[:, :1], rtol=1e-9)
    assert (np.sign(cosines) == np.sign(logits)).all()


def test_lengths_that_differ_too_much_are_an_error(image_side: ModuleType) -> None:
    weight = draw_rows(60, 24)
    weight[0] *= 30
    with pytest.raises(ValueError, match="positive definite"):
        image_side.equalise_rows(weight)


def test_the_image_tower_computes_what_the_vit_does(image_side: ModuleType) -> None:
    vit = VisionTransformer(img_size=32, patch_size=8, embed_dim=48, depth=2, num_heads=3, num_classes=20)
    randomise(vit.eval())
    projection = np.random.default_rng(2).normal(size=(48, 48))
    model = CLIP(48, image_side.describe_image_tower(vit), {"width": 32, "heads": 2, "layers": 1})
    model.visual.load_state_dict(image_side.convert_image_tower(vit, projection))
    images = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        features = vit.forward_head(vit.forward_features(images), pre_logits=True)
        expected = features @ torch.from_numpy(projection).float()
        actual = model.eval().visual(images)
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)


def test_the_text_tower_learns_the_rows(text_side: ModuleType) -> None:
    """Two contexts for five names; tokens that no text has keep their embeddings."""
    torch.manual_seed(0)
    image = {"image_size": 32, "patch_size": 16, "width": 32, "layers": 1, "head_width": 16}
    model = CLIP(16, image, {"width": 32, "heads": 2, "layers": 1, "vocab_size": 40})
    before = model.token_embedding.weight.detach().clone()
    texts = [[[30, 1, 10 + name, 31], [30, 2, 3, 10 + name, 31]] for name in range(5)]
    rows = draw_rows(5, 16)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    losses = text_side.train_text_tower(model, texts, rows, steps=150, batch=5, seed=0)
    assert len(losses) == 150 and losses[-1] < 0.05 < losses[0]
    tokens = torch.zeros(5, 77, dtype=torch.int64)
    for name in range(5):
        tokens[name, :5] = torch.tensor(texts[name][1])
    with torch.inference_mode():  # open_clip's own way, which finds the end token as the largest
        embeddings = model.encode_text(tokens, normalize=True)
    assert (embeddings @ torch.from_numpy(rows).float().T).argmax(1).tolist() == list(range(5))
    assert torch.equal(model.token_embedding.weight[20], before[20])
    assert not torch.equal(model.token_embedding.weight[12], before[12])
