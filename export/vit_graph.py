"""ONNX graph of a vision transformer, following the graph contract (docs/bundle.md).

The graph is written node by node rather than traced. It stays small, uses standard operators only, and
computes only what adaptation needs. In particular, only the tokens that the classifier reads leave the last
block, so its queries, projection and MLP are computed for these alone; this is exact.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import onnx
from onnx import TensorProto

from ..engine.model import NORMS, PIXELS, PROMPTS, Activation
from ..engine.runtime.graph_contract import IMAGES
from .onnx_builder import Axes, OnnxBuilder
from .signature import OPSET, declare_inputs, declare_outputs
from .transformer_graph import write_attention, write_mlp, write_norm
from .transformer_model import Block, Linear, Norm
from .vit_model import Vit


def select_vit_norms(vit: Vit, blocks: Iterable[int] | None = None) -> dict[str, int]:
    """Return both norms of some blocks, in the order of computation, each with its number of channels.

    Args:
        vit: the model.
        blocks: counted from 0; None selects all of them.
    """
    indices = range(len(vit.blocks)) if blocks is None else sorted(set(blocks))
    return {f"blocks.{index}.{norm}": vit.width for index in indices for norm in ("norm1", "norm2")}


def list_vit_tunables(vit: Vit, norms: Mapping[str, int], *, pixels: bool = False) -> dict[str, Axes]:
    """Return the axes of each tunable input, by name, if these norms are tunable, and perhaps the pixels."""
    tunables: dict[str, Axes] = {PROMPTS: ("R", "P", vit.width)}
    if norms:
        tunables[NORMS] = ("S", len(norms), 2, vit.width)
    if pixels:
        tunables[PIXELS] = ("Q", *vit.image_size, 3)
    return tunables


def list_vit_activations(vit: Vit) -> tuple[Activation, ...]:
    """Return the inputs of the products of every block, and the sum behind it, in the order of computation.

    The values that the heads of an attention have mixed are the input of its projection before they are put
    side by side, because integers of them are moved and not the values.
    """
    activations = []
    for index, block in enumerate(vit.blocks):
        name = f"blocks.{index}"
        mix = (f"{name}.attn/mix", block.heads) if block.attention_norm is None else (f"{name}.attn.norm", 0)
        hidden = f"{name}.mlp.norm" if block.mlp_norm is not None else f"{name}.mlp/gate"
        if block.mlp_norm is None and block.gate is None:
            hidden = f"{name}.mlp/act"
        activations += [
            Activation(index, "qkv", f"{name}.norm1", vit.width),
            Activation(index, "proj", mix[0], block.heads * block.head_width, mix[1]),
            Activation(index, "fc1", f"{name}.norm2", vit.width),
            Activation(index, "fc2", hidden, block.fc2.weight.shape[1]),
            Activation(index, "output", f"{name}/mlp_residual", vit.width),
        ]
    return tuple(activations)


def build_vit_graph(
    vit: Vit,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    norms: Mapping[str, int] | None = None,
    pixels: bool = False,
) -> onnx.ModelProto:
    """Build the graph of a model.

    Args:
        vit: the model.
        mean: per channel, of images scaled to 0..1, subtracted inside the graph.
        std: per channel, of images scaled to 0..1, divided by inside the graph.
        norms: the norms, from `select_vit_norms`, whose gain and bias get a tunable addend.
        pixels: whether the images get a tunable addend, too.
    """
    b = OnnxBuilder()
    features = write_vit_features(b, vit, mean, std, norms or {}, pixels)
    _write_outputs(b, features, vit)
    inputs = declare_inputs(vit.image_size, list_vit_tunables(vit, norms or {}, pixels=pixels))
    outputs = declare_outputs(len(vit.head.weight), len(vit.blocks), vit.readout * vit.width, vit.width)
    return b.model(inputs, outputs, OPSET, "fozo")


def write_vit_features(
    b: OnnxBuilder,
    vit: Vit,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    norms: Mapping[str, int],
    pixels: bool,
) -> list[str]:
    """Write everything before the classifier, the output `embedding` included.

    Args:
        b: the builder.
        vit: the model.
        mean: as in `build_vit_graph`.
        std: as in `build_vit_graph`.
        norms: as in `build_vit_graph`.
        pixels: as in `build_vit_graph`.

    Returns:
        The feature of each block, `[N, 1, F]`; the classifier reads the last one.
    """
    block_norms = _BlockNorms(b, vit, norms)
    x = _write_tokens(b, vit, mean, std, pixels)
    features: list[str] = []
    for index, block in enumerate(vit.blocks):
        normed = block_norms.write(x, block.norm1, f"blocks.{index}.norm1")
        if index:
            features.append(_write_readout(b, normed, vit, f"feature.{index}"))
        last = index == len(vit.blocks) - 1
        readout = vit.readout if last else None
        x = _write_block(b, block_norms, x, normed, block, f"blocks.{index}", readout)
    final = write_norm(b, x, vit.norm, "norm")
    features.append(_write_feature(b, final, vit, f"feature.{len(vit.blocks)}"))
    return features


class _BlockNorms:
    """Writer of the blocks' layer norms, with addends to gain and bias where they are tunable.

    The addends of all norms are one tensor `norms` `[S, M, 2, D]`, added to the stored values at once. Each
    norm then reads its gain and bias `[S, 1, D]`.
    """

    def __init__(self, b: OnnxBuilder, vit: Vit, norms: Iterable[str]) -> None:
        self._builder = b
        self._parameters: dict[str, list[str]] = {}
        tunable = tuple(norms)
        if not tunable:
            return
        stored = {
            f"blocks.{index}.{name}": getattr(block, name)
            for index, block in enumerate(vit.blocks)
            for name in ("norm1", "norm2")
        }
        values = np.stack([np.stack([stored[name].weight, stored[name].bias]) for name in tunable])[None]
        total = b.node("Add", [NORMS, b.weight("norms.stored", values)], "norms/total")
        rows = b.reshape(total, (0, 2 * len(tunable), vit.width), "norms/rows")
        self._parameters = {name: [f"{name}.weight", f"{name}.bias"] for name in tunable}
        b.split(rows, 1, [name for pair in self._parameters.values() for name in pair], "norms/split")

    def write(self, x: str, norm: Norm, name: str) -> str:
        """Write a norm of a block, tunable or not."""
        if name not in self._parameters:
            return write_norm(self._builder, x, norm, name)
        inputs = [x, *self._parameters[name]]
        return self._builder.node("LayerNormalization", inputs, name, axis=-1, epsilon=norm.epsilon)


def _write_tokens(
    b: OnnxBuilder, vit: Vit, mean: tuple[float, ...], std: tuple[float, ...], pixels: bool
) -> str:
    """Write the tokens before the first block, `[N, prefix + P + M, D]`.

    Prompts come after the position embedding and get none.
    """
    patches = vit.grid[0] * vit.grid[1]
    x = _write_patches(b, vit, mean, std, pixels)
    if vit.norm_pre is None:
        _write_embedding_moments(b, x, patches)
    count = b.node("Shape", [IMAGES], "tokens/count", start=0, end=1)
    shape = b.node("Concat", [count, b.ints(1, 1)], "tokens/shape", axis=0)
    prefix = b.node("Expand", [b.weight("prefix", vit.prefix[None]), shape], "tokens/prefix")
    prompts = b.node("Expand", [PROMPTS, shape], "tokens/prompts")
    if vit.norm_pre is not None:
        _write_embedding_moments(b, write_norm(b, x, vit.norm_pre, "embedding/norm_pre"), patches)
    x = b.node("Concat", [prefix, prompts, x], "tokens/concat", axis=1)
    return x if vit.norm_pre is None else write_norm(b, x, vit.norm_pre, "norm_pre")


def _write_patches(
    b: OnnxBuilder, vit: Vit, mean: tuple[float, ...], std: tuple[float, ...], pixels: bool
) -> str:
    """Write the embedded patches with their positions, `[N, M, D]`; patches are cut out as bytes."""
    x = b.node(
        "Cast", [_cut_patches(b, vit, IMAGES, "patch_embed")], "patch_embed/cast", to=TensorProto.FLOAT
    )
    if pixels:
        x = _add_pixels(b, vit, x)
    patch = _merge_normalisation(vit.patch, mean, std)
    if vit.patch_norm is None:  # position embedding and bias are one addition
        assert patch.bias is not None
        x = b.linear(x, patch.weight, None, "patch_embed.proj")
        positions = b.weight("patch_embed.bias_and_positions", patch.bias + vit.positions)
    else:
        x = b.linear(x, patch.weight, patch.bias, "patch_embed.proj")
        x = write_norm(b, x, vit.patch_norm, "patch_embed.norm")
        positions = b.weight("positions", vit.positions)
    return b.node("Add", [x, positions], "patch_embed/positions")


def _cut_patches(b: OnnxBuilder, vit: Vit, images: str, name: str) -> str:
    """Write the patches of images `[N, H, W, 3]`, `[N, M, patch area · 3]`."""
    (rows, columns), (ph, pw) = vit.grid, vit.patch_size
    x = images
    for axis, used, size in ((1, rows * ph, vit.image_size[0]), (2, columns * pw, vit.image_size[1])):
        if used < size:  # a convolution ignores what does not fill a patch
            x = b.slice(x, 0, used, axis, f"{name}/crop{axis}")
    x = b.reshape(x, (0, rows, ph, columns, pw, 3), f"{name}/grid")
    x = b.node("Transpose", [x], f"{name}/cut", perm=[0, 1, 3, 2, 4, 5])
    return b.reshape(x, (0, rows * columns, ph * pw * 3), f"{name}/flatten")


def _add_pixels(b: OnnxBuilder, vit: Vit, x: str) -> str:
    """Add the tunable `pixels` to patches of numbers in 0..255, and clip them to that range.

    In this unit the weights are those of graphs without the tunable, and zeros change no bit.
    """
    addend = _cut_patches(b, vit, PIXELS, "pixels")
    addend = b.node("Mul", [addend, b.weight("pixels.levels", np.asarray(255.0))], "pixels/scale")
    x = b.node("Add", [x, addend], "pixels/add")
    limits = [b.weight("pixels.lowest", np.asarray(0.0)), b.weight("pixels.levels", np.asarray(255.0))]
    return b.node("Clip", [x, *limits], "pixels/clip")


def _write_embedding_moments(b: OnnxBuilder, x: str, tokens: int) -> None:
    """Write mean and biased variance over the patch tokens of each image `[N, 2, D]`."""
    # A product and not ReduceMean, whose last bits depend on the number of images.
    weights = b.weight("embedding.weights", np.full((1, 1, tokens), 1 / tokens))
    mean = b.node("MatMul", [weights, x], "embedding/mean")
    centered = b.node("Sub", [x, mean], "embedding/centred")
    squares = b.node("Mul", [centered, centered], "embedding/squares")
    variance = b.node("MatMul", [weights, squares], "embedding/variance")
    b.node("Concat", [mean, variance], "embedding/concat", output="embedding", axis=1)


def _merge_normalisation(patch: Linear, mean: tuple[float, ...], std: tuple[float, ...]) -> Linear:
    """Return the patch embedding of bytes 0..255, which includes `(x / 255 - mean) / std`."""
    assert patch.bias is not None
    weight = patch.weight.astype(np.float64).reshape(len(patch.weight), -1, 3)
    bias = patch.bias - (weight * (np.asarray(mean) / np.asarray(std))).sum(axis=(1, 2))
    return Linear((weight / (255 * np.asarray(std))).reshape(patch.weight.shape), bias)


def _write_block(
    b: OnnxBuilder, norms: _BlockNorms, x: str, normed: str, block: Block, name: str, readout: int | None
) -> str:
    """Write one block; only the first `readout` tokens leave it, or all of them if that is None."""
    query_tokens = normed
    if readout is not None:
        x, query_tokens = (
            b.slice(tokens, 0, readout, 1, f"{name}/keep_{label}")
            for tokens, label in ((x, "x"), (normed, "queries"))
        )
    attention = write_attention(b, query_tokens, normed, block, f"{name}.attn")
    x = b.node("Add", [x, attention], f"{name}/attn_residual")
    hidden = norms.write(x, block.norm2, f"{name}.norm2")
    return b.node("Add", [x, write_mlp(b, hidden, block, f"{name}.mlp")], f"{name}/mlp_residual")


def _write_readout(b: OnnxBuilder, normed: str, vit: Vit, name: str) -> str:
    """Write the feature `[N, 1, F]` of a block from the normalised tokens after it."""
    return _write_feature(b, b.slice(normed, 0, vit.readout, 1, f"{name}/tokens"), vit, name)


def _write_feature(b: OnnxBuilder, tokens: str, vit: Vit, name: str) -> str:
    return tokens if vit.readout == 1 else b.reshape(tokens, (0, 1, vit.readout * vit.width), name)


def _write_outputs(b: OnnxBuilder, features: list[str], vit: Vit) -> None:
    b.node("Concat", features, "features/concat", output="features", axis=1)
    last = b.reshape(features[-1], (0, vit.readout * vit.width), "head/input")
    weights = [b.weight("head.weight", vit.head.weight.T), b.weight("head.bias", vit.head_bias)]
    b.node("Gemm", [last, *weights], "head", output="logits")
