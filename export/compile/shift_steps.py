"""Steps without learning: the frozen network, the activation shift, and moment matching."""

from __future__ import annotations

import numpy as np

from ...engine.methods.moments import BoundMomentMatching
from ...engine.methods.no_adapt import BoundNoAdapt
from ...engine.methods.shift import BoundShift, Shift
from .step_builder import Arrays, StepInputs, StepOutputs, Tensors, to_integer, to_number
from .step_statistics import compute_batch_moments, compute_logit_offset, compute_shift, entropy
from .tensor import Tensor, maximum, minimum, where


class NoAdaptStep:
    """The frozen network."""

    def create_state(self, method: BoundNoAdapt, seed: int) -> Arrays:
        """Return no state."""
        return {}

    def build(self, method: BoundNoAdapt, inputs: StepInputs) -> StepOutputs:
        """Append one forward."""
        (outputs,) = inputs.network.run([{}])
        return StepOutputs(outputs.logits, {}, {"entropy": entropy(outputs.logits).mean()})


class ShiftStep:
    """The activation shift, and so NEO."""

    def create_state(self, method: BoundShift, seed: int) -> Arrays:
        """Return a running mean of no images."""
        return {"center": np.zeros(method.model.feature_width), "images": to_integer(0)}

    def build(self, method: BoundShift, inputs: StepInputs) -> StepOutputs:
        """Append one forward and the shift of its logits."""
        options, state = method.options, inputs.state
        (outputs,) = inputs.network.run([{}])
        before, count = state["images"], inputs.network.count.reshape()
        images = before + count
        mean = outputs.features.take(-1, 1).cast(np.float64).mean(0)
        decay = (
            inputs.graph.constant(options.decay, np.float64)
            if options.average == "moving"
            else before.cast(np.float64) / images.cast(np.float64)
        )
        center = where(before > 0, state["center"] * decay + mean * (1.0 - decay), mean)
        used, counted = (center, images) if options.update == "inclusive" else (state["center"], before)
        shift = compute_shift(method.target, used) * self._compute_strength(options, counted)
        logits = outputs.logits + compute_logit_offset(shift, method.model.head_weight)
        diagnostics = {"entropy": entropy(logits).mean(), "shift": (shift * shift).sum().sqrt()}
        return StepOutputs(logits, {"center": center, "images": images}, diagnostics)

    @staticmethod
    def _compute_strength(options: Shift, images: Tensor) -> Tensor:
        """Return how far the features are moved; not at all before the first image."""
        gain, warm_up = float(options.gain), int(options.warm_up)
        count = images.cast(np.float64)
        strength = count / (count + float(warm_up)) if warm_up else count * 0.0 + 1.0
        return where(images > 0, strength * gain, 0.0)


class MomentsStep:
    """Moment matching of the last feature."""

    def create_state(self, method: BoundMomentMatching, seed: int) -> Arrays:
        """Return running moments of no batch."""
        zeros = np.zeros(method.model.feature_width)
        return {
            "mean": zeros,
            "variance": zeros,
            "concentration": to_number(1.0),
            "batches": to_integer(0),
        }

    def build(self, method: BoundMomentMatching, inputs: StepInputs) -> StepOutputs:
        """Append one forward, and the map of its features."""
        state = inputs.state
        (outputs,) = inputs.network.run([{}])
        features = outputs.features.take(-1, 1)
        next_state = self._update(method, inputs, features)
        used = next_state if method.options.update == "inclusive" else state
        slope, intercept = self._compute_map(method, used)
        weight = inputs.graph.constant(method.model.head_weight.T, np.float32)
        matched = (features * slope + intercept).matmul(weight)
        matched = matched + inputs.graph.constant(method.model.head_bias, np.float32)
        logits = where(used["concentration"] < 1.0, matched, outputs.logits)
        return StepOutputs(logits, next_state, {"entropy": entropy(logits).mean()})

    def _update(self, method: BoundMomentMatching, inputs: StepInputs, features: Tensor) -> Tensors:
        """Return the running moments after a batch of features, float32 `[N, F]`."""
        state, old = inputs.state, method.options.decay
        is_first, new = state["batches"] < 1, 1 - method.options.decay
        mean, variance = compute_batch_moments(features)
        moved = mean - state["mean"]
        running = state["variance"] * old + variance * new + moved * moved * (old * new)
        concentration = 1.0 / inputs.network.count.reshape().cast(np.float64)
        concentrated = state["concentration"] * old**2 + concentration * new**2
        return {
            "mean": where(is_first, mean, state["mean"] * old + mean * new),
            "variance": where(is_first, variance, running),
            "concentration": where(is_first, concentration, concentrated),
            "batches": state["batches"] + 1,
        }

    def _compute_map(self, method: BoundMomentMatching, state: Tensors) -> tuple[Tensor, Tensor]:
        """Return slope and intercept of the map of the features, float32 `[F]` each."""
        options, source = method.options, method.source
        mean, variance = state["mean"], state["variance"]
        graph = mean.graph
        freedom = 1.0 - state["concentration"]
        floor = float(np.finfo(np.float64).tiny)
        divisor = where(freedom > 0.0, freedom, 1.0)
        target = graph.constant(np.square(source.std[-1].astype(np.float64)), np.float64)
        ratio = target / maximum(variance / divisor + options.variance_floor, floor)
        limit = options.ratio_limit
        ratio = minimum(maximum(ratio, 1 / limit), limit)
        scale = where(freedom > 0.0, ratio, ratio * 0.0 + 1.0).sqrt()
        source_mean = graph.constant(source.mean[-1], np.float64)
        slope = (scale - 1.0) * options.gain + 1.0
        intercept = (source_mean - scale * mean) * options.gain
        return slope.cast(np.float32), intercept.cast(np.float32)
