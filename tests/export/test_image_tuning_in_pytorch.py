"""Tuning of the image side against second versions in PyTorch, from the same random numbers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest
from clip_doubles import IMAGE, describe_family, draw_classifier, make_clip, make_family
from fozo.engine.model import FloatArray, ImageArray
from fozo.engine.runtime.network import Network
from fozo.engine.search.spsa import draw_gaussian_direction
from fozo.engine.tuning.bar import Bar, choose_frame, draw_border, make_published_schedule
from fozo.eval.tuning.image_questions import make_border_question
from vit_doubles import MEAN, STD

torch = pytest.importorskip("torch", reason="export needs PyTorch")

from fozo.export.clip_family import ClipFamily  # noqa: E402
from torch.nn import functional as F  # noqa: E402, N812

SIDE, CLASSES, SEED = IMAGE["image_size"], 5, 3
GENERATOR = np.random.default_rng(0)
IMAGES = GENERATOR.integers(0, 256, (10, SIDE, SIDE, 3), np.uint8)
LABELS = GENERATOR.integers(0, CLASSES, 10)
CLASSIFIER = draw_classifier(np.random.default_rng(1), CLASSES)


@pytest.fixture(scope="module")
def model() -> Any:
    return make_clip()


@pytest.fixture(scope="module")
def network(model: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    """Open the exported image tower with tunable pixels and a fixed classifier."""
    plain = make_family(model)
    family = ClipFamily(model, replace(plain._format, pixels=True), CLASSIFIER)
    path = tmp_path_factory.mktemp("image") / "model.onnx"
    onnx.save(family.build_graph({}), path)
    with Network(path, describe_family(family, {}), workers=1) as opened:
        weight = np.pad(CLASSIFIER, [(0, 0), (0, opened.info.feature_width - CLASSIFIER.shape[1])])
        yield opened.with_classifier(weight)


def split(images: ImageArray) -> list[ImageArray]:
    """Return images in unequal batches, as they come from files."""
    return [images[:7], images[7:]]


def classify(model: Any, pixels: Any) -> Any:
    """Return logits of pixels `[N, H, W, 3]` in 0..1."""
    mean, std = torch.tensor(MEAN), torch.tensor(STD)
    x = ((pixels - mean) / std).permute(0, 3, 1, 2).float()
    return model.encode_image(x, normalize=True) @ torch.from_numpy(CLASSIFIER).T


# --- bar ---


def test_bar(model: Any, network: Network) -> None:
    frame, steps = choose_frame((SIDE, SIDE)), 12
    assert frame == 2
    framed = IMAGES.copy()
    framed[:, :frame] = framed[:, -frame:] = framed[:, :, :frame] = framed[:, :, -frame:] = 0
    method = Bar(frame, make_published_schedule(2.0, 1))
    start = draw_border(SEED, (SIDE, SIDE))
    question = make_border_question(network)(split(framed), LABELS)  # type: ignore[arg-type]
    state, losses = method.init(start, SEED), []
    for _ in range(steps):
        state, record = method.step(state, question)
        losses.append(record.loss)
    values, expected = run_bar(model, start, frame, steps)
    np.testing.assert_allclose(losses, expected, rtol=2e-3)
    assert np.abs(state.values - values).max() < 0.02 * np.abs(values - start).max()
    assert np.ptp(losses) > 0.02 * losses[0]


def run_bar(model: Any, start: FloatArray, frame: int, steps: int) -> tuple[FloatArray, list[float]]:
    """Return w and the losses, published: an image in a frame of zeros, plus a masked border."""
    mask = torch.ones(SIDE, SIDE, 3)
    mask[frame : SIDE - frame, frame : SIDE - frame] = 0
    inside = torch.zeros(len(IMAGES), SIDE, SIDE, 3)
    keep = slice(frame, SIDE - frame)
    inside[:, keep, keep] = torch.from_numpy(IMAGES).float()[:, keep, keep] / 255
    labels, w, losses = torch.from_numpy(LABELS), torch.from_numpy(start.copy()), []

    def compute_loss(values: Any) -> Any:
        log_p = F.log_softmax(classify(model, inside + torch.sigmoid(values) * mask), dim=1)
        ce = F.nll_loss(log_p, labels, reduction="none")
        return ((1 - torch.exp(-ce)) ** 2 * ce).mean()

    with torch.no_grad():
        for t in range(1, steps + 1):
            pivot, gradient = compute_loss(w), torch.zeros_like(w)
            for sample in range(5):
                u = torch.from_numpy(draw_gaussian_direction(SEED, t - 1, sample, w.shape))
                u = u / u.norm()
                gradient += (w.numel() / 5) * u * (compute_loss(w + 0.01 * u) - pivot) / 0.01
            w = w - ((2.0 - 0.1) * (1 - t / 900) ** 0.9 + 0.1) * gradient
            losses.append(float(pivot))
    return w.numpy(), losses
