"""Weights with the names and layouts of other libraries."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from export_doubles import SMALL
from numpy.typing import NDArray

State = dict[str, Any]
WIDTH, DEPTH, HEADS, CLASSES, PATCH = 24, 2, 3, 5, 8

# Names of one layer: in files of all versions, and in memory since version 5.
LAYER = {
    "files": (
        "encoder.layer.{}.",
        ["attention.attention.query", "attention.attention.key", "attention.attention.value"],
        "attention.output.dense",
        ["intermediate.dense", "output.dense"],
    ),
    "memory": (
        "layers.{}.",
        ["attention.q_proj", "attention.k_proj", "attention.v_proj"],
        "attention.o_proj",
        ["mlp.fc1", "mlp.fc2"],
    ),
}

# Content of preprocessor_config.json.
VIT = {
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [0.5, 0.25, 0.125],
    "image_processor_type": "ViTImageProcessor",
    "image_std": [0.5, 0.5, 0.25],
    "resample": 2,
    "rescale_factor": 0.00392156862745098,
    "size": {"height": 224, "width": 224},
}


def make_state(kind: str = "vit", names: str = "files", side: int = SMALL, seed: int = 0) -> State:
    """Make random weights of a classifier with the names and shapes of transformers."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Any:
        return torch.randn(shape, generator=generator) * (0.3 if len(shape) == 1 else shape[-1] ** -0.5)

    def add(name: str, *shape: int) -> None:
        state[f"{name}.weight"], state[f"{name}.bias"] = draw(*shape), draw(shape[0])

    state: State = {f"{kind}.embeddings.cls_token": draw(1, 1, WIDTH)}
    prefix_tokens = 1
    if kind == "deit":
        prefix_tokens = 2
        state["deit.embeddings.distillation_token"] = draw(1, 1, WIDTH)
    state[f"{kind}.embeddings.position_embeddings"] = draw(1, (side // PATCH) ** 2 + prefix_tokens, WIDTH)
    add(f"{kind}.embeddings.patch_embeddings.projection", WIDTH, 3, PATCH, PATCH)
    start, projections, output, mlp = LAYER[names]
    for layer in range(DEPTH):
        own = f"{kind}.{start.format(layer)}"
        for name in (*projections, output):
            add(own + name, WIDTH, WIDTH)
        add(f"{own}layernorm_before", WIDTH)
        add(f"{own}layernorm_after", WIDTH)
        add(own + mlp[0], 4 * WIDTH, WIDTH)
        add(own + mlp[1], WIDTH, 4 * WIDTH)
    add(f"{kind}.layernorm", WIDTH)
    for name in ["cls_classifier", "distillation_classifier"] if kind == "deit" else ["classifier"]:
        add(name, CLASSES, WIDTH)
    return state


def in_google_layout(model: Any) -> dict[str, NDArray[np.float32]]:
    """Return the arrays of a timm model as Google's code saves them: kernels `[in, out]`, heads apart."""
    state = {name: tensor.detach().numpy() for name, tensor in model.state_dict().items()}
    heads = model.blocks[0].attn.num_heads
    arrays = {
        "embedding/kernel": state["patch_embed.proj.weight"].transpose(2, 3, 1, 0),
        "embedding/bias": state["patch_embed.proj.bias"],
        "cls": state["cls_token"],
        "Transformer/posembed_input/pos_embedding": state["pos_embed"],
        "Transformer/encoder_norm/scale": state["norm.weight"],
        "Transformer/encoder_norm/bias": state["norm.bias"],
        "head/kernel": state["head.weight"].T,
        "head/bias": state["head.bias"],
    }
    for index in range(len(model.blocks)):
        own, block = f"Transformer/encoderblock_{index}/", f"blocks.{index}."
        attention = f"{own}MultiHeadDotProductAttention_1/"
        weights = np.split(state[f"{block}attn.qkv.weight"], 3)
        biases = np.split(state[f"{block}attn.qkv.bias"], 3)
        for name, weight, bias in zip(("query", "key", "value"), weights, biases, strict=True):
            arrays[f"{attention}{name}/kernel"] = weight.T.reshape(len(weight), heads, -1)
            arrays[f"{attention}{name}/bias"] = bias.reshape(heads, -1)
        proj = state[f"{block}attn.proj.weight"]
        arrays[f"{attention}out/kernel"] = proj.T.reshape(heads, -1, len(proj))
        arrays[f"{attention}out/bias"] = state[f"{block}attn.proj.bias"]
        for theirs, ours in (("LayerNorm_0", "norm1"), ("LayerNorm_2", "norm2")):
            arrays[f"{own}{theirs}/scale"] = state[f"{block}{ours}.weight"]
            arrays[f"{own}{theirs}/bias"] = state[f"{block}{ours}.bias"]
        for layer in (0, 1):
            arrays[f"{own}MlpBlock_3/Dense_{layer}/kernel"] = state[f"{block}mlp.fc{layer + 1}.weight"].T
            arrays[f"{own}MlpBlock_3/Dense_{layer}/bias"] = state[f"{block}mlp.fc{layer + 1}.bias"]
    return arrays
