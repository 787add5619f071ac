"""Heads made from names at run time, on bundles exported from open_clip."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clip_export_doubles import ANIMALS, export_tiny, make_state
from fozo.engine.bundle.bundle import Bundle
from fozo.engine.model import FloatArray
from fozo.engine.runtime.class_head import make_head
from fozo.engine.runtime.network import Network
from fozo.engine.text.imagenet_templates import PRESETS
from vit_doubles import assert_close

torch = pytest.importorskip("torch", reason="export needs PyTorch")
open_clip = pytest.importorskip("open_clip", reason="export of CLIP needs open_clip")

NAMES = ("tench", "great white shark", "Brittany dog", "jack-o'-lantern", "7 café chairs")


@pytest.fixture(scope="module")
def model() -> Any:
    return make_state()


@pytest.fixture(scope="module")
def bundle(model: Any, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return export_tiny(tmp_path_factory.mktemp("clip"), model.state_dict()).bundle


def classify(model: Any, names: tuple[str, ...], templates: tuple[str, ...]) -> FloatArray:
    """Return the classifier as open_clip's zero-shot evaluation builds it."""
    zero_shot = open_clip.build_zero_shot_classifier(
        model, open_clip.tokenizer.SimpleTokenizer(), list(names), [text.format for text in templates]
    )
    return np.asarray(model.logit_scale.exp().item() * zero_shot.T)


@pytest.mark.parametrize("templates", [("a photo of a {}.",), ("{}",), PRESETS["imagenet-7"]])
def test_classifiers_are_those_of_open_clip(model: Any, bundle: Bundle, templates: tuple[str, ...]) -> None:
    head = make_head(bundle, NAMES, templates)
    expected = classify(model, NAMES, templates)
    width = expected.shape[1]
    assert_close(head.weight[:, :width], expected, "classifier")
    assert not head.weight[:, width:].any()


def test_equal_names_give_the_exported_head(bundle: Bundle) -> None:
    exported = bundle.load_head("animals")
    made = make_head(bundle, ANIMALS, exported.templates)
    np.testing.assert_array_equal(made.weight, exported.weight)
    with Network.open(bundle, workers=1) as network:
        text = network.info.text
    assert text is not None
    np.testing.assert_array_equal(text.encode(text.context[None])[0], exported.weight)
    np.testing.assert_array_equal(text.select([1]).encode(text.context[None])[0], exported.weight[[1]])


def test_a_learnt_context_of_words_is_the_template(bundle: Bundle, tmp_path: Path) -> None:
    exported = bundle.load_head("animals")
    with Network.open(bundle, workers=1) as network:
        assert network.info.text is not None
        context = network.info.text.context
    made = make_head(bundle, ANIMALS, ["{}."], context=context)
    np.testing.assert_array_equal(made.weight, exported.weight)
