"""Graphs of vision transformers against PyTorch with random parameters."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from fozo.engine.model import FloatArray
from fozo.engine.runtime.network import Network
from vit_doubles import (
    MEAN,
    STD,
    VITS,
    assert_close,
    compute_reference,
    describe_model,
    make_vit,
    open_network,
)

torch = pytest.importorskip("torch", reason="export needs PyTorch")
timm = pytest.importorskip("timm", reason="export needs timm")

from fozo.export.vit_graph import build_vit_graph, select_vit_norms  # noqa: E402
from fozo.export.vit_model import read_vit  # noqa: E402
from timm.models.deit import VisionTransformerDistilled  # noqa: E402


@pytest.mark.parametrize("model_name", VITS)
def test_graph_computes_what_pytorch_does(model_name: str, tmp_path: Path) -> None:
    model = VITS[model_name]()
    generator = np.random.default_rng(1)
    layers, width = len(model.blocks), model.embed_dim
    read = read_vit(model)
    with open_network(model, tmp_path, micro_batch=32) as net:
        assert net.image_size == tuple(model.patch_embed.img_size)
        for n in (1, 2, 3, 17):
            images = generator.integers(0, 256, (n, *net.image_size, 3), dtype=np.uint8)
            for p in (0, 3, 10):
                for r in sorted({1, n}):
                    case = f"{model_name}: N = {n}, P = {p}, R = {r}"
                    prompts = generator.normal(0, 1, (r, p, width)).astype(np.float32)
                    found = net(images, prompts=prompts)
                    logits, features = compute_reference(model, images, prompts)
                    assert_close(found.logits, logits, case)
                    assert_close(found.features, features, case)
                    assert found.logits.shape == (n, model.num_classes)
                    assert found.features.shape == (n, layers, width * read.readout)
                    bias = 0 if read.head.bias is None else read.head.bias
                    assert_close(found.features[:, -1] @ read.head.weight.T + bias, found.logits, case)


def add_to_norms(model: Any, names: Iterable[str], addends: FloatArray) -> Any:
    """Return a copy of the model with `addends` `[M, 2, D]` added to the parameters of its norms."""
    model = copy.deepcopy(model)
    with torch.no_grad():
        for name, (gain, bias) in zip(names, torch.from_numpy(addends), strict=True):
            norm = model.get_submodule(name)
            norm.weight.add_(gain)
            norm.bias.add_(bias)
    return model


@pytest.mark.parametrize("blocks", [None, (0,), (2,), (0, 2)])
@pytest.mark.parametrize("model_name", ["plain", "deit_distilled", "everything"])
def test_addends_to_norms_are_other_norms(
    model_name: str, blocks: tuple[int, ...] | None, tmp_path: Path
) -> None:
    model = VITS[model_name]() if model_name != "plain" else make_vit(depth=3)
    read = read_vit(model)
    if blocks and max(blocks) >= len(read.blocks):
        blocks = (1,)
    names = select_vit_norms(read, blocks)
    assert tuple(names) == tuple(
        f"blocks.{i}.{norm}" for i in (blocks or range(len(read.blocks))) for norm in ("norm1", "norm2")
    )
    onnx.save(build_vit_graph(read, MEAN, STD, names), tmp_path / "model.onnx")
    info = replace(describe_model(read), tunables=("prompts", "norms"), norms=names)
    generator = np.random.default_rng(1)
    images = generator.integers(0, 256, (3, *read.image_size, 3), dtype=np.uint8)
    prompts = generator.normal(0, 1, (1, 2, read.width)).astype(np.float32)
    norms = generator.normal(0, 0.3, (3, len(names), 2, read.width)).astype(np.float32)
    with Network(tmp_path / "model.onnx", info, workers=1) as net:
        shared = net(images, prompts=prompts, norms=norms[:1])
        own = net(images, prompts=prompts, norms=norms)
        plain = net(images, prompts=prompts)
        # The graph itself can take them in one call as well; the network prefers one image per call.
        feed = {"images": images, "prompts": prompts, "norms": norms}
        at_once = net._session.run(["logits", "features"], feed)
    expected = compute_reference(add_to_norms(model, names, norms[0]), images, prompts)
    assert_close(shared.logits, expected[0], "shared")
    assert_close(shared.features, expected[1], "shared")
    each = [
        compute_reference(add_to_norms(model, names, a), images[i : i + 1], prompts)
        for i, a in enumerate(norms)
    ]
    for index, found in enumerate((own.logits, own.features)):
        one_by_one = np.concatenate([answer[index] for answer in each])
        assert_close(found, one_by_one, "own")
        assert_close(at_once[index], one_by_one, "at once")
    assert_close(plain.logits, compute_reference(model, images, prompts)[0], "plain")
    assert np.abs(shared.features - plain.features).max() > 0.01


@pytest.mark.parametrize("model_name", ["plain", "deit_distilled", "dinov2_registers", "everything"])
def test_embedding_holds_the_moments_of_the_patch_tokens(model_name: str, tmp_path: Path) -> None:
    model = VITS[model_name]()
    size = read_vit(model).image_size
    images = np.random.default_rng(2).integers(0, 256, (5, *size, 3), dtype=np.uint8)
    seen: list[FloatArray] = []
    hook = model.blocks[0].register_forward_pre_hook(lambda _m, inputs: seen.append(inputs[0].numpy()))
    compute_reference(model, images, np.zeros((1, 0, 32), np.float32))
    hook.remove()
    tokens = seen[0][:, model.num_prefix_tokens :].astype(np.float64)
    with open_network(model, tmp_path) as net:
        for prompts in (0, 3):  # these are no patches
            found = net(images, prompts=np.ones((1, prompts, 32), np.float32)).embedding
            assert found is not None
            assert_close(found[:, 0], tokens.mean(axis=1), "mean")
            assert_close(found[:, 1], tokens.var(axis=1), "variance")


def test_prompts_of_one_image_do_not_touch_another(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    with open_network(make_vit(), tmp_path) as net:
        images = generator.integers(0, 256, (3, 28, 28, 3), dtype=np.uint8)
        prompts = generator.normal(0, 1, (3, 4, 32)).astype(np.float32)
        together = net(images, prompts=prompts)
        for i in range(3):
            alone = net(images[i : i + 1], prompts=prompts[i : i + 1])
            np.testing.assert_allclose(together.logits[i], alone.logits[0], atol=1e-5)
            np.testing.assert_allclose(together.features[i], alone.features[0], atol=1e-5)
        assert np.abs(together.logits - net(images).logits).max() > 1e-2


def test_reading_a_model_leaves_it_as_it_was() -> None:
    model = make_vit(VisionTransformerDistilled, init_values=0.1)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    build_vit_graph(read_vit(model), MEAN, STD)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


@pytest.mark.parametrize("model_name", ["plain", "deit_distilled", "dinov2_giant_swiglu", "everything"])
def test_graph_is_plain_onnx(model_name: str) -> None:
    read = read_vit(VITS[model_name]())
    model = build_vit_graph(read, MEAN, STD, select_vit_norms(read))
    onnx.checker.check_model(model, full_check=True)
    assert [entry.domain for entry in model.opset_import] == [""]
    assert {node.domain for node in model.graph.node} == {""}
    assert not model.functions
    known = {(schema.domain, schema.name) for schema in onnx.defs.get_all_schemas()}
    assert {("", node.op_type) for node in model.graph.node} <= known
    assert all(t.data_location == onnx.TensorProto.DEFAULT for t in model.graph.initializer)
    assert all(not t.external_data for t in model.graph.initializer)
    names = [node.name for node in model.graph.node]
    assert len(set(names)) == len(names)
    kinds = {value.name: value.type.tensor_type for value in (*model.graph.input, *model.graph.output)}
    assert {name: kind.elem_type for name, kind in kinds.items()} == {
        "images": onnx.TensorProto.UINT8,
        "prompts": onnx.TensorProto.FLOAT,
        "norms": onnx.TensorProto.FLOAT,
        "logits": onnx.TensorProto.FLOAT,
        "features": onnx.TensorProto.FLOAT,
        "embedding": onnx.TensorProto.FLOAT,
    }
    dynamic = {name: [d.dim_param or d.dim_value for d in kind.shape.dim] for name, kind in kinds.items()}
    assert isinstance(dynamic["images"][0], str)
    assert isinstance(dynamic["prompts"][0], str)
    assert isinstance(dynamic["prompts"][1], str)
    # Prompts and norms may be one for all and one per image in the same call.
    assert len({dynamic[name][0] for name in ("images", "prompts", "norms")}) == 3
