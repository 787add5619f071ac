"""AugMix against the published composition: normalised images mixed with torch's arithmetic."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from doubles import draw_picture
from fozo.data import augmix
from fozo.data.augmix import OPERATIONS, mix_augmentations
from fozo.data.views import views
from PIL import Image, ImageOps

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # CLIP's
SIDE = 224


class Draws:
    """The random numbers of a generator in the order of AugMix, by their meaning."""

    def __init__(self, seed: int) -> None:
        self.generator = np.random.default_rng(seed)

    def level(self) -> float:
        return 0.1 + 0.9 * self.generator.random()

    def sign(self) -> int:
        return -1 if self.generator.random() < 0.5 else 1


def integer(level: float, most: float) -> int:
    return int(level * most / 10)


def published_operation(name: str, image: Image.Image, draws: Draws) -> Image.Image:
    """Return an operation with the parameters of the published code, severity 1 and 224 pixels."""
    bilinear, affine, size = Image.Resampling.BILINEAR, Image.Transform.AFFINE, (SIDE, SIDE)
    if name == "autocontrast":
        return ImageOps.autocontrast(image)
    if name == "equalize":
        return ImageOps.equalize(image)
    if name == "posterize":  # the level that they draw has no effect
        return ImageOps.posterize(image, 4 - integer(0.999, 4))
    level = draws.level()
    if name == "solarize":
        return ImageOps.solarize(image, 256 - integer(level, 256))
    if name == "rotate":
        return image.rotate(integer(level, 30) * draws.sign(), resample=bilinear)
    if name.startswith("shear"):
        shear = level * 0.3 / 10 * draws.sign()
        matrix = (1, shear, 0, 0, 1, 0) if name == "shear_x" else (1, 0, 0, shear, 1, 0)
    else:
        move = integer(level, SIDE / 3) * draws.sign()
        matrix = (1, 0, move, 0, 1, 0) if name == "translate_x" else (1, 0, 0, 0, 1, move)
    return image.transform(size, affine, matrix, resample=bilinear)


def published_mix(image: Image.Image, seed: int, torch: Any) -> np.ndarray[Any, Any]:
    """Return the mix of normalised images, back in levels, float64 `[H, W, 3]`."""
    draws = Draws(seed)
    mean, std = torch.tensor(MEAN, dtype=torch.float64), torch.tensor(STD, dtype=torch.float64)

    def normalise(picture: Image.Image) -> Any:
        return (torch.from_numpy(np.array(picture)).double() / 255 - mean) / std

    exponentials = -np.log(1 - draws.generator.random(3))
    weights, share = exponentials / exponentials.sum(), draws.generator.random()
    mix = torch.zeros(SIDE, SIDE, 3, dtype=torch.float64)
    for weight in weights:
        chain = image.copy()
        for _ in range(draws.generator.integers(1, 4)):
            names = list(OPERATIONS)
            chain = published_operation(names[draws.generator.integers(len(names))], chain, draws)
        mix += weight * normalise(chain)
    mix = share * normalise(image) + (1 - share) * mix
    return np.asarray((mix * std + mean) * 255)


def test_mixing_bytes_is_mixing_normalised_images() -> None:
    torch = pytest.importorskip("torch")
    image = Image.fromarray(draw_picture(3, (SIDE, SIDE)))
    for seed in range(40):
        mix = mix_augmentations(image, np.random.default_rng(seed))
        assert np.abs(mix - published_mix(image, seed, torch)).max() <= 0.5 + 1e-9, seed


def test_all_operations_and_lengths_are_drawn_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    counts, lengths = Counter[str](), Counter[int]()

    def count(name: str) -> Any:
        def operation(image: Image.Image, generator: np.random.Generator) -> Image.Image:
            counts[name] += 1
            return image

        return operation

    monkeypatch.setattr(augmix, "_DRAWABLE", tuple(map(count, OPERATIONS)))
    image = Image.new("RGB", (2, 2), (9, 9, 9))
    for seed in range(1000):
        before = counts.total()
        augmix._apply_chain(image, np.random.default_rng(seed))
        lengths[counts.total() - before] += 1
    assert set(lengths) == {1, 2, 3} and min(lengths.values()) > 270
    assert set(counts) == set(OPERATIONS) and min(counts.values()) > 160


def test_weights_are_uniform_on_the_simplex(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three chains of plain colours show their weights in the mix."""
    shares = []
    for seed in range(1500):
        colours = iter([(255, 0, 0), (0, 255, 0), (0, 0, 255)])
        monkeypatch.setattr(
            augmix,
            "_apply_chain",
            lambda image, generator, colours=colours: Image.new("RGB", (1, 1), next(colours)),
        )
        shares.append(mix_augmentations(Image.new("RGB", (1, 1)), np.random.default_rng(seed))[0, 0] / 255)
    weights = np.array(shares)
    total = weights.sum(axis=1)  # 1 − m, uniform
    assert abs(total.mean() - 0.5) < 0.03 and abs(total.var() - 1 / 12) < 0.01
    part = (weights / np.maximum(total, 1e-9)[:, None])[total > 0.2]
    assert np.abs(part.mean(axis=0) - 1 / 3).max() < 0.03
    assert np.abs(part.var(axis=0) - 1 / 18).max() < 0.01  # Dirichlet(1, 1, 1)


def test_views_of_both_kinds_show_the_same_crops() -> None:
    image = Image.fromarray(draw_picture(1, (64, 64)))
    crops = views(np.asarray(image), 40, image_id="x")
    mixed = views(np.asarray(image), 40, image_id="x", kind="augmix")
    assert np.array_equal(crops[0], mixed[0])
    distance = np.abs(crops.astype(float) - mixed).mean(axis=(1, 2, 3))
    assert (distance[1:] > 0).mean() > 0.9 and np.median(distance) < 20  # some chains change nothing
    assert np.array_equal(mixed, views(np.asarray(image), 40, image_id="x", kind="augmix"))
