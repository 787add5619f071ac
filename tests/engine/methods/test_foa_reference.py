"""FOA against a direct implementation of docs/specification.md §4 in plain loops, on a real exported graph.

The reference follows the numbering of the specification and shares no code with the engine but the network,
which `test_fozo_reference.py` compares with PyTorch. Both get the same normal numbers and the same first
prompts; everything else is computed twice.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from doubles import predict_on, step_on
from fozo.engine.methods.foa import Foa, FoaState
from fozo.engine.model import FloatArray, ImageArray
from fozo.engine.registry import METHODS
from fozo.engine.runtime.network import Network
from fozo.engine.search.spsa import draw_uniform

SEED = 2020
SIZES = (12, 12, 12, 5, 12, 12, 1, 12)
SUBSET = (17, 3, 4, 11, 8, 0)
MakeImages = Callable[..., ImageArray]


@pytest.fixture(scope="module")
def network(bundle_path: Path) -> Iterator[Network]:
    with Network.open(bundle_path, workers=1) as opened:
        yield opened


@dataclass(frozen=True)
class Knobs:
    """The choices of §4, in the words of the specification; defaults are the released code with C = I."""

    prompts: int = 3
    popsize: int = 27
    best_too: bool = True
    c: str = "fixed"
    sigma0: float = 1.0
    lam: float = 0.4
    target: str = "mu_S"
    gain: float = 1.0
    inclusive: bool = False
    keep: float = 0.9
    entropy_shifted: bool = False
    norm: str = "sum of squares"
    per_image: bool = False
    window: int = 0
    mean_out: bool = False


class PlainCma:
    """§4.5 as it is written: matrices throughout, decomposed every time, loops over the solutions."""

    def __init__(self, n: int, lam: int, sigma: float, form: str) -> None:
        self.n, self.lam, self.form = n, lam, form
        r = [math.log((lam + 1) / 2) - math.log(i) for i in range(1, lam + 1)]
        positive, negative = [x for x in r if x > 0], [x for x in r if x < 0]
        self.mu = len(positive)
        self.mueff = 1 / sum((x / sum(positive)) ** 2 for x in positive)
        mueff_minus = sum(negative) ** 2 / sum(x * x for x in negative)
        self.cc = (4 + self.mueff / n) / (n + 4 + 2 * self.mueff / n)
        self.cs = (self.mueff + 2) / (n + self.mueff + 3)
        more = (n + 2) / 3 if form == "diagonal" else 1
        self.c1 = more * 2 * min(1, lam / 6) / ((n + 1.3) ** 2 + self.mueff)
        cmu = 2 * (0.25 + self.mueff + 1 / self.mueff - 2) / ((n + 2) ** 2 + self.mueff)
        self.cmu = min(1 - self.c1, more * cmu)
        self.damps = 1 + 2 * max(0, math.sqrt((self.mueff - 1) / (n + 1)) - 1) + self.cs
        self.chi = math.sqrt(n) * (1 - 1 / (4 * n) + 1 / (26 * n * n))
        limit = min(
            1 + self.c1 / self.cmu,
            (1 - self.c1 - self.cmu) / (n * self.cmu),
            1 + 2 * mueff_minus / (self.mueff + 2),
        )
        self.w = [x / sum(positive) if x > 0 else limit * x / -sum(negative) for x in r]
        self.m, self.sigma = np.zeros(n), sigma
        self.c, self.ps, self.pc, self.t = np.eye(n), np.zeros(n), np.zeros(n), 0
        self.root, self.inverse = np.eye(n), np.eye(n)
        self.root_age = 0

    def ask(self, z: list[FloatArray]) -> list[FloatArray]:
        return [self.m + self.sigma * self.root @ each for each in z]

    def tell(self, xs: list[FloatArray], fs: list[float], asked: int) -> None:
        n, a = self.n, self.inverse
        ys = [(x - self.m) / self.sigma for x in xs]
        for k in range(asked, len(xs)):  # 1
            length, limit = float(np.linalg.norm(a @ ys[k])), math.sqrt(n) + 2 * n / (n + 2)
            if length > limit:
                ys[k] = ys[k] * limit / length
        ranked = [ys[i] for i in sorted(range(len(fs)), key=lambda i: fs[i])]  # 2
        delta = sum(self.w[i] * ranked[i] for i in range(self.mu))
        self.ps = (1 - self.cs) * self.ps + math.sqrt(self.cs * (2 - self.cs) * self.mueff) * a @ delta  # 3
        self.t += 1
        h = (self.ps @ self.ps) / (1 - (1 - self.cs) ** (2 * self.t)) / n < 2 + 4 / (n + 1)  # 4
        self.pc = (1 - self.cc) * self.pc  # 5
        if h:
            self.pc = self.pc + math.sqrt(self.cc * (2 - self.cc) * self.mueff) * delta
        c1a = self.c1 if h else self.c1 * (1 - self.cc * (2 - self.cc))
        extra = len(xs) - self.lam  # 6
        positive = sum(x > 0 for x in self.w)
        w = self.w[:positive] + [0.0] * extra + self.w[positive:]
        c = self.c * (1 - c1a - self.cmu * sum(w)) + self.c1 * np.outer(self.pc, self.pc)
        for weight, y in zip(w, ranked, strict=True):
            scaled = weight * n / (np.linalg.norm(a @ y) + 1e-9) ** 2 if weight < 0 else weight
            c = c + self.cmu * scaled * np.outer(y, y)
        self.m = self.m + self.sigma * delta
        grown = (np.linalg.norm(self.ps) / self.chi - 1) * self.cs / self.damps
        self.sigma *= math.exp(min(1, max(-1, grown)))  # 7
        if self.form != "fixed":
            self.c = np.diag(np.diag(c)) if self.form == "diagonal" else c
            gap = 1 / ((self.c1 + self.cmu) * 10 * n)
            if self.form == "diagonal" or self.t - self.root_age >= gap:
                values, vectors = np.linalg.eigh(self.c)
                if self.form == "diagonal":
                    values, vectors = np.diag(self.c), np.eye(n)
                self.root = vectors @ np.diag(np.sqrt(values))
                self.inverse = vectors @ np.diag(1 / np.sqrt(values)) @ vectors.T
                self.root_age = self.t


class Reference:
    """§4.3, one plain forward after the other."""

    def __init__(self, network: Network, first: FloatArray, knobs: Knobs) -> None:
        self.network, self.k = network, knobs
        source = network.info.require_source("test")
        self.mu_s, self.sd_s = source.mean.astype(float).ravel(), source.std.astype(float).ravel()
        self.w, self.b = (x.astype(float) for x in (network.info.head_weight, network.info.head_bias))
        self.layers, self.d = network.info.layers, network.info.width
        self.best = first
        self.h: FloatArray | None = None
        self.cma = PlainCma(first.size, knobs.popsize, knobs.sigma0, knobs.c)
        self.past = np.zeros((0, self.mu_s.size))
        self.chosen: list[int] = []
        self.losses: list[float] = []

    def _vector(self, h: FloatArray | None) -> FloatArray:
        if h is None or self.k.target == "none":
            return np.zeros(self.d)
        return self.k.gain * ((self.mu_s[-self.d :] if self.k.target == "mu_S" else 0) - h)

    def _norm(self, difference: FloatArray) -> float:
        if self.k.norm == "sum of squares":
            return float((difference**2).sum())
        if self.k.norm == "mean of squares":
            return float((difference**2).mean())
        layers = [difference[i * self.d : (i + 1) * self.d] for i in range(self.layers)]
        if self.k.norm == "norm per group":
            half = self.layers // 2
            layers = [np.concatenate(layers[:half]), np.concatenate(layers[half:])]
        return sum(math.sqrt(float(layer @ layer)) for layer in layers)

    def _fitness(self, x: FloatArray, past: FloatArray, d: FloatArray) -> float:
        count = len(x)
        together = np.concatenate([past, x])
        distance = self._norm(together.mean(0) - self.mu_s)
        if len(together) > 1:
            distance += self._norm(together.std(0, ddof=1) - self.sd_s)
        z = (x[:, -self.d :] + (d if self.k.entropy_shifted else 0)) @ self.w.T + self.b
        entropies = 0.0
        for row in z:
            p = np.exp(row - row.max())
            p /= p.sum()
            entropies -= float((p * np.log(p)).sum())
        loss = self.k.lam * distance * count / 64 + entropies
        return loss * 64 / count if self.k.per_image else loss

    def step(self, images: ImageArray, z: list[FloatArray]) -> tuple[FloatArray, float]:
        d = self._vector(self.h)  # 1
        asked = self.cma.ask(z)  # 2
        candidates = [*asked, *([self.best.ravel().astype(float)] if self.k.best_too else [])]
        past = self.past[len(self.past) - max(0, min(len(self.past), self.k.window - len(images))) :]
        best, fitness, means, xs = math.inf, [], [], []
        old_mean, previous = self.cma.m, self.best
        for j, candidate in enumerate(candidates):  # 3
            prompt = candidate.astype(np.float32).reshape(1, *previous.shape)
            x = self.network(images, prompts=prompt).features.astype(float).reshape(len(images), -1)
            v = self._fitness(x, past, d)
            fitness.append(v)
            xs.append(x)
            means.append(x[:, -self.d :].mean(0))
            if v < best:
                best, chosen, self.best = v, j, prompt[0]
        self.cma.tell(candidates, fitness, len(asked))  # 4
        m = sum(means) / len(means)  # 5
        h = m if self.h is None else self.k.keep * self.h + (1 - self.k.keep) * m
        if self.k.inclusive:
            d = self._vector(h)
        self.h = h
        if self.k.window:
            self.past = np.concatenate([self.past, xs[chosen]])[-self.k.window :]
        self.chosen.append(chosen)
        self.losses.append(best)
        f = xs[chosen][:, -self.d :]
        if self.k.mean_out:
            prompt = old_mean.astype(np.float32).reshape(1, *previous.shape)
            f = self.network(images, prompts=prompt).features[:, -1].astype(float)
        return (f + d) @ self.w.T + self.b, best  # 6


def close(ours: Any, theirs: Any, what: str) -> None:
    expected = np.asarray(theirs, dtype=np.float64)
    scale = float(np.abs(expected).max())
    np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=2e-5 * scale, err_msg=what)


def compare(network: Network, images: Sequence[ImageArray], method: Any, knobs: Knobs) -> Reference:
    state: FoaState = method.bind(network.info).init(SEED)
    shape = (knobs.prompts, network.info.width)
    assert state.best.shape == shape and not state.search.mean.any()
    np.testing.assert_array_equal(state.best, draw_uniform(SEED, network.info.prompt_bound, shape))
    reference = Reference(network, state.best.copy(), knobs)
    for step, batch in enumerate(images):
        z = [
            np.random.default_rng([SEED, step + 1, j]).standard_normal(state.best.size)
            for j in range(knobs.popsize)
        ]
        if method.covariance == "full":  # the same distribution, turned: eigenvectors are unique up to signs
            assert state.search.basis is not None and state.search.scales is not None
            root = state.search.basis * state.search.scales
            np.testing.assert_allclose(root @ root.T, reference.cma.root @ reference.cma.root.T, atol=1e-9)
            reference.cma.root = root
        expected, loss = reference.step(batch, z)
        prediction, state = step_on(network, method, state, batch)
        where = f" after batch {step}"
        assert prediction.diagnostics["best"] == reference.chosen[-1], where
        close(prediction.logits, expected, "logits" + where)
        close(prediction.loss, loss, "loss" + where)
        close(state.best, reference.best, "best prompts" + where)
        close(state.search.mean, reference.cma.m, "mean" + where)
        close(state.search.sigma, reference.cma.sigma, "sigma" + where)
        close(state.center, reference.h, "center" + where)
        assert prediction.logits.dtype == np.float32
        assert state.search.generation == state.step == step + 1
        if knobs.c == "full":
            close(state.search.covariance, reference.cma.c, "covariance" + where)
        if knobs.c == "diagonal":
            close(state.search.covariance, np.diag(reference.cma.c), "covariance" + where)
        answer = predict_on(network, method, state, batch[:2])
        used = reference.cma.m.reshape(shape) if knobs.mean_out else reference.best
        x = network(batch[:2], prompts=used[None].astype(np.float32)).features[:, -1].astype(float)
        close(answer.logits, (x + reference._vector(reference.h)) @ reference.w.T + reference.b, "predicted")
        assert answer.forwards == 1
    return reference


@pytest.fixture(scope="module")
def stream(random_images: MakeImages) -> list[ImageArray]:
    """Ragged, with a single image among them."""
    return [random_images(size, seed=index) for index, size in enumerate(SIZES)]


def test_preset(network: Network, stream: list[ImageArray]) -> None:
    reference = compare(network, stream, METHODS["foa"], Knobs())
    assert len(set(reference.chosen)) > 3
    assert not math.isclose(reference.cma.sigma, 1)


def test_preset_of_two_forwards(network: Network, stream: list[ImageArray]) -> None:
    assert METHODS["foa_2"].forwards == 2
    compare(network, stream, METHODS["foa_2"], Knobs(popsize=2, best_too=False))


# A smaller population than the preset's where nothing depends on it.
CASES: dict[str, tuple[dict[str, Any], Knobs]] = {
    "prompts": ({"prompts": 1}, Knobs(prompts=1)),
    "prompts-5": ({"prompts": 5}, Knobs(prompts=5)),
    "population": ({"population": 5}, Knobs(popsize=5)),
    "population-without-best": ({"carry_best": False, "population": 6}, Knobs(popsize=6, best_too=False)),
    "diagonal": ({"covariance": "diagonal", "population": 6}, Knobs(c="diagonal", popsize=6)),
    "full": ({"covariance": "full", "population": 6, "prompts": 1}, Knobs(c="full", popsize=6, prompts=1)),
    "sigma": ({"sigma": 0.1, "population": 6}, Knobs(sigma0=0.1, popsize=6)),
    "weight": ({"discrepancy_weight": 3.0, "population": 6}, Knobs(lam=3.0, popsize=6)),
    "weight-0": ({"discrepancy_weight": 0.0, "population": 6}, Knobs(lam=0.0, popsize=6)),
    "origin": ({"shift": "origin", "population": 3}, Knobs(target="origin", popsize=3)),
    "none": ({"shift": "none", "population": 3}, Knobs(target="none", popsize=3)),
    "gain": ({"shift_gain": 0.35, "population": 3}, Knobs(gain=0.35, popsize=3)),
    "inclusive": ({"shift_update": "inclusive", "population": 3}, Knobs(inclusive=True, popsize=3)),
    "decay": ({"shift_decay": 0.5, "population": 3}, Knobs(keep=0.5, popsize=3)),
    "shifted": ({"entropy_on": "shifted", "population": 6}, Knobs(entropy_shifted=True, popsize=6)),
    "norm-mean": (
        {"loss_norm": "mean_squared", "discrepancy_weight": 100.0, "population": 6},
        Knobs(norm="mean of squares", lam=100.0, popsize=6),
    ),
    "norm-per-layer": (
        {"loss_norm": "l2_per_layer", "discrepancy_weight": 8.0, "population": 6},
        Knobs(norm="norm per layer", lam=8.0, popsize=6),
    ),
    "norm-groups": (
        {"loss_norm": "l2_groups", "discrepancy_weight": 8.0, "population": 6},
        Knobs(norm="norm per group", lam=8.0, popsize=6),
    ),
    "per-image": ({"loss_scale": "per_image", "population": 6}, Knobs(per_image=True, popsize=6)),
    "window": ({"window": 20, "population": 6}, Knobs(window=20, popsize=6)),
    "clean": ({"output": "clean", "population": 6}, Knobs(mean_out=True, popsize=6)),
}


@pytest.mark.parametrize("case", CASES)
def test_options(network: Network, stream: list[ImageArray], case: str) -> None:
    changes, knobs = CASES[case]
    compare(network, stream, replace(Foa(), **changes), knobs)


def test_every_option_is_compared() -> None:
    changed = {name for changes, _ in CASES.values() for name in changes}
    assert changed == {field.name for field in fields(Foa)}


def test_class_mask(network: Network, stream: list[ImageArray]) -> None:
    """§1.5: the mask acts on the logits before entropy and softmax."""
    reference = compare(network.select(SUBSET), stream[:4], Foa(population=6), Knobs(popsize=6))
    whole = compare(network, stream[:4], Foa(population=6), Knobs(popsize=6))
    assert reference.losses != whole.losses


def test_a_window_makes_single_images_comparable(network: Network, random_images: MakeImages) -> None:
    singles = [random_images(1, seed=index) for index in range(8)]
    compare(network, singles, Foa(population=4, window=4), Knobs(popsize=4, window=4))


def test_the_reference_notices_a_difference(network: Network, stream: list[ImageArray]) -> None:
    for knobs in (Knobs(popsize=4, lam=0.5), Knobs(popsize=4, keep=0.91), Knobs(popsize=4, gain=1.01)):
        with pytest.raises(AssertionError):
            compare(network, stream[:4], Foa(population=4), knobs)
