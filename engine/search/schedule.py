"""FOZO's schedule: perturbation size and learning rate follow the loss, and start over when it spikes."""

from __future__ import annotations

from typing import NamedTuple


class Schedule(NamedTuple):
    """The position of the schedule.

    Attributes:
        epsilon: size of the next perturbation.
        rate: learning rate of the last update (before the first: the initial one).
        loss_average: moving average of the loss, or None before the first batch.
        spike: whether the last loss was a spike.
    """

    epsilon: float
    rate: float
    loss_average: float | None = None
    spike: bool = False


class Constants(NamedTuple):
    """The schedule's constants; defaults are those of the official FOZO code."""

    epsilon_start: float = 0.5
    epsilon_min: float = 0.2
    epsilon_decay: float = 0.9
    rate_min: float = 0.1
    rate_max: float = 3.0
    rate_increase: float = 0.1
    rate_decay: float = 0.7
    loss_decay: float = 0.9
    spike_ratio: float = 1.05


def advance(now: Schedule, loss: float, constants: Constants) -> Schedule:
    """Return the schedule after a batch with this loss (official code; docs/specification.md §6.4).

    The loss enters its average before it is compared with it. The returned rate is the one that updates
    this batch's prompts; the returned epsilon perturbs the next batch.
    """
    c = constants
    average = (
        loss if now.loss_average is None else c.loss_decay * now.loss_average + (1 - c.loss_decay) * loss
    )
    spike = loss > c.spike_ratio * average
    epsilon = c.epsilon_start if spike else c.epsilon_decay * now.epsilon
    rate = c.rate_min if spike else c.rate_decay * now.rate + c.rate_increase
    return Schedule(
        epsilon=min(max(epsilon, c.epsilon_min), c.epsilon_start),
        rate=min(max(rate, c.rate_min), c.rate_max),
        loss_average=average,
        spike=spike,
    )
