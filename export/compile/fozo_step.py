"""A step of FOZO as expressions (docs/specification.md §6)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...engine.methods.fozo import BoundFozo
from ...engine.model import PROMPTS
from ...engine.statistics.objective import REFERENCE_BATCH
from .embedded_network import GraphOutputs
from .graph_words import draw_normal
from .step_builder import Arrays, StepInputs, StepOutputs, to_integer, to_number
from .step_statistics import (
    compute_discrepancy,
    compute_logit_offset,
    compute_moments,
    compute_shift,
    entropy,
    join_window,
    slide_window,
)
from .tensor import Tensor, average, concatenate, maximum, minimum, where


@dataclass(frozen=True)
class _Schedule:
    """The schedule after a batch, float64 scalars; `spike` is a boolean one."""

    epsilon: Tensor
    rate: Tensor
    loss_average: Tensor
    spike: Tensor


class FozoStep:
    """FOZO, with every option of its loss, shift and schedule."""

    def create_state(self, method: BoundFozo, seed: int) -> Arrays:
        """Return prompts drawn by the engine, and the schedule at its start."""
        state, model = method.init(seed), method.model
        window: Arrays = {}
        if method.options.window:
            shape = (method.options.window, model.layers, model.feature_width)
            window = {"window": np.zeros(shape, np.float32), "filled": to_integer(0)}
        return {
            "prompts": state.prompts,
            "epsilon": to_number(state.schedule.epsilon),
            "rate": to_number(state.schedule.rate),
            "loss_average": to_number(0.0),
            "center": np.zeros(model.feature_width),
            "batches": to_integer(0),
            **window,
        }

    def build(self, method: BoundFozo, inputs: StepInputs) -> StepOutputs:
        """Append the forwards at all candidates, their losses, and the descent along the slopes."""
        options, state, samples = method.options, inputs.state, method.options.samples
        directions = [self._draw(method, inputs, sample) for sample in range(samples)]
        outputs = inputs.network.run(self._make_candidates(method, inputs, directions))
        pairs = outputs[: 2 * samples]
        features = [output.features.cast(np.float64) for output in pairs]
        means = [values.take(-1, 1).mean(0) for values in features]
        center = self._update_center(method, inputs, average(means))
        offset = self._compute_offset(method, inputs, center)
        distances = [self._compute_distance(method, inputs, values) for values in features]
        losses = [
            self._compute_loss(method, output, distance, offset)
            for output, distance in zip(pairs, distances, strict=True)
        ]
        stacked = concatenate([loss.reshape(1) for loss in losses])
        best = inputs.graph.apply("ArgMin", [stacked], np.int64, axis=0, keepdims=0)
        loss = pick(losses, best) if options.schedule_loss == "best" else average(losses)
        schedule = self._advance(method, inputs, loss)
        rate = schedule.rate if options.update_rate == "adjusted" else state["rate"]
        slopes = self._compute_slopes(state["epsilon"], losses)
        unshifted = {
            "best": lambda: pick([output.logits for output in pairs], best),
            "mean": lambda: average([output.logits for output in pairs]),
            "clean": lambda: outputs[-1].logits,
        }[options.output]()
        logits = unshifted + offset
        next_state = {
            "prompts": self._descend(state["prompts"], directions, slopes, rate),
            "epsilon": schedule.epsilon,
            "rate": schedule.rate,
            "loss_average": schedule.loss_average,
            "center": center,
            "batches": state["batches"] + 1,
        }
        if options.window:
            next_state["window"], next_state["filled"] = slide_window(
                state["window"], state["filled"], average(features), options.window
            )
        diagnostics = {
            "epsilon": state["epsilon"],
            "rate": rate,
            "spike": schedule.spike.cast(np.float64),
            "entropy": entropy(logits).mean(),
            "discrepancy": pick(distances, best),
            "slope": average(slopes),
            "loss": loss,
        }
        return StepOutputs(logits, next_state, diagnostics)

    def _draw(self, method: BoundFozo, inputs: StepInputs, sample: int) -> Tensor:
        one = inputs.graph.constant([1], np.int64)
        shape = (method.options.prompts, method.model.width)
        return draw_normal(inputs.seed, inputs.step, sample, one, shape)

    def _make_candidates(
        self, method: BoundFozo, inputs: StepInputs, directions: list[Tensor]
    ) -> list[dict[str, Tensor]]:
        prompts = inputs.state["prompts"].reshape(1, method.options.prompts, method.model.width)
        epsilon = inputs.state["epsilon"].cast(np.float32)
        values = []
        for direction in directions:
            step = direction * epsilon
            values += [prompts + step, prompts - step]
        if method.options.output == "clean":
            values.append(prompts)
        return [{PROMPTS: value} for value in values]

    def _update_center(self, method: BoundFozo, inputs: StepInputs, mean: Tensor) -> Tensor:
        value = mean * 2.0 if method.options.shift == "official_sum" else mean
        decay, previous = method.options.shift_decay, inputs.state["center"]
        return where(inputs.state["batches"] > 0, previous * decay + value * (1 - decay), value)

    def _compute_offset(self, method: BoundFozo, inputs: StepInputs, center: Tensor) -> Tensor:
        """Return the logit offset of the activation shift, float32 `[K]`."""
        options, head = method.options, method.model.head_weight
        if options.shift == "none":
            return inputs.graph.constant(np.zeros(len(head)), np.float32)
        target = None if options.shift == "origin" else method.source.mean[-1]
        if options.shift_update == "inclusive":
            return compute_logit_offset(compute_shift(target, center) * options.shift_gain, head)
        shift = compute_shift(target, inputs.state["center"]) * options.shift_gain
        return compute_logit_offset(where(inputs.state["batches"] > 0, shift, 0.0), head)

    def _compute_distance(self, method: BoundFozo, inputs: StepInputs, features: Tensor) -> Tensor:
        moments = (
            compute_moments(*join_window(features, inputs.state["window"], inputs.state["filled"]))
            if method.options.window
            else compute_moments(features)
        )
        return compute_discrepancy(moments, method.source, method.options.loss_norm)

    def _compute_loss(
        self, method: BoundFozo, output: GraphOutputs, distance: Tensor, offset: Tensor
    ) -> Tensor:
        options = method.options
        logits = output.logits + offset if options.entropy_on == "shifted" else output.logits
        share = logits.shape(0, 1).reshape().cast(np.float64) / float(REFERENCE_BATCH)
        loss = distance * options.discrepancy_weight * share + entropy(logits).sum()
        return loss / share if options.loss_scale == "per_image" else loss

    def _advance(self, method: BoundFozo, inputs: StepInputs, loss: Tensor) -> _Schedule:
        """Return the schedule after a batch with this loss, as `engine/search/schedule.py` does."""
        c, state = method.options.constants, inputs.state
        running = state["loss_average"] * c.loss_decay + loss * (1 - c.loss_decay)
        loss_average = where(state["batches"] > 0, running, loss)
        spike = loss > loss_average * c.spike_ratio
        start, slowest = (inputs.graph.constant(value, np.float64) for value in (c.epsilon_start, c.rate_min))
        epsilon = where(spike, start, state["epsilon"] * c.epsilon_decay)
        rate = where(spike, slowest, state["rate"] * c.rate_decay + c.rate_increase)
        return _Schedule(
            minimum(maximum(epsilon, c.epsilon_min), c.epsilon_start),
            minimum(maximum(rate, c.rate_min), c.rate_max),
            loss_average,
            spike,
        )

    def _compute_slopes(self, epsilon: Tensor, losses: list[Tensor]) -> list[Tensor]:
        divisor = where(epsilon > 0.0, epsilon * 2.0, 1.0)
        pairs = zip(losses[::2], losses[1::2], strict=True)
        return [where(epsilon > 0.0, (plus - minus) / divisor, 0.0) for plus, minus in pairs]

    def _descend(
        self, prompts: Tensor, directions: list[Tensor], slopes: list[Tensor], rate: Tensor
    ) -> Tensor:
        gradient = average(
            [
                direction.cast(np.float64).take(0) * slope
                for direction, slope in zip(directions, slopes, strict=True)
            ]
        )
        return (prompts.cast(np.float64) - gradient * rate).cast(np.float32)


def pick(tensors: list[Tensor], index: Tensor) -> Tensor:
    """Return the tensor of a number that the graph computes; all have one shape."""
    result = tensors[0]
    for number, tensor in enumerate(tensors[1:], 1):
        result = where(index.equals(number), tensor, result)
    return result
