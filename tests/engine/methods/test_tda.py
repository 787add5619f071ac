"""TDA against published numbers, and against caches of lists that are read image by image."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from doubles import state_bits
from fozo.engine.methods.tda import Tda
from fozo.engine.registry import METHODS
from fozo.engine.statistics.class_memory import ClassMemory
from fozo.engine.streams.adapter import Adapter
from fozo.testing import StandInNetwork, check_method
from stream_doubles import MODEL, answer_image, draw_stream, list_outputs

Entry = tuple[float, Any, Any]


def test_the_published_stream() -> None:
    bound = Tda(positive=2).bind(MODEL)
    state = bound.init(0)
    empty = ClassMemory.create_empty(3, 2, 2, np.float64)
    state = replace(state, positive=empty, negative=empty.copy())
    logits = [bound.correct_logits(state, answer_image(index), update=True)[0] for index in range(7)]
    np.testing.assert_allclose(logits[4], [12.4826976371, 7.9912144942, -3.7257458353], atol=5e-11)
    np.testing.assert_allclose(logits[6], [10.6395070636, 11.5958598669, -1.7613020842], atol=5e-11)
    assert state.positive.counts.tolist() == [2, 2, 2]
    assert state.negative.counts.tolist() == [2, 1, 1]


class Reference:
    """The algorithm of the paper, in lists, one image after the other."""

    def __init__(self, classes: int, options: Tda) -> None:
        self.options, self.classes = options, classes
        self.positive: list[list[Entry]] = [[] for _ in range(classes)]
        self.negative: list[list[Entry]] = [[] for _ in range(classes)]

    @staticmethod
    def add(cache: list[Entry], entry: Entry, slots: int) -> None:
        cache.append(entry)
        cache.sort(key=lambda stored: stored[0])
        del cache[slots:]

    def step(self, z: Any, x: Any) -> Any:
        options = self.options
        p = np.exp(z - z.max()) / np.exp(z - z.max()).sum()
        h = -sum(value * np.log(value) for value in p if value > 0)
        self.add(self.positive[int(z.argmax())], (h, x, p), options.positive)
        unit = np.log2(self.classes) if options.entropy_unit == "log2" else np.log(self.classes)
        if options.entropy_low < h / unit < options.entropy_high:
            self.add(self.negative[int(z.argmax())], (h, x, p), options.negative)
        z = z.copy()
        for label, cache in enumerate(self.positive):
            for _, key, _ in cache:
                z[label] += options.weight * np.exp(-options.sharpness * (1 - x @ key))
        for cache in self.negative:
            for _, key, p_key in cache:
                for label in range(self.classes):
                    if options.possible_above < p_key[label] < 1:
                        distance = 1 - x @ key
                        z[label] -= options.negative_weight * np.exp(-options.negative_sharpness * distance)
        return z


VARIANTS = [
    Tda(),
    Tda(positive=1, negative=1, negative_weight=2.0, entropy_low=0.0, entropy_high=1.0),
    Tda(positive=4, negative=3, entropy_unit="ln", sharpness=8.0, weight=1.0, possible_above=0.1),
    Tda(positive=0, negative=4, entropy_low=0.0),
    Tda(negative=0),
]


@pytest.mark.parametrize("texts", [False, True])
@pytest.mark.parametrize("options", VARIANTS)
def test_fourteen_batches_are_those_of_the_reference(options: Tda, texts: bool) -> None:
    network, stream = StandInNetwork(texts=texts), draw_stream()
    adapter, reference = Adapter(network, options), Reference(6, options)
    corrections = 0.0
    for images, (logits, features) in zip(stream, list_outputs(network, stream), strict=True):
        expected = [reference.step(z, x) for z, x in zip(logits, features, strict=True)]
        np.testing.assert_allclose(adapter.step(images).logits, expected, rtol=2e-5, atol=2e-5)
        corrections = max(corrections, np.abs(np.array(expected) - logits).max())
    assert corrections > 0.1
    state: Any = adapter.state
    assert state.positive.counts.tolist() == [len(cache) for cache in reference.positive]
    assert state.negative.counts.tolist() == [len(cache) for cache in reference.negative]
    assert state.negative.counts.sum() > 0 or not options.negative


def test_batches_make_no_difference() -> None:
    network, images = StandInNetwork(texts=True), np.concatenate(draw_stream(4))
    whole, single = Adapter(network, Tda()), Adapter(network, Tda())
    together = whole.step(images).logits
    alone = np.concatenate([single.step(images[i : i + 1]).logits for i in range(len(images))])
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_an_image_is_stored_before_it_is_predicted() -> None:
    network, images = StandInNetwork(texts=True), draw_stream(1)[0][:1]
    frozen = network(images).logits[0]
    correction = Adapter(network, Tda(negative=0)).step(images).logits[0] - frozen
    assert correction[frozen.argmax()] == pytest.approx(2.0, abs=1e-4)  # α, as it is its own neighbour
    assert np.abs(np.delete(correction, frozen.argmax())).max() < 1e-5


def test_permuting_classes_permutes_the_logits() -> None:
    network, order = StandInNetwork(texts=True), [4, 2, 0, 5, 1, 3]
    left, right = Adapter(network, Tda()), Adapter(network.select(order), Tda())
    for images in draw_stream(6):
        np.testing.assert_allclose(
            right.step(images).logits, left.step(images).logits[:, order], rtol=1e-4, atol=1e-4
        )


def test_padding_of_features_does_not_count() -> None:
    network = StandInNetwork(texts=True)
    bound = Tda().bind(replace(network.info, feature_widths=(8, 8, 5)))
    assert bound.init(0).positive.features.shape == (6, 3, 5)


def test_predicting_changes_nothing() -> None:
    adapter = Adapter(StandInNetwork(), Tda())
    adapter.step(draw_stream(1)[0])
    before = state_bits(adapter.state)
    bound: Any = adapter.bound
    bound.correct_logits(adapter.state, adapter.network(draw_stream(2)[1]), update=False)
    assert state_bits(adapter.state) == before


def test_the_defaults_are_those_of_imagenet() -> None:
    assert METHODS["tda"] == Tda(3, 2.0, 5.0, 2, 0.117, 1.0, 0.2, 0.5, "log2", 0.03)


@pytest.mark.parametrize("options", VARIANTS)
@pytest.mark.parametrize("kind", [{}, {"texts": True}, {"batch_norms": True}])
def test_the_contract_is_kept_on_every_kind_of_network(options: Tda, kind: dict[str, bool]) -> None:
    check_method(options, StandInNetwork(**kind))
