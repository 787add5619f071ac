"""A step of QuAR as expressions: running moments, and maps of activations to those of clean images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...engine.methods.quar import BoundQuar
from ...engine.model import RECENTRING
from ...engine.statistics.feature_statistics import ChannelMoments
from ...engine.statistics.recentred_activations import RecentredActivations
from .step_builder import Arrays, StepInputs, StepOutputs, Tensors, to_integer
from .step_statistics import compute_batch_moments, entropy
from .tensor import Tensor, concatenate, maximum, minimum, where


@dataclass(frozen=True)
class _Moments:
    """Mean and biased variance of channels, float64 `[C]`."""

    mean: Tensor
    variance: Tensor

    @staticmethod
    def read(state: Tensors, name: str) -> _Moments:
        """Return moments of a state."""
        return _Moments(state[f"{name}_mean"], state[f"{name}_variance"])

    def write(self, name: str) -> Tensors:
        """Return them as values of a state."""
        return {f"{name}_mean": self.mean, f"{name}_variance": self.variance}

    def blend(self, other: _Moments, weight: Tensor) -> _Moments:
        """Return the moments of a mixture, of which a share of `weight` is `other`."""
        delta, rest = other.mean - self.mean, 1.0 - weight
        variance = self.variance * rest + other.variance * weight + delta * delta * (weight * rest)
        return _Moments(self.mean + delta * weight, variance)


class QuarStep:
    """Re-centring at the inputs of products and at the last feature."""

    def create_state(self, method: BoundQuar, seed: int) -> Arrays:
        """Return the moments of clean images."""
        state: Arrays = {"batches": to_integer(0), **_store("last", method.source)}
        return state if method.local is None else {**state, **_store("local", method.local.source)}

    def build(self, method: BoundQuar, inputs: StepInputs) -> StepOutputs:
        """Append one forward with the local moments so far, and the map of its last feature."""
        state, local = inputs.state, method.local
        weight = self._weigh_batch(method, state["batches"])
        tunables = {} if local is None else {RECENTRING: self._build_recentring(method, local, state)}
        (outputs,) = inputs.network.run([tunables])
        features = outputs.features.take(-1, 1)
        last = _Moments.read(state, "last").blend(_Moments(*compute_batch_moments(features)), weight)
        next_state = {"batches": state["batches"] + 1, **last.write("last")}
        if local is not None and outputs.activation_moments is not None:
            moments = _read_activations(outputs.activation_moments, local)
            next_state |= _Moments.read(state, "local").blend(moments, weight).write("local")
        logits = outputs.logits
        if method.options.branches != "local":
            varies = last.variance.sum() > 0.0
            logits = where(varies, self._predict(method, features, last), logits)
        return StepOutputs(logits, next_state, {"entropy": entropy(logits).mean()})

    def _weigh_batch(self, method: BoundQuar, batches: Tensor) -> Tensor:
        """Return the weight of a batch in the running moments, a float64 scalar."""
        options, graph = method.options, batches.graph
        if options.average == "exponential":
            return graph.constant(options.rate, np.float64)
        return 1.0 / (batches.cast(np.float64) + (1.0 + float(options.prior)))

    def _build_recentring(self, method: BoundQuar, local: RecentredActivations, state: Tensors) -> Tensor:
        """Return the tunable that maps the activations of the local branch, float32 `[1, 2, C]`."""
        moments = _Moments.read(state, "local")
        slope, intercept = _map_to_source(method, moments, local.source, method.options.local_strength)
        rows = concatenate([(slope - 1.0).reshape(1, 1, -1), intercept.reshape(1, 1, -1)], axis=1)
        used = np.full(local.count, len(local.channels))  # behind the values, there is a zero for the others
        used[local.channels] = np.arange(len(local.channels))
        graph = rows.graph
        padded = concatenate([rows, graph.constant(np.zeros((1, 2, 1)), np.float64)], axis=2)
        indices = graph.constant(used, np.int64)
        return graph.apply("Gather", [padded, indices], axis=2).cast(np.float32)

    def _predict(self, method: BoundQuar, features: Tensor, last: _Moments) -> Tensor:
        """Return the logits of re-centred features, float32 `[N, K]`."""
        slope, intercept = _map_to_source(method, last, method.source, method.options.global_strength)
        mapped, graph = features.cast(np.float64) * slope + intercept, features.graph
        weight = graph.constant(method.model.head_weight.T, np.float64)
        bias = graph.constant(method.model.head_bias, np.float64)
        return (mapped.matmul(weight) + bias).cast(np.float32)


def _store(name: str, moments: ChannelMoments) -> Arrays:
    return {f"{name}_mean": moments.mean, f"{name}_variance": moments.variance}


def _read_activations(moments: Tensor, local: RecentredActivations) -> _Moments:
    """Return moments over all tokens of a batch from those of its images, float32 `[N, 2, C]`."""
    channels = moments.graph.constant(local.channels, np.int64)
    selected = moments.graph.apply("Gather", [moments, channels], axis=2).cast(np.float64)
    mean, variance = compute_batch_moments(selected.take(0, 1))
    return _Moments(mean, variance + selected.take(1, 1).mean(0))


def _map_to_source(
    method: BoundQuar, moments: _Moments, source: ChannelMoments, strength: float
) -> tuple[Tensor, Tensor]:
    """Return slope and intercept of the map to the source, float64 `[C]` each."""
    options, graph = method.options, moments.mean.graph
    floor = float(np.finfo(np.float64).tiny)
    std = maximum(moments.variance.sqrt() + float(options.epsilon), floor)
    ratio = minimum(graph.constant(np.sqrt(source.variance), np.float64) / std, float(options.limit))
    mean = graph.constant(source.mean, np.float64)
    return (ratio - 1.0) * float(strength) + 1.0, (mean - ratio * moments.mean) * float(strength)
