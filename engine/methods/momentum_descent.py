"""Tuned values that follow a running average of their gradients in bounded steps, in `pizo` and `align`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np

from ..interface.method import State, variable_length_array
from ..model import FloatArray, ModelInfo
from ..search.gradient_steps import take_momentum_step, update_momentum
from ..search.spsa import draw_uniform
from ..statistics.window import create_empty_window


@dataclass(frozen=True)
class MomentumState(State):
    """Tuned values and their gradients; prompts or norms that are not tuned are empty.

    Attributes:
        prompts: float32 `[P, D]`.
        norms: float32 `[M, 2, D]`, addends to gain and bias of each tuned norm.
        prompts_momentum, norms_momentum: running averages of the gradients, float64, of these shapes.
        prompts_gradient, norms_gradient: sums over the images since the last update, float64.
        window: features of the last images, float32 `[W, L, F]`, W at most the option `window`.
        images: that the sums are over.
        updates: made so far.
    """

    prompts: FloatArray
    norms: FloatArray
    prompts_momentum: FloatArray
    norms_momentum: FloatArray
    prompts_gradient: FloatArray
    norms_gradient: FloatArray
    window: FloatArray = variable_length_array()
    images: int = 0
    updates: int = 0


MomentumStateT = TypeVar("MomentumStateT", bound=MomentumState)


def create_state(
    kind: type[MomentumStateT], seed: int, model: ModelInfo, prompts: int, norms: FloatArray
) -> MomentumStateT:
    """Return prompts drawn uniformly within the model's bound, and unchanged norms.

    Args:
        kind: the method's own state.
        seed: of the prompts.
        model: that is adapted.
        prompts: number of prompt tokens; 0 if they are not tuned.
        norms: zeros `[M, 2, D]`; M is 0 if they are not tuned.
    """
    drawn = np.zeros((0, model.width), np.float32)
    if prompts:
        drawn = draw_uniform(seed, model.prompt_bound, (prompts, model.width))
    return kind(
        step=0,
        seed=seed,
        prompts=drawn,
        norms=norms.astype(np.float32),
        prompts_momentum=np.zeros(drawn.shape),
        norms_momentum=np.zeros(norms.shape),
        prompts_gradient=np.zeros(drawn.shape),
        norms_gradient=np.zeros(norms.shape),
        window=create_empty_window(model),
    )


def apply_update(
    state: MomentumStateT, lengths: Mapping[str, float], momentum: float, anchor: float
) -> MomentumStateT:
    """Return the state after a step along the running average of the gradients, which are forgotten.

    Args:
        state: with gradients.
        lengths: of the longest step of each tuned tunable, by name.
        momentum: share of the old average that is kept.
        anchor: share by which the values are drawn back to 0.
    """
    updates = state.updates + 1
    changes: dict[str, Any] = {}
    for name, length in lengths.items():
        values, gradient = getattr(state, name), getattr(state, f"{name}_gradient")
        running = update_momentum(getattr(state, f"{name}_momentum"), gradient, momentum)
        average = running / (1 - momentum**updates)
        changes[name] = take_momentum_step(values, average, gradient, length, anchor)
        changes[f"{name}_momentum"] = running
        changes[f"{name}_gradient"] = np.zeros(gradient.shape)
    return replace(state, images=0, updates=updates, **changes)
