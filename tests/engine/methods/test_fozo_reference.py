"""FOZO against eager PyTorch written from docs/specification.md §1 and §6, on a real exported graph.

The reference follows the numbering of the specification and shares no code with the engine. Both get the
same directions and the same initial prompts; everything else is computed twice.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from doubles import step_on
from fozo.engine.methods.fozo import Fozo, FozoState
from fozo.engine.model import ImageArray, ModelInfo, SourceStatistics
from fozo.engine.runtime.network import Network
from fozo.engine.search.spsa import draw_gaussian_direction
from numpy.typing import NDArray

WIDTH, DEPTH, CLASSES, SEED = 64, 4, 20, 2000
BATCHES = (12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 5)
SPIKE_AT = 8  # in the middle: the schedule has come down, and there is time to recover
RTOL = 1e-3
SUBSET = (17, 3, 4, 11, 8, 0)


@dataclass(frozen=True)
class Knobs:
    """The choices of §6.6 and §6.7, in the words of the specification; defaults are the released code."""

    lam: float = 0.4
    shift: str = "official_sum"
    gain: float = 1.0
    inclusive: bool = False
    hist_keep: float = 0.9
    entropy_shifted: bool = True
    norm: str = "sum of squares"
    per_image: bool = False
    window: int = 0
    output: str = "best"
    new_rate: bool = True
    drive: str = "min"
    eps0: float = 0.5
    eps_min: float = 0.2
    eps_factor: float = 0.9
    lr: float = 0.08
    lr_min: float = 0.1
    lr_max: float = 3.0
    lr_step: float = 0.1
    lr_factor: float = 0.7
    beta: float = 0.9
    tau: float = 1.05


class Reference:
    """FOZO step by step as §6.4 numbers it, one plain forward per candidate, losses in float64."""

    def __init__(
        self, vit: Any, source: tuple[Any, Any], prompts: Any, knobs: Knobs, classes: tuple[int, ...] | None
    ) -> None:
        self.vit = vit
        self.source_mean, self.source_std = source
        self.prompts = prompts.clone()
        self.k = knobs
        self.classes = list(range(CLASSES)) if classes is None else list(classes)
        self.eps, self.lr = knobs.eps0, knobs.lr
        self.average: float | None = None
        self.hist: Any = None
        self.spikes: list[bool] = []
        self.seen: list[Any] = []  # features of each image before, averaged over the candidates

    @staticmethod
    def features(vit: Any, pixels: Any, prompts: Any) -> Any:
        """§1.1: `[B, L, D]`."""
        tokens = vit.patch_embed(pixels)
        tokens = torch.cat([vit.cls_token.expand(len(pixels), 1, WIDTH), tokens], dim=1) + vit.pos_embed
        prompts = prompts.unsqueeze(0).expand(len(pixels), -1, -1)
        x = torch.cat([tokens[:, :1], prompts, tokens[:, 1:]], dim=1)
        out = []
        for i, block in enumerate(vit.blocks):
            x = block(x)
            norm = vit.blocks[i + 1].norm1 if i + 1 < len(vit.blocks) else vit.norm
            out.append(norm(x[:, 0]))
        return torch.stack(out, dim=1)

    def _distance(self, difference: Any) -> Any:
        if self.k.norm == "sum of squares":
            return (difference**2).sum()
        if self.k.norm == "mean of squares":
            return (difference**2).mean()
        layers = difference.reshape(DEPTH, WIDTH)
        groups = layers if self.k.norm == "norm per layer" else [layers[: DEPTH // 2], layers[DEPTH // 2 :]]
        return sum(torch.linalg.vector_norm(group) for group in groups)

    def _discrepancy(self, flat: Any) -> Any:
        total = self._distance(flat.mean(0) - self.source_mean)
        if len(flat) > 1:  # no standard deviation of one image
            total = total + self._distance(flat.std(0, unbiased=True) - self.source_std)
        return total

    def _loss(self, features: Any, shift: Any) -> tuple[Any, float]:
        """§6.3, with the class mask of §1.5."""
        count = len(features)
        last = features[:, -1]
        plain = self.vit.head(last)[:, self.classes]
        moved = self.vit.head(last + shift.float())[:, self.classes]
        scored = (moved if self.k.entropy_shifted else plain).double()
        entropies = -(scored.softmax(-1) * scored.log_softmax(-1)).sum(-1)
        before = self.seen[max(0, len(self.seen) + count - self.k.window) :] if self.k.window else []
        distance = self._discrepancy(torch.stack([*before, *features.flatten(1).double()]))
        if self.k.per_image:  # per image, scaled to a batch of 64
            return moved, float(self.k.lam * distance + 64 * entropies.mean())
        return moved, float(self.k.lam * distance * count / 64 + entropies.sum())

    def _vector(self, hist: Any) -> Any:
        if hist is None or self.k.shift == "none":
            return torch.zeros(WIDTH, dtype=torch.float64)
        target = 0 if self.k.shift == "origin" else self.source_mean[-WIDTH:]
        return self.k.gain * (target - hist)

    @torch.no_grad()
    def step(self, pixels: Any, directions: list[Any]) -> tuple[Any, float]:
        k = self.k
        signs = [(z, sign) for z in directions for sign in (1.0, -1.0)]
        outs = [self.features(self.vit, pixels, self.prompts + sign * self.eps * z) for z, sign in signs]
        means = [out[:, -1].double().mean(0) for out in outs]
        average = sum(means) / len(means)
        fresh = 2 * average if k.shift == "official_sum" else average  # 9
        hist = fresh if self.hist is None else k.hist_keep * self.hist + (1 - k.hist_keep) * fresh
        shift = self._vector(hist if k.inclusive else self.hist)  # 1
        scored = [self._loss(out, shift) for out in outs]  # 2
        losses = [loss for _, loss in scored]
        slopes = [(p - m) / (2 * self.eps) for p, m in zip(losses[::2], losses[1::2], strict=True)]
        logits, best = scored[0]
        for candidate, loss in scored[1:]:
            if loss < best:
                logits, best = candidate, loss
        if k.output == "mean":
            logits = torch.stack([candidate for candidate, _ in scored]).mean(0)
        if k.output == "clean":
            logits = self._loss(self.features(self.vit, pixels, self.prompts), shift)[0]
        loss = best if k.drive == "min" else sum(losses) / len(losses)  # 3
        self.average = loss if self.average is None else k.beta * self.average + (1 - k.beta) * loss  # 4
        before = self.lr
        self.eps, self.lr = self.eps * k.eps_factor, self.lr * k.lr_factor  # 5
        spike = loss > k.tau * self.average  # 6
        if spike:
            self.eps, self.lr = k.eps0, k.lr_min
        else:
            self.lr = min(k.lr_max, self.lr + k.lr_step)
        self.eps = min(max(self.eps, k.eps_min), k.eps0)  # 7
        self.lr = min(max(self.lr, k.lr_min), k.lr_max)
        rate = self.lr if k.new_rate else before
        gradient = sum(g * z for g, z in zip(slopes, directions, strict=True)) / len(directions)
        self.prompts = self.prompts - rate * gradient  # 8
        self.hist = hist
        self.seen.extend(torch.stack(outs).double().mean(0).flatten(1))
        self.spikes.append(spike)
        return logits, loss  # 10


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
    save_graph: Callable[[Any, Path], None],
) -> Setting:
    vit = randomised_vit(WIDTH, DEPTH, CLASSES, seed=7, head_gain=1.5)
    path = tmp_path_factory.mktemp("reference") / "model.onnx"
    save_graph(vit, path)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in normalisation)

    def to_pixels(images: ImageArray) -> Any:
        return (torch.from_numpy(images.copy()).permute(0, 3, 1, 2).float() / 255 - mean) / std

    with torch.no_grad():
        clean = to_pixels(usual_images(40, seed=77, brightness=150))
        flat = Reference.features(vit, clean, torch.zeros(0, WIDTH)).flatten(1).double()
    source = flat.mean(0), flat.std(0, unbiased=True)
    stored = [value.float().numpy().reshape(DEPTH, WIDTH) for value in source]
    info = ModelInfo(
        "reference",
        "reference",
        DEPTH,
        WIDTH,
        1 + 16,
        0.0625,
        vit.head.weight.detach().numpy(),
        vit.head.bias.detach().numpy(),
        SourceStatistics(stored[0], stored[1], 40),
    )
    return Setting(vit, Network(path, info, workers=1), to_pixels, source)


def usual_images(count: int, seed: int, brightness: float = 110) -> ImageArray:
    """Smooth, low in contrast."""
    generator = np.random.default_rng(seed)
    coarse = generator.normal(brightness, 25, (count, 4, 4, 3)).repeat(8, axis=1).repeat(8, axis=2)
    noisy: ImageArray = np.clip(coarse + generator.normal(0, 8, coarse.shape), 0, 255).astype(np.uint8)
    return noisy


def strange_images(count: int, seed: int) -> ImageArray:
    """Nearly the same image many times, saturated: far from the source in mean and in spread."""
    generator = np.random.default_rng(seed)
    board = np.indices((32, 32)).sum(axis=0) % 2 * 255
    images = np.broadcast_to(board[None, :, :, None] * np.array([1, 0, 1]), (count, 32, 32, 3)).copy()
    images[:, :8, :8] = generator.integers(0, 255, (count, 1, 1, 3))
    strange: ImageArray = images.astype(np.uint8)
    return strange


def stream(sizes: tuple[int, ...]) -> list[ImageArray]:
    return [
        strange_images(size, index) if index == SPIKE_AT else usual_images(size, index)
        for index, size in enumerate(sizes)
    ]


def close(ours: float | NDArray[Any] | None, theirs: Any, what: str) -> None:
    """Within RTOL of the largest entry: single entries of an array may be near zero by chance."""
    assert ours is not None
    expected = np.asarray(theirs, dtype=np.float64)
    scale = float(np.abs(expected).max()) if expected.size else 1.0
    np.testing.assert_allclose(ours, expected, rtol=RTOL, atol=RTOL * scale, err_msg=what)


def compare(
    setting: Setting,
    method: Fozo,
    knobs: Knobs,
    classes: tuple[int, ...] | None = None,
    sizes: tuple[int, ...] = BATCHES,
) -> Reference:
    network = setting.network if classes is None else setting.network.select(classes)
    state: FozoState = method.bind(network.info).init(SEED)
    start = state.prompts.copy()
    assert start.shape == (method.prompts, WIDTH)
    reference = Reference(setting.vit, setting.source, torch.from_numpy(start.copy()), knobs, classes)
    for index, images in enumerate(stream(sizes)):
        directions = [draw_gaussian_direction(SEED, index, j, start.shape) for j in range(method.samples)]
        expected, loss = reference.step(
            setting.to_pixels(images), [torch.from_numpy(direction) for direction in directions]
        )
        prediction, state = step_on(network, method, state, images)
        where = f" after batch {index}"
        close(prediction.logits, expected.numpy(), "logits" + where)
        close(prediction.loss, loss, "loss" + where)
        close(state.schedule.loss_average, reference.average, "loss average" + where)
        close(state.schedule.epsilon, reference.eps, "epsilon" + where)
        close(state.schedule.rate, reference.lr, "rate" + where)
        close(state.prompts, reference.prompts.numpy(), "prompts" + where)
        if method.shift != "none":
            close(state.center, reference.hist.numpy(), "center" + where)
        assert prediction.logits.shape == (len(images), len(reference.classes))
        assert prediction.diagnostics["spike"] == reference.spikes[-1]
    moved = reference.prompts.numpy() - start
    assert not moved.size or np.abs(moved).mean() > 0.02, "the comparison is empty if prompts stand still"
    return reference


def assert_both_branches(reference: Reference) -> None:
    assert reference.spikes[SPIKE_AT], "the stream was made to spike here"
    assert not all(reference.spikes)


def test_released_preset(setting: Setting) -> None:
    reference = compare(setting, Fozo(), Knobs())
    assert_both_branches(reference)
    assert len(reference.spikes) >= 12


CASES: dict[str, tuple[dict[str, Any], Knobs]] = {
    "samples": ({"samples": 3}, Knobs()),
    "shift-source-mean": ({"shift": "source_mean"}, Knobs(shift="source_mean")),
    "shift-origin": ({"shift": "origin"}, Knobs(shift="origin")),
    "shift-none": ({"shift": "none"}, Knobs(shift="none")),
    "shift-gain": ({"shift_gain": 0.35}, Knobs(gain=0.35)),
    "shift-gain-none": ({"shift_gain": 0.0}, Knobs(gain=0.0)),
    "shift-inclusive": ({"shift_update": "inclusive"}, Knobs(inclusive=True)),
    "shift-inclusive-mean": (
        {"shift_update": "inclusive", "shift": "source_mean", "samples": 2},
        Knobs(inclusive=True, shift="source_mean"),
    ),
    "shift-decay": ({"shift_decay": 0.5}, Knobs(hist_keep=0.5)),
    "entropy-unshifted": ({"entropy_on": "unshifted"}, Knobs(entropy_shifted=False)),
    "norm-mean": (
        {"loss_norm": "mean_squared", "discrepancy_weight": 100.0},
        Knobs(norm="mean of squares", lam=100.0),
    ),
    "norm-per-layer": (
        {"loss_norm": "l2_per_layer", "discrepancy_weight": 8.0},
        Knobs(norm="norm per layer", lam=8.0),
    ),
    "norm-groups": (
        {"loss_norm": "l2_groups", "discrepancy_weight": 8.0},
        Knobs(norm="norm per group", lam=8.0),
    ),
    # Sixty-four images' worth of loss for twelve: the rates are lowered so that the steps stay comparable.
    "scale-per-image": (
        {"loss_scale": "per_image", "rate": 0.01, "rate_increase": 0.01, "rate_min": 0.01},
        Knobs(per_image=True, lr=0.01, lr_step=0.01, lr_min=0.01),
    ),
    "window": ({"window": 20}, Knobs(window=20)),
    "window-smaller-than-a-batch": ({"window": 5, "samples": 2}, Knobs(window=5)),
    "output-mean": ({"output": "mean", "samples": 2}, Knobs(output="mean")),
    "output-clean": ({"output": "clean"}, Knobs(output="clean")),
    "rate-previous": ({"update_rate": "previous"}, Knobs(new_rate=False)),
    "schedule-mean": ({"schedule_loss": "mean", "samples": 2}, Knobs(drive="mean")),
    "epsilon": ({"epsilon": 0.4}, Knobs(eps0=0.4)),
    "epsilon-min": ({"epsilon_min": 0.37}, Knobs(eps_min=0.37)),
    "epsilon-decay": ({"epsilon_decay": 0.8}, Knobs(eps_factor=0.8)),
    "rate": ({"rate": 0.3}, Knobs(lr=0.3)),
    "rate-min": ({"rate_min": 0.25}, Knobs(lr_min=0.25)),
    "rate-max": ({"rate_max": 0.2}, Knobs(lr_max=0.2)),
    "rate-increase": ({"rate_increase": 0.03}, Knobs(lr_step=0.03)),
    "rate-decay": ({"rate_decay": 0.4}, Knobs(lr_factor=0.4)),
    "loss-decay": ({"loss_decay": 0.6}, Knobs(beta=0.6)),
    "spike-ratio": ({"spike_ratio": 1.02}, Knobs(tau=1.02)),
    "discrepancy-weight": ({"discrepancy_weight": 1.3}, Knobs(lam=1.3)),
    "discrepancy-alone-off": ({"discrepancy_weight": 0.0}, Knobs(lam=0.0)),
    "prompts-0": ({"prompts": 0}, Knobs()),
    "prompts-1": ({"prompts": 1}, Knobs()),
    "prompts-10": ({"prompts": 10}, Knobs()),
}


@pytest.mark.parametrize("case", CASES)
def test_options(setting: Setting, case: str) -> None:
    changes, knobs = CASES[case]
    reference = compare(setting, replace(Fozo(), **changes), knobs)
    if case != "discrepancy-alone-off":
        assert_both_branches(reference)


def test_every_option_is_compared() -> None:
    """Another generator draws other directions; tests/export/compile compares it with graphs."""
    changed = {name for changes, _ in CASES.values() for name in changes}
    assert changed == {field.name for field in fields(Fozo)} - {"generator"}


@pytest.mark.parametrize("changes", [{}, {"shift": "source_mean", "samples": 2}])
def test_class_mask(setting: Setting, changes: dict[str, Any]) -> None:
    """§1.5: the mask acts on the logits before entropy and softmax."""
    compare(setting, replace(Fozo(), **changes), Knobs(shift=changes.get("shift", "official_sum")), SUBSET)


def test_ragged_batches_down_to_one_image(setting: Setting) -> None:
    """For one image the standard deviation is undefined and only the mean counts."""
    compare(setting, Fozo(), Knobs(), sizes=(12, 7, 2, 1, 1, 12, 3, 1))


@pytest.mark.parametrize("sizes", [(12, 7, 2, 1, 1, 12, 3, 1), (1,) * 14])
def test_windows_of_ragged_batches(setting: Setting, sizes: tuple[int, ...]) -> None:
    """Small batches borrow the images before them; a window is never longer than asked for."""
    small = {
        "rate": 0.002,
        "rate_increase": 0.002,
        "rate_min": 0.002,
    }  # scaled to 64 images, losses are large
    method = replace(Fozo(window=16, loss_scale="per_image"), **small)
    knobs = Knobs(window=16, per_image=True, lr=0.002, lr_step=0.002, lr_min=0.002)
    compare(setting, method, knobs, sizes=sizes)


def test_the_reference_notices_a_difference(setting: Setting) -> None:
    with pytest.raises(AssertionError):
        compare(setting, Fozo(), Knobs(shift="source_mean"))
    with pytest.raises(AssertionError):
        compare(setting, Fozo(), Knobs(lr_step=0.101))
