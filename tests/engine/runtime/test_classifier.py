"""Networks whose classifier is an input, made from texts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from bundle_doubles import classes_of, clip_graph, graph, make, make_clip
from fozo.engine.errors import BundleError, InputError
from fozo.engine.runtime.network import Network
from fozo.testing import draw_images


@pytest.fixture
def network(tmp_path: Path) -> Network:
    return Network.open(make_clip(tmp_path), workers=2, micro_batch=2)


def images_of(count: int) -> np.ndarray:
    return draw_images(count)


def test_logits_are_products_of_the_last_feature(network: Network) -> None:
    outputs = network(images_of(5))
    assert outputs.logits.shape == (5, 2)
    embeddings = outputs.features[:, -1].astype(np.float64)
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(outputs.logits, embeddings @ network.info.head_weight.T, rtol=1e-5)
    assert (network.info.logit_scale, network.info.blocks, network.info.layers) == (10.0, 1, 2)


def test_other_classes_without_another_session(network: Network) -> None:
    head, images = classes_of("a", "b", "c", seed=4), images_of(5)
    view = network.with_classifier(head.weight)
    outputs, before = view(images), network(images)
    np.testing.assert_array_equal(outputs.features, before.features)
    np.testing.assert_allclose(outputs.logits, before.features[:, -1] @ head.weight.T, rtol=1e-5)
    assert (view.info.classes, network.info.classes) == (3, 2)
    assert view.info.identity not in ("", network.info.identity)
    np.testing.assert_array_equal(network(images).logits, before.logits)


def test_some_of_the_classes(network: Network) -> None:
    view, images = network.with_classifier(classes_of(*"abcde").weight), images_of(3)
    chosen = view.select([4, 0, 2])
    # The bits of a product may depend on the number of classes.
    np.testing.assert_allclose(chosen(images).logits, view(images).logits[:, [4, 0, 2]], rtol=1e-6)
    np.testing.assert_array_equal(chosen.select([1]).info.head_weight, view.info.head_weight[[0]])
    assert chosen.select([1])(images).logits.shape == (3, 1)


def test_a_bias_is_added_to_the_logits(network: Network) -> None:
    head, images, bias = classes_of("a", "b", "c", seed=4), images_of(5), np.array([1, -2, 0.5], np.float32)
    plain, view = network.with_classifier(head.weight), network.with_classifier(head.weight, bias=bias)
    np.testing.assert_array_equal(view(images).logits, plain(images).logits + bias)
    np.testing.assert_array_equal(view.select([2, 0]).info.head_bias, bias[[2, 0]])
    selected = view.select([2, 0])(images).logits
    np.testing.assert_allclose(selected, view(images).logits[:, [2, 0]], rtol=1e-5)
    assert view.info.identity != plain.info.identity
    outputs = view.candidates(images, [{}, {}])
    np.testing.assert_array_equal(outputs[0].logits, outputs[1].logits)
    for unfit in (bias[:2], bias.astype(np.float64), np.full(3, np.inf, np.float32)):
        with pytest.raises(InputError, match=r"expected a bias of finite float32 \[3\]"):
            network.with_classifier(head.weight, bias=unfit)


@pytest.mark.parametrize(
    "weight",
    [
        np.zeros((2, 4), np.float32),
        np.zeros((0, 3), np.float32),
        np.zeros((2, 3)),
        np.full((2, 3), np.nan, np.float32),
        np.zeros(3, np.float32),
    ],
)
def test_classifiers_that_do_not_fit(network: Network, weight: np.ndarray) -> None:
    with pytest.raises(InputError, match=r"expected a classifier of finite float32 \[K, 3\]"):
        network.with_classifier(weight)


def test_classes_in_the_graph_stay(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="part of its graph"):
        Network.open(make(tmp_path)).with_classifier(np.zeros((2, 3), np.float32))


def test_graph_and_manifest_agree_on_who_holds_the_classes(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"lack classifier \(tensor\(float\)\)"):
        Network.open(make_clip(tmp_path, graph(outputs="float[N,5] logits, float[N,2,3] features")))
    with pytest.raises(BundleError, match=r"have classifier \(tensor\(float\)\)"):
        Network.open(make(tmp_path, clip_graph()))
