"""Captions of the demonstration's images: class words, sentences, and words for how an image was changed.

Sentences end with the name of the class, so all that differs between two kinds of images stands in front of
it, where a context can be learnt.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import numpy as np

DEMO_NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
TEMPLATES = (
    "a photo of a {}.",
    "a photo of the number {}.",
    "a picture of a {}.",
    "a picture of the digit {}.",
    "an image of a {}.",
    "an image of the number {}.",
    "a scan of a {}.",
    "a scan of the digit {}.",
    "a drawing of a {}.",
    "a handwritten {}.",
    "the digit {}.",
    "the number {}.",
)
RELATIONS = {  # how far the class is from the name at the end of the sentence
    "a photo of the number after {}.": 1,
    "a picture of the digit after {}.": 1,
    "the number after {}.": 1,
    "the next number after {}.": 1,
    "a photo of the number before {}.": -1,
    "a picture of the digit before {}.": -1,
    "the number before {}.": -1,
    "the last number before {}.": -1,
}
INVERTED = "inverted"  # dark ink on white paper: always said where it is true, so its absence means something
SHAPES = ("thin", "bold", "small", "large", "tilted")  # said or not
RELATION_SHARE = 0.5
_ARTICLES = ("a", "an")
_NOUNS = ("photo", "picture", "image", "scan", "drawing")


@dataclass(frozen=True)
class Caption:
    """A sentence about an image.

    Attributes:
        label: index into `DEMO_NAMES`.
        adjectives: words of `SHAPES` and perhaps `INVERTED` that it says.
        text: the sentence.
    """

    label: int
    adjectives: frozenset[str]
    text: str

    def describes(self, label: int, adjectives: Collection[str]) -> bool:
        """Return whether it is true of an image of this class that was changed in these ways."""
        inverted = (INVERTED in self.adjectives) == (INVERTED in adjectives)
        return self.label == label and inverted and self.adjectives <= set(adjectives)


def draw_caption(label: int, adjectives: Collection[str], rng: np.random.Generator) -> Caption:
    """Draw a caption that is true of an image: a sentence, and half of the words for its shape."""
    said = {word for word in SHAPES if word in adjectives and rng.random() < 0.5}
    if INVERTED in adjectives:
        said.add(INVERTED)
    template, offset = TEMPLATES[rng.integers(len(TEMPLATES))], 0
    if rng.random() < RELATION_SHARE:
        relations = [item for item in RELATIONS.items() if 0 <= label - item[1] < len(DEMO_NAMES)]
        template, offset = relations[rng.integers(len(relations))]
    text = add_adjectives(template, said).format(DEMO_NAMES[label - offset])
    return Caption(label, frozenset(said), text)


def add_adjectives(template: str, adjectives: Collection[str]) -> str:
    """Return a template that says the adjectives: of the picture where it names one, and of the digit.

    `INVERTED` describes the picture (`an inverted photo of a {}.`), the others describe the digit (`a photo
    of a thin small {}.`).
    """
    words = template.split(" ")
    shapes = [word for word in SHAPES if word in adjectives]
    noun = next((index for index, word in enumerate(words) if word in _NOUNS), None)
    place = next(index for index, word in enumerate(words) if word not in (*_ARTICLES, "the", *_NOUNS, "of"))
    words[place:place] = shapes
    if INVERTED in adjectives:
        words.insert(place if noun is None else noun, INVERTED)
    return " ".join(_choose_articles(words))


def _choose_articles(words: list[str]) -> Iterator[str]:
    """Yield the words with `an` in front of vowels and `a` elsewhere; `{}` counts as a consonant."""
    for word, successor in zip(words, [*words[1:], ""], strict=True):
        yield ("an" if successor[:1] in tuple("aeiou") else "a") if word in _ARTICLES else word


def list_caption_words() -> list[str]:
    """Return every word that a caption may have, without punctuation, sorted."""
    sentences = " ".join([*TEMPLATES, *RELATIONS]).replace("{}.", "").split()
    return sorted({*sentences, *_ARTICLES, *SHAPES, INVERTED, *DEMO_NAMES})
