"""Small vision transformers with random parameters, their PyTorch reference and their exported networks."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from fozo.engine.model import FloatArray, ImageArray, ModelInfo
from fozo.engine.runtime.network import Network

torch = pytest.importorskip("torch", reason="export needs PyTorch")
timm = pytest.importorskip("timm", reason="export needs timm")

from fozo.export.vit_graph import build_vit_graph  # noqa: E402
from fozo.export.vit_model import Vit, read_vit  # noqa: E402
from timm.layers import GluMlp, QuickGELU, SwiGLUPacked  # noqa: E402
from timm.models.deit import VisionTransformerDistilled  # noqa: E402
from timm.models.vision_transformer import (  # noqa: E402
    VisionTransformer,
)

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


CLASSES = 7


TOLERANCE = 3e-5  # of the largest magnitude; float32 in two different orders of summation


def make_vit(kind: Any = VisionTransformer, **options: Any) -> Any:
    """Make a tiny model with every parameter random: fresh gammas and biases would hide omissions."""
    defaults = {
        "img_size": 28,
        "patch_size": 7,
        "embed_dim": 32,
        "depth": 2,
        "num_heads": 4,
        "num_classes": CLASSES,
    }
    return randomise(kind(**{**defaults, **options}))


def randomise(model: Any, seed: int = 0) -> Any:
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


VITS: dict[str, Callable[[], Any]] = {
    "plain": make_vit,
    "no_qkv_bias": partial(make_vit, qkv_bias=False),
    "no_proj_bias": partial(make_vit, proj_bias=False),
    "qk_norm": partial(make_vit, qk_norm=True),
    "deit_distilled": partial(make_vit, VisionTransformerDistilled),
    "deit_distilled_layer_scale": partial(make_vit, VisionTransformerDistilled, init_values=1e-5, depth=3),
    "deit3": partial(make_vit, no_embed_class=True, init_values=1e-6),
    "dinov2": partial(make_vit, init_values=1e-5, img_size=42, patch_size=14),
    "dinov2_registers": partial(
        make_vit, init_values=1e-5, reg_tokens=4, no_embed_class=True, img_size=42, patch_size=14
    ),
    "registers_with_positions": partial(make_vit, reg_tokens=3),
    "dinov2_giant_swiglu": partial(
        make_vit, mlp_layer=SwiGLUPacked, act_layer=torch.nn.SiLU, init_values=1e-5, mlp_ratio=2.66667 * 2
    ),
    "glu_gate_first": partial(make_vit, mlp_layer=partial(GluMlp, gate_last=False), act_layer=torch.nn.SiLU),
    "glu_gate_last": partial(make_vit, mlp_layer=partial(GluMlp, gate_last=True), act_layer=torch.nn.GELU),
    "clip": partial(make_vit, pre_norm=True, act_layer=QuickGELU),
    "clip_gelu": partial(make_vit, pre_norm=True, norm_layer=partial(torch.nn.LayerNorm, eps=1e-5)),
    "gelu_tanh": partial(make_vit, act_layer="gelu_tanh"),
    "torch_gelu_tanh": partial(make_vit, act_layer=partial(torch.nn.GELU, approximate="tanh")),
    "relu": partial(make_vit, act_layer=torch.nn.ReLU),
    "silu": partial(make_vit, act_layer="silu"),
    "large_epsilon": partial(make_vit, norm_layer=partial(torch.nn.LayerNorm, eps=0.1)),
    "norm_without_bias": partial(make_vit, norm_layer=partial(torch.nn.LayerNorm, bias=False)),
    "norm_without_affine": partial(
        make_vit, norm_layer=partial(torch.nn.LayerNorm, elementwise_affine=False)
    ),
    "embed_norm": partial(make_vit, embed_norm_layer=torch.nn.LayerNorm),
    "no_positions": partial(make_vit, pos_embed="none"),
    "no_positions_registers": partial(make_vit, pos_embed="none", reg_tokens=2),
    "wide_image": partial(make_vit, img_size=(28, 56)),
    "tall_image": partial(make_vit, img_size=(56, 21)),
    "rectangular_patch": partial(make_vit, img_size=(28, 28), patch_size=(4, 14)),
    "not_a_multiple": partial(make_vit, img_size=(31, 33)),
    "patch_4": partial(make_vit, patch_size=4),
    "patch_8": partial(make_vit, img_size=32, patch_size=8),
    "patch_14": partial(make_vit, patch_size=14),
    "patch_32": partial(make_vit, img_size=64, patch_size=32),
    "one_patch": partial(make_vit, patch_size=28),
    "depth_1": partial(make_vit, depth=1),
    "depth_1_distilled": partial(make_vit, VisionTransformerDistilled, depth=1),
    "depth_5": partial(make_vit, depth=5),
    "one_head": partial(make_vit, num_heads=1),
    "width_48": partial(make_vit, embed_dim=48, num_heads=3),
    "width_64": partial(make_vit, embed_dim=64, num_heads=8),
    "width_40_mlp_1": partial(make_vit, embed_dim=40, num_heads=5, mlp_ratio=1.0),
    "scale_attn_norm": partial(make_vit, scale_attn_norm=True),
    "scale_mlp_norm": partial(make_vit, scale_mlp_norm=True),
    "swiglu_scale_norms": partial(
        make_vit, scale_attn_norm=True, scale_mlp_norm=True, qk_norm=True, mlp_layer=SwiGLUPacked
    ),
    "dynamic_image_size": partial(make_vit, dynamic_img_size=True),
    "dropouts": partial(make_vit, drop_rate=0.5, pos_drop_rate=0.5, proj_drop_rate=0.5, drop_path_rate=0.5),
    "one_class": partial(make_vit, num_classes=1),
    "everything": partial(
        make_vit,
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


def compute_reference(model: Any, images: ImageArray, prompts: FloatArray) -> tuple[FloatArray, FloatArray]:
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


def describe_model(read: Vit) -> ModelInfo:
    return ModelInfo(
        "test", "test", len(read.blocks), read.width, read.tokens, 0.1, read.head.weight, read.head_bias
    )


def open_network(model: Any, folder: Path, **options: Any) -> Network:
    read = read_vit(model)
    path = folder / "model.onnx"
    onnx.save(build_vit_graph(read, MEAN, STD), path)
    return Network(path, describe_model(read), workers=1, **options)


def assert_close(found: FloatArray, expected: FloatArray, what: str) -> None:
    assert found.shape == expected.shape, what
    assert found.dtype == np.float32, what
    assert np.abs(found - expected).max() <= TOLERANCE * max(1, np.abs(expected).max()), what
