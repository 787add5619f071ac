"""FOZO's schedule: the sequences of docs/specification.md §6.4 and the invariants of §12.3."""

from __future__ import annotations

import math

import pytest
from fozo.engine.search.schedule import Constants, Schedule, advance

START = Schedule(epsilon=0.5, rate=0.08)
STEADY = 100.0


def run(losses: list[float], start: Schedule = START, constants: Constants | None = None) -> list[Schedule]:
    states, now = [], start
    for loss in losses:
        now = advance(now, loss, constants or Constants())
        states.append(now)
    return states


def rates(states: list[Schedule]) -> list[float]:
    return [state.rate for state in states]


def epsilons_used(states: list[Schedule], start: float = 0.5) -> list[float]:
    """Evaluate each batch with the epsilon that the batch before left behind."""
    return [start, *(state.epsilon for state in states[:-1])]


def test_without_spikes() -> None:
    states = run([STEADY] * 12)
    assert not any(state.spike for state in states)
    expected = [0.156, 0.2092, 0.24644, 0.272508, 0.290756, 0.303529, 0.312470, 0.318729, 0.323110]
    assert rates(states)[:9] == pytest.approx(expected, abs=5.1e-7)  # given to six places
    expected = [0.5, 0.45, 0.405, 0.3645, 0.32805, 0.295245, 0.265721, 0.239148, 0.215234, 0.2, 0.2, 0.2]
    assert epsilons_used(states) == pytest.approx(expected, abs=5.1e-7)
    assert [state.epsilon for state in states][8:] == [0.2] * 4  # exactly, from t = 10 on


def test_after_a_spike_at_batch_five() -> None:
    losses = [STEADY] * 4 + [2 * STEADY] + [STEADY] * 5
    states = run(losses)
    assert [state.spike for state in states] == [False] * 4 + [True] + [False] * 5
    assert rates(states)[4:] == pytest.approx([0.1, 0.17, 0.219, 0.2533, 0.27731, 0.294117], abs=1e-12)
    assert epsilons_used(states)[5:8] == pytest.approx([0.5, 0.45, 0.405], abs=1e-12)
    assert (states[4].epsilon, states[4].rate) == (0.5, 0.1)


@pytest.mark.parametrize("rate", [0.08, 0.2, 1 / 3, 1.0, 3.0])
def test_closed_form(rate: float) -> None:
    states = run([STEADY] * 40, Schedule(0.5, rate))
    for t, state in enumerate(states, start=1):
        expected = min(max(1 / 3 + 0.7**t * (rate - 1 / 3), 0.1), 3.0)
        assert state.rate == pytest.approx(expected, abs=1e-12)


def test_closed_form_for_a_large_rate() -> None:
    assert rates(run([STEADY] * 3, Schedule(0.5, 1.0))) == pytest.approx([0.8, 0.66, 0.562], abs=1e-12)


def test_rate_max_binds_only_above_four() -> None:
    assert run([STEADY], Schedule(0.5, 4.14))[0].rate < 3
    assert run([STEADY], Schedule(0.5, 4.15))[0].rate == 3


def test_steady_state() -> None:
    last = run([STEADY] * 200)[-1]
    assert last.rate == pytest.approx(1 / 3, abs=1e-12)
    assert last.epsilon == 0.2
    assert last.loss_average == pytest.approx(STEADY, abs=1e-9)


def test_rate_never_exceeds_a_third_when_it_starts_below() -> None:
    losses = [STEADY * (2 if t % 7 == 3 else 1) for t in range(300)]
    assert max(rates(run(losses))) <= 1 / 3


def test_spike_rule() -> None:
    states = run([100, 100, 100, 106])
    assert [state.spike for state in states] == [False, False, False, True]
    assert states[-1].loss_average == pytest.approx(100.6, abs=1e-12)
    assert not run([100, 100, 100, 105.5])[-1].spike


def test_spike_threshold_against_the_old_average() -> None:
    """`L > 1.05 L̄_new` is `L > 1.05587 L̄_old`."""
    threshold = 100 * 1.05 * 0.9 / (1 - 1.05 * 0.1)
    assert threshold / 100 == pytest.approx(1.05587, abs=1e-5)
    assert run([100, threshold + 1e-6])[-1].spike
    assert not run([100, threshold - 1e-6])[-1].spike


def test_first_loss_is_the_average_and_never_a_spike() -> None:
    for loss in (1e-3, 1.0, 1e9):
        (state,) = run([loss])
        assert (state.loss_average, state.spike) == (loss, False)


def test_average() -> None:
    averages = [state.loss_average for state in run([10, 20, 30])]
    assert averages == pytest.approx([10, 11, 12.9], abs=1e-12)


def test_epsilon_stays_within_its_limits() -> None:
    losses = [STEADY * (3 if t % 5 == 4 else 1) for t in range(60)]
    assert all(0.2 <= state.epsilon <= 0.5 for state in run(losses))
    assert all(0.1 <= state.rate <= 3 for state in run(losses))


def test_spike_returns_to_the_epsilon_that_was_asked_for() -> None:
    """The official code returns to 0.5 whatever its argument; §6.6 recommends one constant for both."""
    constants = Constants(epsilon_start=0.4)
    states = run([STEADY] * 3 + [2 * STEADY], Schedule(0.4, 0.08), constants)
    assert states[-1].epsilon == 0.4


def test_constants_are_those_of_the_official_code() -> None:
    assert Constants() == (0.5, 0.2, 0.9, 0.1, 3.0, 0.1, 0.7, 0.9, 1.05)


def test_every_constant_matters() -> None:
    losses = [STEADY, STEADY, 1.2 * STEADY, *[STEADY] * 12]
    usual = run(losses, Schedule(0.5, 6.0))
    for name, value in Constants()._asdict().items():
        changed = Constants()._replace(**{name: value * (1.2 if name == "spike_ratio" else 0.8)})
        assert run(losses, Schedule(0.5, 6.0), changed) != usual, name


def test_zero_epsilon_stays_zero() -> None:
    states = run([STEADY] * 5, Schedule(0.0, 0.08), Constants(epsilon_start=0.0))
    assert [state.epsilon for state in states] == [0.0] * 5


def test_a_loss_that_is_no_number_is_not_a_spike() -> None:
    (state,) = run([math.nan])
    assert not state.spike
    assert state.loss_average is not None and math.isnan(state.loss_average)
