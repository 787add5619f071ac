"""Templates, names and their tokens: what classes share, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from fozo.engine.errors import InputError
from fozo.engine.text.class_texts import check_names, describe_duplicates, tokenize_classes
from fozo.engine.text.imagenet_templates import PRESETS
from fozo.engine.text.templates import check_templates, split_template
from fozo.engine.text.tokenizer import Tokenizer
from text_doubles import write_vocabulary


@pytest.fixture
def tokenizer(tmp_path: Path) -> Tokenizer:
    return Tokenizer.read(
        write_vocabulary(tmp_path / "words.gz", [("c", "at</w>"), ("a", "t</w>")][::-1]), 514
    )


@pytest.mark.parametrize(
    ("template", "words", "ending"),
    [
        ("a photo of a {}.", "a photo of a", "{}."),
        ("{}.", "", "{}."),
        ("  a {} in a video game. ", "a", "{} in a video game."),
        ("photo:{}", "", "photo:{}"),
        ("a photo of the \u201c{}\u201d", "a photo of the", "\u201c{}\u201d"),
    ],
)
def test_words_in_front_of_the_name(template: str, words: str, ending: str) -> None:
    assert split_template(template) == (words, ending)


@pytest.mark.parametrize(
    "template", ["", "a photo", "{} and {}", "a {0}", "a\n{}", "a \x1b[2J{}", "{}\u202e"]
)
def test_templates_that_are_refused(template: str) -> None:
    with pytest.raises(InputError, match=r"with one {} for the name of the class"):
        split_template(template)


def test_lists_of_templates() -> None:
    assert check_templates((" {}.", "a {}. ")) == ("{}.", "a {}.")
    with pytest.raises(InputError, match=r"expected different templates, found 'a {}' twice"):
        check_templates(("a {}", "{}", " a {}"))
    with pytest.raises(InputError, match="expected 1 to 1,000 templates, found 0"):
        check_templates(())


def test_presets_are_the_published_ones() -> None:
    metadata = pytest.importorskip("open_clip.zero_shot_metadata", reason="open_clip has the templates")
    published = {
        "imagenet-7": metadata.SIMPLE_IMAGENET_TEMPLATES,
        "imagenet-80": metadata.OPENAI_IMAGENET_TEMPLATES,
    }
    assert PRESETS.keys() == published.keys()
    for name, templates in published.items():
        assert sorted(PRESETS[name]) == sorted(template("{}") for template in templates)
        assert len(check_templates(PRESETS[name])) == int(name.split("-")[1])


@pytest.mark.parametrize("template", ["a photo of a {}.", "{}", "the '{}'s", "no.{} of 9"])
def test_tokens_are_those_of_the_sentence(tokenizer: Tokenizer, template: str) -> None:
    names = ("cat", "Great  white shark", "n02 &amp; co", "caf\u00e9")
    texts = tokenize_classes(tokenizer, names, template, 77)
    for name, tokens in zip(names, texts.tokens, strict=True):
        assert (*texts.words, *tokens[:-1]) == tokenizer.encode(template.replace("{}", name))
        assert tokens[-1] == tokenizer.vocabulary.end == 515
    assert texts.words == tokenizer.encode(split_template(template)[0])


def test_learnt_vectors_come_in_front_of_the_name(tokenizer: Tokenizer) -> None:
    texts = tokenize_classes(tokenizer, ["cat"], "{}.", 77, context_vectors=16)
    assert (texts.words, texts.tokens) == ((), ((513, tokenizer.vocabulary.ids[".</w>"], 515),))
    with pytest.raises(InputError, match="begins with the name"):
        tokenize_classes(tokenizer, ["cat"], "a {}.", 77, context_vectors=16)


def test_texts_fill_the_context_to_the_last_token(tokenizer: Tokenizer) -> None:
    name = "x" * 70
    tokenize_classes(tokenizer, ["cat", name], "{}", 72)
    tokenize_classes(tokenizer, ["cat", name], "{}", 77, context_vectors=5)
    tokenize_classes(tokenizer, ["cat", name], "1 2 3 4 5 {}", 77)
    for template, vectors, count in (("{}", 6, 78), ("1 2 3 4 5 {}.", None, 78), ("{}" + "!" * 9, None, 81)):
        with pytest.raises(InputError, match=f"at most 77 tokens .* found {count} for the class 'xxx"):
            tokenize_classes(tokenizer, ["cat", name], template, 77, vectors)


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        ([], "1 to 100,000 names of classes, found 0"),
        ("cat", "found the text 'cat'"),
        (["cat"] * 100_001, "found 100,001"),
        (["cat", ""], "found '' for class 1"),
        (["cat", "  "], "for class 1"),
        (["cat", "d\nog"], "for class 1"),
        (["cat", "\x1b[2J"], "for class 1"),
        (["cat", 3], "found 3 for class 1"),
    ],
)
def test_names_that_are_refused(names: list[str], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        check_names(names)


@pytest.mark.parametrize("name", ["\u0345", "&nbsp;", "cat <end_of_text>", "\ufeff", "Caf\u00c3\u00a9"])
def test_names_without_a_clear_text_are_refused(tokenizer: Tokenizer, name: str) -> None:
    with pytest.raises(InputError):
        tokenize_classes(tokenizer, ["dog", name], "a {}.", 77)


def test_classes_with_the_same_text(tokenizer: Tokenizer) -> None:
    names = ["cat", "dog", "CAT", "a&amp;b", "A&B", "Dog ", "cat"]
    texts = tokenize_classes(tokenizer, names, "a {}.", 77)
    warning = describe_duplicates(names, texts)
    assert warning is not None
    assert warning.startswith("4 of 7 classes have the text of an earlier class: 'CAT' (0 and 2), ")
    assert "…" in warning
    assert describe_duplicates(names[:2], tokenize_classes(tokenizer, names[:2], "a {}.", 77)) is None
