"""Temperature: the same classes with other probabilities, and a method that adapts as without it."""

from __future__ import annotations

import numpy as np
import pytest
from doubles import predict_on, state_bits, step_on
from fozo.engine.errors import InputError
from fozo.engine.registry import get_options, method
from fozo.testing import StandInNetwork, draw_images


@pytest.mark.parametrize("name", ["no_adapt", "shift", "lame", "t3a", "fozo", "pizo"])
def test_logits_are_divided_and_nothing_else_changes(name: str) -> None:
    network, plain, scaled = StandInNetwork(), method(name), method(name, temperature=2.5)
    states = [configured.bind(network.info).init(3) for configured in (plain, scaled)]
    for index in range(3):
        images = draw_images(5, seed=index)
        (expected, first), (prediction, second) = (
            step_on(network, configured, state, images)
            for configured, state in zip((plain, scaled), states, strict=True)
        )
        np.testing.assert_allclose(prediction.logits, expected.logits / 2.5, rtol=1e-6)
        assert prediction.diagnostics == expected.diagnostics
        assert (prediction.forwards, prediction.loss) == (expected.forwards, expected.loss)
        assert state_bits(first) == state_bits(second)
        states = [first, second]
    later = predict_on(network, scaled, states[1], images).logits
    np.testing.assert_allclose(later, predict_on(network, plain, states[0], images).logits / 2.5, rtol=1e-6)


def test_it_is_outside_of_all_other_options() -> None:
    configured = method("fozo", interval=4, guard="warn", temperature=0.5)
    assert get_options(configured)["temperature"] == 0.5
    assert [type(configured).__name__, type(configured.method).__name__] == ["Temperature", "Guarded"]


def test_a_temperature_of_one_wraps_nothing() -> None:
    assert method("fozo", temperature=1.0) == method("fozo", temperature="1.0") == method("fozo")


@pytest.mark.parametrize("value", [0, -1, "nan", "inf", "warm"])
def test_temperatures_that_cannot_be(value: object) -> None:
    with pytest.raises(InputError, match="temperature"):
        method("fozo", temperature=value)
