"""BlackVIP's decoder against PyTorch's own layers, in training and afterwards."""

from __future__ import annotations

import math

import numpy as np
import pytest
from decoder_doubles import load_parameters, make_decoder, read_moments, run_decoder
from fozo.engine.errors import InputError
from fozo.engine.runtime.image_decoder import (
    choose_layout,
    compute_erf,
    decode,
    decode_batch,
    draw_parameters,
    start_moments,
)

SIZES = {"published": (768, (224, 224)), "small": (20, (32, 64)), "wide": (100, (32, 32))}


@pytest.mark.parametrize("name", SIZES)
def test_the_decoder_is_that_of_pytorch(name: str) -> None:
    features_of_image, size = SIZES[name]
    layout = choose_layout(features_of_image, size)
    generator, moments = np.random.default_rng(0), start_moments(layout)
    parameters = draw_parameters(layout, 1)
    body = make_decoder(layout, parameters)
    assert sum(p.numel() for p in body.parameters()) + layout.trigger == layout.size
    for _ in range(3):  # running moments follow several batches
        parameters = parameters + 0.05 * generator.normal(size=parameters.shape)
        load_parameters(body, layout, parameters)
        features = generator.normal(size=(3, features_of_image)).astype(np.float32)
        prompts, moments = decode_batch(layout, parameters, features, moments)
        assert prompts.shape == (3, *size, 3) and prompts.dtype == np.float32
        np.testing.assert_allclose(prompts, run_decoder(body, layout, parameters, features), atol=2e-5)
    for actual, expected in zip((moments.mean, moments.variance), read_moments(body), strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-6)
    body.eval()
    prompts = decode(layout, parameters, features, moments)
    np.testing.assert_allclose(prompts, run_decoder(body, layout, parameters, features), atol=2e-5)
    for index in range(3):  # equal to the bit alone and beside others
        alone = decode(layout, parameters, features[index : index + 1], moments)
        np.testing.assert_array_equal(alone[0], prompts[index])


def test_the_published_count() -> None:
    layout = choose_layout(768, (224, 224))
    assert (layout.size, layout.trigger, layout.channels, layout.grid) == (9920, 800, 32, (7, 7))
    parameters = draw_parameters(layout, 3)
    assert parameters.shape == (9920,)
    trigger = parameters[:800]
    assert (
        trigger.min() >= 0
        and trigger.max() <= 0.1
        and trigger.std() == pytest.approx(0.1 / 12**0.5, rel=0.05)
    )


def test_first_parameters_spread_as_those_of_pytorch() -> None:
    layout = choose_layout(768, (224, 224))
    body = make_decoder(layout, draw_parameters(layout, 0))
    drawn = [p.detach().numpy().copy() for p in body.parameters()]
    for layer in body:
        if hasattr(layer, "reset_parameters"):
            layer.reset_parameters()
    for mine, fresh in zip(drawn, body.parameters(), strict=True):
        fresh = fresh.detach().numpy()
        assert mine.shape == fresh.shape
        assert np.abs(mine).max() == pytest.approx(np.abs(fresh).max(), rel=0.12)


def test_the_error_function() -> None:
    values = np.linspace(-5, 5, 1001)
    expected = [math.erf(value) for value in values]
    np.testing.assert_allclose(compute_erf(values), expected, atol=2e-7)


@pytest.mark.parametrize(("features", "size"), [(768, (336, 336)), (0, (224, 224)), (10, (32, 48))])
def test_sizes_that_do_not_fit(features: int, size: tuple[int, int]) -> None:
    with pytest.raises(InputError, match="multiples of 32 pixels"):
        choose_layout(features, size)
