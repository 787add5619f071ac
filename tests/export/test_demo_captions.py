"""Captions and vocabulary of the CLIP demonstration."""

from __future__ import annotations

import gzip

import numpy as np
import pytest

pytest.importorskip("torch", reason="export needs PyTorch")
open_clip = pytest.importorskip("open_clip", reason="export of CLIP needs open_clip")

from fozo.engine.errors import InputError  # noqa: E402
from fozo.export.demo_captions import (  # noqa: E402
    DEMO_NAMES,
    INVERTED,
    RELATIONS,
    SHAPES,
    TEMPLATES,
    Caption,
    add_adjectives,
    draw_caption,
    list_caption_words,
)
from fozo.export.demo_vocabulary import (  # noqa: E402
    DEMO_VOCABULARY,
    format_vocabulary,
    learn_merges,
    read_demo_tokenizer,
)
from open_clip.tokenizer import SimpleTokenizer  # noqa: E402


@pytest.mark.parametrize(
    ("template", "adjectives", "expected"),
    [
        ("a photo of a {}.", {"inverted"}, "an inverted photo of a {}."),
        ("a photo of a {}.", {"thin", "small"}, "a photo of a thin small {}."),
        ("an image of the number {}.", {"inverted", "bold"}, "an inverted image of the bold number {}."),
        ("the number after {}.", {"inverted", "large"}, "the inverted large number after {}."),
        ("a handwritten {}.", {"inverted"}, "an inverted handwritten {}."),
        ("a photo of a {}.", set(), "a photo of a {}."),
    ],
)
def test_adjectives_stand_where_they_belong(template: str, adjectives: set[str], expected: str) -> None:
    assert add_adjectives(template, adjectives) == expected


def test_captions_are_true_and_end_with_a_name() -> None:
    rng = np.random.default_rng(0)
    texts = dict.fromkeys(TEMPLATES, 0) | RELATIONS
    templates = {add_adjectives(t, {w}): offset for t, offset in texts.items() for w in ("", *SHAPES)} | texts
    for _ in range(300):
        label = int(rng.integers(10))
        caption = draw_caption(label, {"thin"}, rng)
        name = caption.text.rstrip(".").split()[-1]
        offset = templates[caption.text.replace(f"{name}.", "{}.")]
        assert DEMO_NAMES.index(name) + offset == label == caption.label
        assert caption.describes(label, {"thin"}) and not caption.describes((label + 1) % 10, {"thin"})


def test_inversion_is_always_said_and_shapes_may_be() -> None:
    rng = np.random.default_rng(0)
    captions = [draw_caption(3, {INVERTED, "bold"}, rng) for _ in range(100)]
    assert all(INVERTED in caption.text for caption in captions)
    assert 20 < sum("bold" in caption.text for caption in captions) < 80


def test_captions_are_true_of_images_that_have_what_they_say() -> None:
    plain = Caption(3, frozenset(), "a three.")
    thin = Caption(3, frozenset({"thin"}), "a thin three.")
    assert plain.describes(3, {"thin"}) and thin.describes(3, {"thin", "small"})
    assert not thin.describes(3, {"small"}) and not plain.describes(3, {INVERTED})


def test_a_merge_joins_the_most_frequent_pair_and_every_word_becomes_one_symbol() -> None:
    merges = learn_merges(["abab", "ab", "cab"])
    # a b: once in abab, and a b</w> once in each word.
    assert merges[0] == ("a", "b</w>")
    words = {"".join(pair) for pair in merges}
    assert {"abab</w>", "ab</w>", "cab</w>"} <= words


def test_the_shipped_vocabulary_is_the_one_that_is_learnt() -> None:
    made = format_vocabulary(learn_merges(list_caption_words()))
    assert gzip.decompress(DEMO_VOCABULARY.read_bytes()) == gzip.decompress(made)


def test_every_word_of_a_caption_is_one_token_as_open_clip_reads_it() -> None:
    tokenizer, reference = read_demo_tokenizer(), SimpleTokenizer(str(DEMO_VOCABULARY))
    assert reference.sot_token_id == tokenizer.vocabulary.start
    assert reference.eot_token_id == tokenizer.vocabulary.end
    for word in (*list_caption_words(), "chessboard", "3", "naïve"):
        ids = tokenizer.encode(word)
        assert list(ids) == reference.encode(word)
        assert len(ids) == 1 or word not in list_caption_words()


def test_a_damaged_vocabulary_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.setattr("fozo.export.demo_vocabulary.DEMO_VOCABULARY", DEMO_VOCABULARY.with_name("none.gz"))
    with pytest.raises(InputError, match=r"none\.gz.*install fozo again"):
        read_demo_tokenizer()
