"""Tiny CLIP models of open_clip with random parameters, and texts encoded with its modules."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from fozo.engine.model import FloatArray, ImageArray, ModelInfo
from fozo.engine.runtime.network import Network
from numpy.typing import NDArray
from vit_doubles import MEAN, STD, randomise

torch = pytest.importorskip("torch", reason="export needs PyTorch")
open_clip = pytest.importorskip("open_clip", reason="export of CLIP needs open_clip")

from fozo.export.clip_family import ClipFamily  # noqa: E402
from fozo.export.image_format import ImageFormat  # noqa: E402
from open_clip.model import CLIP, CustomTextCLIP  # noqa: E402

VOCABULARY = 100
START, END = VOCABULARY - 2, VOCABULARY - 1
EMBEDDING = 24

IMAGE = {"image_size": 32, "patch_size": 8, "width": 64, "layers": 3, "head_width": 16}
TEXT = {"width": 48, "heads": 4, "layers": 3, "vocab_size": VOCABULARY}


def make_clip(
    image: dict[str, Any] | None = None,
    text: dict[str, Any] | None = None,
    kind: Any = CLIP,
    embed_dim: int = EMBEDDING,
    **options: Any,
) -> Any:
    """Make a tiny CLIP with every parameter random; options are those of open_clip's configurations."""
    model = kind(embed_dim, {**IMAGE, **(image or {})}, {**TEXT, **(text or {})}, **options)
    scale = model.logit_scale.detach().clone()
    randomise(model)
    with torch.no_grad():
        model.logit_scale.copy_(scale)
    return model


def make_custom_clip(**options: Any) -> Any:
    return make_clip(kind=CustomTextCLIP, **options)


def draw_classifier(generator: np.random.Generator, classes: int, width: int = EMBEDDING) -> FloatArray:
    """Draw unit-length rows times a logit scale of 10."""
    rows = generator.normal(size=(classes, width))
    return (10 * rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def make_family(model: Any, classes: int = 5) -> ClipFamily:
    """Return the family of a model, with a random classifier."""
    image_format = ImageFormat((IMAGE["image_size"],) * 2, MEAN, STD)
    width = model.visual.proj.shape[1]
    return ClipFamily(model, image_format, draw_classifier(np.random.default_rng(7), classes, width))


def describe_family(family: ClipFamily, norms: dict[str, int]) -> ModelInfo:
    """Return the model of a family, without a bundle."""
    fields = family.describe(norms)
    weight, bias = family.head
    names = ("layers", "width", "tokens", "prompt_bound", "feature_widths")
    facts = {name: fields[name] for name in names}
    tunables = tuple(fields["tunables"])
    return ModelInfo(
        "clip",
        "",
        **facts,
        head_weight=weight,
        head_bias=bias,
        tunables=tunables,
        norms=norms,
        takes_classifier=True,
        logit_scale=10.0,
    )


def save_image_graph(family: ClipFamily, folder: Path, norms: dict[str, int]) -> Path:
    path = folder / "model.onnx"
    onnx.save(family.build_graph(norms), path)
    return path


def open_clip_network(
    family: ClipFamily, folder: Path, *, tunable_norms: bool = False, **options: Any
) -> Network:
    norms = family.select_norms(None) if tunable_norms else {}
    return Network(save_image_graph(family, folder, norms), describe_family(family, norms), **options)


def encode_images(model: Any, images: ImageArray, prompts: FloatArray | None = None) -> FloatArray:
    """Return unit embeddings of images by the whole model; a hook inserts prompts before its first norm."""
    pixels = torch.tensor(images).permute(0, 3, 1, 2).float() / 255
    pixels = (pixels - torch.tensor(MEAN).view(1, 3, 1, 1)) / torch.tensor(STD).view(1, 3, 1, 1)

    def insert(_module: Any, inputs: tuple[Any]) -> tuple[Any]:
        tokens = inputs[0]
        added = torch.from_numpy(prompts).expand(len(tokens), -1, -1)
        return (torch.cat([tokens[:, :1], added, tokens[:, 1:]], dim=1),)

    hook = None if prompts is None else model.visual.ln_pre.register_forward_pre_hook(insert)
    with torch.no_grad():
        encoded: FloatArray = model.encode_image(pixels, normalize=True).numpy()
    if hook is not None:
        hook.remove()
    return encoded


def text_tower_of(model: Any) -> Any:
    return model.text if isinstance(model, CustomTextCLIP) else model


def embed_words(model: Any, tokens: NDArray[np.int64]) -> FloatArray:
    """Return the embeddings of tokens without positions."""
    with torch.no_grad():
        embedded: FloatArray = text_tower_of(model).token_embedding(torch.from_numpy(tokens)).numpy()
    return embedded


def encode_texts(model: Any, contexts: FloatArray, tokens: list[list[int]]) -> FloatArray:
    """Return unit embeddings `[R, T, E]` of contexts `[R, M, D]` before the tokens of each text.

    Every text is computed alone and at full length, behind its own start token and context.
    """
    tower = text_tower_of(model)
    rows = []
    with torch.no_grad():
        for context in contexts:
            for ids in tokens:
                words = embed_words(model, np.asarray([START], np.int64)), context
                x = np.concatenate([*words, embed_words(model, np.asarray(ids, np.int64))])
                end = len(x) - 1
                padding = embed_words(model, np.zeros(len(tower.positional_embedding) - len(x), np.int64))
                x = torch.from_numpy(np.concatenate([x, padding]))[None] + tower.positional_embedding
                x = tower.ln_final(tower.transformer(x, attn_mask=tower.attn_mask))[:, end]
                projection = tower.text_projection
                x = x @ projection if isinstance(projection, torch.Tensor) else projection(x)
                rows.append(torch.nn.functional.normalize(x, dim=-1)[0].numpy())
    return np.stack(rows).reshape(len(contexts), len(tokens), -1)


def pad_texts(tokens: list[list[int]], extra: int = 0) -> dict[str, NDArray[np.int64]]:
    """Return texts as the text graph reads them: `tokens` `[T, L + extra]` and `lengths` `[T]`."""
    padded = np.zeros((len(tokens), max(map(len, tokens)) + extra), np.int64)
    for row, ids in zip(padded, tokens, strict=True):
        row[: len(ids)] = ids
    return {"tokens": padded, "lengths": np.asarray([len(ids) - 1 for ids in tokens], np.int64)}


def draw_texts(generator: np.random.Generator, lengths: list[int]) -> list[list[int]]:
    """Draw texts of so many random tokens, id 0 included, each with the end token behind them."""
    return [[*generator.integers(0, START, length).tolist(), END] for length in lengths]
