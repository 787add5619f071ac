"""Accuracies that are no better than guessing, and those that are."""

from __future__ import annotations

import numpy as np
import pytest
from fozo.engine.statistics.chance import find_chance_limit, is_chance


@pytest.mark.parametrize(("images", "classes"), [(512, 1000), (10_000, 10), (200, 12), (2_000, 2)])
def test_permuted_labels_are_chance_and_good_models_are_not(images: int, classes: int) -> None:
    generator = np.random.default_rng(0)
    labels = generator.integers(0, classes, images)
    wrong = np.where(generator.random(images) < 0.8, labels, generator.integers(0, classes, images))
    correct = int((wrong == labels).sum())
    assert not is_chance(correct, images, classes)
    guessed = [int((generator.permutation(labels) == wrong).sum()) for _ in range(50)]
    assert np.mean([is_chance(count, images, classes) for count in guessed]) > 0.75


def test_numbers_sorted_as_texts_agree_in_a_few_places_only() -> None:
    """A thousand numbered classes: the two orders share some classes, which is more than guessing."""
    texts = sorted(map(str, range(1000)))
    right = sum(text == str(number) for number, text in enumerate(texts))
    assert right > 2
    assert is_chance(50 * right, 50_000, 1000)


def test_the_limit_is_where_chance_ends() -> None:
    """For two classes and 400 images: 51 %, and a standard error of √(0.51 · 0.49 / 400)."""
    assert find_chance_limit(400, 2) == pytest.approx(0.51 + (0.51 * 0.49 / 400) ** 0.5)
    for images, classes in ((400, 2), (512, 1000), (200, 12)):
        highest = max(count for count in range(images + 1) if is_chance(count, images, classes))
        assert highest == int(images * find_chance_limit(images, classes))


def test_worse_than_guessing_is_chance_too() -> None:
    assert is_chance(5, 100, 2)
