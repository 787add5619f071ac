"""The CLIP demonstration's training: changes of images, targets, loss, and determinism."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fozo.data.demo import DEMO_CLIP, demo_images
from fozo.engine.errors import ExportError

torch = pytest.importorskip("torch", reason="export needs PyTorch")
pytest.importorskip("open_clip", reason="export of CLIP needs open_clip")

from fozo.export.clip_exporter import export_clip  # noqa: E402
from fozo.export.clip_source import ClipRequest  # noqa: E402
from fozo.export.demo_augmentation import change_images, draw_adjectives  # noqa: E402
from fozo.export.demo_captions import INVERTED, Caption  # noqa: E402
from fozo.export.demo_clip_model import CONTEXT_LENGTH, DEMO_CLIP_WEIGHTS, create_demo_clip  # noqa: E402
from fozo.export.demo_vocabulary import read_demo_tokenizer  # noqa: E402
from fozo.export.image_format import ImageOptions  # noqa: E402
from fozo.export.text_training import encode_texts, pad_texts, tokenise  # noqa: E402
from fozo.export.train_demo import normalise  # noqa: E402
from fozo.export.train_demo_clip import compute_loss, main, match  # noqa: E402

NONE: frozenset[str] = frozenset()


def change(word: str) -> float:
    """Return the mean ink of 50 digits that were changed by one word, divided by that of plain ones."""
    inputs = normalise(demo_images("train")[0][:50])
    plain, changed = (
        change_images(inputs, [words] * 50, np.random.default_rng(0)) for words in (NONE, frozenset({word}))
    )
    return float((changed + 1).mean() / (plain + 1).mean())


def test_images_change_as_their_words_say() -> None:
    assert change("thin") < 0.8 < 1.2 < change("bold")
    assert change("small") < 0.7 < 1.2 < change("large")
    assert change("tilted") == pytest.approx(1, abs=0.15)
    inputs = normalise(demo_images("train")[0][:5])
    plain, inverted = (
        change_images(inputs, [words] * 5, np.random.default_rng(0))
        for words in (NONE, frozenset({INVERTED}))
    )
    torch.testing.assert_close(inverted, -plain)


def test_no_word_contradicts_another() -> None:
    rng = np.random.default_rng(0)
    drawn = [draw_adjectives(rng) for _ in range(2000)]
    assert not any({"thin", "bold"} <= words or {"small", "large"} <= words for words in drawn)
    shares = dict.fromkeys(("thin", "bold", "small", "large", "tilted"), 0.15)
    for word, share in {INVERTED: 0.1, **shares}.items():
        assert np.mean([word in words for words in drawn]) == pytest.approx(share, abs=0.03)


def test_every_true_caption_is_a_target() -> None:
    captions = [Caption(3, NONE, ""), Caption(3, frozenset({"thin"}), ""), Caption(4, NONE, "")]
    matches = match(np.array([3, 3, 4]), [frozenset({"thin"}), NONE, NONE], captions)
    assert matches.tolist() == [[1, 1, 0], [1, 0, 0], [0, 0, 1]]


def test_the_loss_is_clips_where_every_image_has_one_caption() -> None:
    """Radford et al. (2021), figure 3: the mean of both cross-entropies with the diagonal as target."""
    model = create_demo_clip().eval()
    images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    texts = torch.nn.functional.normalize(torch.randn(4, 64), dim=1)
    with torch.no_grad():
        logits = model.logit_scale.exp() * model.encode_image(images, normalize=True) @ texts.T
        expected = sum(torch.nn.functional.cross_entropy(z, torch.arange(4)) for z in (logits, logits.T)) / 2
        torch.testing.assert_close(compute_loss(model, images, texts, torch.eye(4)), expected)


def test_texts_are_encoded_as_open_clip_does() -> None:
    model, tokenizer = create_demo_clip(seed=3).eval(), read_demo_tokenizer()
    texts = [tokenise(tokenizer, text) for text in ("a photo of a three.", "nine", "unknown words")]
    tokens, ends = pad_texts(texts)
    padded = torch.zeros(3, CONTEXT_LENGTH, dtype=torch.int64)
    padded[:, : tokens.shape[1]] = tokens
    with torch.no_grad():
        expected = model.encode_text(padded, normalize=True)
        actual = encode_texts(model, model.token_embedding(tokens), ends)
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)


def test_training_is_deterministic(tmp_path: Path) -> None:
    """Two steps, twice; the shipped weights are what 1,000 of them give (minutes, hence not here)."""
    threads = torch.get_num_threads()
    try:
        for name in ("a", "b"):
            main(["--steps", "2", "--out", str(tmp_path / f"{name}.safetensors")], standalone_mode=False)
    finally:  # a script may set these for its process, a test may not
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(False)
    first = (tmp_path / "a.safetensors").read_bytes()
    assert first == (tmp_path / "b.safetensors").read_bytes()
    assert len(first) < 700_000


def test_the_demonstration_is_exported_by_name_and_is_fixed(tmp_path: Path) -> None:
    for request in (
        ClipRequest(DEMO_CLIP, activation="quick_gelu"),
        ClipRequest(DEMO_CLIP, images=ImageOptions(mean=(0.4,))),
    ):
        with pytest.raises(ExportError, match="fixed activation and preparation"):
            export_clip(request, tmp_path / "bundle")
    with pytest.raises(ExportError, match="found both"):
        export_clip(ClipRequest(DEMO_CLIP, weights=DEMO_CLIP_WEIGHTS, random=True), tmp_path / "bundle")
    names = tmp_path / "pair.txt"
    names.write_text("three\neight\n")
    manifest = export_clip(ClipRequest(DEMO_CLIP, classes_file=names), tmp_path / "bundle").bundle.manifest
    assert manifest.class_names == ("three", "eight")
