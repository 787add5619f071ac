"""Fog, snow, spatter and frost against their published formulas."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from corruption_doubles import apply, grey, picture
from doubles import real_data
from fozo.engine.errors import InputError
from fozo.eval.corruptions import spatter as drops
from fozo.eval.corruptions.corruption_registry import (
    NAMES,
    SEVERITIES,
    corrupt,
    make_generator,
)
from fozo.eval.corruptions.weather import generate_plasma, load_frost_textures
from PIL import Image


def test_fog_on_black_stays_black_and_on_white_is_the_fractal() -> None:
    assert not apply(grey(0), "fog", 5).any()
    fractal = generate_plasma(1.4, make_generator("fog", 5, "a", 0))
    expected = (1 + 3 * fractal[:224, :224]) / 4 * 255
    found = apply(grey(255), "fog", 5)
    assert np.all((found[..., 0] <= expected + 1e-3) & (found[..., 0] > expected - 1 - 1e-3))
    assert np.array_equal(found[..., 0], found[..., 2])


@pytest.mark.parametrize("decay", [2.0, 1.4])
def test_the_fractal_is_rougher_with_less_decay_and_wraps_around(decay: float) -> None:
    heights = generate_plasma(decay, np.random.default_rng(0))
    assert heights.shape == (256, 256)
    assert (heights.min(), heights.max()) == (0, 1)
    inside, across = (
        np.abs(np.diff(heights, axis=0)).mean(),
        np.abs(heights[0] - heights[-1]).mean(),
    )
    assert across == pytest.approx(inside, rel=0.5)
    # The last of eight steps draws within 100² / decay^14, relative to the first 100²; a mean is smoother.
    means = heights[::2, ::2] + np.roll(heights[::2, ::2], -1, 1)
    means = (means + np.roll(means, -1, 0)) / 4
    ratio = np.abs(heights[1::2, 1::2] - means).max() / np.abs(heights - heights.mean()).max()
    assert ratio < 4 * decay**-7


@pytest.mark.parametrize("severity", SEVERITIES)
def test_snow_whitens_by_its_formula_and_only_adds(severity: int) -> None:
    own = (0.8, 0.7, 0.7, 0.65, 0.55)[severity - 1]
    image = picture()
    pixels = image / 255
    grey_level = pixels @ [0.299, 0.587, 0.114]
    least = own * pixels + (1 - own) * np.maximum(pixels, (grey_level * 1.5 + 0.5)[..., None])
    found = apply(image, "snow", severity) / 255
    assert np.all(found >= np.floor(np.minimum(least, 1) * 255) / 255 - 1e-6)
    flakes = apply(grey(0), "snow", severity)[..., 0] - np.floor((1 - own) / 2 * 255)
    assert flakes.max() > 20  # the same flakes upside down were added
    assert np.abs(flakes - flakes[::-1, ::-1]).max() <= 1


def test_spatter_is_water_and_then_mud() -> None:
    image = grey(100)
    for severity in (1, 2, 3):
        added = apply(image, "spatter", severity).astype(int) - 100
        assert added.min() == 0
        assert (added[..., 1] >= added[..., 0]).all()  # pale turquoise
        assert (added == 0).mean() > 0.3
    for severity in (4, 5):
        found = apply(image, "spatter", severity)
        covered = found[..., 0] < 100
        assert 0.05 < covered.mean() < 0.6
        opaque = (100 - found[covered]) / (100 - np.array([63, 42, 20]))
        assert opaque.min() >= 0.8
        assert opaque.max() < 1.03  # rounded down
        assert (found[~covered] == 100).all()


def test_edges_of_a_square_and_distances_from_them() -> None:
    layer = np.zeros((60, 60), np.uint8)
    layer[20:40, 20:40] = 200
    rim = drops.detect_edges(layer)
    assert 60 < rim.sum() < 90  # one pixel wide
    assert not rim[24:36, 24:36].any()
    assert not rim[:18].any()
    marked = np.zeros((60, 60), bool)
    marked[10, 20] = True
    found = drops.compute_distances(marked)
    y, x = np.mgrid[:60, :60]
    exact = np.hypot(y - 10, x - 20)
    near = exact < 19
    assert np.abs(found - exact)[near].max() < 0.02 * 20
    assert found.max() == 20
    assert (found[10, 21], found[11, 21], found[12, 21]) == pytest.approx((1, 1.4, 2.1969))
    assert (
        drops.compute_distances(~marked)[10, 20],
        drops.compute_distances(np.zeros((3, 3), bool))[1, 1],
    ) == (1, 20)


def test_equalized_levels_are_even() -> None:
    levels = np.arange(64, dtype=np.uint8).reshape(8, 8) + 100
    spread = drops.equalize(levels)
    assert (spread.min(), spread.max()) == (0, 255)
    assert np.abs(np.diff(spread.ravel().astype(int)) - 255 / 63).max() < 1
    assert np.array_equal(drops.equalize(grey()[..., 0]), grey()[..., 0])


@pytest.mark.parametrize("severity", SEVERITIES)
def test_frost_adds_a_piece_of_a_texture(severity: int, textures: Path) -> None:
    own, share = ((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75))[severity - 1]
    used = set()
    for image_id in "abcdefghijkl":
        rng = make_generator("frost", severity, image_id, 0)
        number = int(rng.integers(5))
        used.add(number)
        if number == 2:  # smaller than the image, so stretched
            continue
        texture = load_frost_textures(textures)[number]
        top, left = (int(rng.integers(max(side - 224, 1))) for side in texture.shape[:2])
        piece = texture[top : top + 224, left : left + 224]
        expected = np.clip(own * 90 + share * piece.astype(float), 0, 255)
        found = apply(grey(90), "frost", severity, image_id)
        assert np.all((found <= expected + 1e-3) & (found > expected - 1 - 1e-3))
    assert len(used) > 2


def test_frost_without_textures_says_where_to_get_them(tmp_path: Path, textures: Path) -> None:
    for name in NAMES:
        if name != "frost":
            corrupt(picture(8, 8), name, 1, image_id="a", seed=0)
    with pytest.raises(InputError, match=r"do not come with fozo.*frost1.*hendrycks/robustness.*--frost-tex"):
        corrupt(picture(), "frost", 1, image_id="a", seed=0)
    (tmp_path / "frost2.png").write_bytes((textures / "frost2.png").read_bytes())
    with pytest.raises(InputError, match=r"missing: frost1, frost3, frost4, frost5 .*hendrycks/robustness"):
        corrupt(picture(), "frost", 1, image_id="a", seed=0, textures=tmp_path)


def test_the_real_textures_are_read() -> None:
    folder = real_data("frost")
    sizes = [texture.shape for texture in load_frost_textures(folder)]
    assert sizes == [(600, 900, 3), (315, 560, 3), (315, 560, 3), (350, 527, 3), (495, 660, 3)]
    frosted = corrupt(grey(0), "frost", 5, image_id="a", seed=0, textures=folder)
    assert frosted.mean() > 30


@pytest.mark.parametrize("name", ["snow", "fog", "spatter", "frost"])
def test_layers_look_the_same_at_another_size(name: str) -> None:
    small, large = (apply(np.full((side, side, 3), 90, np.uint8), name, 4) for side in (224, 448))
    shrunk = np.array(Image.fromarray(large).resize((224, 224), Image.Resampling.BOX)).astype(int)
    assert np.abs(shrunk - small).mean() < 0.15 * small.std() + 1
