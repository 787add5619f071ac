"""Comparison of an accuracy with guessing."""

from __future__ import annotations

import math

# Accuracy above guessing, as a part of what guessing leaves, that a model reaches on any images of its own:
# orders of classes that agree in a few places, as sorted texts and numbers do, stay below.
MARGIN = 0.02


def is_chance(correct: int, images: int, classes: int) -> bool:
    """Return whether so many right predictions say no more of the labels than guessing would.

    Args:
        correct: number of right predictions.
        images: number of predictions, above 0.
        classes: number of classes that were predicted among.
    """
    return correct / images <= find_chance_limit(images, classes)


def find_chance_limit(images: int, classes: int) -> float:
    """Return the highest share of right predictions, 0 to 1, that may come from guessing.

    It is guessing plus `MARGIN`, and one standard error of so few images above that.

    Args:
        images: number of predictions, above 0.
        classes: number of classes that were predicted among.
    """
    guessing = 1 / classes
    limit = guessing + MARGIN * (1 - guessing)
    return limit + math.sqrt(limit * (1 - limit) / images)
