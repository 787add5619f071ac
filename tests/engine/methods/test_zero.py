"""ZERO against an independent implementation, and what stopping early leaves out."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from fozo.engine.interface.request import Request, drive
from fozo.engine.methods.zero import Zero
from fozo.engine.model import ImageArray, Outputs
from fozo.engine.registry import METHODS, method
from fozo.engine.statistics.objective import entropy
from fozo.engine.streams.adapter import Adapter
from fozo.testing import StandInNetwork, check_method, draw_images


class Counting:
    """A network whose requests are counted: the images of each, in order."""

    def __init__(self, scale: float = 1.0) -> None:
        self.network, self.info, self.scale = StandInNetwork(), StandInNetwork().info, scale
        self.requests: list[int] = []

    def candidates(self, images: ImageArray, tunables: Any) -> list[Outputs]:
        self.requests.append(len(images))
        (outputs,) = self.network.candidates(images, tunables)
        return [Outputs(outputs.logits * np.float32(self.scale), outputs.features, outputs.embedding)]


def draw_views(count: int, views: int, seed: int) -> ImageArray:
    """Return views that differ: every one has noise of its own."""
    generator = np.random.default_rng([seed, count, views])
    plain = draw_images(count, seed)[:, None].astype(np.int64)
    noise = generator.integers(-90, 91, (count, views, 4, 4, 3))
    noise[:, 0] = 0
    return np.clip(plain + noise, 0, 255).astype(np.uint8)


def reference(logits: Any, share: float, torch: Any) -> int:
    """Return ZERO's class for the logits of all views of one image: the marginal at temperature 0."""
    logits = torch.from_numpy(np.asarray(logits)).double()
    entropies = -(logits.softmax(1) * logits.log_softmax(1)).sum(1)
    order = sorted(range(len(logits)), key=lambda view: (entropies[view].item(), view))
    voters, others = order[: int(share * len(order))], order[int(share * len(order)) :]
    counts = torch.zeros(logits.shape[1])
    for view in voters:
        counts[logits[view].argmax()] += 1
    tied = [label for label in range(len(counts)) if counts[label] == counts.max()]
    for view in others:
        if len(tied) > 1 and int(logits[view].argmax()) in tied:
            return int(logits[view].argmax())
    return max(tied, key=lambda label: logits[voters].softmax(1).mean(0)[label].item())


@pytest.mark.parametrize("share", [0.25, 0.5, 1.0])
def test_predictions_are_those_of_the_reference(share: float) -> None:
    torch = pytest.importorskip("torch")
    network, ties = StandInNetwork(), 0
    adapter = Adapter(network, Zero(views=8, kept=share))
    for seed in range(12):
        images = draw_views(9, 8, seed)
        prediction = adapter.step(images)
        for index in range(9):
            logits = network(images[index]).logits
            assert prediction.logits[index].argmax() == reference(logits, share, torch), (seed, index)
            ties += prediction.logits[index].argmax() != logits[0].argmax()
    assert ties > 5  # votes changed something


def test_soft_votes_of_all_views_are_the_plain_average() -> None:
    torch = pytest.importorskip("torch")
    network, images = StandInNetwork(), draw_views(5, 16, 0)
    prediction = Adapter(network, Zero(views=16, kept=1.0, vote="soft")).step(images)
    for index in range(5):
        mean = torch.from_numpy(network(images[index]).logits).double().softmax(1).mean(0)
        np.testing.assert_allclose(prediction.probabilities[index], mean, rtol=2e-6)


def test_a_prediction_does_not_depend_on_its_batch() -> None:
    network, images = StandInNetwork(), draw_views(6, 8, 1)
    together = Adapter(network, Zero(views=8)).step(images).logits
    alone = [Adapter(network, Zero(views=8)).step(images[index : index + 1]).logits[0] for index in range(6)]
    np.testing.assert_allclose(together, alone, rtol=1e-6)


def test_permuting_classes_permutes_the_logits() -> None:
    network, images, order = StandInNetwork(), draw_views(6, 8, 3), [4, 2, 0, 5, 1, 3]
    left = Adapter(network, Zero(views=8)).step(images).logits[:, order]
    right = Adapter(network.select(order), Zero(views=8)).step(images).logits
    np.testing.assert_allclose(left, right, atol=1e-5)


def test_the_ordinary_views_come_first_and_the_others_image_by_image() -> None:
    network = Counting()
    adapter = Adapter(network, Zero(views=8))  # type: ignore[arg-type]
    prediction = adapter.step(draw_views(3, 8, 0))
    assert network.requests == [3, 7, 7, 7]
    assert prediction.forwards == 8 and prediction.diagnostics["views"] == 8


def test_the_defaults_are_the_published_ones() -> None:
    assert METHODS["zero"] == Zero(
        views=64, kept=0.3, vote="hard", view_kind="crops", view_area=0.08, block=0, certain=0.1, skip=0.0
    )
    assert METHODS["zero"].forwards == 64


# --- stopping early


def test_blocks_stop_where_the_vote_is_decided() -> None:
    network = Counting(scale=30.0)  # certain predictions
    configured = Zero(views=16, kept=0.5, block=4, certain=0.5)
    images = draw_views(40, 16, 2)
    stopped = Adapter(network, configured).step(images)  # type: ignore[arg-type]
    complete = Adapter(Counting(scale=30.0), Zero(views=16, kept=0.5)).step(images)  # type: ignore[arg-type]
    assert network.requests[0] == 40 and set(network.requests[1:]) == {3, 4}
    assert sum(network.requests) == round(stopped.forwards * 40) < 16 * 40
    agreement = (stopped.logits.argmax(axis=1) == complete.logits.argmax(axis=1)).mean()
    assert agreement > 0.7
    assert complete.forwards == 16


def test_a_lead_that_votes_to_come_cannot_overturn_ends_the_vote() -> None:
    """All views are equal, so all votes are; of 16 views 16 vote, so after 12 the lead is 12."""
    images = np.repeat(draw_images(1)[:, None], 16, axis=1)
    prediction = Adapter(StandInNetwork(), Zero(views=16, kept=1.0, block=4, certain=0.0)).step(images)
    assert prediction.forwards == 12


def test_confident_images_are_skipped() -> None:
    network = Counting()
    images = draw_views(20, 8, 3)
    (outputs,) = network.network.candidates(images[:, 0], [{}])
    shares = entropy(outputs.logits) / np.log(6)
    limit = float(np.median(shares))
    prediction = Adapter(network, Zero(views=8, skip=limit)).step(images)  # type: ignore[arg-type]
    assert network.requests == [20] + [7] * 10
    assert prediction.forwards == (20 + 7 * 10) / 20
    skipped = shares < limit
    assert np.array_equal(prediction.logits.argmax(axis=1)[skipped], outputs.logits.argmax(axis=1)[skipped])


def test_all_variants_keep_the_contract() -> None:
    for options in (
        {"views": 2, "kept": 0.0},
        {"views": 9, "block": 4, "certain": 1.0, "skip": 0.9},
        {"views": 7, "vote": "soft", "kept": 1.0, "block": 3, "certain": 0.4},
    ):
        check_method(method("zero", **options))  # type: ignore[arg-type]


def test_views_are_asked_for_in_slices_that_do_not_overlap() -> None:
    """A lazy batch makes each view once."""
    images, asked = draw_views(2, 9, 5), []

    class Views:
        def __init__(self, index: int) -> None:
            self.index = index

        def __len__(self) -> int:
            return 9

        def __getitem__(self, numbers: slice) -> ImageArray:
            asked.append((self.index, numbers.start, numbers.stop))
            views: ImageArray = images[self.index, numbers]
            return views

    bound = Zero(views=9, block=4, certain=0.0).bind(StandInNetwork().info)
    requests: list[Request] = []

    def answer(request: Request) -> list[Outputs]:
        requests.append(request)
        return StandInNetwork().candidates(request.images, request.tunables)

    drive(bound.step(bound.init(0), [Views(0), Views(1)]), answer)  # type: ignore[arg-type]
    for index in (0, 1):
        slices = [(start, stop) for image, start, stop in asked if image == index]
        assert slices[:3] == [(0, 1), (1, 4), (4, 8)]
        assert all(before[1] == after[0] for before, after in pairwise(slices))
