"""Batches of training images and their loss."""

from __future__ import annotations

import numpy as np
import pytest
from fozo.engine.tuning.batch_order import BatchOrder
from fozo.engine.tuning.few_shot_loss import compute_batch_losses, compute_losses


@pytest.mark.parametrize(
    ("images", "batch", "steps"), [(160, 128, 1), (80, 128, 1), (592, 128, 4), (10, 5, 2), (7, None, 1)]
)
def test_incomplete_batches_are_left_out_unless_alone(images: int, batch: int | None, steps: int) -> None:
    order = BatchOrder(images, batch, seed=1)
    assert order.steps_per_epoch == steps
    rows = [order.get_rows(step) for step in range(2 * steps)]
    assert {len(row) for row in rows} == {min(images, batch or images)}
    epoch = np.concatenate(rows[:steps])
    assert len(set(epoch.tolist())) == len(epoch)
    assert [order.get_epoch(step) for step in (0, steps, 2 * steps)] == [0, 1, 2]


def test_each_epoch_has_an_order_of_its_own_that_depends_on_the_seed() -> None:
    order, other = BatchOrder(20, 20, seed=1), BatchOrder(20, 20, seed=2)
    np.testing.assert_array_equal(order.get_rows(3), BatchOrder(20, 20, seed=1).get_rows(3))
    assert order.get_rows(0).tolist() != order.get_rows(1).tolist()
    assert order.get_rows(0).tolist() != other.get_rows(0).tolist()
    assert sorted(order.get_rows(0).tolist()) == list(range(20))
    assert BatchOrder(4, None, seed=1).get_rows(9).tolist() == [0, 1, 2, 3]


def test_losses_are_those_of_pytorch() -> None:
    torch = pytest.importorskip("torch")
    generator = np.random.default_rng(0)
    features = generator.normal(size=(6, 4)).astype(np.float32)
    classifiers = 10 * generator.normal(size=(3, 5, 4)).astype(np.float32)
    labels = generator.integers(0, 5, 6)
    losses = compute_losses(features, labels, classifiers)
    for loss, classifier in zip(losses, classifiers, strict=True):
        logits = torch.from_numpy(features @ classifier.T)
        assert loss == pytest.approx(
            torch.nn.functional.cross_entropy(logits, torch.from_numpy(labels)).item()
        )


@pytest.mark.parametrize(("batch", "batches"), [(2, 3), (3, 2), (4, 1), (9, 1)])
def test_losses_of_each_full_batch(batch: int, batches: int) -> None:
    generator = np.random.default_rng(0)
    features, classifiers = generator.normal(size=(6, 4)), generator.normal(size=(3, 5, 4))
    labels = generator.integers(0, 5, 6)
    losses = compute_batch_losses(features, labels, classifiers, batch)
    assert losses.shape == (3, batches)
    for number in range(batches):
        rows = slice(number * batch, (number + 1) * batch)
        expected = compute_losses(features[rows], labels[rows], classifiers)
        np.testing.assert_array_equal(losses[:, number], expected)
