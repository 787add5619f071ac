"""ZOA against eager PyTorch written from docs/specification.md §1 and §7, on a real exported graph.

The reference follows the numbering of the specification, keeps the parameters norm by norm, computes in
float64 and shares no code with the engine. Both get the same directions and the same first coefficient.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pytest
import torch
from doubles import step_on
from fozo.engine.methods.zoa import Zoa
from fozo.engine.model import ImageArray, ModelInfo, SourceStatistics
from fozo.engine.runtime.network import Network
from fozo.engine.search.spsa import draw_segmented_direction
from numpy.typing import NDArray
from torch.nn import functional

WIDTH, DEPTH, CLASSES, SEED = 32, 6, 20, 2000
# One letter per batch: the domain changes seven times, so that a bank of three is full in the middle.
STREAM = "AABBCCAADDBBCA"
SUBSET = (17, 3, 4, 11, 8, 0)
# What both are given where nothing else is said: a small bank, and steps that show within a few batches.
SETTINGS: dict[str, Any] = {"bank_limit": 3, "rate": 2e-3}

Norms = dict[tuple[int, int], tuple[Any, Any]]


@dataclass(frozen=True)
class Knobs:
    """The choices of §7.7 and §7.9, in the words of the specification; defaults are the recommendations."""

    blocks: tuple[int, ...] = (1, 2)
    sp_avg: int = 1
    two_sided: bool = False
    steps: int = 1
    lam: float = 30.0
    lr: float = 2e-3
    c: float = 0.02
    wd: float = 0.4
    lr_a: float = 0.01
    c_a: float = 0.05
    wd_a: float = 0.1
    max_bank: int = 3
    compact: bool = True
    domain_t: float = 0.1
    min_batch: int = 64
    pool_small: bool = True
    twice: bool = True
    domain_keep: float = 0.8
    hold_off: int = 0
    shift: str = "vector"
    shift_new: bool = True
    shift_keep: float = 0.9
    window: int = 0


class Reference:
    """ZOA step by step as §7 numbers it."""

    def __init__(self, vit: Any, source: Any, a0: float, knobs: Knobs, classes: tuple[int, ...] | None):
        self.vit, self.k = vit, knobs
        self.source_mean, self.source_std = source
        self.classes = list(range(CLASSES)) if classes is None else list(classes)
        self.keys = [(block, which) for block in knobs.blocks for which in (1, 2)]
        zero = torch.zeros(WIDTH, dtype=torch.float64)
        self.residual: Norms = {key: (zero.clone(), zero.clone()) for key in self.keys}
        self.bank: list[Norms] = [dict.fromkeys(self.keys, (zero, zero))]  # entry 0 is no change
        self.a = torch.tensor([a0], dtype=torch.float64)
        self.matrix = torch.zeros(knobs.max_bank, knobs.max_bank, dtype=torch.float64)
        self.domain: tuple[Any, Any] | None = None
        self.pool: list[Any] = []
        self.quiet = 0
        self.h: Any = None
        self.recent: list[Any] = []
        self.changes: list[bool] = []
        self.removed: list[int] = []
        self.dominated: list[bool] = []

    # §7.2

    def effective(self, a: Any = None, residual: Norms | None = None) -> Norms:
        p = torch.softmax(10 * (self.a if a is None else a), dim=0)
        rest = self.residual if residual is None else residual
        out: Norms = {}
        for key in self.keys:
            delta = [sum(p[i] * entry[key][part] for i, entry in enumerate(self.bank)) for part in (0, 1)]
            out[key] = (delta[0] + rest[key][0], delta[1] + rest[key][1])
        return out

    # §1.1 and §7.4

    def norm(self, x: Any, block: int, which: int, change: Norms) -> Any:
        layer = getattr(self.vit.blocks[block], f"norm{which}")
        weight, bias = layer.weight, layer.bias
        if (block, which) in change:
            weight, bias = weight + change[block, which][0], bias + change[block, which][1]
        return functional.layer_norm(x, (WIDTH,), weight, bias, layer.eps)

    def forward(self, pixels: Any, change: Norms) -> tuple[Any, Any]:
        """Patch tokens after the position embedding `[B, M, D]`, and features `[B, L, D]`."""
        tokens = self.vit.patch_embed(pixels)
        tokens = torch.cat([self.vit.cls_token.expand(len(pixels), 1, WIDTH), tokens], dim=1)
        x = tokens = tokens + self.vit.pos_embed
        out = []
        for i, block in enumerate(self.vit.blocks):
            x = x + block.attn(self.norm(x, i, 1, change))
            x = x + block.mlp(self.norm(x, i, 2, change))
            out.append(self.norm(x[:, 0], i + 1, 1, change) if i + 1 < DEPTH else self.vit.norm(x[:, 0]))
        return tokens[:, 1:], torch.stack(out, dim=1)

    def loss(self, features: Any) -> float:
        """§7.4.5, over a window of earlier images where there is one."""
        room = max(0, self.k.window - len(features))
        past = self.recent[-room:] if room else []
        flat = torch.cat([*(f[None] for f in past), features]).flatten(1)
        logits = self.vit.head(features[:, -1])[:, self.classes]
        entropies = -(logits.softmax(-1) * logits.log_softmax(-1)).sum(-1)
        distance = ((flat.mean(0) - self.source_mean) ** 2).mean()
        if len(flat) > 1:
            distance = distance + ((flat.std(0, unbiased=True) - self.source_std) ** 2).mean()
        return float(self.k.lam * distance + entropies.mean())

    def check_domain(self, tokens: Any, forwards: int) -> bool:
        """§7.4.2 and 3, with the second of the two runs folded in: it sees the same images."""
        if len(tokens) < self.k.min_batch:
            if not self.k.pool_small:
                return False
            self.pool.append(tokens)
            tokens = torch.cat(self.pool)
            if len(tokens) < self.k.min_batch:
                return False
        self.pool = []
        changed = False
        for run in range(forwards if self.k.twice else 1):
            flat = tokens.reshape(-1, WIDTH)
            mean, var = flat.mean(0), flat.var(0, unbiased=True)
            if self.domain is not None:
                mean_d, var_d = self.domain
                gap = (mean_d - mean) ** 2
                apart = ((var_d + gap) / (2 * (var + 1e-8)) + (var + gap) / (2 * (var_d + 1e-8)) - 1).mean()
                if run == 0:
                    if apart > self.k.domain_t and not self.quiet:
                        self.domain, changed = None, True
                        self.quiet = self.k.hold_off
                    else:
                        self.quiet = max(0, self.quiet - 1)
            if self.domain is None:
                self.domain = (mean, var)
            else:
                keep = self.k.domain_keep
                self.domain = (
                    keep * self.domain[0] + (1 - keep) * mean,
                    keep * self.domain[1] + (1 - keep) * var,
                )
        return changed

    # §7.6

    def save(self) -> None:
        k = self.k
        if len(self.bank) - 1 >= k.max_bank:
            best, drop = -math.inf, 0
            for row in range(k.max_bank):
                for column in range(k.max_bank):
                    if (column > row or not k.compact) and float(self.matrix[row, column]) > best:
                        best, drop = float(self.matrix[row, column]), row
            before = self.effective()
            del self.bank[drop + 1]
            self.a = torch.cat([self.a[: drop + 1], self.a[drop + 2 :]])
            if k.compact:
                kept = [i for i in range(k.max_bank) if i != drop]
                smaller = self.matrix[kept][:, kept]
                self.matrix = torch.zeros_like(self.matrix)
                self.matrix[: k.max_bank - 1, : k.max_bank - 1] = smaller
            self.compensate(before)
            self.removed.append(drop)
        before = self.effective()
        size = max(float(part.abs().mean()) for pair in self.residual.values() for part in pair)
        sf = size / 0.01
        highest = float((10 * self.a).max())
        v = math.log(float(torch.exp(10 * self.a).sum()) * (sf - 1)) if sf > 1 else -math.inf
        self.dominated.append(v > highest)
        new = min(10.0, max(-10.0, max(highest, v) / 10))
        new_index = len(self.bank) - 1
        for index, entry in enumerate(self.bank[1:]):
            similar = [
                float(functional.cosine_similarity(entry[key][part], before[key][part], dim=0))
                for part in (0, 1)
                for key in self.keys
            ]
            self.matrix[index, new_index] = sum(similar) / len(similar)
        self.bank.append(before)
        self.a = torch.cat([self.a, torch.tensor([new], dtype=torch.float64)])
        self.compensate(before)

    def compensate(self, before: Norms) -> None:
        after = self.effective()
        self.residual = {
            key: tuple(self.residual[key][p] + before[key][p] - after[key][p] for p in (0, 1))
            for key in self.keys
        }  # type: ignore[assignment]

    # §7.5

    def vector(self) -> Any:
        if self.h is None or self.k.shift == "none":
            return torch.zeros(WIDTH, dtype=torch.float64)
        target = self.source_mean[-WIDTH:] if self.k.shift == "vector" else self.source_mean[-1]
        return target - self.h

    def split(self, flat: Any) -> Norms:
        parts = iter(flat[: 2 * len(self.keys) * WIDTH].reshape(-1, WIDTH))
        return {key: (next(parts), next(parts)) for key in self.keys}

    def moved(self, base: Norms, sign: float, by: Norms) -> Norms:
        return {key: tuple(base[key][p] + sign * self.k.c * by[key][p] for p in (0, 1)) for key in self.keys}  # type: ignore[return-value]

    @torch.no_grad()
    def step(self, pixels: Any, draw: Callable[[int, int], Any]) -> tuple[Any, float]:
        k = self.k
        d = self.vector()  # 1
        tokens, features = self.forward(pixels, self.effective())  # 2
        changed = self.check_domain(tokens, k.steps * (1 + k.sp_avg * (2 if k.two_sided else 1)))
        if changed:
            self.save()
            self.h, self.recent = None, []
            if not k.shift_new:
                d = torch.zeros_like(d)
        first = base = self.loss(features)
        m = features[:, -1].mean(0)
        for update in range(k.steps):  # 3 to 5
            if update:
                base = self.loss(self.forward(pixels, self.effective())[1])
            self.update(pixels, base, [draw(update * k.sp_avg + j, len(self.a)) for j in range(k.sp_avg)])
        self.h = m if self.h is None else k.shift_keep * self.h + (1 - k.shift_keep) * m  # 6
        self.recent = (self.recent + list(features))[-k.window :] if k.window else []
        self.changes.append(changed)
        return self.vit.head(features[:, -1] + d)[:, self.classes], first  # 7

    def update(self, pixels: Any, base: float, draws: list[Any]) -> None:
        k, several = self.k, len(self.bank) > 1
        size = 2 * len(self.keys) * WIDTH
        theta = [torch.zeros(size, dtype=torch.float64), torch.zeros(len(self.a), dtype=torch.float64)]
        for flat in draws:
            by, by_a = self.split(flat), flat[size:]

            def loss(sign: float, by: Norms = by, by_a: Any = by_a) -> float:
                a = self.a + sign * k.c_a * by_a if several else self.a
                change = self.effective(a, self.moved(self.residual, sign, by))
                return self.loss(self.forward(pixels, change)[1])

            rise = (loss(1.0) - loss(-1.0)) / 2 if k.two_sided else loss(1.0) - base
            theta[0] += rise / (k.c * flat[:size]) / len(draws)
            if several:
                theta[1] += rise / (k.c_a * by_a) / len(draws)
        slopes = self.split(theta[0])
        self.residual = {
            key: tuple(
                self.residual[key][p] - k.lr * (slopes[key][p] + k.wd * self.residual[key][p]) for p in (0, 1)
            )
            for key in self.keys
        }  # type: ignore[assignment]
        if several:
            g = theta[1]
            self.a = self.a * (1 - k.lr_a * k.wd_a) - k.lr_a * g / (g.abs() + 1e-8)

    def flat(self, norms: Norms) -> NDArray[Any]:
        return torch.cat([part for key in self.keys for part in norms[key]]).numpy()


@dataclass(frozen=True)
class Setting:
    """One model, in PyTorch and exported."""

    vit: Any
    network: Network
    to_pixels: Callable[[ImageArray], Any]
    source: tuple[Any, Any]


@pytest.fixture(scope="module")
def setting(
    tmp_path_factory: pytest.TempPathFactory,
    randomised_vit: Callable[..., Any],
    normalisation: tuple[tuple[float, ...], tuple[float, ...]],
    save_graph: Callable[..., None],
) -> Setting:
    vit = randomised_vit(WIDTH, DEPTH, CLASSES, seed=7, head_gain=1.5)
    path = tmp_path_factory.mktemp("reference") / "model.onnx"
    save_graph(vit, path, norms=True)
    mean, std = (torch.tensor(values, dtype=torch.float64).view(3, 1, 1) for values in normalisation)

    def to_pixels(images: ImageArray) -> Any:
        return (torch.from_numpy(images.copy()).permute(0, 3, 1, 2).double() / 255 - mean) / std

    head = [vit.head.weight.detach().numpy().copy(), vit.head.bias.detach().numpy().copy()]
    vit = vit.double()
    zero = torch.zeros(CLASSES)
    plain = Reference(vit, (zero, zero), 0.0, Knobs(), None)
    with torch.no_grad():
        flat = plain.forward(to_pixels(images_of("S", 200, seed=77)), {})[1].flatten(1)
    # Sources of a model that saw cleaner images: something to be aligned with.
    source = flat.mean(0).float().double(), flat.std(0, unbiased=True).float().double()
    stored = [value.float().numpy().reshape(DEPTH, WIDTH) for value in source]
    info = ModelInfo(
        "reference",
        "reference",
        DEPTH,
        WIDTH,
        1 + 16,
        0.0625,
        head[0],
        head[1],
        SourceStatistics(stored[0], stored[1], 200),
        tunables=("prompts", "norms"),
        norms={f"blocks.{block}.norm{which}": WIDTH for block in range(DEPTH) for which in (1, 2)},
    )
    return Setting(vit, Network(path, info, workers=1), to_pixels, source)


def images_of(domain: str, count: int, seed: int) -> ImageArray:
    """Images of one of five domains, which differ in colour, contrast and noise."""
    colour, contrast, noise = {
        "S": ((120, 120, 120), 45, 5),
        "A": ((60, 60, 90), 25, 5),
        "B": ((200, 120, 60), 10, 30),
        "C": ((120, 220, 220), 40, 10),
        "D": ((30, 160, 40), 8, 60),
    }[domain]
    generator = np.random.default_rng([seed, ord(domain)])
    coarse = generator.normal(0, contrast, (count, 4, 4, 3)).repeat(8, axis=1).repeat(8, axis=2)
    noisy = np.array(colour) + coarse + generator.normal(0, noise, coarse.shape)
    made: ImageArray = np.clip(noisy, 0, 255).astype(np.uint8)
    return made


def close(ours: Any, theirs: Any, what: str, tolerance: float) -> None:
    """Within the tolerance of the largest entry: single entries may be near zero by chance."""
    expected = np.asarray(theirs, dtype=np.float64)
    assert np.shape(ours) == expected.shape, what
    scale = float(np.abs(expected).max()) if expected.size else 1.0
    np.testing.assert_allclose(ours, expected, rtol=0, atol=tolerance * scale, err_msg=what)


def compare(
    setting: Setting,
    method: Zoa,
    knobs: Knobs,
    classes: tuple[int, ...] | None = None,
    stream: str = STREAM,
    sizes: tuple[int, ...] = (64,),
) -> Reference:
    network = setting.network if classes is None else setting.network.select(classes)
    state = method.bind(network.info).init(SEED)
    reference = Reference(setting.vit, setting.source, float(state.bank.coefficients[0]), knobs, classes)
    assert len(state.bank.residual) == 2 * len(reference.keys) * WIDTH
    for index, domain in enumerate(stream):
        images = images_of(domain, sizes[index % len(sizes)], seed=index)

        def draw(sample: int, coefficients: int, step: int = index) -> Any:
            # Without entries the engine draws nothing for the coefficients, which have no effect then.
            size = len(state.bank.residual) + (coefficients if coefficients > 1 else 0)  # noqa: B023
            return torch.from_numpy(draw_segmented_direction(SEED, step, sample, size)).double()

        expected, loss = reference.step(setting.to_pixels(images), draw)
        prediction, state = step_on(network, method, state, images)
        where = f" after batch {index}"
        assert bool(prediction.diagnostics["domain_changed"]) == reference.changes[-1], where
        assert prediction.logits.shape == (len(images), len(reference.classes))
        close(prediction.logits, expected.numpy(), "logits" + where, 1e-3)
        close(prediction.loss, loss, "loss" + where, 1e-4)
        close(state.bank.residual, reference.flat(reference.residual), "residual" + where, 1e-2)
        close(state.bank.coefficients, reference.a.numpy(), "coefficients" + where, 1e-3)
        count = len(reference.bank) - 1
        assert len(state.bank.entries) == count, where
        for ours, theirs in zip(state.bank.entries, reference.bank[1:], strict=True):
            close(ours, reference.flat(theirs), "entries" + where, 1e-2)
        close(state.bank.similarity, reference.matrix[:count, :count].numpy(), "similarity" + where, 1e-2)
        close(state.center, reference.h.numpy(), "center" + where, 1e-3)
        assert bool(state.domain.statistics.size) == (reference.domain is not None), where
        if reference.domain is not None:
            close(state.domain.statistics[0], reference.domain[0].numpy(), "domain mean" + where, 1e-4)
            # The engine's variance is the biased one, over 16 positions of each image.
            biased = 1.1 / (16 * method.domain_min_batch)
            close(state.domain.statistics[1], reference.domain[1].numpy(), "domain variance" + where, biased)
        assert state.domain.hold_off == reference.quiet
        assert state.domain.pool_images == sum(map(len, reference.pool))
    return reference


def test_defaults(setting: Setting) -> None:
    reference = compare(setting, Zoa(**SETTINGS), Knobs())
    assert reference.changes == [False, *(a != b for a, b in itertools.pairwise(STREAM))]
    assert len(reference.removed) == 4 and len(set(reference.removed)) > 1
    assert set(reference.dominated) == {True, False}  # both ways to a new coefficient


# In batches of 16 images, to be quick.
CASES: dict[str, tuple[dict[str, Any], Knobs]] = {
    "first-block": ({"first_block": 2}, Knobs(min_batch=16, blocks=(2,))),
    "frozen-last-blocks": ({"frozen_last_blocks": 1}, Knobs(min_batch=16, blocks=(1, 2, 3, 4))),
    "samples": ({"samples": 3}, Knobs(min_batch=16, sp_avg=3)),
    "two-sided": ({"estimator": "two_sided"}, Knobs(min_batch=16, two_sided=True)),
    "two-sided-samples": (
        {"estimator": "two_sided", "samples": 2},
        Knobs(min_batch=16, two_sided=True, sp_avg=2),
    ),
    "updates": ({"updates": 2, "samples": 2}, Knobs(min_batch=16, steps=2, sp_avg=2)),
    "discrepancy-weight": ({"discrepancy_weight": 10.0}, Knobs(min_batch=16, lam=10)),
    "rate": ({"rate": 5e-4}, Knobs(min_batch=16, lr=5e-4)),
    "perturbation": ({"perturbation": 0.04}, Knobs(min_batch=16, c=0.04)),
    "weight-decay": ({"weight_decay": 40.0}, Knobs(min_batch=16, wd=40)),
    "mixture-rate": ({"mixture_rate": 0.02}, Knobs(min_batch=16, lr_a=0.02)),
    "mixture-perturbation": ({"mixture_perturbation": 0.1}, Knobs(min_batch=16, c_a=0.1)),
    "mixture-decay": ({"mixture_decay": 5.0}, Knobs(min_batch=16, wd_a=5)),
    "bank-limit": ({"bank_limit": 2}, Knobs(min_batch=16, max_bank=2)),
    "similarity": ({"similarity": "official"}, Knobs(min_batch=16, compact=False)),
    "domain-threshold": ({"domain_threshold": 8.0}, Knobs(min_batch=16, domain_t=8)),
    "domain-min-batch": ({"domain_min_batch": 30}, Knobs(min_batch=30)),
    "domain-small-batches": (
        {"domain_small_batches": "skip", "domain_min_batch": 17},
        Knobs(min_batch=17, pool_small=False),
    ),
    "domain-update": ({"domain_update": "once"}, Knobs(min_batch=16, twice=False)),
    "domain-decay": ({"domain_decay": 0.5}, Knobs(min_batch=16, domain_keep=0.5)),
    "domain-hold-off": ({"domain_hold_off": 2}, Knobs(min_batch=16, hold_off=2)),
    "shift-scalar": ({"shift": "official_scalar"}, Knobs(min_batch=16, shift="scalar")),
    "shift-none": ({"shift": "none"}, Knobs(min_batch=16, shift="none")),
    "shift-on-change": ({"shift_on_change": "none"}, Knobs(min_batch=16, shift_new=False)),
    "shift-decay": ({"shift_decay": 0.5}, Knobs(min_batch=16, shift_keep=0.5)),
    "window": ({"window": 24}, Knobs(min_batch=16, window=24)),
}


@pytest.mark.parametrize("case", CASES)
def test_options(setting: Setting, case: str) -> None:
    changes, knobs = CASES[case]
    method = Zoa(**{**SETTINGS, "domain_min_batch": 16, **changes})
    compare(setting, method, knobs, sizes=(16,))
    with pytest.raises(AssertionError):  # the comparison notices this option
        compare(setting, method, Knobs(min_batch=16), sizes=(16,))


def test_every_option_is_compared() -> None:
    assert {name for changes, _ in CASES.values() for name in changes} == {
        field.name for field in fields(Zoa)
    }


def test_class_mask(setting: Setting) -> None:
    """§1.5: the mask acts on the logits before entropy and softmax."""
    compare(setting, Zoa(**SETTINGS), Knobs(), SUBSET, stream="AABBC")


@pytest.mark.parametrize("small_batches", ["accumulate", "skip"])
def test_ragged_batches(setting: Setting, small_batches: Any) -> None:
    """A large batch is checked alone; smaller ones together, or not at all."""
    method = Zoa(**SETTINGS, domain_small_batches=small_batches, domain_min_batch=40)
    knobs = Knobs(pool_small=small_batches == "accumulate", min_batch=40)
    reference = compare(setting, method, knobs, stream="AAAABBBBCCCC", sizes=(64, 16, 30, 7))
    assert sum(reference.changes) == 2


def test_small_batches(setting: Setting) -> None:
    """Batches of a few images and of one, with statistics of a window and domains told apart together."""
    method = Zoa(**{**SETTINGS, "rate": 5e-4}, domain_min_batch=10, window=24)
    knobs = Knobs(lr=5e-4, min_batch=10, window=24)
    reference = compare(setting, method, knobs, stream="A" * 9 + "B" * 9 + "C" * 9, sizes=(4, 1, 2))
    assert sum(reference.changes) >= 2
