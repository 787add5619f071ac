"""Classes behind other contexts: encoded once, remembered, restricted, and equal to the head."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fozo.engine.bundle.bundle import Bundle
from fozo.engine.errors import BundleError, InputError
from fozo.engine.model import ClassText, FloatArray
from fozo.engine.runtime.class_head import make_head
from fozo.engine.runtime.class_text import REMEMBERED_CALLS, open_class_text
from fozo.engine.runtime.network import Network
from fozo.engine.runtime.text_encoder import TextEncoder
from fozo.engine.text.tokenizer import Tokenizer
from text_doubles import SCALE, START, WIDTH, embed_by_hand, make_text_bundle

NAMES = ("cat", "dog", "great white shark", "horse")


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return make_text_bundle(tmp_path, NAMES)


@pytest.fixture
def text(bundle: Bundle) -> ClassText:
    with Network.open(bundle, workers=1) as network:
        assert network.info.text is not None
        return network.info.text


@pytest.fixture
def count_encodings(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Return a function that tells how many times contexts and texts were encoded."""
    calls: list[Any] = []
    encode = TextEncoder.encode

    def record(self: TextEncoder, texts: Any, contexts: FloatArray) -> FloatArray:
        calls.append(texts)
        return encode(self, texts, contexts)

    monkeypatch.setattr(TextEncoder, "encode", record)
    return lambda: len(calls)


def draw_contexts(count: int, seed: int = 0, vectors: int = 5) -> FloatArray:
    return np.random.default_rng(seed).normal(size=(count, vectors, WIDTH)).astype(np.float32)


def test_the_context_makes_the_head(bundle: Bundle, text: ClassText) -> None:
    tokenizer = Tokenizer.read(bundle.file("vocabulary.txt.gz"), START)
    assert text.context.shape == (len(tokenizer.encode("a photo of a")), WIDTH)
    weight = bundle.load_head("animals").weight
    np.testing.assert_array_equal(text.encode(text.context[None])[0], weight)
    np.testing.assert_array_equal(text.select([2, 0]).encode(text.context[None])[0], weight[[2, 0]])


def test_learnt_vectors_make_the_head(bundle: Bundle) -> None:
    head = make_head(bundle, NAMES, ["{}."], context=draw_contexts(1)[0])
    stored = bundle.with_head("learnt", head).select_head("learnt")
    text = Network.open(stored, workers=1).info.text
    assert text is not None
    np.testing.assert_array_equal(text.context, head.context)
    np.testing.assert_array_equal(text.encode(text.context[None])[0], head.weight)


def test_other_contexts_in_closed_form(bundle: Bundle, text: ClassText) -> None:
    tokenizer = Tokenizer.read(bundle.file("vocabulary.txt.gz"), START)
    contexts = draw_contexts(3)
    classifiers = text.encode(contexts)
    assert (classifiers.shape, classifiers.dtype) == ((3, 4, bundle.manifest.feature_width), np.float32)
    for r, context in enumerate(contexts):
        expected = [SCALE * embed_by_hand(tokenizer, f"{name}.", context) for name in NAMES]
        np.testing.assert_allclose(classifiers[r], expected, rtol=1e-4, atol=1e-5)


def test_texts_are_encoded_once_per_contexts_and_classes(
    text: ClassText, count_encodings: Callable[[], int]
) -> None:
    contexts = draw_contexts(3)
    first = text.encode(contexts)
    for _ in range(5):
        np.testing.assert_array_equal(text.encode(contexts.copy()), first)
        np.testing.assert_array_equal(text.select([3, 1]).encode(contexts), first[:, [3, 1]])
        np.testing.assert_array_equal(
            text.select([0, 1, 3]).select([2, 1]).encode(contexts), first[:, [3, 1]]
        )
    assert count_encodings() == 2
    text.encode(draw_contexts(3, seed=1))
    text.encode(contexts[:2])
    assert count_encodings() == 4


def test_only_the_latest_results_are_remembered(text: ClassText, count_encodings: Callable[[], int]) -> None:
    for seed in range(REMEMBERED_CALLS):
        text.encode(draw_contexts(1, seed))
    text.encode(draw_contexts(1, 0))  # still there, and now the latest
    assert count_encodings() == REMEMBERED_CALLS
    text.encode(draw_contexts(1, 100))
    text.encode(draw_contexts(1, 0))
    assert count_encodings() == REMEMBERED_CALLS + 1
    text.encode(draw_contexts(1, 1))
    assert count_encodings() == REMEMBERED_CALLS + 2


def test_threads_do_not_encode_the_same_twice(text: ClassText, count_encodings: Callable[[], int]) -> None:
    contexts = draw_contexts(2)
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(text.encode, [contexts] * 8))
    assert count_encodings() == 1
    assert all(result is results[0] for result in results)
    with pytest.raises(ValueError, match="read-only"):
        results[0][0] = 0


def test_selected_classes_of_a_network_keep_their_text(bundle: Bundle) -> None:
    with Network.open(bundle, workers=1) as network:
        text = network.select([3, 0]).info.text
    assert text is not None
    weight = bundle.load_head("animals").weight
    np.testing.assert_array_equal(text.encode(text.context[None])[0], weight[[3, 0]])


@pytest.mark.parametrize("templates", [("{}.",), ("a {}", "the {}")])
def test_heads_without_a_single_context(bundle: Bundle, templates: tuple[str, ...]) -> None:
    head = make_head(bundle, NAMES, templates)
    assert open_class_text(bundle, head) is None
    stored = bundle.with_head("pets", head)
    assert Network.open(stored.select_head("pets"), workers=1).info.text is None
    assert Network.open(stored, workers=1).info.text is not None


def test_the_text_side_is_opened_only_when_texts_are_encoded(bundle: Bundle) -> None:
    (bundle.path / "text.onnx").unlink()
    with Network.open(bundle, workers=1) as network:
        text = network.info.text
        assert text is not None
        for use in (lambda: text.context, lambda: text.encode(draw_contexts(1))):
            with pytest.raises(BundleError, match=r"cannot read .*text\.onnx"):
                use()


def test_what_does_not_fit(text: ClassText) -> None:
    with pytest.raises(InputError, match=r"must lie in 0..3, found \[0, 4\]"):
        text.select([0, 4])
    with pytest.raises(InputError, match="expected contexts of finite float32"):
        text.encode(np.zeros((1, 5, WIDTH + 1), np.float32))
    text.encode(draw_contexts(1))  # the error is not remembered
