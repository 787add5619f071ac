"""Networks that were really exported: images, tunables and classes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fozo.engine.errors import InputError
from fozo.engine.model import FloatArray, ImageArray
from fozo.engine.runtime.network import Network

MakeImages = Callable[..., ImageArray]


@pytest.mark.parametrize("width", [64, 192, 384])
def test_an_image_does_not_notice_its_company(
    networks: dict[int, Network], random_images: MakeImages, width: int
) -> None:
    network = networks[width]
    images = random_images(9)
    prompts = np.random.default_rng(0).normal(size=(1, 3, width)).astype(np.float32)
    together = network(images, prompts=prompts)
    for index in range(9):
        alone = network(images[index : index + 1], prompts=prompts)
        np.testing.assert_allclose(alone.logits[0], together.logits[index], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(alone.features[0], together.features[index], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("micro_batch", [1, 2, 64])
@pytest.mark.parametrize("count", [0, 1, 3, 10])
def test_prompts_per_image(
    bundle_path: Path, random_images: MakeImages, count: int, micro_batch: int
) -> None:
    """`[N, P, D]` is each image with its own prompts."""
    images = random_images(5)
    prompts = np.random.default_rng(count).normal(size=(5, count, 64)).astype(np.float32)
    with Network.open(bundle_path, workers=1, micro_batch=micro_batch) as network:
        together = network(images, prompts=prompts)
        for index in range(5):
            alone = network(images[index : index + 1], prompts=prompts[index : index + 1])
            np.testing.assert_allclose(alone.logits[0], together.logits[index], rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(alone.features[0], together.features[index], rtol=1e-4, atol=1e-5)
        shared = network(images, prompts=np.ascontiguousarray(prompts[:1]))
        repeated = network(images, prompts=prompts[:1].repeat(5, axis=0))
        assert shared.logits.tobytes() == repeated.logits.tobytes()
        assert shared.features.tobytes() == repeated.features.tobytes()
        if count:
            assert not np.allclose(shared.logits[1:], together.logits[1:], atol=1e-3)


@pytest.mark.parametrize("micro_batch", [1, 2, 64])
def test_norms_per_image(either_network: Network, random_images: MakeImages, micro_batch: int) -> None:
    """`[N, M, 2, D]` is each image with its own norms: to the bit what it would get alone."""
    images = random_images(5)
    norms = np.random.default_rng(0).normal(0, 0.1, (5, 6, 2, 64)).astype(np.float32)
    network = either_network.rearrange(1, micro_batch)
    together = network(images, norms=norms)
    for index in range(5):
        alone = network(images[index : index + 1], norms=norms[index : index + 1])
        assert alone.logits.tobytes() == together.logits[index].tobytes()
        assert alone.features.tobytes() == together.features[index].tobytes()
    shared = network(images, norms=np.ascontiguousarray(norms[:1]))
    repeated = network(images, norms=norms[:1].repeat(5, axis=0))
    assert shared.logits.tobytes() == repeated.logits.tobytes()
    assert shared.features.tobytes() == repeated.features.tobytes()
    assert not np.allclose(shared.logits[1:], together.logits[1:], atol=1e-3)
    zeros = network(images, norms=np.zeros_like(norms[:1]))
    assert zeros.features.tobytes() == network(images).features.tobytes()


@pytest.mark.parametrize(
    "norms",
    [
        np.zeros((1, 6, 2, 64)),
        np.zeros((2, 6, 2, 64), np.float32),
        np.zeros((1, 5, 2, 64), np.float32),
        np.zeros((1, 6, 2), np.float32),
        np.zeros((0, 6, 2, 64), np.float32),
    ],
)
def test_norms_of_the_wrong_kind(network: Network, random_images: MakeImages, norms: FloatArray) -> None:
    with pytest.raises(InputError, match=r"norms of type float32 and shape \[1 or 3, 6, 2, 64\]"):
        network(random_images(3), norms=norms)


def test_candidates_are_separate_forwards(network: Network, random_images: MakeImages) -> None:
    images = random_images(5)
    generator = np.random.default_rng(0)
    prompts = [generator.normal(size=(rows, 3, 64)).astype(np.float32) for rows in (1, 5, 1)]
    for prompt, outputs in zip(
        prompts, network.candidates(images, [{"prompts": each} for each in prompts]), strict=True
    ):
        alone = network(images, prompts=prompt)
        assert outputs.logits.tobytes() == alone.logits.tobytes()
        assert outputs.features.tobytes() == alone.features.tobytes()


def test_selecting_twice(network: Network, random_images: MakeImages) -> None:
    images = random_images(4)
    once, twice = network.select([17, 3, 4, 9]), network.select([17, 3, 4, 9]).select([3, 0])
    assert twice(images).logits.tobytes() == np.ascontiguousarray(once(images).logits[:, [3, 0]]).tobytes()
    assert np.array_equal(twice.info.head_weight, network.info.head_weight[[9, 17]])
    assert len({each.info.identity for each in (network, once, twice)}) == 3


@pytest.mark.parametrize("classes", [[], [0, 0], [20], [-1], [[0, 1]]])
def test_impossible_selections(network: Network, classes: Any) -> None:
    with pytest.raises(InputError):
        network.select(classes)
