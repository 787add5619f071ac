"""Comparison of an accuracy with guessing."""

from __future__ import annotations

import math

# Accuracy above guessing, as a part of what guessing leaves, that a model reaches on any images of its own:
# orders of classes that agree in a few places, as sorted texts and numbers do, stay below.
MARGIN = 0.02


def is_chance(correct: int, images: int, classes: int) -> bool:
    """Return whether so many right predictions say no more of the labels than guessing would.

    That is so up to guessing plus `MARGIN`, and one standard error of so few images above that.

    Args:
        correct: number of right predictions.
        images: number of predictions, above 0.
        classes: number of classes that were predicted among.
    """
    guessing = 1 / classes
    limit = guessing + MARGIN * (1 - guessing)
    return correct / images <= limit + math.sqrt(limit * (1 - limit) / images)
