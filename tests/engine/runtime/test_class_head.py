"""Heads from names, in closed form: scaled, averaged over templates, behind words or learnt vectors."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fozo.engine.bundle.bundle import Bundle
from fozo.engine.bundle.head import Head
from fozo.engine.errors import BundleError, InputError
from fozo.engine.runtime.class_head import make_head, scale_embeddings
from fozo.engine.runtime.network import Network
from fozo.engine.text.tokenizer import Tokenizer
from fozo.testing import draw_images
from text_doubles import EMBEDDING, SCALE, START, WIDTH, embed_by_hand, make_text_bundle

NAMES = ("cat", "dog", "great white shark")
TEMPLATES = ("a photo of a {}.", "{}", "the {} in a dog")


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return make_text_bundle(tmp_path)


@pytest.fixture
def tokenizer(bundle: Bundle) -> Tokenizer:
    return Tokenizer.read(bundle.file("vocabulary.txt.gz"), START)


@pytest.mark.parametrize("template", TEMPLATES)
def test_one_template(bundle: Bundle, tokenizer: Tokenizer, template: str) -> None:
    head = make_head(bundle, NAMES, [template])
    expected = [SCALE * embed_by_hand(tokenizer, template.replace("{}", name)) for name in NAMES]
    np.testing.assert_allclose(head.weight, expected, rtol=1e-5)
    assert (head.weight.dtype, head.class_ids, head.class_names) == (np.float32, NAMES, NAMES)
    assert (head.templates, head.context) == ((template,), None)


def test_several_templates_are_averaged_at_unit_length(bundle: Bundle, tokenizer: Tokenizer) -> None:
    head = make_head(bundle, NAMES, TEMPLATES)
    for row, name in zip(head.weight, NAMES, strict=True):
        mean = sum(embed_by_hand(tokenizer, template.replace("{}", name)) for template in TEMPLATES) / 3
        np.testing.assert_allclose(row, SCALE * mean / np.linalg.norm(mean), rtol=1e-5)
        assert np.linalg.norm(mean) < 0.999


def test_learnt_vectors_in_front_of_the_names(bundle: Bundle, tokenizer: Tokenizer) -> None:
    context = np.random.default_rng(1).normal(size=(6, WIDTH)).astype(np.float32)
    head = make_head(bundle, NAMES, ["{}."], context=context)
    expected = [SCALE * embed_by_hand(tokenizer, f"{name}.", context) for name in NAMES]
    np.testing.assert_allclose(head.weight, expected, rtol=1e-5)
    np.testing.assert_array_equal(head.context, context)


def test_equal_names_make_equal_heads(bundle: Bundle) -> None:
    first = make_head(bundle, NAMES, TEMPLATES, workers=1)
    again = make_head(bundle.path, NAMES, TEMPLATES, workers=3)
    assert first.to_npz() == again.to_npz()
    reordered = make_head(bundle, NAMES[::-1], TEMPLATES)
    np.testing.assert_array_equal(reordered.weight, first.weight[::-1])
    np.testing.assert_array_equal(
        make_head(bundle, ["cat", "dog"]).weight, bundle.load_head("animals").weight
    )


def test_embeddings_are_padded() -> None:
    units = np.asarray([[[0.5, 0.75]]], np.float32)
    weight = scale_embeddings(units, 100.0, 5)
    np.testing.assert_array_equal(weight, np.asarray([[[50, 75, 0, 0, 0]]], np.float32))


def test_a_head_is_used_at_once_and_after_it_was_stored(bundle: Bundle) -> None:
    head, images = make_head(bundle, NAMES), draw_images(3)
    stored = bundle.with_head("sharks", head).select_head("sharks")
    with Network.open(bundle, workers=1) as network, Network.open(stored, workers=1) as other:
        logits = network.with_classifier(head.weight)(images).logits
        np.testing.assert_array_equal(logits, other(images).logits)


def test_names_that_occur_twice(bundle: Bundle) -> None:
    names, ids = ("cat", "dog", "cat"), ("a", "b", "c")
    with pytest.raises(InputError, match=r"expected different names, .* found 'cat' twice; give identifiers"):
        make_head(bundle, names)
    with pytest.warns(
        UserWarning, match=r"1 of 3 classes have the text of an earlier class: 'cat' \(0 and 2\)"
    ):
        head = make_head(bundle, names, class_ids=ids)
    np.testing.assert_array_equal(head.weight[0], head.weight[2])
    assert head.class_ids == ids
    with pytest.warns(UserWarning, match="have the text") as caught:
        make_head(bundle, ("cat", "CAT"), TEMPLATES)
    assert len(caught) == 1  # for all templates


def test_different_names_do_not_warn(bundle: Bundle) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        head = make_head(bundle, NAMES, TEMPLATES)
    assert head.record == {"longest_text": max(len(text) + 2 for text in _all_tokens(bundle, head))}


def _all_tokens(bundle: Bundle, head: Head) -> list[tuple[int, ...]]:
    tokenizer = Tokenizer.read(bundle.file("vocabulary.txt.gz"), START)
    return [
        tokenizer.encode(text.replace("{}", name)) for text in head.templates for name in head.class_names
    ]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"names": []}, "1 to 100,000 names"),
        ({"templates": []}, "1 to 1,000 templates"),
        ({"templates": ["a photo"]}, r"with one \{\}"),
        ({"templates": ["x" * 75 + " {}"]}, "at most 77 tokens"),
        ({"class_ids": ["a"]}, "2 different identifiers, one per class, found 1 different ones of 1"),
        ({"class_ids": ["a", "a"]}, "2 different identifiers"),
        ({"class_ids": ["a", "b\n"]}, "control characters"),
        ({"context": np.zeros((0, WIDTH), np.float32)}, "M ≥ 1"),
        ({"context": np.zeros((2, WIDTH), np.float32)}, "begins with the name"),
        (
            {"context": np.zeros((2, WIDTH + 1), np.float32), "templates": ["{}."]},
            "another model",
        ),
        ({"context": np.zeros((2, WIDTH), np.float32), "templates": ["{}.", "{}"]}, "expected one template"),
        ({"context": np.zeros((74, WIDTH), np.float32), "templates": ["{}."]}, "at most 77 tokens"),
    ],
)
def test_what_is_refused(bundle: Bundle, options: dict[str, Any], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        make_head(bundle, **{"names": ["cat", "dog"], **options})


def test_bundles_without_texts(bundle_path: Path) -> None:
    with pytest.raises(BundleError, match="only bundles exported with --clip"):
        make_head(bundle_path, ["cat"])


def test_width_of_the_double(bundle: Bundle) -> None:
    assert bundle.manifest.feature_width == EMBEDDING
