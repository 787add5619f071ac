"""Heads with something for the images: stored, applied in every forward, and never left out silently."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fozo.data.images import preprocess
from fozo.engine.bundle.bundle import Bundle
from fozo.engine.bundle.head import Head
from fozo.engine.bundle.head_description import describe_heads, list_head_facts
from fozo.engine.bundle.preprocessing import Preprocessing
from fozo.engine.errors import BundleError, InputError
from fozo.engine.model import Coordinator, FloatArray, ImageArray, ImagePrompt, SourceStatistics
from fozo.engine.runtime.image_decoder import Moments, choose_layout, decode, draw_parameters
from fozo.engine.runtime.network import Network
from fozo.engine.runtime.source_statistics import plan_source_batches
from fozo.engine.streams.adapter import Adapter
from PIL import Image
from text_doubles import make_text_bundle

GENERATOR = np.random.default_rng(0)
PIXELS = GENERATOR.uniform(0, 1, (4, 4, 3)).astype(np.float32)
PIXELS[1:-1, 1:-1] = 0
PROMPTS = GENERATOR.normal(0, 50, (2, 3)).astype(np.float32)


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return make_text_bundle(tmp_path, pixels=True)


def make_prompted(bundle: Bundle, prompt: ImagePrompt) -> Head:
    return replace(bundle.load_head("animals"), image_prompt=prompt)


def draw_images(count: int = 3) -> ImageArray:
    """Return images in a black frame of one pixel."""
    images = np.zeros((count, 4, 4, 3), np.uint8)
    images[:, 1:-1, 1:-1] = np.random.default_rng(1).integers(0, 256, (count, 2, 2, 3))
    return images


def test_a_border_is_stored_and_applied(bundle: Bundle) -> None:
    stored = bundle.with_head("border", make_prompted(bundle, ImagePrompt(1, PIXELS)))
    loaded = stored.load_head("border").image_prompt
    assert loaded is not None and (loaded.frame, loaded.prompts) == (1, None)
    np.testing.assert_array_equal(loaded.pixels, PIXELS)
    images = draw_images()
    colours = (images / 255 + PIXELS).mean((1, 2)) * 255
    expected = colours / np.linalg.norm(colours, axis=1, keepdims=True)
    with Network.open(stored, head="border", workers=1) as network, Network.open(stored) as plain:
        np.testing.assert_allclose(network(images).features[:, -1], expected, rtol=1e-5)
        assert np.abs(plain(images).features[:, -1] - expected).max() > 0.01
        view = plain.with_image_prompt(loaded)
        np.testing.assert_array_equal(view(images).logits, network(images).logits)
        added = np.full((1, 4, 4, 3), 0.01, np.float32)
        np.testing.assert_allclose(
            network(images, pixels=added).features, plain(images, pixels=PIXELS + added).features, rtol=1e-6
        )
    assert network.info.identity != plain.info.identity
    adapter = Adapter.open(stored.path, method="no_adapt", head="border")
    np.testing.assert_array_equal(adapter.step(images).logits, view(images).logits)


def test_prompts_stand_in_front_of_others(bundle: Bundle) -> None:
    stored = bundle.with_head("visual", make_prompted(bundle, ImagePrompt(prompts=PROMPTS)))
    images, others = draw_images(), GENERATOR.normal(0, 50, (3, 1, 3)).astype(np.float32)
    with Network.open(stored, head="visual", workers=1) as network, Network.open(stored) as plain:
        np.testing.assert_array_equal(network(images).logits.argmax(1), network(images).logits.argmax(1))
        np.testing.assert_allclose(
            network(images).features, plain(images, prompts=PROMPTS[None]).features, rtol=1e-6
        )
        joined = np.concatenate([np.repeat(PROMPTS[None], 3, axis=0), others], axis=1)
        np.testing.assert_allclose(
            network(images, prompts=others).features, plain(images, prompts=joined).features, rtol=1e-6
        )
    with pytest.raises(InputError, match="expected prompts of type float32"):
        network(images, prompts=np.zeros((1, 2, 4), np.float32))


def test_images_without_the_frame_are_refused(bundle: Bundle) -> None:
    stored = bundle.with_head("border", make_prompted(bundle, ImagePrompt(1, PIXELS)))
    with Network.open(stored, head="border", workers=1) as network:
        for index in ((0, 0, 2, 1), (1, 3, 3, 2), (2, 1, 0, 0), (0, 2, 3, 0)):
            images = draw_images()
            images[index] = 1
            with pytest.raises(InputError, match="in a black frame of 1 pixels"):
                network(images)


def test_files_are_prepared_inside_the_frame(bundle: Bundle) -> None:
    stored = bundle.with_head("border", make_prompted(bundle, ImagePrompt(1, PIXELS)))
    assert stored.manifest.preprocessing.frame == 0
    preprocessing = stored.select_head("border").manifest.preprocessing
    assert preprocessing == replace(stored.manifest.preprocessing, frame=1)
    assert stored.select_head("border").select_head("animals").manifest.preprocessing.frame == 0
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 50, 3), np.uint8))
    prepared = preprocess(photo, preprocessing)
    inside = preprocess(photo, Preprocessing((2, 2), 2, "bilinear"))  # 5 · 2 / 4, halves to even
    np.testing.assert_array_equal(prepared[1:-1, 1:-1], inside)
    assert prepared.sum() == inside.sum() and prepared.shape == (4, 4, 3)


def test_published_sizes_of_the_picture() -> None:
    inside = Preprocessing((224, 224), 224, frame=15).inside
    assert (inside.size, inside.resize, inside.frame) == ((194, 194), 194, 0)
    with pytest.raises(ValueError, match="frame must leave a part"):
        Preprocessing((4, 4), 5, frame=2)


def test_source_statistics_are_of_plain_images(bundle: Bundle) -> None:
    zeros = np.zeros((2, 3), np.float32)
    stored = bundle.with_source("fp32", SourceStatistics(zeros, zeros + 1, 9), "zeros")
    stored = stored.with_head("border", make_prompted(bundle, ImagePrompt(1, PIXELS)))
    assert stored.info("fp32").source is not None
    info = stored.select_head("border").info("fp32")
    with pytest.raises(BundleError, match="those of colours are of plain images"):
        info.require_source("fozo")
    for use in (
        plan_source_batches,
        lambda b, n: b.with_source("fp32", SourceStatistics(zeros, zeros, n), ""),
    ):
        with pytest.raises(BundleError, match="the head border changes them"):
            use(stored.select_head("border"), 9)


def test_refusals(bundle: Bundle, tmp_path: Path) -> None:
    head = make_prompted(bundle, ImagePrompt(1, PIXELS))
    for name, default in (("animals", False), ("border", True)):
        with pytest.raises(BundleError, match="would be used where none is selected"):
            bundle.with_head(name, head, default=default)
    stored = bundle.with_head("border", head)
    with pytest.raises(BundleError, match="no gradients with it"):
        Network(
            stored.graph("fp32"), replace(stored.select_head("border").info("fp32"), gradients=("prompts",))
        )
    plain = make_text_bundle(tmp_path / "plain")
    with pytest.raises(BundleError, match="expected graphs with the input pixels, found prompts"):
        plain.with_head("border", head)
    with Network.open(plain, workers=1) as network, pytest.raises(BundleError, match="again with --pixels"):
        network.with_image_prompt(ImagePrompt(1, PIXELS))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"frame": -1, "pixels": True, "prompts": 0}, "no negative number"),
        ({"frame": 1, "pixels": False, "prompts": 0}, "with pixels or prompts"),
        ({"frame": 1, "pixels": "yes", "prompts": 0}, "pixels"),
        ({"frame": 0, "pixels": True, "prompts": 3}, "prompts of shape"),
    ],
)
def test_damaged_entries(change: dict[str, object], message: str, bundle: Bundle) -> None:
    stored = bundle.with_head("border", make_prompted(bundle, ImagePrompt(1, PIXELS)))
    path = stored.path / "bundle.json"
    content = json.loads(path.read_bytes())
    content["heads"]["border"]["image_prompt"] = change
    path.write_text(json.dumps(content))
    with pytest.raises(BundleError, match=message):
        Bundle.open(stored.path).load_head("border")


def test_a_stored_frame_is_refused(bundle: Bundle) -> None:
    path = bundle.path / "bundle.json"
    content = json.loads(path.read_bytes())
    assert "frame" not in content["preprocessing"]
    content["preprocessing"]["frame"] = 1
    path.write_text(json.dumps(content))
    with pytest.raises(BundleError, match="expected one that leaves images as they are"):
        Bundle.open(bundle.path)


def test_descriptions(bundle: Bundle) -> None:
    stored = bundle.with_head("border", make_prompted(bundle, ImagePrompt(1, PIXELS)))
    lines = describe_heads(stored.manifest)
    assert [line.endswith("a learnt border of 1 pixels") for line in lines] == [False, True]
    facts = list_head_facts(stored.select_head("border").manifest)
    assert facts is not None and facts["image_prompt"] == "a learnt border of 1 pixels"
    assert "image_prompt" not in (list_head_facts(stored.manifest) or {})


# --- coordinators ---

SIDE = 32


def make_coordinator(encoder: Path | None = None, layer: int = -2) -> Coordinator:
    layout = choose_layout(3, (SIDE, SIDE))
    generator = np.random.default_rng(0)
    parameters = draw_parameters(layout, 1).astype(np.float32)
    mean, spread = generator.normal(0, 0.1, (2, layout.norm_channels)).astype(np.float32)
    scale = np.array([0.5, 0.25, 0.2], np.float32)
    return Coordinator(parameters, mean, 1 + spread, scale, layer, 3, encoder)


def compute_pixels(coordinator: Coordinator, features: FloatArray) -> FloatArray:
    layout, moments = choose_layout(3, (SIDE, SIDE)), Moments(coordinator.mean, coordinator.variance)
    return decode(layout, coordinator.parameters, features, moments) * coordinator.scale


@pytest.mark.parametrize("outside", [False, True])
def test_a_coordinator_is_stored_and_applied(outside: bool, tmp_path: Path) -> None:
    bundle = make_text_bundle(tmp_path, pixels=True, side=SIDE)
    encoder = None
    if outside:  # a graph of another bundle, which may be gone afterwards
        encoder = make_text_bundle(tmp_path / "encoder", side=SIDE).graph("fp32")
    coordinator = make_coordinator(encoder, -1 if outside else -2)
    head = replace(bundle.load_head("animals"), image_prompt=ImagePrompt(coordinator=coordinator))
    stored = bundle.with_head("decoder", head)
    if encoder is not None:
        encoder.unlink()
    entry = stored.manifest.heads["decoder"].image_prompt
    assert entry is not None and entry.coordinator is not None
    assert (entry.coordinator.encoder is not None) == outside
    assert "pixels for every image from" in describe_heads(stored.manifest)[1]
    images = np.random.default_rng(2).integers(0, 256, (7, SIDE, SIDE, 3), np.uint8)
    with (
        Network.open(stored, head="decoder", workers=2, micro_batch=2) as network,
        Network.open(stored, workers=1) as plain,
    ):
        outputs = network(images)
        pixels = compute_pixels(coordinator, plain(images).features[:, coordinator.layer])
        np.testing.assert_allclose(outputs.features, plain(images, pixels=pixels).features, rtol=1e-5)
        assert np.abs(outputs.logits - plain(images).logits).max() > 1e-3
        alone = network(images[3:4])  # the means of this graph depend on the batch in their last bits
        np.testing.assert_allclose(alone.logits[0], outputs.logits[3], rtol=1e-4)
        two = network.candidates(images, [{}, {"pixels": np.full((1, SIDE, SIDE, 3), 0.1, np.float32)}])
        np.testing.assert_array_equal(two[0].logits, outputs.logits)
        expected = plain(images, pixels=pixels + np.float32(0.1))
        np.testing.assert_allclose(two[1].features, expected.features, rtol=1e-5)
    again = stored.with_head("other", stored.load_head("decoder"))  # the encoder is kept for both
    assert again.load_head("other").image_prompt is not None
    assert len(again.manifest.encoders) == 2 * outside


def test_coordinators_that_do_not_fit(tmp_path: Path) -> None:
    bundle = make_text_bundle(tmp_path, pixels=True, side=SIDE)
    small = make_text_bundle(tmp_path / "small").graph("fp32")
    with Network.open(bundle, workers=1) as network:
        with pytest.raises(BundleError, match="an encoder of images of 32 x 32"):
            network.with_image_prompt(ImagePrompt(coordinator=make_coordinator(small)))
        short = replace(make_coordinator(), parameters=np.zeros(9, np.float32))
        with pytest.raises(BundleError, match="expected a decoder of"):
            network.with_image_prompt(ImagePrompt(coordinator=short))
    head = replace(
        bundle.load_head("animals"),
        image_prompt=ImagePrompt(coordinator=make_coordinator(tmp_path / "nowhere.onnx")),
    )
    with pytest.raises(BundleError, match="cannot read the encoder"):
        bundle.with_head("decoder", head)
