"""STSS against published numbers and an independent implementation, and its properties."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from fozo.engine.errors import BundleError
from fozo.engine.methods.stss import Stss, perturb
from fozo.engine.model import ClassText, FloatArray, ImageArray, ModelInfo
from fozo.engine.registry import METHODS, method
from fozo.engine.statistics.objective import entropy, softmax
from fozo.engine.statistics.voting import hold_vote, rank_views
from fozo.engine.streams.adapter import Adapter
from fozo.testing import StandInNetwork, add_views, check_method, draw_images

SCALE = 10.0


def unit(rows: Any) -> FloatArray:
    array = np.array(rows, np.float64)
    normalised: FloatArray = array / np.linalg.norm(array, axis=-1, keepdims=True)
    return normalised


PLAIN = unit([[1, 0], [0, 1], [0.7, 0.7]])
PERTURBED = unit([[[0.95, 0.3], [0.2, 1], [0.6, 0.8]], [[1, -0.2], [-0.1, 1], [0.8, 0.6]]])
VIEWS = unit([[1, 0.1], [0.2, 1], [0.7, 0.72], [0.5, 0.1]])


@dataclass
class StoredText:
    """Texts whose perturbed classifiers are stored, in double precision."""

    classifiers: FloatArray
    context: FloatArray = field(default_factory=lambda: np.zeros((1, 3), np.float32))
    calls: list[int] = field(default_factory=list)

    def encode(self, contexts: FloatArray) -> FloatArray:
        self.calls.append(len(contexts))
        return self.classifiers[: len(contexts)]

    def select(self, classes: Sequence[int]) -> ClassText:
        return replace(self, classifiers=self.classifiers[:, list(classes)])


MODEL = ModelInfo(
    "plane",
    "plane",
    1,
    2,
    1,
    0.0,
    SCALE * PLAIN,
    np.zeros(3),
    takes_classifier=True,
    logit_scale=SCALE,
    text=StoredText(SCALE * PERTURBED),
)


def score_views(**options: Any) -> FloatArray:
    bound = Stss(**{"perturbations": 2, **options}).bind(MODEL)
    return bound.make_score(bound.init(0))(SCALE * VIEWS @ PLAIN.T, VIEWS)


def test_the_published_views() -> None:
    scores = score_views()
    np.testing.assert_allclose(scores, [0.5818118749, 0.6105305604, 0.8877349416, 0.6890093780], atol=5e-11)
    order = rank_views(scores)
    assert order.tolist() == [0, 1, 3, 2]
    logits = SCALE * VIEWS @ PLAIN.T
    vote = hold_vote(logits, order, 2, "soft", Stss.ties)
    np.testing.assert_allclose(vote.shares, [0.4507148363, 0.4076141060, 0.1416710576], atol=5e-11)


def test_without_flatness_or_radius_the_score_is_the_entropy() -> None:
    plain = entropy(SCALE * VIEWS @ PLAIN.T)
    assert np.array_equal(score_views(flatness=0.0), plain)
    assert rank_views(plain.round(12)).tolist() == [0, 2, 1, 3]  # another order than the published scores
    network, images = StandInNetwork(texts=True), draw_views(4, 8, 0)
    zero = Adapter(network, method("zero", views=8, kept=0.25, vote="soft")).step(images)
    for options in ({"flatness": 0.0}, {"radius": 0.0}):
        adapter = Adapter(network, Stss(views=8, kept=0.25, vote="soft", **options))  # type: ignore[arg-type]
        np.testing.assert_allclose(adapter.step(images).logits, zero.logits, atol=1e-6)


def test_half_the_flatness_is_half_way() -> None:
    plain, full = score_views(flatness=0.0), score_views()
    np.testing.assert_allclose(score_views(flatness=0.5), (plain + full) / 2, rtol=1e-12)
    np.testing.assert_allclose(score_views(flatness=2.0), 2 * full - plain, rtol=1e-12)


def test_the_unperturbed_prompt_does_not_take_part_in_the_maximum() -> None:
    """The score may be below the plain entropy where every perturbation lowers it."""
    first = score_views(perturbations=1)
    np.testing.assert_allclose(first[0], 0.1956245231, atol=5e-11)
    assert first[0] < entropy(SCALE * VIEWS @ PLAIN.T)[0]


# --- prompts


def test_prompts_lie_on_a_sphere_and_are_nested() -> None:
    context = np.random.default_rng(0).normal(size=(4, 64)).astype(np.float32)
    prompts = perturb(context, 3, 8, 0.5)
    distances = np.linalg.norm((prompts - context).reshape(8, -1).astype(np.float64), axis=1)
    np.testing.assert_allclose(distances, 0.5, rtol=1e-6)
    assert prompts.dtype == np.float32
    assert np.array_equal(perturb(context, 3, 5, 0.5), prompts[:5])
    assert np.array_equal(perturb(context, 3, 8, 0.0), np.stack([context] * 8))
    other = perturb(context, 4, 8, 0.5)
    assert not np.isclose(other, prompts).all(axis=(1, 2)).any()
    moves = (prompts - context).reshape(8, -1)
    assert np.abs(np.corrcoef(moves) - np.eye(8)).max() < 0.3  # directions have nothing in common


def test_scores_do_not_fall_with_more_prompts() -> None:
    network = StandInNetwork(texts=True)
    outputs = network(draw_images(20))
    scores = []
    for count in (1, 2, 4, 8):
        bound = Stss(perturbations=count).bind(network.info)
        scores.append(bound.make_score(bound.init(1))(outputs.logits, outputs.features[:, -1]))
    assert all((more >= fewer).all() for fewer, more in pairwise(scores))
    assert (scores[-1] > scores[0]).any()


def test_prompts_are_encoded_for_a_batch_and_never_for_an_image() -> None:
    network = StandInNetwork(texts=True)
    text: Any = network.info.text
    adapter = Adapter(network, Stss(views=3, perturbations=5))
    before = text.contexts_encoded
    adapter.step(draw_views(7, 3, 0))
    assert text.contexts_encoded == before + 5


def test_every_step_uses_the_same_prompts_and_another_seed_others() -> None:
    network, images = StandInNetwork(texts=True), draw_views(30, 12, 1)
    adapters = [Adapter(network, Stss(views=12), seed=seed) for seed in (1, 1, 2)]
    adapters[1].step(images)
    first, later, other = (adapter.step(images).logits for adapter in adapters)
    assert np.array_equal(first, later)
    assert not np.array_equal(first, other)


# --- a whole step


def draw_views(count: int, views: int, seed: int) -> ImageArray:
    generator = np.random.default_rng([seed, count, views])
    plain = draw_images(count, seed)[:, None].astype(np.int64)
    noise = generator.integers(-90, 91, (count, views, 4, 4, 3))
    noise[:, 0] = 0
    return np.clip(plain + noise, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("vote", ["hard", "soft"])
def test_twelve_batches_are_those_of_a_second_implementation(vote: Any) -> None:
    """Equations 5 to 8 of the paper in PyTorch, with the whole softmax of every prompt."""
    torch = pytest.importorskip("torch")
    network = StandInNetwork(texts=True)
    text: Any = network.info.text
    options = Stss(views=10, kept=0.3, vote=vote, perturbations=4, radius=0.7, flatness=1.5)
    adapter = Adapter(network, options, seed=9)
    prompts = perturb(text.context, 9, 4, 0.7)
    classifiers = torch.from_numpy(np.concatenate([network.info.head_weight[None], text.encode(prompts)]))
    votes_changed = 0
    for seed in range(12):
        images = draw_views(5, 10, seed)
        prediction = adapter.step(images)
        for index in range(5):
            features = torch.from_numpy(network(images[index]).features[:, -1]).double()
            p = torch.einsum("vf,rkf->rvk", features, classifiers.double()).softmax(dim=-1)
            h = torch.special.entr(p).sum(dim=-1)
            score = h[0] + 1.5 * (h[1:] - h[0]).amax(dim=0)
            best = score.topk(3, largest=False).indices
            mean = p[0, best].mean(dim=0)
            if vote == "soft":
                np.testing.assert_allclose(prediction.probabilities[index], mean, atol=1e-5)
                continue
            counts = torch.bincount(p[0, best].argmax(dim=1), minlength=6)
            ties = (counts == counts.max()).nonzero()[:, 0]
            winner = max(ties.tolist(), key=lambda label: mean[label].item())
            assert prediction.logits[index].argmax() == winner
            votes_changed += winner != int(p[0, 0].argmax())
    assert vote == "soft" or votes_changed > 2


def test_all_views_make_the_plain_average() -> None:
    network, images = StandInNetwork(texts=True), draw_views(3, 8, 2)
    prediction = Adapter(network, Stss(views=8, kept=1.0, vote="soft")).step(images)
    for index in range(3):
        mean = softmax(network(images[index]).logits).mean(axis=0)
        np.testing.assert_allclose(prediction.probabilities[index], mean, rtol=1e-5)


def test_permuting_classes_permutes_the_logits() -> None:
    network, images, order = StandInNetwork(texts=True), draw_views(6, 8, 3), [4, 2, 0, 5, 1, 3]
    left = Adapter(network, Stss(views=8)).step(images).logits[:, order]
    right = Adapter(network.select(order), Stss(views=8)).step(images).logits
    np.testing.assert_allclose(left, right, atol=1e-5)


@pytest.mark.parametrize(
    "options",
    [
        {"views": 6},
        {"views": 9, "block": 4, "certain": 1.0, "skip": 0.9},
        {"views": 4, "guard": "rollback"},
        {"views": 3, "interval": 4, "domains": 2},
    ],
)
def test_the_contract_is_kept(options: dict[str, object]) -> None:
    check_method(method("stss", **options), StandInNetwork(texts=True))


def test_models_without_one_prompt_are_refused() -> None:
    with pytest.raises(BundleError, match="part of the graph; export a CLIP model"):
        Adapter(StandInNetwork(), Stss())
    templates = replace(StandInNetwork(texts=True).info, text=None)
    with pytest.raises(BundleError, match="means over several templates"):
        Stss().bind(templates)


def test_one_class_is_always_the_answer() -> None:
    network = StandInNetwork(texts=True).select([2])
    prediction = Adapter(network, Stss(views=4)).step(add_views(draw_images(2), 4))
    assert prediction.logits.shape == (2, 1) and (prediction.probabilities == 1).all()


def test_the_defaults_are_documented() -> None:
    assert METHODS["stss"] == Stss(
        views=64, kept=0.1, vote="hard", perturbations=8, radius=0.5, flatness=1.0, block=0, skip=0.0
    )
