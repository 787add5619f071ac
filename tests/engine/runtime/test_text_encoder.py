"""Texts through a text graph: against closed forms and open_clip, and independent of their company."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from bundle_doubles import make, replace_file
from fozo.engine.bundle.bundle import Bundle
from fozo.engine.bundle.text_entries import TextEntry
from fozo.engine.errors import BundleError, ComputeError, InputError
from fozo.engine.runtime import text_encoder
from fozo.engine.runtime.text_calls import plan_text_calls
from fozo.engine.runtime.text_encoder import TextEncoder
from fozo.engine.text.class_texts import tokenize_classes
from fozo.engine.text.tokenizer import Tokenizer
from text_doubles import (
    EMBEDDING,
    MERGES,
    START,
    WIDTH,
    draw_tower,
    embed_by_hand,
    make_text_bundle,
    text_graph,
    write_vocabulary,
)

SENTENCES = ("a photo of a cat.", "dog", "a cat and a dog", "3 dogs!")


@pytest.fixture
def encoder(tmp_path: Path) -> Iterator[TextEncoder]:
    with TextEncoder.open(make_text_bundle(tmp_path), workers=2) as opened:
        yield opened


def test_sentences_in_closed_form(encoder: TextEncoder) -> None:
    embeddings = encoder.encode_sentences(SENTENCES)
    assert (embeddings.shape, embeddings.dtype) == ((4, EMBEDDING), np.float32)
    expected = [embed_by_hand(encoder.tokenizer, sentence) for sentence in SENTENCES]
    np.testing.assert_allclose(embeddings, expected, atol=1e-6)


def test_contexts_times_texts_in_closed_form(encoder: TextEncoder) -> None:
    contexts = np.random.default_rng(0).normal(size=(3, 5, WIDTH)).astype(np.float32)
    texts = tokenize_classes(encoder.tokenizer, ["cat", "dog", "black cat"], "{}.", 77, 5)
    embeddings = encoder.encode(texts.tokens, contexts)
    for r, context in enumerate(contexts):
        for t, name in enumerate(["cat", "dog", "black cat"]):
            expected = embed_by_hand(encoder.tokenizer, f"{name}.", context)
            np.testing.assert_allclose(embeddings[r, t], expected, atol=1e-6)


def test_words_are_contexts(encoder: TextEncoder) -> None:
    context = encoder.embed_words("a photo of a")
    assert context.shape == (len(encoder.tokenizer.encode("a photo of a")), WIDTH)
    texts = tokenize_classes(encoder.tokenizer, ["cat"], "a photo of a {}.", 77)
    parts = encoder.encode(texts.tokens, context[None])[0]
    np.testing.assert_allclose(parts, encoder.encode_sentences(["a photo of a cat."]), atol=1e-6)
    assert encoder.embed_words("").shape == (0, WIDTH)


def test_spread_of_all_token_embeddings(encoder: TextEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    table, _ = draw_tower()
    assert encoder.compute_token_std() == pytest.approx(table.std(ddof=1), rel=1e-6)
    monkeypatch.setattr(text_encoder, "TOKENS_PER_CALL", 100)
    assert encoder.compute_token_std() == pytest.approx(table.std(ddof=1), rel=1e-6)


@pytest.mark.parametrize("seed", range(40))
def test_calls_hold_every_text_behind_every_context(seed: int) -> None:
    generator = np.random.default_rng(seed)
    lengths = generator.integers(1, 76, generator.integers(1, 200)).tolist()
    contexts, vectors = int(generator.integers(1, 30)), int(generator.choice([0, 1, 4, 16]))
    count = np.zeros((contexts, len(lengths)), int)
    for call in plan_text_calls(lengths, contexts, vectors):
        assert len({lengths[index] for index in call.texts}) == 1
        assert 2 <= len(call.texts) <= 32
        assert vectors > 0 or len(call.texts) % 8 == 0
        unique = sorted(set(call.texts))
        assert sorted(call.texts) == sorted([*unique, *[call.texts[-1]] * (len(call.texts) - len(unique))])
        count[slice(*call.contexts), unique] += 1
        rows = 1 + vectors + len(call.texts) * lengths[call.texts[0]]
        assert call.contexts[1] - call.contexts[0] <= max(1, 512 // rows)
    assert (count == 1).all()


@pytest.mark.parametrize(
    ("contexts", "actual"),
    [
        (np.zeros((1, 2, WIDTH)), "float64"),
        (np.zeros((1, 2, WIDTH + 1), np.float32), "5"),
        (np.zeros((0, 2, WIDTH), np.float32), r"\(0, 2, 4\)"),
        (np.zeros((2, WIDTH), np.float32), r"\(2, 4\)"),
        (np.full((1, 2, WIDTH), np.nan, np.float32), "float32"),
        ([[[0.0] * WIDTH]], "list"),
    ],
)
def test_contexts_that_do_not_fit(encoder: TextEncoder, contexts: np.ndarray, actual: str) -> None:
    with pytest.raises(InputError, match=rf"expected contexts of finite float32 \[R, M, 4\].*{actual}"):
        encoder.encode([(1, 2)], contexts)


def test_texts_that_do_not_fit(encoder: TextEncoder) -> None:
    context = np.zeros((1, 70, WIDTH), np.float32)
    encoder.encode([[1] * 6], context)
    with pytest.raises(InputError, match=r"at most 77 tokens with start, .* found 1 .* up to 78"):
        encoder.encode([[1] * 7], context)
    with pytest.raises(InputError, match="at least one text"):
        encoder.encode([], context)
    with pytest.raises(InputError, match="at most 74 tokens in front of the name of a class, found 75"):
        encoder.embed_words("x" * 75)
    with pytest.raises(ComputeError, match="cannot encode texts of shapes"):
        encoder.encode([[100_000]], context)


def test_bundles_without_texts(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="its classes are part of its graphs"):
        TextEncoder.open(make(tmp_path))


def test_files_of_the_text_side_are_checked(tmp_path: Path) -> None:
    bundle = make_text_bundle(tmp_path)
    with pytest.raises(InputError, match="workers must be an integer of at least 1"):
        TextEncoder.open(bundle, workers=0)
    (bundle.path / "text.onnx").write_bytes(b"another")
    with pytest.raises(BundleError, match="is not the file that was exported"):
        TextEncoder.open(bundle)


@pytest.mark.parametrize(
    ("graph", "reason"),
    [
        (
            text_graph(tokens="int32[T,L] tokens"),
            r"contract of text graphs: .* found .*tokens tensor\(int32\)",
        ),
        (text_graph().replace(b"contexts", b"prefixes"), r"contract of text graphs: .* found .*prefixes"),
        (text_graph(embeddings="float[R,T,7] embeddings"), r"last axes .*'embeddings': 3}, found"),
        (b"no graph", "is no ONNX model"),
    ],
)
def test_graphs_that_break_the_contract(tmp_path: Path, graph: bytes, reason: str) -> None:
    bundle = make_text_bundle(tmp_path)
    replace_file(bundle, "text.onnx", graph)
    with pytest.raises(BundleError, match=reason):
        TextEncoder.open(Bundle.open(bundle.path))


def test_the_end_token_follows_the_start_token(tmp_path: Path) -> None:
    graph, vocabulary = tmp_path / "text.onnx", write_vocabulary(tmp_path / "words.gz", MERGES)
    graph.write_bytes(text_graph())
    entry = TextEntry("", "", WIDTH, 77, EMBEDDING, 1.0, START, START + 2, 0.0)
    with pytest.raises(InputError, match="expected the end token 517 behind the start token"):
        TextEncoder(graph, vocabulary, entry)


# --- the exporter's own graph ---


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[TextEncoder, object]]:
    """Return an encoder of a tiny open_clip model with random parameters, and the model."""
    pytest.importorskip("open_clip", reason="the text graph is exported from open_clip")
    from clip_doubles import make_clip
    from fozo.export.text_graph import build_text_graph
    from fozo.export.text_model import read_text_tower

    folder = tmp_path_factory.mktemp("text")
    model = make_clip(text={"vocab_size": START + 2})
    graph, vocabulary = folder / "text.onnx", write_vocabulary(folder / "words.gz", MERGES)
    graph.write_bytes(build_text_graph(read_text_tower(model, START, START + 1)).SerializeToString())
    entry = TextEntry("", "", 48, 77, 24, 1.0, START, START + 1, 0.0)
    with TextEncoder(graph, vocabulary, entry, workers=2) as encoder:
        yield encoder, model


def encode_with_open_clip(model: object, tokenizer: Tokenizer, sentence: str) -> np.ndarray:
    import torch

    row = torch.zeros(1, 77, dtype=torch.int64)
    tokens = [START, *tokenizer.encode(sentence), START + 1]
    row[0, : len(tokens)] = torch.tensor(tokens)
    with torch.no_grad():
        return np.asarray(model.encode_text(row, normalize=True)[0])  # type: ignore[attr-defined]


def test_sentences_as_open_clip(real: tuple[TextEncoder, object]) -> None:
    encoder, model = real
    sentences = [*SENTENCES, "x" * 75, "."]
    expected = [encode_with_open_clip(model, encoder.tokenizer, sentence) for sentence in sentences]
    np.testing.assert_allclose(encoder.encode_sentences(sentences), expected, atol=1e-5)


@pytest.mark.parametrize("template", ["a photo of a {}.", "{}", "the '{}'s", "a {} in a video game."])
def test_contexts_of_words_as_open_clip(real: tuple[TextEncoder, object], template: str) -> None:
    from fozo.engine.text.templates import split_template

    encoder, model = real
    names = ["cat", "dog", "great white shark", "3 cats"]
    texts = tokenize_classes(encoder.tokenizer, names, template, 77)
    context = encoder.embed_words(split_template(template)[0])
    sentences = [template.replace("{}", name) for name in names]
    expected = [encode_with_open_clip(model, encoder.tokenizer, sentence) for sentence in sentences]
    np.testing.assert_allclose(encoder.encode(texts.tokens, context[None])[0], expected, atol=1e-5)


@pytest.mark.parametrize("vectors", [0, 1, 4])
@pytest.mark.parametrize("seed", range(3))
def test_embeddings_do_not_depend_on_their_company(
    real: tuple[TextEncoder, object], seed: int, vectors: int
) -> None:
    """Equal to the bit: alone, in other orders, with other contexts and with another number of workers."""
    encoder, _ = real
    generator = np.random.default_rng(seed)
    texts = [generator.integers(0, START, generator.integers(1, 9)).tolist() for _ in range(60)]
    texts = [[*tokens, START + 1] for tokens in texts]
    contexts = generator.normal(0, 0.3, (7, vectors, 48)).astype(np.float32)
    together = encoder.encode(texts, contexts)
    for index in generator.integers(0, 60, 6):
        for r in generator.integers(0, 7, 2):
            np.testing.assert_array_equal(
                encoder.encode([texts[index]], contexts[[r]])[0, 0], together[r, index]
            )
    order = generator.permutation(60)[:37]
    np.testing.assert_array_equal(
        encoder.encode([texts[index] for index in order], contexts[::-1]), together[::-1][:, order]
    )
