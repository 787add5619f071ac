"""CAZO against a loop in PyTorch with the same draws, and its options."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from doubles import step_on
from fozo.engine.errors import BundleError
from fozo.engine.methods.cazo import Cazo
from fozo.engine.registry import METHODS
from fozo.engine.streams.adapter import Adapter
from fozo.testing import StandInNetwork
from stream_doubles import draw_stream

torch = pytest.importorskip("torch", reason="the reference is written in PyTorch")

SMALL: dict[str, Any] = {"pairs": 2, "perturbation": 0.05, "rate": 0.02, "first_curvature": 1.0}
VARIANTS = [
    Cazo(**SMALL),
    Cazo(**{**SMALL, "rate": 0.01}, step_rule="plain", bias_correction="none", shift="none"),
    Cazo(pairs=3, curvature_share=0.1, first_block=0, frozen_last_blocks=0),
    Cazo(**SMALL, loss_scale="per_image", shift="origin", shift_decay=0.5, discrepancy_weight=1.0),
    Cazo(**SMALL, curvature_share=0.0),
    Cazo(**SMALL, curvature_share=0.5),
]


class Reference:
    """The released algorithm over a flat vector of values, in float64."""

    def __init__(self, network: StandInNetwork, options: Cazo) -> None:
        self.network, self.options = network, options
        self.rows = slice(0, 4) if options.first_block == 0 else slice(2, 4)
        self.shape = (self.rows.stop - self.rows.start, 2, 8)
        self.theta = torch.zeros(self.shape, dtype=torch.float64)
        self.d = torch.full(self.shape, options.first_curvature, dtype=torch.float64)
        self.h: Any = None
        self.t = 0
        source = network.info.source
        assert source is not None
        self.mu, self.sigma = (torch.tensor(a, dtype=torch.float64) for a in (source.mean, source.std))
        self.head = torch.tensor(network.info.head_weight, dtype=torch.float64)

    def forward(self, images: Any, theta: Any) -> tuple[Any, Any]:
        norms = np.zeros((1, 4, 2, 8), np.float32)
        norms[0, self.rows] = theta.numpy()
        outputs = self.network(images, norms=norms)
        return tuple(torch.tensor(a, dtype=torch.float64) for a in (outputs.logits, outputs.features))

    def loss(self, logits: Any, features: Any) -> Any:
        count = len(features)
        distance = ((features.mean(0) - self.mu) ** 2).sum()
        if count > 1:
            distance = distance + ((features.std(0) - self.sigma) ** 2).sum()
        entropies = -(logits.softmax(1) * logits.log_softmax(1)).sum()
        total = self.options.discrepancy_weight * distance * count / 64 + entropies
        return total * 64 / count if self.options.loss_scale == "per_image" else total

    def step(self, images: Any, seed: int) -> Any:
        options, nu = self.options, self.options.curvature_share
        curvature = self.d
        if self.t and options.bias_correction == "official" and nu > 0:
            curvature = self.d / (1 - (1 - nu) ** self.t)
        gradient, means = torch.zeros_like(self.theta), []
        for j in range(options.pairs):
            generator = np.random.default_rng([seed, self.t + 1, j])
            z = torch.tensor(generator.standard_normal(self.shape, np.float32)).double() / curvature.sqrt()
            losses = []
            for sign in (1, -1):
                logits, features = self.forward(images, self.theta + sign * options.perturbation * z)
                losses.append(self.loss(logits, features))
                means.append(features[:, -1].mean(0))
            gradient += (losses[0] - losses[1]) / (2 * options.perturbation) * z / options.pairs
        if self.t >= 1:
            self.d = (1 - nu) * self.d + nu * gradient**2
        factor = options.perturbation if options.step_rule == "official" else 1
        self.theta = self.theta - factor * options.rate * gradient
        logits, _ = self.forward(images, self.theta)
        if self.h is not None and options.shift != "none":
            target = self.mu[-1] if options.shift == "source_mean" else 0
            logits = logits + (target - self.h) @ self.head.T
        mean = torch.stack(means).mean(0)
        decay = options.shift_decay
        self.h = mean if self.h is None else decay * self.h + (1 - decay) * mean
        self.t += 1
        return logits.numpy()


@pytest.mark.parametrize("options", VARIANTS)
def test_fourteen_batches_are_those_of_the_reference(options: Cazo) -> None:
    network = StandInNetwork()
    adapter, reference = Adapter(network, options, seed=3), Reference(network, options)
    for images in draw_stream():
        prediction, expected = adapter.step(images), reference.step(images, 3)
        np.testing.assert_allclose(prediction.logits, expected, rtol=1e-3, atol=1e-3)
        assert prediction.forwards == 2 * options.pairs + 1 and not prediction.fallback
        state: Any = adapter.state
        scale = np.abs(reference.theta.numpy()).max()
        np.testing.assert_allclose(state.norms, reference.theta, rtol=5e-3, atol=2e-3 * scale)
    np.testing.assert_allclose(state.curvature, reference.d, rtol=2e-2, atol=1e-3)
    assert np.abs(state.norms).max() > 1e-4


def test_defaults() -> None:
    assert METHODS["cazo"] == Cazo(
        pairs=20,
        perturbation=0.1,
        rate=0.01,
        curvature_share=0.8,
        first_curvature=100.0,
        step_rule="official",
        bias_correction="official",
        discrepancy_weight=0.4,
    )
    assert METHODS["cazo"].forwards == 41


def test_directions_are_short_where_gradients_were_large() -> None:
    """Curvature of 4 halves a direction's entries, and nothing is perturbed where it is huge."""
    network, options = StandInNetwork(), Cazo(pairs=1, bias_correction="none")
    bound = options.bind(network.info)
    state = bound.init(0)
    state.curvature[0], state.curvature[1] = 4.0, 1e30
    steps = bound.step(state, draw_stream(1)[0])
    plus = next(steps).tunables[0]["norms"][0, 2:]
    drawn = np.random.default_rng([0, 1, 0]).standard_normal((2, 2, 8), np.float32)
    np.testing.assert_allclose(plus[0], 0.1 * drawn[0] / 2, rtol=1e-5)
    np.testing.assert_allclose(plus[1], 0, atol=1e-10)


def test_a_state_that_starts_late_learns_as_a_fresh_one() -> None:
    """A new domain goes on counting steps; the first gradient still has no part in the curvature."""
    network, cazo = StandInNetwork(), Cazo(pairs=2)
    fresh = cazo.bind(network.info).init(0)
    for state in (fresh, replace(fresh, step=50)):
        _, state = step_on(network, cazo, state, draw_stream(1)[0])
        np.testing.assert_array_equal(state.curvature, fresh.curvature)
        assert (state.norms != 0).any()


def test_batch_statistics_are_refused() -> None:
    with pytest.raises(BundleError, match="cazo"):
        Cazo().bind(StandInNetwork(batch_norms=True).info)


def test_source_statistics_are_needed() -> None:
    with pytest.raises(BundleError, match="cazo needs source statistics"):
        Cazo().bind(replace(StandInNetwork().info, source=None))
