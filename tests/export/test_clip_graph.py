"""Graph of CLIP's image tower against open_clip with random parameters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from clip_doubles import (
    EMBEDDING,
    describe_family,
    draw_classifier,
    encode_images,
    make_clip,
    make_custom_clip,
    make_family,
    open_clip_network,
    save_image_graph,
)
from fozo import ExportError
from fozo.engine.model import Slopes
from fozo.engine.runtime.network import Network
from fozo.engine.statistics.objective import log_softmax
from vit_doubles import assert_close

torch = pytest.importorskip("torch", reason="export needs PyTorch")

from fozo.export.clip_model import read_image_tower  # noqa: E402
from fozo.export.pull_back import build_pull_back  # noqa: E402
from fozo.export.verify import verify, verify_gradients  # noqa: E402

CLIPS: dict[str, Callable[[], Any]] = {
    "plain": make_clip,
    "quick_gelu": partial(make_clip, quick_gelu=True),
    "gelu_tanh": partial(make_clip, {"act_kwargs": {"approximate": "tanh"}}),
    "no_first_norm": partial(make_clip, {"no_ln_pre": True}),
    "layer_scale": partial(make_clip, {"ls_init_value": 1e-5}),
    "norm_after_pooling": partial(make_clip, {"final_ln_after_pool": True}),
    "dropped_patches": partial(make_clip, {"patch_dropout": 0.5}),
    "token_outputs": partial(make_custom_clip, image={"output_tokens": False}),
    "custom_text": make_custom_clip,
    "patch_16": partial(make_clip, {"patch_size": 16}),
    "patch_14": partial(make_clip, {"patch_size": 14}),
    "patch_32": partial(make_clip, {"patch_size": 32}),
    "width_48": partial(make_clip, {"width": 48, "head_width": 12}),
    "one_block": partial(make_clip, {"layers": 1}),
    "wide_embedding": partial(make_clip, embed_dim=80),
    "equal_widths": partial(make_clip, embed_dim=64),
}


@pytest.mark.parametrize("name", CLIPS)
def test_graph_computes_what_open_clip_does(name: str, tmp_path: Path) -> None:
    model = CLIPS[name]()
    family = make_family(model)
    norms = family.select_norms(None)
    parity = verify(family, save_image_graph(family, tmp_path, norms), describe_family(family, norms))
    assert 0 < parity.logits < 1e-4
    assert 0 < parity.features < 1e-4


@pytest.mark.parametrize("name", CLIPS)
def test_the_last_feature_is_the_image_embedding(name: str, tmp_path: Path) -> None:
    """The whole model is the reference here, not its modules one by one."""
    model = CLIPS[name]()
    family, generator = make_family(model), np.random.default_rng(1)
    images = generator.integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    prompts = generator.normal(0, 1, (3, 4, model.visual.conv1.out_channels)).astype(np.float32)
    embedding = model.visual.proj.shape[1]
    with open_clip_network(family, tmp_path, workers=1) as network:
        weight = network.info.head_weight
        for values in (None, prompts, prompts[:1]):
            outputs = network(images) if values is None else network(images, prompts=values)
            expected = encode_images(model, images, values)
            last = outputs.features[:, -1]
            assert_close(last[:, :embedding], expected, name)
            np.testing.assert_allclose(np.linalg.norm(last, axis=1), 1, atol=1e-6)
            assert not last[:, embedding:].any()
            assert not outputs.features[:, :-1, model.visual.conv1.out_channels :].any()
            assert_close(outputs.logits, last @ weight.T, name)


@pytest.mark.parametrize("name", ["plain", "wide_embedding"])
@pytest.mark.parametrize("classes", [1, 2, 5, 33])
def test_bits_do_not_depend_on_the_batch(name: str, classes: int, tmp_path: Path) -> None:
    model = CLIPS[name]()
    family, generator = make_family(model, classes), np.random.default_rng(2)
    images = generator.integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)
    prompts = generator.normal(0, 1, (1, 3, 64)).astype(np.float32)
    with open_clip_network(family, tmp_path, tunable_norms=True, workers=1, micro_batch=8) as network:
        norms = generator.normal(0, 0.1, (1, len(network.info.norms), 2, 64)).astype(np.float32)
        for tunables in ({}, {"prompts": prompts, "norms": norms}):
            whole = network(images, **tunables)
            for size in range(1, 8):
                split = network.rearrange(1, size)(images, **tunables)
                for output in ("logits", "features", "embedding"):
                    np.testing.assert_array_equal(
                        getattr(split, output), getattr(whole, output), err_msg=f"{output} by {size}"
                    )
                alone = network(images[:size], **tunables)
                np.testing.assert_array_equal(alone.logits, whole.logits[:size])


def test_bits_do_not_depend_on_the_number_of_workers(tmp_path: Path) -> None:
    family = make_family(make_clip(), 40)
    images = np.random.default_rng(3).integers(0, 256, (7, 32, 32, 3), dtype=np.uint8)
    with open_clip_network(family, tmp_path, workers=1, micro_batch=3) as network:
        expected = network(images)
        with network.rearrange(2, 2) as other:
            np.testing.assert_array_equal(other(images).logits, expected.logits)


def test_classes_are_fed(tmp_path: Path) -> None:
    generator = np.random.default_rng(4)
    images = generator.integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    family = make_family(make_clip(), 6)
    with open_clip_network(family, tmp_path, workers=1) as network:
        whole = network(images)
        selected = network.select([4, 1])(images)
        assert_close(selected.logits, whole.logits[:, [4, 1]], "selected")
        np.testing.assert_array_equal(selected.features, whole.features)
        weight = np.pad(draw_classifier(generator, 300), [(0, 0), (0, 40)])
        other = network.with_classifier(weight)(images)
        assert_close(other.logits, whole.features[:, -1] @ weight.T, "other classes")


@pytest.mark.parametrize("name", ["plain", "quick_gelu", "wide_embedding", "no_first_norm"])
def test_gradients_are_those_of_autograd(name: str, tmp_path: Path) -> None:
    family = make_family(CLIPS[name]())
    norms = family.select_norms(None)
    info = describe_family(family, norms)
    path = tmp_path / "pull-back.onnx"
    onnx.save(build_pull_back(family.build_graph(norms), info.tunables), path)
    assert verify_gradients(family, path, info) < 1e-3


def test_entropies_in_the_graph_know_the_bias(tmp_path: Path) -> None:
    """The gradient of the entropies is that of slopes which are computed from the logits outside."""
    family = make_family(make_clip())
    norms = family.select_norms(None)
    info = describe_family(family, norms)
    info = replace(info, gradients=info.tunables)
    onnx.save(build_pull_back(family.build_graph(norms), info.tunables), tmp_path / "pull-back.onnx")
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    bias = np.array([3, -2, 0.5, 0, 1], np.float32)
    with Network(tmp_path / "pull-back.onnx", info, workers=1) as network:
        view = network.with_classifier(info.head_weight, bias=bias)
        inside = view.pull_back(images, {}, Slopes(entropy_weights=np.ones(3)))
        log_p = log_softmax(view(images).logits)
        slopes = -np.exp(log_p) * (log_p - (np.exp(log_p) * log_p).sum(1, keepdims=True))
        outside = view.pull_back(images, {}, Slopes(logits=slopes))
        assert inside.gradients is not None and outside.gradients is not None
        scale = np.abs(outside.gradients["norms"]).max()
        np.testing.assert_allclose(inside.gradients["norms"], outside.gradients["norms"], atol=1e-4 * scale)
        plain = network.pull_back(images, {}, Slopes(entropy_weights=np.ones(3)))
        assert plain.gradients is not None
        assert np.abs(plain.gradients["norms"] - inside.gradients["norms"]).max() > 0.01 * scale


def test_graph_is_plain_onnx() -> None:
    family = make_family(make_clip(quick_gelu=True))
    graph = family.build_graph(family.select_norms(None))
    onnx.checker.check_model(graph, full_check=True)
    assert [(entry.domain, entry.version) for entry in graph.opset_import] == [("", 20)]
    kinds = {value.name: value.type.tensor_type for value in (*graph.graph.input, *graph.graph.output)}
    axes = {name: [d.dim_param or d.dim_value for d in kind.shape.dim] for name, kind in kinds.items()}
    assert axes["classifier"] == ["K", 64]
    assert axes["logits"] == ["N", "K"]
    assert axes["features"] == ["N", 4, 64]
    assert family.describe({})["feature_widths"] == (64, 64, 64, EMBEDDING)


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        ({"pool_type": "avg"}, "pooling 'avg'"),
        ({"attentional_pool": True}, "pools its image tokens by attention"),
        ({"qk_norm": True}, "CustomResidualAttentionBlock"),
        ({"layers": (1, 1, 1, 1), "head_width": 64}, "ModifiedResNet"),
        ({"timm_model_name": "test_vit"}, "TimmModel"),
    ],
)
def test_towers_that_compute_something_else_are_refused(image: dict[str, Any], reason: str) -> None:
    with pytest.raises(ExportError, match=reason):
        read_image_tower(make_clip(image).visual)
