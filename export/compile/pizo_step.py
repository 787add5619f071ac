"""A step of PIZO as expressions (docs/pizo.md)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ...engine.errors import ExportError
from ...engine.methods.pizo import BoundPizo
from ...engine.model import NORMS, PROMPTS
from ...engine.search.gradient_steps import TINY
from .embedded_network import GraphOutputs
from .graph_words import draw_normal, draw_signs
from .step_builder import Arrays, StepInputs, StepOutputs, Tensors, to_integer
from .step_statistics import (
    GraphMoments,
    compute_alignment_offset,
    compute_discrepancy_slopes,
    compute_moments,
    entropy,
    join_window,
    measure_alignment,
    slide_window,
    softmax,
)
from .tensor import Tensor, average, concatenate, maximum, where


@dataclass(frozen=True)
class _GraphPair:
    """Two forwards at both ends of each image's direction; directions by tunable, float32 `[N, …]`."""

    directions: Mapping[str, Tensor]
    plus: GraphOutputs
    minus: GraphOutputs


class PizoStep:
    """PIZO, except for batches that it does not learn from."""

    def create_state(self, method: BoundPizo, seed: int) -> Arrays:
        """Return the engine's first state, with a window of fixed size."""
        state, model, options = method.init(seed), method.model, method.options
        arrays = {
            f"{name}{suffix}": getattr(state, f"{name}{suffix}")
            for name in method.rates
            for suffix in ("", "_momentum", "_gradient")
        }
        window = np.zeros((options.window, model.layers, model.feature_width), np.float32)
        return {
            **arrays,
            "window": window,
            "filled": to_integer(0),
            "images": to_integer(0),
            "updates": to_integer(0),
        }

    def build(self, method: BoundPizo, inputs: StepInputs) -> StepOutputs:
        """Append the pairs of forwards, each image's slope along its direction, and the update."""
        options, state = method.options, inputs.state
        if options.learn_every != 1:
            raise ExportError(
                f"{method.name} with learn_every={options.learn_every} cannot be compiled: every step of a "
                "graph is the same; use learn_every=1"
            )
        pairs = self._run_pairs(method, inputs)
        ends = [end for pair in pairs for end in (pair.plus, pair.minus)]
        features = average([end.features.cast(np.float64) for end in ends])
        logits = average([end.logits for end in ends])
        moments = compute_moments(*join_window(features, state["window"], state["filled"]))
        distance, strength = measure_alignment(moments, method.alignment)
        offset = compute_alignment_offset(moments, strength, method.alignment, method.model.head_weight)
        window, filled = slide_window(state["window"], state["filled"], features, options.window)
        sums = self._accumulate(method, inputs, pairs, features, moments, offset)
        images = state["images"] + inputs.network.count.reshape()
        updated = self._update(method, {**state, **sums}, strength)
        ready = images >= options.update_images
        next_state = {
            name: where(ready, value, sums.get(name, state[name])) for name, value in updated.items()
        }
        next_state |= {
            "window": window,
            "filled": filled,
            "images": where(ready, images * 0, images),
            "updates": where(ready, state["updates"] + 1, state["updates"]),
        }
        shifted = logits + offset
        tuned = next_state[PROMPTS if options.tune == "prompts" else NORMS]
        diagnostics = {
            "entropy": entropy(shifted).mean(),
            "discrepancy": distance,
            "need": strength,
            "size": compute_rms(tuned.cast(np.float64)),
        }
        return StepOutputs(shifted, next_state, diagnostics)

    def _run_pairs(self, method: BoundPizo, inputs: StepInputs) -> list[_GraphPair]:
        directions = [self._draw(method, inputs, sample) for sample in range(method.options.samples)]
        candidates = [
            {
                name: self._complete_tunable(method, name, inputs.state[name], direction * (sign * epsilon))
                for name, direction in drawn.items()
                for epsilon in [float(method.rates[name].epsilon)]
            }
            for drawn in directions
            for sign in (1, -1)
        ]
        outputs = inputs.network.run(candidates)
        return [
            _GraphPair(drawn, *pair)
            for drawn, pair in zip(directions, zip(outputs[::2], outputs[1::2], strict=True), strict=True)
        ]

    def _draw(self, method: BoundPizo, inputs: StepInputs, sample: int) -> dict[str, Tensor]:
        """Draw a direction for each image and each tunable, float32 `[N, …]`."""
        options, width = method.options, method.model.width
        draw = draw_normal if options.directions == "gaussian" else draw_signs
        shapes = {
            PROMPTS: (options.prompts, width),
            NORMS: (method.rows.stop - method.rows.start, 2, width),
        }
        makers = {PROMPTS: (draw_normal, 2 * sample), NORMS: (draw, 2 * sample + 1)}
        return {
            name: maker(inputs.seed, inputs.step, number, inputs.network.count, shapes[name])
            for name, (maker, number) in makers.items()
            if name in method.rates
        }

    def _complete_tunable(self, method: BoundPizo, name: str, values: Tensor, moves: Tensor) -> Tensor:
        """Return tunables of each image; norms that are not tuned get zeros."""
        moved = moves + values
        if name != NORMS:
            return moved
        blocks = [moved]
        count = moved.shape(0, 1)
        for position, rows in ((0, method.rows.start), (2, len(method.model.norms) - method.rows.stop)):
            if rows:
                zeros = moved.graph.constant(np.zeros((1, 1, 1, 1)), np.float32)
                lengths = moved.graph.constant([rows, 2, method.model.width], np.int64)
                blocks.insert(position, zeros.expand(concatenate([count, lengths])))
        return concatenate(blocks, axis=1)

    def _compute_slopes(
        self,
        method: BoundPizo,
        pair: _GraphPair,
        features: Tensor,
        moments: GraphMoments,
        offset: Tensor,
    ) -> Tensor:
        """Return the difference of the loss along each image's own direction, float64 `[N]`."""
        options = method.options
        plus, minus = pair.plus.logits, pair.minus.logits
        if options.entropy_on == "shifted":
            plus, minus = plus + offset, minus + offset
        step = pair.plus.features.cast(np.float64) - pair.minus.features.cast(np.float64)
        distance = compute_discrepancy_slopes(features, step, moments, method.alignment.source)
        slopes = distance * options.discrepancy_weight + entropy(plus) - entropy(minus)
        if options.diversity_weight:
            first, second = softmax(plus), softmax(minus)
            mean = (first.mean(0) + second.mean(0)) / 2.0
            log_mean = maximum(mean, float(np.finfo(np.float64).tiny)).log().reshape(-1, 1)
            slopes = slopes + (first - second).matmul(log_mean).reshape(-1) * options.diversity_weight
        return slopes

    def _accumulate(
        self,
        method: BoundPizo,
        inputs: StepInputs,
        pairs: list[_GraphPair],
        features: Tensor,
        moments: GraphMoments,
        offset: Tensor,
    ) -> dict[str, Tensor]:
        """Return the sums of gradients with those of this batch."""
        sums = {f"{name}_gradient": inputs.state[f"{name}_gradient"] for name in method.rates}
        for pair in pairs:
            slopes = self._compute_slopes(method, pair, features, moments, offset)
            for name, direction in pair.directions.items():
                epsilon, field = float(method.rates[name].epsilon), f"{name}_gradient"
                if epsilon:
                    rows = (slopes / (2 * epsilon)).reshape(1, -1)
                    flat = inputs.graph.apply("Flatten", [direction.cast(np.float64)])
                    shape = sums[field].shape(0, 9)
                    sums[field] = sums[field] + inputs.graph.apply("Reshape", [rows.matmul(flat), shape])
        return sums

    def _update(self, method: BoundPizo, state: Tensors, strength: Tensor) -> dict[str, Tensor]:
        """Return values, momentum and emptied gradients after an update."""
        options = method.options
        updates = (state["updates"] + 1).cast(np.float64)
        decay = updates.graph.constant(options.momentum, np.float64)
        correction = 1.0 - updates.graph.apply("Pow", [decay, updates])
        result: dict[str, Tensor] = {}
        for name, (_, rate) in method.rates.items():
            gradient = state[f"{name}_gradient"]
            running = state[f"{name}_momentum"] * options.momentum + gradient * (1 - options.momentum)
            mean = running / correction
            size = maximum(compute_rms(gradient), compute_rms(mean))
            step = mean * (strength * rate) / where(size > TINY, size, 1.0)
            step = where(size > TINY, step, 0.0)
            values = state[name].cast(np.float64) * (1 - options.anchor) - step
            result[name] = values.cast(np.float32)
            result[f"{name}_momentum"] = running
            result[f"{name}_gradient"] = gradient * 0.0
        return result


def compute_rms(values: Tensor) -> Tensor:
    """Return the root mean square, a scalar."""
    return (values * values).mean().sqrt()
