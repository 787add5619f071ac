"""Tuning of the image side against second versions in PyTorch, from the same random numbers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from clip_doubles import (
    END,
    IMAGE,
    START,
    TEXT,
    describe_family,
    draw_classifier,
    draw_texts,
    encode_images,
    encode_texts,
    make_clip,
    make_family,
    pad_texts,
)
from decoder_doubles import load_parameters, make_decoder, read_moments, run_decoder
from fozo.engine.model import FloatArray, ImageArray
from fozo.engine.runtime.image_decoder import DecoderLayout, choose_layout, draw_parameters
from fozo.engine.runtime.network import Network
from fozo.engine.search.cma import ask, start_search, tell
from fozo.engine.search.spsa import draw_gaussian_direction, draw_segmented_direction
from fozo.engine.tuning.bar import Bar, choose_frame, draw_border, make_published_schedule
from fozo.engine.tuning.blackvip import Blackvip
from fozo.engine.tuning.bpt import Bpt, draw_projection, draw_visual_projection
from fozo.eval.tuning.image_questions import (
    make_border_question,
    make_decoder_question,
    make_prompt_question,
)
from vit_doubles import MEAN, STD

torch = pytest.importorskip("torch", reason="export needs PyTorch")

from fozo.export.clip_family import ClipFamily  # noqa: E402
from fozo.export.text_graph import build_text_graph  # noqa: E402
from fozo.export.text_model import read_text_tower  # noqa: E402
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


# --- bpt with prompts of the image tower ---


def test_bpt_with_visual_prompts(model: Any, network: Network, tmp_path: Path) -> None:
    """Solutions are drawn and told here as in the method; their losses come from open_clip's modules."""
    texts, vectors, dimension, population, steps = draw_texts(GENERATOR, [3, 1, 5, 2, 4]), 3, 7, 6, 5
    onnx.save(build_text_graph(read_text_tower(model, START, END)), tmp_path / "text.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "text.onnx", providers=["CPUExecutionProvider"])

    class Encoder:
        """A text encoder of exported texts."""

        entry = SimpleNamespace(logit_scale=10.0)

        def encode(self, tokens: Any, contexts: FloatArray) -> FloatArray:
            units: FloatArray = session.run(["embeddings"], {**pad_texts(tokens), "contexts": contexts})[0]
            return units

    projection = draw_projection(SEED, (vectors, TEXT["width"]), dimension, 0.3, 1.0)
    weights = model.visual.conv1.weight.detach().numpy()
    visual = draw_visual_projection(
        SEED, (2, IMAGE["width"]), dimension, weights.mean() * dimension / 3072, weights.std() / 20, 1.0
    )
    method = Bpt(projection, population, visual=visual)
    ask_losses = make_prompt_question(network, Encoder(), SimpleNamespace(tokens=texts), 4)  # type: ignore[arg-type]
    question = ask_losses(split(IMAGES), LABELS)
    start = GENERATOR.normal(0, 0.1, (vectors, TEXT["width"])).astype(np.float32)
    state = method.init(start, SEED)
    search, best = start_search(2 * dimension, 1.0, "identity"), (np.inf, start, visual[:, :, 0])
    for step in range(steps):
        state, record = method.step(state, question)
        solutions = ask(search, SEED, step, population)
        contexts = start + (solutions[:, :dimension] @ projection.T).reshape(-1, *start.shape)
        prompts = np.stack([visual @ y for y in solutions[:, dimension:]])
        fitness = [
            compute_epoch_loss(model, texts, context.astype(np.float32), prompt.astype(np.float32))
            for context, prompt in zip(contexts, prompts, strict=True)
        ]
        search = tell(search, solutions, np.asarray(fitness), population)
        best = min(best, *zip(fitness, contexts, prompts, strict=True), key=lambda entry: entry[0])
        assert record.loss == pytest.approx(np.mean(fitness), rel=1e-4)
        np.testing.assert_allclose(state.search.mean, search.mean, rtol=1e-6)
    np.testing.assert_allclose(state.values, best[1], atol=1e-4)
    np.testing.assert_allclose(state.prompts, best[2], atol=1e-4)
    assert state.best_loss == pytest.approx(best[0], rel=1e-4)


def compute_epoch_loss(model: Any, texts: Any, context: FloatArray, prompts: FloatArray) -> float:
    """Return the mean cross-entropy over the two full batches of four images."""
    images = torch.from_numpy(encode_images(model, IMAGES, prompts[None]))
    logits = 10 * images @ torch.from_numpy(encode_texts(model, context[None], texts)[0]).T
    labels = torch.from_numpy(LABELS)
    halves = [F.cross_entropy(logits[rows], labels[rows]) for rows in (slice(0, 4), slice(4, 8))]
    return float(sum(halves) / 2)


def test_prompts_of_the_first_generation_spread_as_published() -> None:
    """The map has the mean `3072 µ / N` and the standard deviation `σ s √(3072 / N)`."""
    projection = draw_visual_projection(1, (5, 64), 500, mean=0.002, std=0.01, sigma=2.0)
    assert projection.mean() == pytest.approx(0.002 * 3072 / 500, rel=0.05)
    assert projection.std() == pytest.approx(0.01 * np.sqrt(3072 / 500) * 2, rel=0.01)


def test_the_manifest_tells_how_the_weights_of_patches_spread(model: Any) -> None:
    fields, weights = make_family(model).describe({}), model.visual.conv1.weight.detach().numpy()
    assert fields["patch_mean"] == pytest.approx(weights.mean(dtype=np.float64))
    assert fields["patch_std"] == pytest.approx(weights.std(dtype=np.float64))


# --- blackvip ---


def test_blackvip(model: Any, network: Network) -> None:
    """The decoder, its batch norms and the momentum are PyTorch's; directions are the same."""
    layout, steps, scale = choose_layout(IMAGE["width"], (SIDE, SIDE)), 4, np.asarray(STD, np.float32)
    start = draw_parameters(layout, SEED)

    def encode(images: ImageArray) -> FloatArray:
        features: FloatArray = network(images).features[:, -2, : layout.features]
        return features

    method = Blackvip(layout, pairs=3)
    batch = make_decoder_question(network, encode, scale)(split(IMAGES), LABELS)
    state, losses, norms = method.init(start, SEED), [], []
    for _ in range(steps):
        state, record = method.step(state, batch)
        losses.append(record.loss)
        norms.append(record.gradient_norm)
    values, moments, expected = run_blackvip(model, layout, start, steps)
    np.testing.assert_allclose(losses, [loss for loss, _ in expected], rtol=1e-3)
    np.testing.assert_allclose(norms, [norm for _, norm in expected], rtol=0.02)
    moved = np.abs(values - start).max()
    assert np.abs(state.values - values).max() < 0.03 * moved and moved > 0.05
    np.testing.assert_allclose(state.moments.mean, moments[0], rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(state.moments.variance, moments[1], rtol=1e-3, atol=1e-4)


def run_blackvip(
    model: Any, layout: DecoderLayout, start: FloatArray, steps: int
) -> tuple[FloatArray, list[FloatArray], list[tuple[float, float]]]:
    """Return parameters, running moments, and loss and length of the gradient in each step."""
    body, labels, tower = make_decoder(layout, start), torch.from_numpy(LABELS), model.visual
    x = torch.from_numpy(IMAGES).float() / 255
    normalised = ((x - torch.tensor(MEAN)) / torch.tensor(STD)).permute(0, 3, 1, 2)
    lowest, highest = (
        ((value - torch.tensor(MEAN)) / torch.tensor(STD)).view(1, 3, 1, 1) for value in (0.0, 1.0)
    )
    tokens: list[Any] = []
    hook = tower.ln_post.register_forward_hook(lambda _m, _i, output: tokens.append(output))
    with torch.no_grad():
        model.encode_image(normalised)
    hook.remove()
    features = tokens[0] if tokens[0].ndim == 2 else tokens[0][:, 0]

    def compute_loss(values: Any) -> float:
        load_parameters(body, layout, values.numpy())
        prompts = run_decoder(body, layout, values.numpy(), features.numpy())
        prompted = normalised + torch.from_numpy(prompts).permute(0, 3, 1, 2)
        prompted = torch.minimum(torch.maximum(prompted, lowest), highest)
        logits = model.encode_image(prompted, normalize=True) @ torch.from_numpy(CLASSIFIER).T
        return float(F.cross_entropy(logits, labels))

    w, momentum, records = torch.from_numpy(start).double(), torch.zeros(len(start)).double(), []
    with torch.no_grad():
        for t in range(1, steps + 1):
            size, estimates, losses = 0.01 / t**0.1, [], []
            for pair in range(3):
                delta = torch.from_numpy(draw_segmented_direction(SEED, t - 1, pair, len(start))).double()
                losses += [compute_loss(w + size * delta), compute_loss(w - size * delta)]
                estimates.append((losses[-2] - losses[-1]) / (2 * size * delta))
            gradient = torch.stack(estimates).mean(0)
            momentum = 0.8 * momentum + gradient if t > 1 else gradient
            w = w - 0.01 / (t + 1) ** 0.4 * (gradient + 0.8 * momentum)
            records.append((float(np.mean(losses)), float(gradient.norm())))
    return w.numpy(), read_moments(body), records
