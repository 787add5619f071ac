"""Noises, blurs and digital corruptions against their published formulas, and the promises of `corrupt`."""

from __future__ import annotations

import colorsys
import io
import math
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import pytest
from corruption_doubles import Pixels, apply, grey, picture
from fozo.engine.errors import InputError
from fozo.eval.corruptions.blur import DEFOCUS_RADIUS_ALIAS, build_disk, convolve, scatter_indices
from fozo.eval.corruptions.corruption_registry import (
    CORRUPTIONS,
    NAMES,
    SEVERITIES,
    make_generator,
)
from PIL import Image

NOISES = ("gaussian_noise", "shot_noise", "impulse_noise", "speckle_noise")
RANDOM = (*NOISES, "glass_blur", "motion_blur", "snow", "frost", "fog", "elastic_transform", "spatter")
PUBLISHED = {
    "gaussian_noise": (0.08, 0.12, 0.18, 0.26, 0.38),
    "shot_noise": (60, 25, 12, 5, 3),
    "impulse_noise": (0.03, 0.06, 0.09, 0.17, 0.27),
    "brightness": (0.1, 0.2, 0.3, 0.4, 0.5),
    "contrast": (0.4, 0.3, 0.2, 0.1, 0.05),
    "pixelate": (0.6, 0.5, 0.4, 0.3, 0.25),
    "jpeg_compression": (25, 18, 15, 10, 7),
}


@pytest.mark.parametrize("severity", SEVERITIES)
@pytest.mark.parametrize("name", NAMES)
def test_same_arguments_same_result_and_the_input_stays(name: str, severity: int) -> None:
    image = picture(64, 48)
    image.setflags(write=False)
    first = apply(image, name, severity)
    assert first.shape == image.shape
    assert first.dtype == np.uint8
    assert not np.shares_memory(first, image)
    assert np.array_equal(first, apply(image, name, severity))
    assert np.array_equal(image, picture(64, 48))


def test_order_and_threads_do_not_matter() -> None:
    jobs = [(name, severity, str(i)) for name in NAMES for severity in (1, 5) for i in range(3)]
    image = picture(48, 48)
    forward = [apply(image, *job) for job in jobs]
    backward = [apply(image, *job) for job in reversed(jobs)][::-1]
    with ThreadPoolExecutor(4) as pool:
        threaded = list(pool.map(lambda job: apply(image, *job), jobs))
    for one, two, three in zip(forward, backward, threaded, strict=True):
        assert np.array_equal(one, two)
        assert np.array_equal(one, three)


@pytest.mark.parametrize("name", RANDOM)
def test_every_part_of_the_key_changes_the_random_numbers(name: str) -> None:
    base = apply(picture(), name, 3)
    assert not np.array_equal(base, apply(picture(), name, 3, image_id="b"))
    assert not np.array_equal(base, apply(picture(), name, 3, seed=1))
    draws = {
        make_generator(*key).random() for key in [(name, 3, "a", 0), (name, 4, "a", 0), ("x", 3, "a", 0)]
    }
    assert len(draws) == 3


def test_the_key_is_unambiguous_and_fixed() -> None:
    assert make_generator("n", 1, '1", "a', 0).random() != make_generator("n", 1, "a", 0).random()
    assert make_generator("gaussian_noise", 1, "a.png", 0).random() == pytest.approx(
        0.4707592196629452, abs=1e-15
    )


def test_the_global_random_state_is_left_alone() -> None:
    before = np.random.get_state()[1].copy()  # type: ignore[index]
    for name in NAMES:
        apply(picture(32, 32), name, 2)
    assert np.array_equal(before, np.random.get_state()[1])  # type: ignore[index]


@pytest.mark.parametrize(
    "name",
    [*NOISES, "contrast", "brightness", "defocus_blur", "gaussian_blur", "zoom_blur", "spatter"],
)
def test_more_severe_means_further_from_the_image(name: str) -> None:
    image = picture()
    distances = [np.abs(apply(image, name, s).astype(int) - image).mean() for s in SEVERITIES]
    assert distances[0] > 0.2
    assert all(a < b for a, b in pairwise(distances))


@pytest.mark.parametrize("name", ["fog", "glass_blur"])
def test_more_severe_means_further_on_average(name: str) -> None:
    image, many = picture(112, 112), [str(i) for i in range(24)]
    distances = [
        np.mean([np.abs(apply(image, name, s, one).astype(int) - image).mean() for one in many])
        for s in SEVERITIES
    ]
    assert all(a < b * 1.02 for a, b in pairwise(distances))
    assert distances[0] * 1.2 < distances[-1]


@pytest.mark.parametrize("severity", (1, 2))
def test_gaussian_noise_has_the_published_standard_deviation(severity: int) -> None:
    noise = apply(grey(), "gaussian_noise", severity) / 255 - 128 / 255
    assert noise.std() == pytest.approx(PUBLISHED["gaussian_noise"][severity - 1], rel=0.01)
    assert noise.mean() == pytest.approx(-0.5 / 255, abs=0.001)  # rounded down
    assert abs(np.corrcoef(noise[..., 0].ravel(), noise[..., 1].ravel())[0, 1]) < 0.02


@pytest.mark.parametrize("severity", SEVERITIES)
def test_shot_noise_is_a_poisson_count(severity: int) -> None:
    photons = PUBLISHED["shot_noise"][severity - 1]
    noisy = apply(grey(64), "shot_noise", severity) / 255
    levels = np.floor(np.arange(photons + 1) / photons * 255 + 1e-6) / 255
    assert np.isin(noisy, levels).all()
    assert noisy.mean() == pytest.approx(64 / 255, rel=0.03)
    if severity < 4:  # before clipping at white matters
        assert noisy.var() == pytest.approx(64 / 255 / photons, rel=0.03)
    assert not apply(grey(0), "shot_noise", severity).any()


@pytest.mark.parametrize("severity", SEVERITIES)
def test_impulse_noise_hits_the_published_share_half_and_half(severity: int) -> None:
    noisy = apply(grey(), "impulse_noise", severity)
    share = PUBLISHED["impulse_noise"][severity - 1]
    assert (noisy == 0).mean() == pytest.approx(share / 2, rel=0.05)
    assert (noisy == 255).mean() == pytest.approx(share / 2, rel=0.05)
    assert ((noisy == 128) | (noisy == 0) | (noisy == 255)).all()


@pytest.mark.parametrize("severity", SEVERITIES)
def test_contrast_by_its_formula(severity: int) -> None:
    image = picture(60, 80)
    factor = PUBLISHED["contrast"][severity - 1]
    for channel in range(3):
        plane = image[..., channel].astype(np.float64)
        expected = plane.mean() * (1 - factor) + plane * factor
        result = apply(image, "contrast", severity)[..., channel]
        assert np.all((result <= expected + 1e-4) & (result > expected - 1 - 1e-4))


@pytest.mark.parametrize("severity", SEVERITIES)
def test_brightness_by_way_of_hsv(severity: int) -> None:
    image = picture(24, 24)
    result = apply(image, "brightness", severity)
    shift = PUBLISHED["brightness"][severity - 1]
    for pixel, found in zip(image.reshape(-1, 3), result.reshape(-1, 3), strict=True):
        hue, saturation, value = colorsys.rgb_to_hsv(*(pixel / 255))
        expected = np.array(colorsys.hsv_to_rgb(hue, saturation, min(value + shift, 1))) * 255
        assert np.all((found <= expected + 1e-4) & (found > expected - 1 - 1e-4))


@pytest.mark.parametrize("severity", SEVERITIES)
@pytest.mark.parametrize("shape", [(224, 224), (32, 32), (60, 45)], ids=str)
def test_pixelate_by_its_formula(severity: int, shape: tuple[int, int]) -> None:
    image, ratio = picture(*shape), PUBLISHED["pixelate"][severity - 1]
    height, width = shape
    small = Image.fromarray(image).resize((int(width * ratio), int(height * ratio)), Image.Resampling.BOX)
    expected = np.array(small.resize((width, height), Image.Resampling.BOX))
    assert np.array_equal(apply(image, "pixelate", severity), expected)


def test_pixelate_of_a_quarter_gives_blocks_of_four_by_four_means() -> None:
    image = picture()
    blocks = apply(image, "pixelate", 5).reshape(56, 4, 56, 4, 3)
    assert np.all(blocks == blocks[:, :1, :, :1])
    means = image.reshape(56, 4, 56, 4, 3).mean(axis=(1, 3))
    assert np.abs(blocks[:, 0, :, 0] - means).max() <= 1


@pytest.mark.parametrize("severity", SEVERITIES)
def test_jpeg_by_its_formula(severity: int) -> None:
    buffer = io.BytesIO()
    quality = int(PUBLISHED["jpeg_compression"][severity - 1])
    Image.fromarray(picture(50, 70)).save(buffer, "JPEG", quality=quality)
    assert np.array_equal(apply(picture(50, 70), "jpeg_compression", severity), np.array(Image.open(buffer)))


@pytest.mark.parametrize("severity", SEVERITIES)
@pytest.mark.parametrize("shape", [(224, 224), (45, 61), (7, 5)], ids=str)
def test_convolution_is_scipys_with_a_mirrored_border(severity: int, shape: tuple[int, int]) -> None:
    ndimage = pytest.importorskip("scipy.ndimage")
    kernel = build_disk(*DEFOCUS_RADIUS_ALIAS[severity - 1])
    image = picture(*shape) / 255
    result = convolve(image, kernel)
    for channel in range(3):
        expected = ndimage.convolve(image[..., channel], kernel, mode="mirror")
        assert np.abs(result[..., channel] - expected).max() < 1e-12


@pytest.mark.parametrize("severity", SEVERITIES)
def test_defocus_is_that_convolution_rounded_down(severity: int) -> None:
    assert DEFOCUS_RADIUS_ALIAS == ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5))
    exact = convolve(picture() / 255, build_disk(*DEFOCUS_RADIUS_ALIAS[severity - 1])) * 255
    difference = apply(picture(), "defocus_blur", severity) - np.clip(exact, 0, 255)
    assert -1 - 1e-4 < difference.min() <= difference.max() < 1e-4


@pytest.mark.parametrize(("radius", "alias"), DEFOCUS_RADIUS_ALIAS)
def test_the_disk_is_a_disk(radius: float, alias: float) -> None:
    ndimage = pytest.importorskip("scipy.ndimage")
    kernel = build_disk(radius, alias)
    reach = len(kernel) // 2
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    inside = (x**2 + y**2 <= radius**2).astype(float)
    taps = np.exp(-(np.arange(-2, 3) ** 2) / (2 * alias**2))
    if radius <= 8:
        taps = taps[1:-1]
    taps /= taps.sum()
    expected = inside / inside.sum()
    for axis in (0, 1):
        expected = ndimage.correlate1d(expected, taps, axis=axis, mode="mirror")
    assert np.abs(kernel - expected).max() < 1e-15
    assert kernel.sum() == pytest.approx(1, abs=0.02)  # not 1: see `disk`
    assert np.allclose(kernel, kernel.T, rtol=1e-12, atol=0)
    with pytest.raises(ValueError, match="read-only"):
        kernel[0, 0] = 1


def test_lengths_scale_with_the_image() -> None:
    """Blurring a picture of twice the size and shrinking it looks like blurring the picture."""
    image = picture()
    double = np.array(Image.fromarray(image).resize((448, 448), Image.Resampling.BICUBIC))
    blurred = Image.fromarray(apply(double, "defocus_blur", 5)).resize((224, 224), Image.Resampling.BOX)
    difference = np.abs(np.array(blurred).astype(int) - apply(image, "defocus_blur", 5))
    assert difference.mean() < 2
    assert difference.mean() < np.abs(image.astype(int) - apply(image, "defocus_blur", 5)).mean() / 10


@pytest.mark.parametrize("severity", SEVERITIES)
@pytest.mark.parametrize(
    "name",
    [
        "defocus_blur",
        "glass_blur",
        "motion_blur",
        "zoom_blur",
        "gaussian_blur",
        "elastic_transform",
        "contrast",
        "pixelate",
    ],
)
def test_an_even_surface_stays_even(name: str, severity: int) -> None:
    assert np.abs(apply(grey(), name, severity).astype(int) - 128).max() <= 1


@pytest.mark.parametrize(("severity", "radius", "sigma"), [(1, 10, 3), (3, 15, 8), (5, 20, 15)])
def test_motion_blur_spreads_a_point_to_one_side_by_a_half_gaussian(
    severity: int, radius: int, sigma: float
) -> None:
    image = np.zeros((224, 224, 3), dtype=np.uint8)
    image[112, 112] = 255
    angle = math.radians(make_generator("motion_blur", severity, "a", 0).uniform(-45, 45))
    weights = [math.exp(-0.5 * (i / sigma) ** 2) for i in range(2 * radius + 1)]
    expected = np.zeros((224, 224))
    for i, weight in enumerate(weights):
        row, column = (math.ceil(i * part - 0.5) for part in (math.sin(angle), math.cos(angle)))
        expected[112 - row, 112 - column] += 255 * weight / sum(weights)
    result = apply(image, "motion_blur", severity)
    for channel in range(3):
        assert np.array_equal(result[..., channel], np.floor(expected + 1e-6))


def test_elastic_moves_pixels_without_inventing_values() -> None:
    image = picture()
    for severity in SEVERITIES:
        moved = apply(image, "elastic_transform", severity)
        assert np.abs(moved.astype(int) - image).mean() > 3
        assert moved[..., 2].min() == 0
        assert np.abs(moved.mean(axis=(0, 1)) - image.mean(axis=(0, 1))).max() < 30


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (5, 2), (3, 300)], ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_odd_shapes_work(name: str, shape: tuple[int, int]) -> None:
    for severity in SEVERITIES:
        assert apply(
            picture(16, 16)[:1, :1].repeat(shape[0], 0).repeat(shape[1], 1), name, severity
        ).shape == (
            *shape,
            3,
        )


def test_unknown_names_and_severities_are_refused_with_the_choices() -> None:
    with pytest.raises(InputError, match=r"gaussian_noise, .*frost, found 'rain'"):
        apply(grey(), "rain", 1)
    for severity in (0, 6, -1):
        with pytest.raises(InputError, match=rf"out of 1, 2, 3, 4, 5, found {severity};"):
            apply(grey(), "contrast", severity)


@pytest.mark.parametrize(
    "image", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 3)), grey()[:0]]
)
def test_what_is_not_an_8_bit_rgb_image_is_refused(image: Pixels) -> None:
    with pytest.raises(InputError, match=r"uint8 image of shape \[H, W, 3\].*'a'"):
        apply(image, "contrast", 1)


def test_the_table_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        CORRUPTIONS["new"] = CORRUPTIONS["contrast"]  # type: ignore[index]


@pytest.mark.parametrize("severity", SEVERITIES)
def test_speckle_noise_grows_with_the_value(severity: int) -> None:
    std = (0.15, 0.2, 0.35, 0.45, 0.6)[severity - 1]
    for level in (20, 40):
        noisy = apply(grey(level), "speckle_noise", severity)
        assert np.percentile(noisy, 84.134) == pytest.approx(level * (1 + std) - 0.5, abs=0.6)
    assert not apply(grey(0), "speckle_noise", severity).any()


@pytest.mark.parametrize("severity", SEVERITIES)
def test_saturate_by_way_of_hsv(severity: int) -> None:
    image = np.concatenate([picture(24, 24), grey(77)[:1, :24]])
    factor, shift = ((0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (20, 0.2))[severity - 1]
    result = apply(image, "saturate", severity)
    for pixel, found in zip(image.reshape(-1, 3), result.reshape(-1, 3), strict=True):
        hue, saturation, value = colorsys.rgb_to_hsv(*(pixel / 255))
        saturation = min(saturation * factor + shift, 1)
        expected = np.array(colorsys.hsv_to_rgb(hue, saturation, value)) * 255
        assert np.all((found <= expected + 1e-3) & (found > expected - 1 - 1e-3))


@pytest.mark.parametrize("severity", SEVERITIES)
@pytest.mark.parametrize("shape", [(224, 224), (224, 300), (9, 5)], ids=str)
def test_gaussian_blur_is_scipys(severity: int, shape: tuple[int, int]) -> None:
    ndimage = pytest.importorskip("scipy.ndimage")
    sigma = (1, 2, 3, 4, 6)[severity - 1] * min(shape) / 224
    result = apply(picture(*shape), "gaussian_blur", severity)
    for channel in range(3):
        plane = picture(*shape)[..., channel].astype(float)
        expected = ndimage.gaussian_filter(plane, sigma, mode="nearest", truncate=4)
        assert np.all(
            (result[..., channel] <= expected + 1e-3) & (result[..., channel] > expected - 1 - 1e-3)
        )


@pytest.mark.parametrize("severity", SEVERITIES)
def test_zoom_blur_is_the_mean_of_scipys_enlargements(severity: int) -> None:
    ndimage = pytest.importorskip("scipy.ndimage")
    end, step = ((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03))[severity - 1]
    pixels = picture()[..., 1:].astype(float)
    layers = [pixels]
    for factor in np.arange(1, end, step):
        side = math.ceil(224 / factor)
        top = (224 - side) // 2
        large = ndimage.zoom(pixels[top : top + side, top : top + side], (factor, factor, 1), order=1)
        trim = (len(large) - 224) // 2
        layers.append(large[trim : trim + 224, trim : trim + 224])
    result = apply(picture(), "zoom_blur", severity)[..., 1:]
    assert np.abs(result + 0.5 - np.mean(layers, axis=0)).max() < 1.2


@pytest.mark.parametrize(("reach", "scale"), [(1, 1.0), (4, 1.0), (4, 2.0), (4, 1 / 7)])
def test_the_glass_scatters_as_the_sequence_does(reach: int, scale: float) -> None:
    height, width = 40, 31
    draw = np.random.default_rng(5).uniform(-reach, reach, (2, height, width))
    offset = np.floor((draw - 0.5) * scale + 0.5).astype(int)
    if scale == 1:
        assert set(offset.ravel()) == set(range(-reach, reach))
    margin = math.ceil((reach + 0.5) * scale - 0.5)
    image = np.arange(height * width).reshape(height, width)
    for h in range(min(height - margin, height - 1), margin, -1):
        for w in range(min(width - margin, width - 1), margin, -1):
            row, column = h + offset[0, h, w], w + offset[1, h, w]
            image[h, w] = image[min(row, height - 1), min(column, width - 1)]
    result = scatter_indices(height, width, reach, scale, np.random.default_rng(5))
    assert np.array_equal(result.reshape(height, width), image)


def test_glass_keeps_a_picture_recognisable_and_moves_values_only_near() -> None:
    ramp = np.repeat(np.arange(224, dtype=np.uint8)[None, :, None], 224, 0).repeat(3, 2)
    for severity, (reach, rounds) in zip(SEVERITIES, [(1, 2), (2, 1), (2, 3), (3, 2), (4, 2)], strict=True):
        moved = np.abs(apply(ramp, "glass_blur", severity).astype(int) - ramp)
        assert 0.2 < moved.mean() < 2 * reach * rounds
