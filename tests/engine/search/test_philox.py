"""Philox4x32-10 against published words, and the quality of what is drawn from it."""

from __future__ import annotations

import numpy as np
import pytest
from fozo.engine.methods.fozo import Fozo
from fozo.engine.methods.pizo import Pizo
from fozo.engine.search.philox import compute_philox, draw_philox_normal, draw_philox_signs, draw_words
from fozo.testing import StandInNetwork, check_method

# Counter, key and result of the known answers that come with Random123 (Salmon et al., SC 2011).
KNOWN_ANSWERS = [
    ((0, 0, 0, 0), (0, 0), "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        "d16cfe09 94fdcceb 5001e420 24126ea1",
    ),
]


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN_ANSWERS)
def test_words_are_the_published_ones(counter: tuple[int, ...], key: tuple[int, int], expected: str) -> None:
    first, second, third, fourth = (np.array([word], np.int64) for word in counter)
    words = compute_philox((first, second, third, fourth), key)
    assert " ".join(f"{word:08x}" for word in words[0]) == expected


def test_an_image_has_the_same_words_in_every_batch() -> None:
    many, few = draw_words(7, 3, 1, 9, 10), draw_words(7, 3, 1, 2, 10)
    np.testing.assert_array_equal(many[:2], few)
    assert many.shape == (9, 12) and len(np.unique(many)) == many.size


@pytest.mark.parametrize("change", [(8, 3, 1), (7, 4, 1), (7, 3, 2), (7 + 2**32, 3, 1)])
def test_seed_step_and_sample_all_matter(change: tuple[int, int, int]) -> None:
    assert not np.array_equal(draw_words(7, 3, 1, 2, 8), draw_words(*change, 2, 8))


def test_moments_of_normal_values() -> None:
    values = np.concatenate([draw_philox_normal(1, step, 0, (20, 501)).ravel() for step in range(100)])
    values = values.astype(np.float64)
    deviation = 1 / np.sqrt(len(values))
    assert abs(values.mean()) < 4 * deviation
    assert abs(values.var() - 1) < 4 * np.sqrt(2) * deviation
    assert abs((values**3).mean()) < 4 * np.sqrt(15) * deviation
    assert abs((values**4).mean() - 3) < 4 * np.sqrt(96) * deviation


@pytest.mark.parametrize("draw", [draw_philox_signs, draw_philox_normal])
def test_lanes_images_and_steps_are_uncorrelated(draw: object) -> None:
    steps = np.stack([draw(5, step, 0, (6, 8)).ravel() for step in range(4000)])  # type: ignore[operator]
    deviation = 1 / np.sqrt(len(steps))
    assert np.abs(steps.mean(axis=0)).max() < 4.5 * deviation
    products = steps.T.astype(np.float64) @ steps / len(steps) - np.eye(48)
    assert np.abs(products - np.diag(np.diag(products))).max() < 5 * deviation  # between coordinates
    later = (steps[1:] * steps[:-1]).mean(axis=0)
    assert np.abs(later).max() < 4.5 * deviation  # from step to step


def test_signs_are_the_bits_of_the_words() -> None:
    words = draw_words(3, 2, 1, 2, 2)
    signs = draw_philox_signs(3, 2, 1, (2, 5, 9))
    bits = [[(int(words[image, bit // 32]) >> (bit % 32)) & 1 for bit in range(45)] for image in range(2)]
    np.testing.assert_array_equal(signs.reshape(2, -1), 2.0 * np.array(bits) - 1)
    assert signs.dtype == np.float32 and signs.shape == (2, 5, 9)


@pytest.mark.parametrize("method", [Pizo(generator="philox"), Fozo(generator="philox")])
def test_methods_take_the_generator(method: object) -> None:
    check_method(method, StandInNetwork())  # type: ignore[arg-type]
