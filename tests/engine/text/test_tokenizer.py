"""The tokenizer against published vectors, against open_clip's own, and against damaged texts."""

from __future__ import annotations

import contextlib
import functools
import itertools
import random
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from fozo.engine.errors import InputError
from fozo.engine.text.tokenizer import Tokenizer
from text_doubles import published_vocabulary, write_published_excerpt, write_vocabulary

FUZZED_TEXTS = 25_000
# Parts of texts that the rules treat in a special way.
ODD_TEXTS = (
    *("'s", "'ve", "n't", "'LL", "'ſ", "don't", "A&B", "&amp;", "&rsquo;", "&#39;", "&lt;", "&amp;lt;"),
    *("&copy", "&#8217", "<b>", "é", "ﬁ", "ﬆ", "ŉ", "Ǆ", "ĳ", "’", "“", "„", "Ｗ", "ｶ", "\u3000", "\u0301"),
    *("ß", "İ", "ſ", "Ω", "µ", "12", "½", "²", "x²", "一", "Ⅷ", "௰", "…", "–", "\xa0", "\t", "\u2028"),
    *("café", "naïve", "🙂", "\u200d", "\u0345", " ", " ", "!", "?!", "_", "-"),
)


@pytest.fixture(scope="module")
def published() -> tuple[Tokenizer, Any]:
    """Return the tokenizer with the published vocabulary, and open_clip's."""
    path = published_vocabulary()
    from open_clip.tokenizer import SimpleTokenizer

    return Tokenizer.read(path), SimpleTokenizer()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a photo of a cat.", (320, 1125, 539, 320, 2368, 269)),
        ("X X X X X X X X tench.", (*(343,) * 8, 1149, 634, 269)),
        ("This is a photo of 3 objects.", (589, 533, 320, 1125, 539, 274, 13770, 269)),
        ("  A   PHOTO\tof&nbsp;a Cat.", (320, 1125, 539, 320, 2368, 269)),
        ("", ()),
    ],
)
def test_published_vectors(tmp_path_factory: pytest.TempPathFactory, text: str, expected: Any) -> None:
    tokenizer = Tokenizer.read(write_published_excerpt(tmp_path_factory.mktemp("words") / "excerpt.gz"))
    assert (tokenizer.vocabulary.start, tokenizer.vocabulary.end) == (49406, 49407)
    assert tokenizer.encode(text) == expected


def test_names_and_templates_as_open_clip(published: tuple[Tokenizer, Any]) -> None:
    from open_clip import IMAGENET_CLASSNAMES, OPENAI_IMAGENET_TEMPLATES, SIMPLE_IMAGENET_TEMPLATES

    tokenizer, reference = published
    templates = dict.fromkeys([*OPENAI_IMAGENET_TEMPLATES, *SIMPLE_IMAGENET_TEMPLATES, lambda name: name])
    texts = [template(name) for name in IMAGENET_CLASSNAMES[::7] for template in templates]
    texts += [template(name) for name in IMAGENET_CLASSNAMES for template in list(templates)[-1:]]
    for text in texts:
        assert list(tokenizer.encode(text)) == reference.encode(text), text


def draw_text(generator: random.Random) -> str:
    def draw_character() -> str:
        first, stop = generator.choice(
            [(0x20, 0x7F)] * 3 + [(0xA0, 0x250), (0x250, 0x3000), (0x3000, 0x10000), (0x10000, 0x20000)]
        )
        character = chr(generator.randrange(first, stop))
        return character if unicodedata.category(character) not in ("Cn", "Cs") else draw_character()

    def draw_odd() -> str:
        return generator.choice(ODD_TEXTS)

    return "".join(generator.choice([draw_character, draw_odd])() for _ in range(generator.randrange(14)))


def test_fuzzed_texts_as_open_clip(published: tuple[Tokenizer, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Every text is refused or has the tokens of open_clip, except that ftfy guesses encodings in a few."""
    ftfy = pytest.importorskip("ftfy", reason="open_clip cleans texts with ftfy")
    tokenizer, reference = published
    generator = random.Random(0)
    tokens: dict[str, list[int]] = {}
    for text in (draw_text(generator) for _ in range(FUZZED_TEXTS)):
        with contextlib.suppress(InputError):
            tokens[text] = list(tokenizer.encode(text))
    assert len(tokens) >= 20_000
    guesses = sum(identifiers != reference.encode(text) for text, identifiers in tokens.items())
    assert guesses <= len(tokens) // 100
    monkeypatch.setattr(ftfy, "fix_text", functools.partial(ftfy.fix_text, fix_encoding=False))
    for text, identifiers in tokens.items():
        assert identifiers == reference.encode(text), repr(text)


@pytest.mark.parametrize("seed", range(3))
def test_a_small_vocabulary_as_open_clip(tmp_path: Path, seed: int) -> None:
    """Random merges over few letters, so that many are applied and their order matters."""
    pytest.importorskip("open_clip", reason="the published tokenizer is open_clip's")
    from open_clip.tokenizer import SimpleTokenizer

    generator = random.Random(seed)
    symbols, merges = ["a", "b", "a</w>", "b</w>"], []
    while len(merges) < 40:
        pair = generator.choice(symbols), generator.choice(symbols)
        if pair not in merges and not pair[0].endswith("</w>"):
            merges.append(pair)
            symbols.append("".join(pair))
    path = write_vocabulary(tmp_path / "small.gz", merges)
    tokenizer, reference = Tokenizer.read(path, start=512 + 40), SimpleTokenizer(str(path))
    for length in range(1, 9):
        for letters in itertools.product("ab", repeat=length):
            assert list(tokenizer.encode("".join(letters))) == reference.encode("".join(letters))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("cat\x1b[2J", r"control or invisible character U\+001B"),
        ("cat\ndog", r"U\+000A"),
        ("\ufeffcat", r"U\+FEFF"),
        ("caf\ufffd", r"U\+FFFD"),
        ("cat\ud800", r"U\+D800"),
        ("\U000e0080", "unknown to this Python"),
        ("&bogus; cat", "unknown HTML entity '&bogus;'"),
        ("cat <END_OF_TEXT>", "control tokens"),
        ("<ſtart_of_text>", "control tokens"),
        ("x" * 2001, "at most 2,000 characters, found 2,001"),
    ],
)
def test_texts_that_are_refused(tmp_path: Path, text: str, reason: str) -> None:
    tokenizer = Tokenizer.read(write_vocabulary(tmp_path / "words.gz", []), start=512)
    with pytest.raises(InputError, match=reason):
        tokenizer.encode(text)


@pytest.mark.parametrize(
    "word", ["café", "Größe", "São Paulo", "Škoda", "Ærø", "…", "it’s", "привет", "ελληνικά", "日本", "🙂"]
)
def test_text_in_the_wrong_encoding_is_refused(tmp_path: Path, word: str) -> None:
    tokenizer = Tokenizer.read(write_vocabulary(tmp_path / "words.gz", []), start=512)
    tokenizer.encode(word)
    for encoding in ("latin-1", "cp1252"):
        with pytest.raises(InputError, match=r"read as Latin-1|control or invisible"):
            tokenizer.encode(word.encode().decode(encoding, "replace"))


@pytest.mark.parametrize(
    "word",
    [
        "CAFÉ®",
        "smørrebrød",
        "façade",
        "Übergröße",
        "naïve “café”",
        "ÉCLAIR™",
        "piñata",
        "ÆØÅ",
        "Dvořák",
        "50 °C",
    ],
)
def test_accents_are_no_damage(tmp_path: Path, word: str) -> None:
    tokenizer = Tokenizer.read(write_vocabulary(tmp_path / "words.gz", []), start=512)
    decomposed = unicodedata.normalize("NFD", word)
    assert tokenizer.encode(word) == tokenizer.encode(decomposed)
