"""PIZO's gradient against PyTorch's autograd, and its variance against the derivation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from doubles import step_on
from fozo.engine.bundle.bundle import Bundle
from fozo.engine.methods.pizo import BoundPizo, PizoState
from fozo.engine.model import FloatArray, ImageArray, ModelInfo
from fozo.engine.registry import Pizo
from fozo.engine.runtime.network import Network
from pizo_doubles import BATCH, NARROW

MakeImages = Callable[..., ImageArray]


@pytest.fixture(scope="module")
def network(
    tmp_path_factory: pytest.TempPathFactory, make_bundle: Callable[..., Bundle]
) -> Iterator[Network]:
    """So narrow (64 tuned values) that some thousand draws are enough."""
    path = make_bundle(tmp_path_factory.mktemp("narrow") / "bundle", width=16, depth=2, classes=6).path
    with Network.open(path, workers=1) as opened:
        yield opened


@pytest.fixture(scope="module")
def model(randomised_vit: Callable[..., Any]) -> Any:
    """Return the same network in PyTorch, float64."""
    return randomised_vit(16, 2, 6, 0).double()


def autograd(
    model: Any,
    network: Network,
    images: ImageArray,
    normalisation: Any,
    weight: float,
    *,
    prompts: FloatArray | None = None,
    entropy_share: float = 1.0,
    shift: float = 0.0,
) -> FloatArray:
    """Return each image's part of the gradient of the loss written out in PyTorch.

    That by the norms, `[N, 2, 2, 16]`, or where there are prompts `[P, 16]` that by them, `[N, P, 16]`.
    Entropy counts `entropy_share` times, of logits shifted by `shift` times the way to the origin.
    """
    import torch

    pixels = torch.from_numpy(images.astype(np.float64) / 255)
    mean, std = (torch.tensor(each, dtype=torch.float64) for each in normalisation)
    x = ((pixels - mean) / std).permute(0, 3, 1, 2)
    source = network.info.source
    assert source is not None
    addends = [torch.zeros(len(images), 2, 16, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    tuned = addends
    x = model._pos_embed(model.patch_embed(x))
    if prompts is not None:
        tokens = torch.from_numpy(np.repeat(prompts[None], len(images), axis=0)).double().requires_grad_()
        x, tuned = torch.cat([x[:, :1], tokens, x[:, 1:]], dim=1), [tokens]
    first, last = model.blocks
    x = first(x)

    def normed(norm: Any, values: Any, addend: Any) -> Any:
        weight, bias = norm.weight + addend[:, 0], norm.bias + addend[:, 1]
        plain = torch.nn.functional.layer_norm(values, (16,), None, None, norm.eps)
        return plain * weight[:, None] + bias[:, None]

    inner = normed(last.norm1, x, addends[0])
    features = [inner[:, 0]]  # of the first block, through the norm that follows it
    x = x + last.attn(inner)
    x = x + last.mlp(normed(last.norm2, x, addends[1]))
    features.append(model.norm(x)[:, 0])
    stacked = torch.stack(features, dim=1)
    distance = ((stacked.mean(0) - torch.from_numpy(source.mean)) ** 2).sum()
    distance = distance + ((stacked.std(0) - torch.from_numpy(source.std)) ** 2).sum()
    logits = model.head(features[-1] - shift * features[-1].mean(0).detach())
    entropies = torch.special.entr(logits.softmax(1)).sum()
    loss = weight * len(images) / 64 * distance + entropy_share * entropies
    found = [each.numpy() for each in torch.autograd.grad(loss, tuned)]
    return found[0] if prompts is not None else np.stack(found, axis=1)


def estimates(
    network: Network, images: ImageArray, configured: Pizo, draws: int, prompts: FloatArray | None = None
) -> FloatArray:
    """Return the gradient sums of as many first steps with different seeds, `[draws, …]`."""
    many = replace(configured, update_images=10**6)
    found = []
    for seed in range(draws):
        start = many.bind(network.info).init(seed)
        if prompts is not None:
            start = replace(start, prompts=prompts)
        _, state = step_on(network, many, start, images)
        found.append(state.norms_gradient if prompts is None else state.prompts_gradient)
    return np.stack(found)


def cosine(left: FloatArray, right: FloatArray) -> float:
    return float((left * right).sum() / np.linalg.norm(left) / np.linalg.norm(right))


@pytest.mark.parametrize(
    ("options", "count", "draws"),
    [
        ({}, BATCH, 4000),
        ({"directions": "gaussian"}, BATCH, 4000),
        ({"samples": 4}, BATCH, 1000),
        ({"shift": "origin"}, 64, 500),
        ({"tune": "prompts", "prompt_epsilon": 0.01}, BATCH, 4000),
    ],
    ids=str,
)
def test_the_gradient_is_autograds_on_the_average(
    network: Network,
    model: Any,
    random_images: MakeImages,
    normalisation: Any,
    options: dict[str, Any],
    count: int,
    draws: int,
) -> None:
    pytest.importorskip("torch", reason="the independent gradient is PyTorch's")
    images, weight = random_images(count), 10.0
    prompts = None
    if "tune" in options:
        prompts = np.random.default_rng(5).normal(0, 0.5, (3, 16)).astype(np.float32)
    shift = float(options.get("shift") == "origin")
    expected, blind = (
        autograd(
            model, network, images, normalisation, weight, prompts=prompts, entropy_share=share, shift=shift
        ).sum(axis=0)
        for share in (1.0, 0.0)
    )
    assert cosine(blind, expected) < 0.95, "the entropy would not be missed"
    configured = Pizo(**{**NARROW, "discrepancy_weight": weight, **options})
    found = estimates(network, images, configured, draws, prompts).mean(axis=0) / configured.samples
    assert cosine(found, expected) > 0.99
    assert np.linalg.norm(found) == pytest.approx(np.linalg.norm(expected), rel=0.05)


def test_own_directions_have_the_variance_of_the_derivation(
    network: Network, model: Any, random_images: MakeImages, normalisation: Any
) -> None:
    """With ±1 the variance of the sum is (V − 1) Σ‖g_i‖² with own directions, (V − 1) ‖Σ g_i‖² with one."""
    pytest.importorskip("torch", reason="the independent gradient is PyTorch's")
    images = random_images(BATCH)
    configured = Pizo(**NARROW, discrepancy_weight=400.0)  # type: ignore[arg-type]
    own = estimates(network, images, configured, 1500)
    shared = estimates(network, images, _Shared(**NARROW, discrepancy_weight=400.0), 1500)  # type: ignore[arg-type]
    each_image = autograd(model, network, images, normalisation, 400.0)
    variances = [float(each.var(axis=0).sum()) for each in (own, shared)]
    assert variances[0] == pytest.approx(63 * np.square(each_image).sum(), rel=0.15)
    assert variances[1] == pytest.approx(63 * np.square(each_image.sum(axis=0)).sum(), rel=0.15)
    assert cosine(shared.mean(axis=0), own.mean(axis=0)) > 0.9
    assert variances[1] > 1.5 * variances[0], "images agree about where to go, and it does not help"


class _BoundShared(BoundPizo):
    def _draw_directions(self, state: PizoState, sample: int, count: int) -> dict[str, FloatArray]:
        directions = super()._draw_directions(state, sample, count)
        return {name: np.repeat(values[:1], count, axis=0) for name, values in directions.items()}


class _Shared(Pizo):
    """PIZO with one direction for the whole batch, as FOZO and ZOA have it."""

    def bind(self, model: ModelInfo) -> _BoundShared:
        bound = super().bind(model)
        return _BoundShared(**vars(bound))
