"""BAR's border: its shape, its schedule, and a step by hand."""

from __future__ import annotations

import numpy as np
import pytest
from fozo.engine.errors import InputError
from fozo.engine.model import FloatArray
from fozo.engine.search.spsa import draw_gaussian_direction
from fozo.engine.tuning.bar import (
    Bar,
    BarState,
    choose_frame,
    compute_border,
    draw_border,
    make_published_schedule,
)
from fozo.engine.tuning.few_shot_loss import compute_focal_loss, compute_losses

SIZE, SCHEDULE = (6, 8), make_published_schedule(10.0, 1)


def losses(borders: FloatArray) -> FloatArray:
    return np.square(borders.astype(np.float64) - 0.3).sum((1, 2, 3))


def test_the_published_border() -> None:
    values = draw_border(1, (224, 224))
    assert (values.size, choose_frame((224, 224))) == (150_528, 15)
    border = compute_border(values, 15)
    assert border.dtype == np.float32 and np.count_nonzero(border) == 3 * (224**2 - 194**2)
    assert values.std() == pytest.approx(1, rel=0.01)
    np.testing.assert_allclose(border[:15], 1 / (1 + np.exp(-values[:15])), rtol=1e-6)
    assert np.isfinite(compute_border(np.full((4, 4, 3), -1e4, np.float32), 1)).all()


def test_the_published_schedule() -> None:
    schedule = make_published_schedule(10.0, 4)
    rates = [schedule.get_rate(t) for t in (1, 834, 3600, 4000)]
    assert rates == pytest.approx([9.9 * (1 - t / 3600) ** 0.9 + 0.1 for t in (1, 834)] + [0.1, 0.1])


def test_a_step_is_the_published_estimate() -> None:
    method = Bar(1, SCHEDULE, directions=3, radius=0.5)
    start = draw_border(4, SIZE)
    counts: list[int] = []

    def watch(borders: FloatArray) -> FloatArray:
        counts.append(len(borders))
        return losses(borders)

    state, record = method.step(method.init(start, 4), watch)
    assert (counts, method.losses_per_step) == ([4], 4)

    def loss_at(values: FloatArray) -> float:
        inside = np.zeros((*SIZE, 3), bool)
        inside[1:-1, 1:-1] = True
        return float(np.square(np.where(inside, 0, 1 / (1 + np.exp(-values.astype(float)))) - 0.3).sum())

    gradient, d = np.zeros(start.shape), start.size
    for sample in range(3):
        direction = draw_gaussian_direction(4, 0, sample, start.shape).astype(float)
        unit = direction / np.sqrt(np.square(direction).sum())
        gradient += d / 3 * (loss_at(start + 0.5 * unit) - loss_at(start)) / 0.5 * unit
    assert record.loss == pytest.approx(loss_at(start), rel=1e-6)
    assert record.gradient_norm == pytest.approx(np.linalg.norm(gradient), rel=1e-4)
    np.testing.assert_allclose(state.values, start - SCHEDULE.get_rate(1) * gradient, rtol=1e-3, atol=1e-3)


def test_steps_are_a_function_of_the_state() -> None:
    method = Bar(1, SCHEDULE)
    state = method.init(draw_border(1, SIZE), 5)
    first, again = method.step(state, losses)[0], method.step(state, losses)[0]
    assert isinstance(first, BarState) and first.values.dtype == np.float32
    np.testing.assert_array_equal(first.values, again.values)
    assert not np.array_equal(first.values, method.step(method.init(state.values, 6), losses)[0].values)


def test_the_border_is_found_on_a_smooth_loss() -> None:
    method = Bar(1, make_published_schedule(0.5, 1))
    state = method.init(draw_border(1, SIZE), 0)
    before = losses(compute_border(state.values, 1)[None])[0]
    for _ in range(200):
        state, _ = method.step(state, losses)
    inside = 0.09 * 3 * 4 * 6  # of the loss no border can change
    assert losses(compute_border(state.values, 1)[None])[0] - inside < 0.05 * (before - inside)


def test_focal_loss_without_focus_is_the_cross_entropy() -> None:
    generator = np.random.default_rng(0)
    features, classifier = generator.normal(size=(7, 4)), generator.normal(size=(1, 5, 4))
    labels = generator.integers(0, 5, 7)
    plain = compute_focal_loss(features @ classifier[0].T, labels, 0.0)
    assert plain == pytest.approx(compute_losses(features, labels, classifier)[0])
    assert compute_focal_loss(features @ classifier[0].T, labels, 2.0) < plain


@pytest.mark.parametrize("options", [{"frame": 0}, {"directions": 0}, {"radius": 0.0}])
def test_values_without_meaning(options: dict[str, int]) -> None:
    with pytest.raises(InputError, match="expected at least a border of one pixel"):
        Bar(**{"frame": 1, "schedule": SCHEDULE, **options})  # type: ignore[arg-type]
