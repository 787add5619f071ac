"""Classes made from texts: stored beside each other in one bundle, one of them in use."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundle_doubles import classes_of, edit, listing, make, make_clip, replace_file, statistics
from fozo.engine.bundle.bundle import Bundle
from fozo.engine.bundle.create import create
from fozo.engine.bundle.head_description import describe_head_facts, describe_heads, list_head_facts
from fozo.engine.bundle.manifest import GraphEntry
from fozo.engine.errors import BundleError
from fozo.engine.runtime.network import Network
from fozo.testing import draw_images


def test_a_head_is_stored_selected_and_loaded(tmp_path: Path) -> None:
    bundle, pets = make_clip(tmp_path), classes_of("pug", "siamese", "beagle", seed=1)
    changed = bundle.with_head("pets", pets)
    assert (changed.manifest.classes, changed.manifest.head_name) == (2, "animals")
    selected = Bundle.open(bundle.path).select_head("pets")
    assert selected.manifest.class_names == ("pug", "siamese", "beagle")
    assert selected.sha256 == changed.sha256
    np.testing.assert_array_equal(selected.info("fp32").head_weight, pets.weight)
    assert selected.info("fp32").identity != changed.info("fp32").identity
    loaded = changed.load_head("pets")
    np.testing.assert_array_equal(loaded.weight, pets.weight)
    assert (loaded.templates, loaded.context, loaded.record) == (pets.templates, None, {"note": "random"})


def test_a_context_is_stored_with_its_head(tmp_path: Path) -> None:
    learnt = classes_of("cat", "dog", seed=2, context=5)
    loaded = make_clip(tmp_path).with_head("learnt", learnt).load_head("learnt")
    assert learnt.context is not None and loaded.context is not None
    np.testing.assert_array_equal(loaded.context, learnt.context)


def test_a_bias_from_images_is_stored_with_its_head(tmp_path: Path) -> None:
    bias = np.array([0.5, -1.0], np.float32)
    learnt = replace(classes_of("cat", "dog", seed=2), bias=bias, images=32)
    bundle = make_clip(tmp_path).with_head("gda", learnt)
    loaded = bundle.load_head("gda")
    assert loaded.bias is not None and loaded.images == 32
    np.testing.assert_array_equal(loaded.bias, bias)
    with Network.open(bundle, head="gda", workers=1) as network:
        np.testing.assert_array_equal(network.info.head_bias, bias)
        images = draw_images(3)
        outputs = network(images)
        expected = outputs.features[:, -1] @ learnt.weight.T + bias
        np.testing.assert_allclose(outputs.logits, expected, rtol=1e-5, atol=1e-6)
        assert network.info.text is None  # its classifier is not that of any context
    assert bundle.load_head("animals").bias is None
    selected = bundle.select_head("gda").manifest
    assert "and 32 labelled images" in describe_heads(selected, ["gda"])[0]
    facts = list_head_facts(selected)
    assert facts is not None and "and 32 labelled images" in describe_head_facts(facts)


def test_a_bundle_is_opened_with_a_head(tmp_path: Path) -> None:
    bundle = make_clip(tmp_path).with_head("pets", classes_of("pug", seed=1))
    assert Bundle.open(bundle.path, "pets") == bundle.select_head("pets")
    assert Bundle.open(bundle.path, None) == bundle


def test_a_head_of_the_same_name_is_replaced(tmp_path: Path) -> None:
    bundle = make_clip(tmp_path).with_head("pets", classes_of("pug", "beagle", seed=1))
    changed = bundle.with_head("pets", classes_of("pug", "poodle", seed=3))
    assert changed.select_head("pets").manifest.class_names == ("pug", "poodle")
    assert len([name for name in listing(changed) if name.startswith("head-pets")]) == 1
    assert listing(changed) == sorted(["bundle.json", *changed.manifest.files])


def test_the_default_head_can_be_replaced(tmp_path: Path) -> None:
    bundle = make_clip(tmp_path)
    assert bundle.with_head("pets", classes_of("pug"), default=True).manifest.head_name == "pets"
    again = Bundle.open(bundle.path).with_head("pets", classes_of("pug", "beagle", "poodle"))
    assert again.manifest.classes == 3


def test_what_is_added_to_a_bundle_with_a_selected_head_leaves_the_default(tmp_path: Path) -> None:
    bundle = make_clip(tmp_path).with_head("pets", classes_of("pug", "beagle", "poodle", seed=1))
    changed = bundle.select_head("pets").with_source("fp32", statistics(), "tests")
    assert changed.manifest.head_name == "pets"
    assert changed.info("fp32").source is not None
    stored = Bundle.open(bundle.path)
    assert (stored.manifest.head_name, stored.manifest.classes) == ("animals", 2)
    assert set(stored.manifest.heads) == {"animals", "pets"}


def test_fisher_information_belongs_to_its_head(tmp_path: Path) -> None:
    pull_backs = {"fp32": GraphEntry("model.onnx", 20, 0.0)}
    bundle = make_clip(tmp_path, norms={"blocks.0.norm1": 3}, pull_backs=pull_backs)
    bundle = bundle.with_head("pets", classes_of("pug", "beagle", "poodle", seed=1))
    fisher = np.ones((1, 2, 3), np.float32)
    changed = bundle.select_head("pets").with_source("fp32", replace(statistics(), fisher=fisher), "tests")
    source = changed.source("fp32")
    assert source is not None and source.fisher is not None
    np.testing.assert_array_equal(source.fisher, fisher)
    other = Bundle.open(bundle.path).source("fp32")
    assert other is not None and other.fisher is None
    np.testing.assert_array_equal(other.mean, source.mean)


def test_an_export_in_place_of_a_bundle_with_heads(tmp_path: Path) -> None:
    first = make_clip(tmp_path).with_head("pets", classes_of("pug", seed=1))
    (tmp_path / "other").mkdir()
    second = make_clip(tmp_path / "other")
    writers = {name: (second.path / name).rename for name in second.manifest.files}
    replaced = create(first.path, second.manifest, writers, overwrite=True)
    assert set(replaced.manifest.heads) == {"animals"}
    assert listing(replaced) == sorted(["bundle.json", *replaced.manifest.files])
    assert replaced.info("fp32").classes == 2


@pytest.mark.parametrize(
    ("name", "reason"), [("cats", "has no head 'cats', it has: animals"), ("", "no head")]
)
def test_a_head_that_does_not_exist(tmp_path: Path, name: str, reason: str) -> None:
    with pytest.raises(BundleError, match=reason):
        make_clip(tmp_path).select_head(name)


def test_classes_in_the_graph_are_not_replaced(tmp_path: Path) -> None:
    bundle = make(tmp_path)
    with pytest.raises(BundleError, match="part of its graphs"):
        bundle.select_head("pets")
    with pytest.raises(BundleError, match="part of its graphs"):
        bundle.with_head("pets", classes_of("pug"))
    assert json.loads((bundle.path / "bundle.json").read_bytes())["schema"] == 2


def test_a_head_of_another_text_graph_is_never_used(tmp_path: Path) -> None:
    bundle = make_clip(tmp_path)
    replace_file(bundle, "text.onnx", b"another")
    with pytest.raises(BundleError, match="another text graph"):
        Bundle.open(bundle.path).select_head("animals")
    with pytest.raises(BundleError, match="another text graph"):
        Bundle.open(bundle.path).info("fp32")


@pytest.mark.parametrize("name", ["", "Pets", "../pets", "a b", "pets-"])
def test_names_of_heads_are_plain(tmp_path: Path, name: str) -> None:
    with pytest.raises(BundleError, match="lower case letters, digits and hyphens"):
        make_clip(tmp_path).with_head(name, classes_of("pug"))


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("class_ids", ["a", "a"], "different class_ids"),
        ("class_ids", ["a"], "different class_ids"),
        ("templates", ["a photo"], "with one {}"),
        ("templates", [], "with one {}"),
        ("context_vectors", 0, "template that begins with the name"),
        ("file", "model.onnx", "head: expected the file of one of the heads"),
    ],
)
def test_heads_that_contradict_themselves(tmp_path: Path, field: str, value: Any, reason: str) -> None:
    bundle = make_clip(tmp_path)
    edit(bundle, lambda raw: raw["heads"]["animals"].update({field: value}))
    with pytest.raises(BundleError, match=reason):
        Bundle.open(bundle.path)


@pytest.mark.parametrize(
    ("field", "value"), [("logit_scale", 0), ("embedding_width", 4), ("context_length", 2), ("end_token", -1)]
)
def test_texts_that_cannot_be(tmp_path: Path, field: str, value: int) -> None:
    bundle = make_clip(tmp_path)
    edit(bundle, lambda raw: raw["text"].update({field: value}))
    with pytest.raises(BundleError, match="text: expected"):
        Bundle.open(bundle.path)


def test_a_head_that_would_contradict_the_manifest_is_not_written(tmp_path: Path) -> None:
    bundle = make_clip(tmp_path)
    before = listing(bundle)
    with pytest.raises(BundleError, match="different class_ids"):
        bundle.with_head("pets", classes_of("pug", "pug"))
    assert listing(bundle) == before
    assert Bundle.open(bundle.path) == bundle


def test_a_damaged_head(tmp_path: Path) -> None:
    bundle = make_clip(tmp_path).with_head("pets", classes_of("pug"))
    name = bundle.manifest.heads["pets"].file
    (bundle.path / name).write_bytes(b"")
    with pytest.raises(BundleError, match="is not the file that was exported"):
        bundle.load_head("pets")
    Network.open(bundle).close()  # the head in use is another
