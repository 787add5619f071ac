"""SAPT against PyTorch's autograd and optimiser, and its schedule against PyTorch's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from fozo.engine.errors import InputError
from fozo.engine.model import FloatArray
from fozo.engine.tuning.cosine_schedule import CosineSchedule
from fozo.engine.tuning.sapt import Sapt, mix_gradients, perturb

GENERATOR = np.random.default_rng(0)
MATRIX = GENERATOR.normal(size=(6, 6))
MATRIX = MATRIX @ MATRIX.T / 6
START = GENERATOR.normal(size=(2, 3)).astype(np.float32)


def bend(values: Any, quadratic: Any, cos: Any) -> Any:
    """Return a loss with curvature: a quadratic form and cosines, in NumPy or PyTorch."""
    flat = values.reshape(-1)
    return 0.5 * flat @ quadratic @ flat + cos(3 * flat).sum()


def slope(values: FloatArray) -> tuple[float, FloatArray]:
    flat = values.astype(np.float64).ravel()
    gradient = MATRIX @ flat - 3 * np.sin(3 * flat)
    return float(bend(flat, MATRIX, np.cos)), gradient.reshape(values.shape)


def test_steps_are_those_of_pytorch() -> None:
    """Sharpness by autograd, and PyTorch's SGD with momentum and decay."""
    torch = pytest.importorskip("torch")
    schedule = CosineSchedule(0.1, 3, 2)
    method = Sapt(schedule, sharpness=0.7, radius=0.3, momentum=0.8, decay=0.01)
    quadratic, parameter = torch.from_numpy(MATRIX), torch.nn.Parameter(torch.from_numpy(START).double())
    optimiser = torch.optim.SGD([parameter], lr=1, momentum=0.8, weight_decay=0.01)
    state = method.init(START, seed=0)
    for step in range(6):
        plain = bend(parameter, quadratic, torch.cos)
        (gradient,) = torch.autograd.grad(plain, parameter, retain_graph=True)
        ascent = (0.3 * gradient / gradient.norm()).detach()
        loss = plain + 0.7 * (bend(parameter + ascent, quadratic, torch.cos) - plain)
        state, record = method.step(state, slope)
        assert record.loss == pytest.approx(plain.item(), rel=1e-5)
        assert record.loss + 0.7 * record.sharpness == pytest.approx(loss.item(), rel=1e-5)
        assert record.gradient_norm == pytest.approx(gradient.norm().item(), rel=1e-5)
        optimiser.zero_grad()
        # The published objective: the perturbation is a constant for the gradient.
        (0.3 * plain + 0.7 * bend(parameter + ascent, quadratic, torch.cos)).backward()
        optimiser.param_groups[0]["lr"] = schedule.get_rate(step)
        optimiser.step()
        np.testing.assert_allclose(state.values, parameter.detach().numpy(), rtol=1e-5)
    assert state.step == 6


def test_sharpness_one_is_the_gradient_at_the_perturbed_point() -> None:
    """On a quadratic form it is `A p + ρ A · A p / ‖A p‖`."""
    method = Sapt(CosineSchedule(1.0, 1, 1, warmup_epochs=0), 1.0, 0.5, momentum=0, decay=0)

    def quadratic_slope(values: FloatArray) -> tuple[float, FloatArray]:
        flat = values.astype(np.float64).ravel()
        return float(0.5 * flat @ MATRIX @ flat), (MATRIX @ flat).reshape(values.shape)

    state, _ = method.step(method.init(START, 0), quadratic_slope)
    flat = START.astype(np.float64).ravel()
    slope_there = MATRIX @ flat
    expected = slope_there + 0.5 * MATRIX @ slope_there / np.linalg.norm(slope_there)
    np.testing.assert_allclose((START - state.values).ravel(), expected, rtol=1e-5)


@pytest.mark.parametrize(("sharpness", "radius", "calls"), [(0.0, 0.5, 1), (1.0, 0.0, 1), (1.0, 0.5, 2)])
def test_without_sharpness_it_is_plain_descent(sharpness: float, radius: float, calls: int) -> None:
    points: list[FloatArray] = []

    def count(values: FloatArray) -> tuple[float, FloatArray]:
        points.append(values)
        return slope(values)

    method = Sapt(CosineSchedule(0.1, 5, 1), sharpness, radius, momentum=0, decay=0)
    state, record = method.step(method.init(START, 0), count)
    assert len(points) == calls
    if calls == 1:
        np.testing.assert_allclose(state.values, START - 1e-5 * slope(START)[1], rtol=1e-6)
        assert record.sharpness == 0
    else:
        assert np.linalg.norm(points[1] - points[0]) == pytest.approx(0.5, rel=1e-6)


def test_a_flat_loss_leaves_the_values() -> None:
    method = Sapt(CosineSchedule(0.1, 5, 1, warmup_epochs=0), decay=0)
    state, record = method.step(method.init(START, 0), lambda values: (1.0, np.zeros(values.shape)))
    np.testing.assert_array_equal(state.values, START)
    assert (record.sharpness, record.gradient_norm) == (0, 0)


def test_a_step_changes_nothing_that_it_is_given() -> None:
    method = Sapt(CosineSchedule(0.1, 5, 1))
    state = method.init(START, 0)
    before = (state.values.copy(), state.velocity.copy())
    first, again = method.step(state, slope)[0], method.step(state, slope)[0]
    np.testing.assert_array_equal(state.values, before[0])
    np.testing.assert_array_equal(state.velocity, before[1])
    np.testing.assert_array_equal(first.values, again.values)


def test_rates_are_those_of_pytorchs_scheduler_after_a_warm_up() -> None:
    torch = pytest.importorskip("torch")
    optimiser = torch.optim.SGD([torch.zeros(1)], lr=0.002)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 50.0)
    schedule = CosineSchedule(0.002, 50, 7)
    expected = [1e-5]
    for _ in range(49):
        expected.append(scheduler.get_last_lr()[0])
        optimiser.step()
        scheduler.step()
    rates = [schedule.get_rate(step) for step in range(0, schedule.steps, 7)]
    np.testing.assert_allclose(rates, expected, rtol=1e-9)
    assert [schedule.get_rate(step) for step in (0, 6, 7, 13)] == [1e-5, 1e-5, 0.002, 0.002]


@pytest.mark.parametrize(
    "options", [{"sharpness": -1.0}, {"radius": -0.1}, {"momentum": 1.0}, {"decay": -1.0}, {"radius": np.nan}]
)
def test_values_without_meaning(options: dict[str, float]) -> None:
    with pytest.raises(InputError, match="at least 0"):
        Sapt(CosineSchedule(0.1, 1, 1), **options)


def test_arithmetic_of_perturbation_and_mixture() -> None:
    np.testing.assert_allclose(perturb(np.zeros(2, np.float32), np.array([3.0, 4.0]), 0.5), [0.3, 0.4])
    np.testing.assert_allclose(mix_gradients(np.ones(2), np.array([3.0, 1.0]), 0.25), [1.5, 1])
