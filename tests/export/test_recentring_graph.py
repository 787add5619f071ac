"""Graphs whose activations can be re-centred, against edits by the onnx package and PyTorch's hooks."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from fozo.engine.bundle.bundle import Bundle
from fozo.engine.errors import BundleError
from fozo.engine.model import ACTIVATION_KINDS, Activation, ActivationUse, ImageArray
from fozo.engine.runtime.network import Network
from fozo.engine.runtime.recentring_graph import add_recentring
from fozo.engine.runtime.source_statistics import store_source
from fozo.engine.streams.adapter import Adapter
from fozo.export.vit_graph import build_vit_graph, list_vit_activations
from fozo.export.vit_model import read_vit
from fozo.quant.quantization import quantize
from fozo.quant.settings import Options, parse_bits
from onnx import TensorProto, helper
from vit_doubles import MEAN, STD, VITS

INTEGER = ("MatMulIntegerToFloat", "QuantizeLinear", "DequantizeLinear")
MODELS = [
    "plain",
    "qk_norm",
    "deit_distilled",
    "dinov2_registers",
    "glu_gate_first",
    "glu_gate_last",
    "clip",
    "silu",
    "relu",
    "scale_attn_norm",
    "scale_mlp_norm",
    "swiglu_scale_norms",
    "depth_1",
    "one_head",
    "width_40_mlp_1",
]


def run(model: Any, names: Sequence[str], feed: dict[str, Any]) -> list[Any]:
    content = model if isinstance(model, bytes) else model.SerializeToString()
    session = ort.InferenceSession(content, providers=["CPUExecutionProvider"])
    inputs = {value.name: value for value in session.get_inputs()}
    prompts = np.zeros((1, 0, inputs["prompts"].shape[2]), np.float32)
    return list(session.run(list(names), {"prompts": prompts, **feed}))


def edit(model: Any, activations: Sequence[Activation], values: Any) -> Any:
    """Return the graph with constant maps `(1 + gain) x + offset`, and the tensors before them as outputs."""
    edited = onnx.ModelProto()
    edited.CopyFrom(model)
    nodes, start = list(edited.graph.node), 0
    for activation in activations:
        x = activation.tensor
        gain, offset = (values[:, index, start : start + activation.width] for index in range(2))
        start += activation.width
        shape = (len(gain), activation.heads, 1, -1) if activation.heads else (len(gain), 1, -1)
        names = [f"test/{x}/gain", f"test/{x}/offset"]
        for name, array in zip(names, (1 + gain, offset), strict=True):
            edited.graph.initializer.append(onnx.numpy_helper.from_array(array.reshape(shape), name))
        for node in nodes:
            if not node.name.startswith("feature."):
                node.input[:] = [f"test/{x}" if name == x else name for name in node.input]
        position = next(index for index, node in enumerate(nodes) if x in node.output)
        nodes[position + 1 : position + 1] = [
            helper.make_node("Mul", [x, names[0]], [f"test/{x}/scaled"]),
            helper.make_node("Add", [f"test/{x}/scaled", names[1]], [f"test/{x}"]),
        ]
        edited.graph.output.append(helper.make_tensor_value_info(x, TensorProto.FLOAT, None))
    del edited.graph.node[:]
    edited.graph.node.extend(nodes)
    return edited


def check_against_edits(
    path: Path, activations: Sequence[Activation], images: ImageArray, feed: dict[str, Any], scale: float = 1
) -> None:
    """Compare outputs and moments, with values for all images together and for each its own."""
    model, channels = onnx.load(path), sum(activation.width for activation in activations)
    content = add_recentring(path, activations)
    onnx.checker.check_model(onnx.load_from_string(content))
    for rows in (1, len(images)):
        values = np.random.default_rng(rows).normal(0, 0.2, (rows, 2, channels)).astype(np.float32)
        names = ["logits", "features", "embedding", "activation_moments"]
        feed = {"images": images, **feed}
        *outputs, moments = run(content, names, {**feed, "recentring": values})
        edited = edit(model, activations, values)
        expected = run(edited, [*names[:3], *(item.tensor for item in activations)], feed)
        for ours, theirs in zip(outputs, expected[:3], strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-4 * scale, atol=1e-4 * scale)
        start = 0
        for activation, x in zip(activations, expected[3:], strict=True):
            if activation.heads:
                x = x.transpose(0, 2, 1, 3).reshape(len(x), x.shape[2], -1)
            assert x.shape[2] == activation.width
            part = moments[:, :, start : start + activation.width]
            start += activation.width
            x = x.astype(np.float64)
            for index, moment in enumerate((x.mean(axis=1), x.var(axis=1))):
                tolerance = 1e-4 * scale * max(1, float(np.abs(moment).max()))
                np.testing.assert_allclose(part[:, index], moment, rtol=1e-3 * scale, atol=tolerance)


@pytest.mark.parametrize("name", MODELS)
def test_all_kinds_of_transformers(name: str, tmp_path: Path) -> None:
    model = VITS[name]()
    vit = read_vit(model)
    onnx.save(build_vit_graph(vit, MEAN, STD), tmp_path / "model.onnx")
    activations = list_vit_activations(vit)
    assert len(activations) == 5 * len(vit.blocks)
    images = np.random.default_rng(0).integers(0, 256, (3, *vit.image_size, 3), dtype=np.uint8)
    check_against_edits(tmp_path / "model.onnx", activations, images, {})


@pytest.mark.parametrize("name", MODELS)
def test_activations_are_the_inputs_of_the_products(name: str, tmp_path: Path) -> None:
    """Their moments are those of what PyTorch's layers read."""
    model = VITS[name]()
    vit = read_vit(model)
    onnx.save(build_vit_graph(vit, MEAN, STD), tmp_path / "model.onnx")
    read: dict[tuple[int, str], Any] = {}

    def watch(module: Any, key: tuple[int, str], *, output: bool = False) -> None:
        if output:
            module.register_forward_hook(lambda _, inputs, result: read.__setitem__(key, result))
        else:
            module.register_forward_pre_hook(lambda _, inputs: read.__setitem__(key, inputs[0]))

    for index, block in enumerate(model.blocks):
        watch(block.attn.qkv, (index, "qkv"))
        watch(block.attn.proj, (index, "proj"))
        watch(block.mlp.fc1, (index, "fc1"))
        watch(block.mlp.fc2, (index, "fc2"))
        watch(block, (index, "output"), output=True)
    images = np.random.default_rng(0).integers(0, 256, (3, *vit.image_size, 3), dtype=np.uint8)
    pixels = (torch.from_numpy(images) / 255 - torch.tensor(MEAN)) / torch.tensor(STD)
    with torch.no_grad():
        model.forward_features(pixels.permute(0, 3, 1, 2))
    start = 0
    for activation in list_vit_activations(vit):
        x = read[activation.block, activation.kind]
        if activation.block == len(vit.blocks) - 1 and activation.kind != "qkv":
            x = x[:, : vit.readout]  # all that leaves the last block
        (moments,) = run(
            add_recentring(tmp_path / "model.onnx", [activation]),
            ["activation_moments"],
            {"images": images, "recentring": np.zeros((1, 2, activation.width), np.float32)},
        )
        expected = np.stack([x.mean(1).numpy(), x.var(1, unbiased=False).numpy()], axis=1)
        tolerance = 1e-4 * max(1, float(np.abs(expected).max()))
        np.testing.assert_allclose(moments, expected, rtol=1e-3, atol=tolerance, err_msg=str(activation))
        start += activation.width


@pytest.mark.parametrize("uses", [ACTIVATION_KINDS, ("qkv", "proj", "fc1", "fc2"), ("output",)])
def test_int8_graphs(
    int8_bundle_path: Path, random_images: Callable[..., ImageArray], uses: tuple[str, ...]
) -> None:
    """The maps stand in front of the quantisation, and every product stays on integers."""
    bundle = Bundle.open(int8_bundle_path)
    activations = bundle.manifest.select_activations([ActivationUse(uses)])
    path = bundle.graph("int8")
    before, after = (
        Counter(node.op_type for node in model.graph.node)
        for model in (onnx.load(path), onnx.load_from_string(add_recentring(path, activations)))
    )
    assert before["MatMulIntegerToFloat"] > 0
    assert {name: before[name] for name in INTEGER} == {name: after[name] for name in INTEGER}
    assert after["MatMul"] == before["MatMul"] + 2 * len(activations)  # the moments
    norms = np.zeros((1, len(bundle.manifest.norms), 2, bundle.manifest.width), np.float32)
    check_against_edits(path, activations, random_images(3), {"norms": norms})


@pytest.mark.parametrize("bits", ["w6a6", "w4a4", "w4"])
def test_graphs_of_fewer_bits(
    bundle_path: Path,
    random_images: Callable[..., ImageArray],
    clean_images: Callable[..., Any],
    tmp_path: Path,
    bits: str,
) -> None:
    """A bundle lists its activations once, for graphs of all precisions; quar adapts on each."""
    shutil.copytree(bundle_path, tmp_path / "bundle")
    options = Options(force=True, bits=parse_bits(bits))
    sets = clean_images(40, 900), clean_images(32, 901)
    bundle, _ = quantize(Bundle.open(tmp_path / "bundle"), *sets, options)
    activations = bundle.manifest.select_activations([ActivationUse(ACTIVATION_KINDS)])
    path = bundle.graph(bits)
    before, after = (
        Counter(node.op_type for node in model.graph.node)
        for model in (onnx.load(path), onnx.load_from_string(add_recentring(path, activations)))
    )
    additional = {"MatMul", "Add", "Mul", "Sub", "Split", "Shape", "Cast", "Reciprocal", "Concat", "Expand"}
    assert {name for name in after if after[name] != before[name]} <= additional | {"Reshape"}
    bundle = store_source(bundle, bits, [random_images(40, seed=900)], "random images")
    adapter = Adapter.open(bundle.path, precision=bits, method="quar", workers=1)
    for index in range(3):
        images = random_images(7, seed=index) // 2
        assert not np.allclose(adapter.step(images).logits, adapter.network(images).logits, atol=1e-3)
    assert adapter.frozen_batches == 0


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_network_without_values_is_the_plain_one_bit_for_bit(
    int8_bundle_path: Path, random_images: Callable[..., ImageArray], precision: str
) -> None:
    images = random_images(7)
    with (
        Network.open(int8_bundle_path, precision, workers=1) as plain,
        Network.open(
            int8_bundle_path, precision, activations=[ActivationUse(ACTIVATION_KINDS)], workers=1
        ) as network,
    ):
        left, right = plain(images), network(images)
        assert left.logits.tobytes() == right.logits.tobytes()
        assert left.features.tobytes() == right.features.tobytes()
        assert left.activation_moments is None and right.activation_moments is not None
        alone = [network(images[index : index + 1]).activation_moments for index in range(7)]
        assert np.concatenate(alone).tobytes() == right.activation_moments.tobytes()


def test_only_what_is_asked_for_is_computed(int8_bundle_path: Path) -> None:
    """By default, a network has neither the input nor the output."""
    with Network.open(int8_bundle_path, workers=1) as network:
        assert network.info.activations == ()
        with pytest.raises(Exception, match="no tunable recentring"):
            network(np.zeros((1, 32, 32, 3), np.uint8), recentring=np.zeros((1, 2, 64), np.float32))
    use = ActivationUse(("fc2", "output"), 2)
    with Network.open(int8_bundle_path, activations=[use], workers=1) as network:
        names = [(item.block, item.kind) for item in network.info.activations]
        assert names == [(1, "fc2"), (1, "output"), (2, "fc2"), (2, "output")]


def test_a_tensor_that_the_graph_lacks(int8_bundle_path: Path) -> None:
    path = Bundle.open(int8_bundle_path).graph("fp32")
    with pytest.raises(BundleError, match=r"'elsewhere'.*fozo export"):
        add_recentring(path, [Activation(0, "qkv", "elsewhere", 64)])


@pytest.mark.parametrize(
    "change",
    [
        ('"kind": "qkv"', '"kind": "query"'),
        ('"width": 64,\n   "heads": 4', '"width": 66,\n   "heads": 4'),
        ('"block": 0', '"block": -1'),
        ('"block": 2', '"block": 3'),
        ('"tensor": "blocks.2.norm1"', '"tensor": "blocks.1.norm1"'),
    ],
)
def test_manifests_that_cannot_be_used(bundle_path: Path, tmp_path: Path, change: tuple[str, str]) -> None:
    content = (bundle_path / "bundle.json").read_text()
    assert change[0] in content
    (tmp_path / "bundle.json").write_text(content.replace(*change, 1))
    with pytest.raises(BundleError, match="activations"):
        Bundle.open(tmp_path)
