"""Which matrix products of a graph run on integers: every linear layer and the scores, of every family."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from fozo.export.onnx_builder import OnnxBuilder
from fozo.quant.products import Operand, Product, find_products

onnx = pytest.importorskip("onnx", reason="quantisation reads graphs with onnx")
torch = pytest.importorskip("torch", reason="the graphs are exported from PyTorch")
pytest.importorskip("timm", reason="the graphs are exported from timm")

from fozo.export.vit_graph import build_vit_graph  # noqa: E402
from fozo.export.vit_model import read_vit  # noqa: E402
from timm.layers import GluMlp, SwiGLUPacked  # noqa: E402
from timm.models.deit import VisionTransformerDistilled  # noqa: E402
from timm.models.vision_transformer import VisionTransformer  # noqa: E402

FLOAT = onnx.TensorProto.FLOAT


def vit(kind: Any = VisionTransformer, **options: Any) -> Any:
    defaults = {"img_size": 28, "patch_size": 7, "embed_dim": 32, "depth": 2, "num_heads": 4}
    return kind(**{**defaults, "num_classes": 7, **options}).eval()


FAMILIES: dict[str, Callable[[], Any]] = {
    "plain": vit,
    "distilled": partial(vit, VisionTransformerDistilled),
    "dinov2_registers": partial(vit, init_values=1e-5, reg_tokens=4, no_embed_class=True),
    "deit3": partial(vit, no_embed_class=True, init_values=1e-6, depth=3),
    "clip": partial(vit, pre_norm=True, act_layer="quick_gelu"),
    "qk_norm": partial(vit, qk_norm=True),
    "swiglu": partial(vit, mlp_layer=SwiGLUPacked, act_layer=torch.nn.SiLU),
    "glu": partial(vit, mlp_layer=partial(GluMlp, gate_last=False), act_layer=torch.nn.SiLU),
    "scale_norms": partial(vit, scale_attn_norm=True, scale_mlp_norm=True),
    "no_qkv_bias": partial(vit, qkv_bias=False),
    "no_proj_bias": partial(vit, proj_bias=False),
    "embed_norm": partial(vit, embed_norm_layer=torch.nn.LayerNorm),
    "not_a_multiple": partial(vit, img_size=(31, 33)),
    "depth_1": partial(vit, depth=1),
}


def graph_of(model: Any) -> Any:
    return build_vit_graph(read_vit(model), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def linears(model: Any) -> dict[str, bool]:
    """Return the linear layers of a PyTorch model without its heads, and whether they have a bias."""
    found = {"patch_embed.proj": True}
    for name, module in model.blocks.named_modules(prefix="blocks"):
        if isinstance(module, torch.nn.Linear):
            parts = ("query", "key", "value") if name.endswith(".qkv") else ("",)
            for part in parts:
                found[name.removesuffix("qkv") + part] = module.bias is not None
    return found


@pytest.mark.parametrize("family", FAMILIES)
def test_every_linear_layer_and_the_scores_are_found(family: str) -> None:
    model = FAMILIES[family]()
    graph = graph_of(model)
    products = {product.name: product for product in find_products(graph)}
    expected = linears(model)
    scores = {f"blocks.{index}.attn/scores" for index in range(len(model.blocks))}
    assert set(products) == set(expected) | scores
    assert len(products) == len(find_products(graph)) == 1 + 7 * len(model.blocks)

    makers = {output: node for node in graph.graph.node for output in node.output}
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.graph.initializer}
    for name, has_bias in expected.items():
        product = products[name]
        assert product.right is None and product.weight is not None
        assert len(shapes[product.weight]) == 2
        merged = has_bias and (name != "patch_embed.proj" or family == "embed_norm")
        assert (product.bias is not None) is merged, name
        if product.bias is not None:
            assert shapes[product.bias] == shapes[product.weight][1:]
        assert makers[product.output].op_type == ("Add" if merged else "MatMul")
    assert [name for name, product in products.items() if product.left.is_bytes] == ["patch_embed.proj"]
    for name in scores:
        assert products[name].right is not None and products[name].weight is None

    # What is left in float: attention probabilities times values, means of the embedding, and the head.
    others = {n.name for n in graph.graph.node if n.op_type == "MatMul"} - {p.node for p in products.values()}
    mixes = {f"blocks.{index}.attn/mix" for index in range(len(model.blocks))}
    assert others == {*mixes, "embedding/mean", "embedding/variance"}
    assert [node.name for node in graph.graph.node if node.op_type == "Gemm"] == ["head"]


def test_what_is_quantised_lies_before_reshapes_and_transposes() -> None:
    products = {product.name: product for product in find_products(graph_of(vit()))}
    attention = "blocks.0.attn"
    scores = products[f"{attention}/scores"]
    for side, operand in (("query", scores.left), ("key", scores.right)):
        moves = (f"{attention}.{side}/heads", f"{attention}.{side}/transpose")
        assert operand == Operand(f"{attention}.{side}/bias", moves)
    moves = (f"{attention}/untranspose", f"{attention}/unheads")
    assert products[f"{attention}.proj"].left == Operand(f"{attention}/mix", moves)
    assert products["patch_embed.proj"].left == Operand("patch_embed/flatten", is_bytes=True)
    assert products["blocks.0.mlp.fc2"].left == Operand("blocks.0.mlp/act")


def test_norms_of_queries_and_keys_come_before_quantisation() -> None:
    scores = next(p for p in find_products(graph_of(vit(qk_norm=True))) if p.right)
    assert scores.left == Operand("blocks.0.attn/scale")  # multiplied last
    assert scores.right == Operand("blocks.0.attn.key_norm", ("blocks.0.attn.key/transpose",))


def test_products_of_one_input_are_one_group() -> None:
    groups: dict[str, list[str]] = {}
    for product in find_products(graph_of(vit())):
        groups.setdefault(product.group, []).append(product.name)
    first, last = ([f"blocks.{i}.attn.{part}" for part in ("query", "key", "value")] for i in (0, 1))
    assert first in groups.values()
    assert last[:1] in groups.values()  # of the class token alone
    assert last[1:] in groups.values()
    assert len(groups) == 1 + 5 + 6


# --- graphs by hand ---


def products_of(build: Callable[[OnnxBuilder], str]) -> list[Product]:
    b = OnnxBuilder()
    b.node("Identity", [build(b)], "end", output="y")
    return find_products(b.model({"x": (FLOAT, ["N", 4, 6])}, {"y": (FLOAT, [])}, 20, "test"))


WEIGHT, BIAS = np.ones((4, 6)), np.ones(4)


def test_a_tensor_with_other_readers_is_quantised_itself() -> None:
    def build(b: OnnxBuilder) -> str:
        moved = b.node("Transpose", [b.node("Relu", ["x"], "relu")], "moved", perm=[0, 1, 2])
        y = b.linear(moved, WEIGHT, None, "layer")
        return b.node("Add", [y, b.node("ReduceSum", [moved], "sum", keepdims=1)], "both")

    (product,) = products_of(build)
    assert product.left == Operand("moved")


def test_a_bias_is_a_vector_added_to_nothing_but_the_product() -> None:
    def twice(b: OnnxBuilder) -> str:
        y = b.linear("x", WEIGHT, BIAS, "layer")
        return b.node("Mul", [y, "layer/matmul"], "twice")

    def matrix(b: OnnxBuilder) -> str:
        y = b.linear("x", WEIGHT, None, "layer")
        return b.node("Add", [y, b.weight("positions", np.ones((4, 4)))], "sum")

    def swapped(b: OnnxBuilder) -> str:
        y = b.linear("x", WEIGHT, None, "layer")
        return b.node("Add", [b.weight("layer.bias", BIAS), y], "sum")

    expected = {
        twice: (None, "layer/matmul"),
        matrix: (None, "layer/matmul"),
        swapped: ("layer.bias", "sum"),
    }
    for build, found in expected.items():
        (product,) = products_of(build)
        assert (product.bias, product.output) == found
