"""Exported graphs against PyTorch with every parameter random, and exports that must be refused."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from doubles import real_data
from fozo.data.demo import demo_images
from fozo.data.images import preprocess, read_image
from fozo.engine.bundle.bundle import Bundle
from fozo.engine.errors import ExportError, OutputError
from fozo.engine.model import FloatArray, ImageArray, ModelInfo
from fozo.engine.runtime.network import Network
from numpy.typing import NDArray
from PIL import Image

torch = pytest.importorskip("torch", reason="export needs PyTorch")
timm = pytest.importorskip("timm", reason="export needs timm")

from fozo.export import exporter  # noqa: E402
from fozo.export.demo_model import create_demo_model  # noqa: E402
from fozo.export.exporter import export_model  # noqa: E402
from fozo.export.model_request import Request, create_model  # noqa: E402
from fozo.export.vit_graph import build_vit_graph, select_vit_norms  # noqa: E402
from fozo.export.vit_model import Vit, read_vit  # noqa: E402
from safetensors.torch import save_file  # noqa: E402
from timm.data import ImageNetInfo, create_transform, resolve_model_data_config  # noqa: E402
from timm.layers import GluMlp, QuickGELU, RmsNorm, SwiGLU, SwiGLUPacked  # noqa: E402
from timm.models.deit import VisionTransformerDistilled  # noqa: E402
from timm.models.vision_transformer import (  # noqa: E402
    ParallelScalingBlock,
    ResPostBlock,
    VisionTransformer,
)

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
CLASSES = 7
SMALL = 32  # pixels: an export verifies itself, which takes seconds at the size of the model
TOLERANCE = 3e-5  # of the largest magnitude; float32 in two different orders of summation


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny layers on several threads mostly wait for each other, for minutes on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def vit(kind: Any = VisionTransformer, **options: Any) -> Any:
    """A tiny model with every parameter random: fresh gammas and biases would hide what is forgotten."""
    defaults = {
        "img_size": 28,
        "patch_size": 7,
        "embed_dim": 32,
        "depth": 2,
        "num_heads": 4,
        "num_classes": CLASSES,
    }
    return randomised(kind(**{**defaults, **options}))


def randomised(model: Any, seed: int = 0) -> Any:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim == 1:
                parameter.copy_(0.5 * noise + (1.0 if name.endswith("weight") else 0.0))
            elif name.endswith("weight"):
                parameter.copy_(noise * parameter[0].numel() ** -0.5 * 1.5)
            else:
                parameter.copy_(noise)
    return model.eval()


FAMILIES: dict[str, Callable[[], Any]] = {
    "plain": vit,
    "no_qkv_bias": partial(vit, qkv_bias=False),
    "no_proj_bias": partial(vit, proj_bias=False),
    "qk_norm": partial(vit, qk_norm=True),
    "deit_distilled": partial(vit, VisionTransformerDistilled),
    "deit_distilled_layer_scale": partial(vit, VisionTransformerDistilled, init_values=1e-5, depth=3),
    "deit3": partial(vit, no_embed_class=True, init_values=1e-6),
    "dinov2": partial(vit, init_values=1e-5, img_size=42, patch_size=14),
    "dinov2_registers": partial(
        vit, init_values=1e-5, reg_tokens=4, no_embed_class=True, img_size=42, patch_size=14
    ),
    "registers_with_positions": partial(vit, reg_tokens=3),
    "dinov2_giant_swiglu": partial(
        vit, mlp_layer=SwiGLUPacked, act_layer=torch.nn.SiLU, init_values=1e-5, mlp_ratio=2.66667 * 2
    ),
    "glu_gate_first": partial(vit, mlp_layer=partial(GluMlp, gate_last=False), act_layer=torch.nn.SiLU),
    "glu_gate_last": partial(vit, mlp_layer=partial(GluMlp, gate_last=True), act_layer=torch.nn.GELU),
    "clip": partial(vit, pre_norm=True, act_layer=QuickGELU),
    "clip_gelu": partial(vit, pre_norm=True, norm_layer=partial(torch.nn.LayerNorm, eps=1e-5)),
    "gelu_tanh": partial(vit, act_layer="gelu_tanh"),
    "torch_gelu_tanh": partial(vit, act_layer=partial(torch.nn.GELU, approximate="tanh")),
    "relu": partial(vit, act_layer=torch.nn.ReLU),
    "silu": partial(vit, act_layer="silu"),
    "large_epsilon": partial(vit, norm_layer=partial(torch.nn.LayerNorm, eps=0.1)),
    "norm_without_bias": partial(vit, norm_layer=partial(torch.nn.LayerNorm, bias=False)),
    "norm_without_affine": partial(vit, norm_layer=partial(torch.nn.LayerNorm, elementwise_affine=False)),
    "embed_norm": partial(vit, embed_norm_layer=torch.nn.LayerNorm),
    "no_positions": partial(vit, pos_embed="none"),
    "no_positions_registers": partial(vit, pos_embed="none", reg_tokens=2),
    "wide_image": partial(vit, img_size=(28, 56)),
    "tall_image": partial(vit, img_size=(56, 21)),
    "rectangular_patch": partial(vit, img_size=(28, 28), patch_size=(4, 14)),
    "not_a_multiple": partial(vit, img_size=(31, 33)),
    "patch_4": partial(vit, patch_size=4),
    "patch_8": partial(vit, img_size=32, patch_size=8),
    "patch_14": partial(vit, patch_size=14),
    "patch_32": partial(vit, img_size=64, patch_size=32),
    "one_patch": partial(vit, patch_size=28),
    "depth_1": partial(vit, depth=1),
    "depth_1_distilled": partial(vit, VisionTransformerDistilled, depth=1),
    "depth_5": partial(vit, depth=5),
    "one_head": partial(vit, num_heads=1),
    "width_48": partial(vit, embed_dim=48, num_heads=3),
    "width_64": partial(vit, embed_dim=64, num_heads=8),
    "width_40_mlp_1": partial(vit, embed_dim=40, num_heads=5, mlp_ratio=1.0),
    "scale_attn_norm": partial(vit, scale_attn_norm=True),
    "scale_mlp_norm": partial(vit, scale_mlp_norm=True),
    "swiglu_scale_norms": partial(
        vit, scale_attn_norm=True, scale_mlp_norm=True, qk_norm=True, mlp_layer=SwiGLUPacked
    ),
    "dynamic_image_size": partial(vit, dynamic_img_size=True),
    "dropouts": partial(vit, drop_rate=0.5, pos_drop_rate=0.5, proj_drop_rate=0.5, drop_path_rate=0.5),
    "one_class": partial(vit, num_classes=1),
    "everything": partial(
        vit,
        pre_norm=True,
        qk_norm=True,
        reg_tokens=2,
        init_values=1e-5,
        embed_norm_layer=torch.nn.LayerNorm,
        scale_attn_norm=True,
        scale_mlp_norm=True,
        img_size=(37, 51),
        patch_size=(7, 5),
        act_layer="quick_gelu",
    ),
}


def reference(model: Any, images: ImageArray, prompts: FloatArray) -> tuple[FloatArray, FloatArray]:
    """`model(x)` itself with hooks: prompts go in before `norm_pre`, the blocks' outputs come out."""
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).double() / 255
    pixels = (pixels - torch.tensor(MEAN).view(1, 3, 1, 1)) / torch.tensor(STD).view(1, 3, 1, 1)
    prefix, outputs = model.num_prefix_tokens, []

    def insert(_module: Any, inputs: tuple[Any]) -> tuple[Any]:
        tokens = inputs[0]
        added = torch.from_numpy(prompts).expand(len(tokens), -1, -1)
        return (torch.cat([tokens[:, :prefix], added, tokens[:, prefix:]], dim=1),)

    hooks = [
        block.register_forward_hook(lambda _m, _i, output: outputs.append(output)) for block in model.blocks
    ]
    if prompts.shape[1]:
        hooks.append(model.norm_pre.register_forward_pre_hook(insert))
    with torch.inference_mode():
        logits = model(pixels.float())
        norms = [*(block.norm1 for block in list(model.blocks)[1:]), model.norm]
        read = 2 if isinstance(model, VisionTransformerDistilled) else 1
        features = [norm(out)[:, :read].flatten(1) for norm, out in zip(norms, outputs, strict=True)]
    for hook in hooks:
        hook.remove()
    assert len(outputs[0][0]) == len(vit_tokens(model)) + prompts.shape[1]
    return logits.numpy(), torch.stack(features, 1).numpy()


def vit_tokens(model: Any) -> range:
    return range(model.num_prefix_tokens + model.patch_embed.num_patches)


def described(read: Vit) -> ModelInfo:
    return ModelInfo(
        "test", "test", len(read.blocks), read.width, read.tokens, 0.1, read.head.weight, read.head_bias
    )


def network(model: Any, folder: Path, **options: Any) -> Network:
    read = read_vit(model)
    path = folder / "model.onnx"
    onnx.save(build_vit_graph(read, MEAN, STD), path)
    return Network(path, described(read), workers=1, **options)


def assert_close(found: FloatArray, expected: FloatArray, what: str) -> None:
    assert found.shape == expected.shape, what
    assert found.dtype == np.float32, what
    assert np.abs(found - expected).max() <= TOLERANCE * max(1, np.abs(expected).max()), what


@pytest.mark.parametrize("family", FAMILIES)
def test_graph_computes_what_pytorch_does(family: str, tmp_path: Path) -> None:
    model = FAMILIES[family]()
    generator = np.random.default_rng(1)
    layers, width = len(model.blocks), model.embed_dim
    read = read_vit(model)
    with network(model, tmp_path, micro_batch=32) as net:
        assert net.image_size == tuple(model.patch_embed.img_size)
        for n in (1, 2, 3, 17):
            images = generator.integers(0, 256, (n, *net.image_size, 3), dtype=np.uint8)
            for p in (0, 3, 10):
                for r in sorted({1, n}):
                    case = f"{family}: N = {n}, P = {p}, R = {r}"
                    prompts = generator.normal(0, 1, (r, p, width)).astype(np.float32)
                    found = net(images, prompts=prompts)
                    logits, features = reference(model, images, prompts)
                    assert_close(found.logits, logits, case)
                    assert_close(found.features, features, case)
                    assert found.logits.shape == (n, model.num_classes)
                    assert found.features.shape == (n, layers, width * read.readout)
                    bias = 0 if read.head.bias is None else read.head.bias
                    assert_close(found.features[:, -1] @ read.head.weight.T + bias, found.logits, case)


def tuned(model: Any, names: Iterable[str], addends: FloatArray) -> Any:
    """The model with `addends` `[M, 2, D]` added to the parameters of its norms themselves."""
    model = copy.deepcopy(model)
    with torch.no_grad():
        for name, (gain, bias) in zip(names, torch.from_numpy(addends), strict=True):
            norm = model.get_submodule(name)
            norm.weight.add_(gain)
            norm.bias.add_(bias)
    return model


@pytest.mark.parametrize("blocks", [None, (0,), (2,), (0, 2)])
@pytest.mark.parametrize("family", ["plain", "deit_distilled", "everything"])
def test_addends_to_norms_are_other_norms(
    family: str, blocks: tuple[int, ...] | None, tmp_path: Path
) -> None:
    model = FAMILIES[family]() if family != "plain" else vit(depth=3)
    read = read_vit(model)
    if blocks and max(blocks) >= len(read.blocks):
        blocks = (1,)
    names = select_vit_norms(read, blocks)
    assert tuple(names) == tuple(
        f"blocks.{i}.{norm}" for i in (blocks or range(len(read.blocks))) for norm in ("norm1", "norm2")
    )
    onnx.save(build_vit_graph(read, MEAN, STD, names), tmp_path / "model.onnx")
    info = replace(described(read), tunables=("prompts", "norms"), norms=names)
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
    expected = reference(tuned(model, names, norms[0]), images, prompts)
    assert_close(shared.logits, expected[0], "shared")
    assert_close(shared.features, expected[1], "shared")
    each = [reference(tuned(model, names, a), images[i : i + 1], prompts) for i, a in enumerate(norms)]
    for index, found in enumerate((own.logits, own.features)):
        one_by_one = np.concatenate([answer[index] for answer in each])
        assert_close(found, one_by_one, "own")
        assert_close(at_once[index], one_by_one, "at once")
    assert_close(plain.logits, reference(model, images, prompts)[0], "plain")
    assert np.abs(shared.features - plain.features).max() > 0.01


@pytest.mark.parametrize("family", ["plain", "deit_distilled", "dinov2_registers", "everything"])
def test_embedding_holds_the_moments_of_the_patch_tokens(family: str, tmp_path: Path) -> None:
    model = FAMILIES[family]()
    size = read_vit(model).image_size
    images = np.random.default_rng(2).integers(0, 256, (5, *size, 3), dtype=np.uint8)
    seen: list[FloatArray] = []
    hook = model.blocks[0].register_forward_pre_hook(lambda _m, inputs: seen.append(inputs[0].numpy()))
    reference(model, images, np.zeros((1, 0, 32), np.float32))
    hook.remove()
    tokens = seen[0][:, model.num_prefix_tokens :].astype(np.float64)
    with network(model, tmp_path) as net:
        for prompts in (0, 3):  # these are no patches
            found = net(images, prompts=np.ones((1, prompts, 32), np.float32)).embedding
            assert found is not None
            assert_close(found[:, 0], tokens.mean(axis=1), "mean")
            assert_close(found[:, 1], tokens.var(axis=1), "variance")


def test_prompts_of_one_image_do_not_touch_another(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    with network(vit(), tmp_path) as net:
        images = generator.integers(0, 256, (3, 28, 28, 3), dtype=np.uint8)
        prompts = generator.normal(0, 1, (3, 4, 32)).astype(np.float32)
        together = net(images, prompts=prompts)
        for i in range(3):
            alone = net(images[i : i + 1], prompts=prompts[i : i + 1])
            np.testing.assert_allclose(together.logits[i], alone.logits[0], atol=1e-5)
            np.testing.assert_allclose(together.features[i], alone.features[0], atol=1e-5)
        assert np.abs(together.logits - net(images).logits).max() > 1e-2


def test_reading_a_model_leaves_it_as_it_was() -> None:
    model = vit(VisionTransformerDistilled, init_values=0.1)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    build_vit_graph(read_vit(model), MEAN, STD)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


@pytest.mark.parametrize("family", ["plain", "deit_distilled", "dinov2_giant_swiglu", "everything"])
def test_graph_is_plain_onnx(family: str) -> None:
    read = read_vit(FAMILIES[family]())
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


def unknown_activation() -> Any:
    class Cube(torch.nn.Module):  # type: ignore[misc, name-defined, unused-ignore]
        def __init__(self, inplace: bool = False) -> None:
            super().__init__()

        def forward(self, x: Any) -> Any:
            return x**3

    return vit(act_layer=Cube)


def without_class_token() -> Any:
    return vit(class_token=False, global_pool="avg")


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "no class token": (without_class_token, "class token"),
    "avg": (partial(vit, global_pool="avg"), "'avg'"),
    "max": (partial(vit, global_pool="max"), "'max'"),
    "map": (partial(vit, global_pool="map"), "'map'"),
    "prr": (partial(vit, global_pool="prr"), "'prr'"),
    "no pool": (partial(vit, global_pool=""), "pooling"),
    "fc_norm": (partial(vit, fc_norm=True), "fc_norm|norm"),
    "fc_norm after final norm": (
        lambda: with_attribute(vit(), "fc_norm", torch.nn.LayerNorm(32)),
        "fc_norm",
    ),
    "no final norm": (partial(vit, final_norm=False), "norm"),
    "num_classes=0": (partial(vit, num_classes=0), "no classifier"),
    "in_chans=1": (partial(vit, in_chans=1), "1 channels"),
    "in_chans=4": (partial(vit, in_chans=4), "4 channels"),
    "parallel block": (partial(vit, block_fn=ParallelScalingBlock), "ParallelScalingBlock"),
    "post norm block": (partial(vit, block_fn=ResPostBlock, init_values=0.1), "ResPostBlock"),
    "activation": (unknown_activation, "Cube"),
    "rms norm": (partial(vit, norm_layer=RmsNorm), "RmsNorm"),
    "SwiGLU": (partial(vit, mlp_layer=SwiGLU), "SwiGLU"),
    "subclass": (lambda: type("Mine", (VisionTransformer,), {})(img_size=28, patch_size=7), "Mine"),
    "resnet": (lambda: timm.create_model("test_resnet"), "ResNet"),
    "swin": (
        lambda: timm.create_model(
            "swin_tiny_patch4_window7_224", img_size=56, embed_dim=24, depths=(1, 1, 1, 1)
        ),
        "SwinTransformer",
    ),
    "no network of vision": (lambda: torch.nn.Linear(2, 2), "Linear"),
}


def with_attribute(model: Any, name: str, value: Any) -> Any:
    setattr(model, name, value)
    return model


@pytest.mark.parametrize("case", REFUSED)
def test_refused_with_the_reason(case: str) -> None:
    make, reason = REFUSED[case]
    with pytest.raises(ExportError, match=reason) as caught:
        read_vit(make())
    assert "cannot be exported" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_padding_of_images_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = vit(img_size=30, dynamic_img_size=True, dynamic_img_pad=True)
    monkeypatch.setattr(exporter, "create_model", lambda request: model)
    with pytest.raises(ExportError):
        export_model(Request("padded"), tmp_path / "bundle")
    assert not list(tmp_path.iterdir())


# --- export_model ---


@pytest.fixture(scope="module")
def small_weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The state of `test_vit` (width 64, 1000 classes) at 32 pixels with random parameters."""
    state: dict[str, Any] = randomised(timm.create_model("test_vit", img_size=SMALL)).state_dict()
    return state


def export_small(folder: Path, weights: Path, **options: Any) -> Bundle:
    return export_model(Request("test_vit", weights, image_size=SMALL, **options), folder / "bundle").bundle


def weights_file(folder: Path, state: Any, name: str = "weights.pt") -> Path:
    path = folder / name
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save(state, path)
    return path


WRAPPINGS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "safetensors": ("w.safetensors", lambda state: state),
    "pt": ("w.pt", lambda state: state),
    "pth": ("w.pth", lambda state: state),
    "state_dict": ("w.pt", lambda state: {"state_dict": state, "epoch": 3}),
    "model": ("w.pt", lambda state: {"model": state, "optimizer": {"lr": 0.1}}),
    "half": ("w.safetensors", lambda state: {key: value.half() for key, value in state.items()}),
}


@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_weights_files(wrapping: str, tmp_path: Path, small_weights: dict[str, Any]) -> None:
    name, wrap = WRAPPINGS[wrapping]
    bundle = export_small(tmp_path, weights_file(tmp_path, wrap(small_weights), name))
    with np.load(bundle.file("head.npz")) as head:
        expected = small_weights["head.weight"].numpy()
        np.testing.assert_allclose(head["weight"], expected, atol=2e-3 if wrapping == "half" else 0)
        np.testing.assert_allclose(
            head["bias"], small_weights["head.bias"].numpy(), atol=2e-3 if wrapping == "half" else 0
        )
    assert bundle.manifest.graphs["fp32"].max_abs_difference < 1e-2
    assert sorted(path.name for path in bundle.path.iterdir()) == ["bundle.json", "head.npz", "model.onnx"]
    assert not [path for path in tmp_path.iterdir() if path.name.endswith(".tmp")]


def test_two_exports_give_the_same_bytes(tmp_path: Path, small_weights: dict[str, Any]) -> None:
    path = weights_file(tmp_path, small_weights)
    found = [
        export_model(Request("test_vit", path, image_size=SMALL), tmp_path / name).bundle
        for name in ("a", "b")
    ]
    for name in ("model.onnx", "head.npz", "bundle.json"):
        assert (found[0].path / name).read_bytes() == (found[1].path / name).read_bytes()


def test_imagenet_classes_and_manifest(tmp_path: Path, small_weights: dict[str, Any]) -> None:
    bundle = export_small(tmp_path, weights_file(tmp_path, small_weights))
    m = bundle.manifest
    assert m.class_ids is not None
    assert m.class_names is not None
    assert len(m.class_ids) == len(set(m.class_ids)) == 1000
    assert m.class_ids == tuple(sorted(m.class_ids))
    assert m.class_ids[:2] == ("n01440764", "n01443537")
    assert m.class_ids == tuple(ImageNetInfo().label_names())
    assert "tench" in m.class_names[0]
    assert (m.layers, m.width, m.tokens, m.classes, m.feature_width) == (6, 64, 5, 1000, 64)
    assert m.prompt_bound == pytest.approx((6 / (3 * 16 * 16 + 64)) ** 0.5)
    with Network.open(bundle, workers=1) as net:
        assert net.image_size == (SMALL, SMALL)


def test_own_classes(tmp_path: Path) -> None:
    state = randomised(timm.create_model("test_vit", num_classes=3, img_size=SMALL)).state_dict()
    weights = weights_file(tmp_path, state)
    names = tmp_path / "classes.txt"
    names.write_text("cat  a small cat\n\ndog\nbird  bird of prey\n")
    m = export_small(tmp_path, weights, num_classes=3, classes_file=names).manifest
    assert m.class_ids == ("cat", "dog", "bird")
    assert m.class_names == ("a small cat", "dog", "bird of prey")
    other = export_model(
        Request("test_vit", weights, num_classes=3, image_size=SMALL), tmp_path / "none"
    ).bundle.manifest
    assert other.class_ids is None


@pytest.mark.parametrize(
    "content", ["a\nb\n", "a\nb\nb\n", "a\nb\nc\nd\n", "", None, b"\xff\xfe\xff\xff\n1\n2\n"]
)
def test_bad_classes_file(content: str | bytes | None, tmp_path: Path) -> None:
    names = tmp_path / "classes.txt"
    if isinstance(content, str):
        names.write_text(content)
    elif content is not None:
        names.write_bytes(content)
    with pytest.raises(ExportError, match=r"classes"):
        export_model(Request("test_vit", random=True, num_classes=3, classes_file=names), tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


def test_missing_unexpected_and_misshapen_keys_are_listed(
    tmp_path: Path, small_weights: dict[str, Any]
) -> None:
    state = dict(small_weights)
    del state["norm.bias"]
    state["surprise"] = torch.zeros(1)
    state["cls_token"] = torch.zeros(1, 1, 63)
    with pytest.raises(ExportError) as caught:
        export_small(tmp_path, weights_file(tmp_path, state))
    message = str(caught.value)
    assert "1 missing (norm.bias)" in message
    assert "1 unexpected (surprise)" in message
    assert "cls_token [1, 1, 63] instead of [1, 1, 64]" in message
    assert not (tmp_path / "bundle").exists()


def test_weights_of_another_number_of_classes(tmp_path: Path, small_weights: dict[str, Any]) -> None:
    path = weights_file(tmp_path, small_weights)
    with pytest.raises(ExportError, match=r"head\.weight \[1000, 64\] instead of \[10, 64\]"):
        export_small(tmp_path, path, num_classes=10)


class Evil:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)


def test_a_pickle_with_code_is_refused_and_not_run(tmp_path: Path) -> None:
    marker = tmp_path / "executed"
    torch.save({"w": Evil(marker)}, tmp_path / "zip.pt")
    (tmp_path / "raw.pkl").write_bytes(pickle.dumps({"w": Evil(marker)}))
    for name in ("zip.pt", "raw.pkl"):
        with pytest.raises(ExportError) as caught:
            export_small(tmp_path, tmp_path / name)
        assert "\n" not in str(caught.value)
        assert not marker.exists()


GARBAGE: dict[str, bytes] = {
    "empty": b"",
    "hello": b"hello world, these are no weights",
    "text": b"This is not a file of weights\n" * 10,
    "html": b"<!DOCTYPE html><html><body>404</body></html>",
    "zeros": bytes(4096),
    "json": b'{"a": 1}',
    "lfs": b"version https://git-lfs.github.com/spec/v1\noid sha256:0000\nsize 5\n",
    "zip": b"PK\x03\x04" + bytes(200),
    "random": np.random.default_rng(0).bytes(3000),
    "plain pickle": pickle.dumps([1, 2, 3]),
}


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("kind", GARBAGE)
def test_garbage_weights(kind: str, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(GARBAGE[kind])
    with pytest.raises(ExportError, match=r"weights\.") as caught:
        export_small(tmp_path, path)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize(
    "content", [[1, 2], {"a": 1}, {0: torch.zeros(1)}, {"state_dict": {"a": "b"}}, torch.zeros(3)]
)
def test_files_that_hold_no_state_dict(content: Any, tmp_path: Path) -> None:
    with pytest.raises(ExportError):
        export_small(tmp_path, weights_file(tmp_path, content))


def test_missing_weights_file_and_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere.pt", tmp_path):
        with pytest.raises(ExportError, match="weights"):
            export_small(tmp_path, path)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("key", ["head.bias", "blocks.2.mlp.fc1.weight", "pos_embed"])
def test_weights_that_are_not_finite(
    key: str, value: float, tmp_path: Path, small_weights: dict[str, Any]
) -> None:
    state = {name: tensor.clone() for name, tensor in small_weights.items()}
    state[key].view(-1)[5] = value
    with pytest.raises(ExportError):
        export_small(tmp_path, weights_file(tmp_path, state))
    assert not (tmp_path / "bundle").exists()


def test_unknown_model_suggests(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"no model 'vit_tiny'.*did you mean .*vit_tiny"):
        export_model(Request("vit_tiny"), tmp_path / "bundle")
    with pytest.raises(ExportError, match="no model"):
        export_model(Request("qqqqqq"), tmp_path / "bundle")
    with pytest.raises(ExportError, match="no model"):
        export_model(Request(""), tmp_path / "bundle")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("model", ["test_resnet", "test_vit2", "test_vit3"])
def test_unsupported_timm_models_write_nothing(model: str, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="cannot be exported"):
        export_model(Request(model, random=True), tmp_path / "bundle")
    assert not list(tmp_path.iterdir())


def test_a_wrong_graph_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def perturbed(*arguments: Any) -> onnx.ModelProto:
        model = build_vit_graph(*arguments)
        tensor = next(t for t in model.graph.initializer if t.name == "blocks.3.attn.value.bias")
        values = onnx.numpy_helper.to_array(tensor).copy()
        values[7] += 0.05
        tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
        return model

    monkeypatch.setattr("fozo.export.vit.build_vit_graph", perturbed)
    with pytest.raises(ExportError, match="does not compute what PyTorch does"):
        export_model(Request("fozo_demo_vit"), tmp_path / "bundle")
    assert not list(tmp_path.iterdir())


def test_existing_output_is_kept(tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    first = export_model(Request("fozo_demo_vit"), out).bundle
    (out / "mark").write_text("old")
    for overwrite in (False, True):  # somebody's file inside a bundle is not thrown away either
        with pytest.raises(OutputError, match="it holds mark"):
            export_model(Request("fozo_demo_vit"), out, overwrite=overwrite)
    assert (out / "mark").read_text() == "old"
    (out / "mark").unlink()
    with pytest.raises(OutputError, match="--overwrite"):
        export_model(Request("fozo_demo_vit"), out)
    again = export_model(Request("fozo_demo_vit"), out, overwrite=True).bundle
    assert again.sha256 == first.sha256
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_a_failed_export_keeps_the_old_bundle(tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    old = export_model(Request("fozo_demo_vit"), out).bundle
    with pytest.raises(ExportError):
        export_model(Request("test_resnet", random=True), out, overwrite=True)
    assert Bundle.open(out).sha256 == old.sha256


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("kind", ["folder", "file", "foreign bundle.json"])
def test_what_is_no_bundle_is_never_replaced(kind: str, overwrite: bool, tmp_path: Path) -> None:
    out = tmp_path / "thesis"
    if kind == "file":
        out.write_text("years of work")
        precious = out
    else:
        out.mkdir()
        precious = out / "chapter1.txt"
        precious.write_text("years of work")
        if kind == "foreign bundle.json":
            (out / "bundle.json").write_text('{"name": "a JavaScript project"}')
    with pytest.raises(OutputError, match="already exists"):
        export_model(Request("fozo_demo_vit"), out, overwrite=overwrite)
    assert precious.read_text() == "years of work"


def test_output_in_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot create"):
        export_model(Request("fozo_demo_vit"), tmp_path / "no" / "bundle")
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot create"):
        export_model(Request("fozo_demo_vit"), tmp_path / "file" / "bundle")


def test_random_weights_are_recorded_as_random(tmp_path: Path) -> None:
    small = export_model(Request("test_vit", random=True, image_size=SMALL), tmp_path / "a").bundle.manifest
    demo = export_model(Request("fozo_demo_vit", random=True), tmp_path / "b").bundle.manifest
    assert small.provenance["weights"] == "random"
    assert demo.provenance["weights"] == "random"


# --- preprocessing ---


def timm_pixels(config: dict[str, Any], image: Image.Image) -> NDArray[np.uint8]:
    transform = create_transform(**config, is_training=False, use_prefetcher=True)
    pixels: NDArray[np.uint8] = np.asarray(transform(image)).transpose(1, 2, 0)
    return pixels


@pytest.mark.parametrize(
    ("mode", "crop", "interpolation"),
    [
        ("center", 0.875, "bilinear"),
        ("center", 0.9, "bicubic"),
        ("center", 1.0, "bicubic"),
        ("center", 0.95, "nearest"),
        ("squash", 1.0, "bicubic"),
        ("squash", 0.95, "bicubic"),  # vit_base_patch16_clip_384.openai_ft_in12k_in1k
    ],
)
@pytest.mark.parametrize("size", [32, 28])
def test_preprocessing_is_timms(
    mode: str,
    crop: float,
    interpolation: str,
    size: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = vit(img_size=size, patch_size=4)
    model.pretrained_cfg = {
        "input_size": (3, size, size),
        "crop_mode": mode,
        "crop_pct": crop,
        "interpolation": interpolation,
        "mean": MEAN,
        "std": STD,
    }
    monkeypatch.setattr(exporter, "create_model", lambda request: model)
    how = export_model(Request("m"), tmp_path / "bundle").bundle.manifest.preprocessing
    config = resolve_model_data_config(model)
    generator = np.random.default_rng(0)
    for shape in ((50, 70), (71, 40), (100, 100), (29, 33)):
        pixels = generator.integers(0, 256, (*shape, 3), dtype=np.uint8)
        image = Image.fromarray(pixels)
        expected, found = timm_pixels(config, image), preprocess(image, how)
        assert found.shape == expected.shape == (size, size, 3)
        np.testing.assert_array_equal(found, expected)


def test_images_that_are_not_square_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """timm covers the target with `ResizeKeepRatio`; `Preprocessing.resize` cannot say that."""
    model = vit(img_size=(28, 56))
    monkeypatch.setattr(exporter, "create_model", lambda request: model)
    with pytest.raises(ExportError, match="28 × 56"):
        export_model(Request("m"), tmp_path / "bundle")
    assert not list(tmp_path.iterdir())


def test_other_crop_modes_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = vit()
    model.pretrained_cfg = {"input_size": (3, 28, 28), "crop_mode": "border", "crop_pct": 1.0}
    monkeypatch.setattr(exporter, "create_model", lambda request: model)
    with pytest.raises(ExportError, match="border"):
        export_model(Request("m"), tmp_path / "bundle")


def test_mean_and_std_of_the_model_are_in_the_graph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = vit()
    model.pretrained_cfg = {"input_size": (3, 28, 28), "mean": MEAN, "std": STD, "crop_pct": 1.0}
    monkeypatch.setattr(exporter, "create_model", lambda request: model)
    bundle = export_model(Request("m"), tmp_path / "bundle").bundle
    images = np.random.default_rng(0).integers(0, 256, (4, 28, 28, 3), dtype=np.uint8)
    with Network.open(bundle, workers=1) as net:
        assert_close(net(images).logits, reference(model, images, np.zeros((1, 0, 32), np.float32))[0], "")


# --- the models that people use ---


def test_demo_model_reads_digits(tmp_path: Path) -> None:
    bundle = export_model(Request("fozo_demo_vit"), tmp_path / "bundle").bundle
    assert bundle.manifest.class_ids == tuple("0123456789")
    images, labels = demo_images("test")
    model = create_model(Request("fozo_demo_vit"))
    with torch.inference_mode():
        pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
        expected = model((pixels - 0.5) / 0.5).numpy()
    with Network.open(bundle, workers=2) as net:
        found = net(images).logits
    assert (found.argmax(1) == labels).mean() >= 0.97
    assert (found.argmax(1) == expected.argmax(1)).all()
    assert np.abs(found - expected).max() < 1e-3


def test_demo_model_is_fixed(tmp_path: Path) -> None:
    for request in (Request("fozo_demo_vit", num_classes=3), Request("fozo_demo_vit", image_size=64)):
        with pytest.raises(ExportError, match="fixed"):
            export_model(request, tmp_path / "bundle")


def test_demo_model_leaves_the_random_state_alone() -> None:
    state = torch.random.get_rng_state()
    create_demo_model()
    assert torch.equal(state, torch.random.get_rng_state())


def test_vit_tiny_on_real_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = real_data("models", "vit_tiny_patch16_224.augreg_in21k_ft_in1k.safetensors")
    monkeypatch.setattr("fozo.export.verify.BATCHES", (1, 2))  # the 200 images below check more
    bundle = export_model(Request("vit_tiny_patch16_224", weights), tmp_path / "bundle").bundle
    paths = sorted(real_data("imagenet", "val").glob("*/*"))
    paths = [paths[i] for i in np.random.default_rng(0).choice(len(paths), 200, replace=False)]
    model = timm.create_model("vit_tiny_patch16_224", checkpoint_path=str(weights)).eval()
    transform = create_transform(**resolve_model_data_config(model), is_training=False)
    tensors, arrays = [], []
    for path in paths:
        with Image.open(path) as image:
            tensors.append(transform(image.convert("RGB")))
        arrays.append(preprocess(read_image(path), bundle.manifest.preprocessing))
    with torch.inference_mode():
        expected = np.concatenate([model(batch).numpy() for batch in torch.stack(tensors).split(20)])
    with Network.open(bundle, workers=2) as net:
        found = net(np.stack(arrays)).logits
    assert (found.argmax(1) == expected.argmax(1)).all()
    assert np.abs(found - expected).max() < 1e-3
    ids = bundle.manifest.class_ids
    assert ids is not None
    accuracy = np.mean([ids[k] == path.parent.name for k, path in zip(found.argmax(1), paths, strict=True)])
    assert accuracy > 0.7


def test_verification_runs_the_batches_that_it_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the micro-batch: the graph itself must see 1, 2, 3 and 17 images at once."""
    seen: set[tuple[int, int]] = set()
    original = Network.__init__

    def watching(self: Network, *arguments: Any, **options: Any) -> None:
        original(self, *arguments, **options)
        session = self._session

        class Watched:
            def run(self, names: Any, feed: Any) -> Any:
                seen.add((len(feed["images"]), feed["prompts"].shape[1]))
                return session.run(names, feed)

        self._session = Watched()

    monkeypatch.setattr(Network, "__init__", watching)
    export_model(Request("fozo_demo_vit"), tmp_path / "bundle")
    assert seen == {(n, p) for n in (1, 2, 3, 17) for p in (0, 3)}


def test_a_pretrained_model_with_a_random_classifier_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda name, pretrained, **options: create(name, **options))
    with pytest.raises(ExportError, match="its classifier would be random"):
        export_model(Request("vit_tiny_patch16_224", num_classes=10), tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == []


def test_training_the_demo_model_is_deterministic(tmp_path: Path) -> None:
    """One epoch, twice; the shipped weights are what 60 of them give (minutes, hence not here)."""
    pytest.importorskip("sklearn")
    from fozo.export.demo_model import DEMO_WEIGHTS
    from fozo.export.train_demo import main

    threads = torch.get_num_threads()
    try:
        for name in ("a", "b"):
            main(["--epochs", "1", "--out", str(tmp_path / f"{name}.safetensors")], standalone_mode=False)
    finally:  # a script may set these for its process, a test may not
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(False)
    first = (tmp_path / "a.safetensors").read_bytes()
    assert first == (tmp_path / "b.safetensors").read_bytes()
    assert len(first) == DEMO_WEIGHTS.stat().st_size <= 2_000_000
    assert first != DEMO_WEIGHTS.read_bytes()
