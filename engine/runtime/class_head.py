"""Heads from the names of classes: one embedding per class, averaged over templates."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..bundle.bundle import Bundle
from ..bundle.head import Head
from ..errors import InputError
from ..model import FloatArray
from ..text.class_texts import check_names, describe_duplicates, tokenize_classes
from ..text.templates import DEFAULT_TEMPLATE, check_templates, split_template
from .text_encoder import TextEncoder


def make_head(
    bundle: Bundle | str | Path,
    names: Sequence[str],
    templates: Sequence[str] = (DEFAULT_TEMPLATE,),
    *,
    class_ids: Sequence[str] | None = None,
    context: FloatArray | None = None,
    workers: int | None = None,
) -> Head:
    """Make a classifier from the names of classes, with the text side of a bundle.

    Store it with `bundle.with_head(name, head)`, or use it at once with
    `network.with_classifier(head.weight)`. Equal names make equal heads, to the bit.

    Args:
        bundle: the bundle, or its folder; it is not changed.
        names: of the classes, as they shall stand in the texts.
        templates: texts with `{}` for the name. With several, the embeddings of a class are averaged.
        class_ids: identifiers of the classes, all different; default: the names.
        context: learnt vectors in front of every name, float32 `[M, D]`, M ≥ 1; then one template that begins
            with the name.
        workers: threads; default: as many as this process may use.

    Raises:
        BundleError: the bundle has no text side, or its files cannot be used.
        InputError: names, templates, identifiers or context cannot be used; or the vocabulary cannot.
        ComputeError: ONNX Runtime fails.
    """
    opened = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
    with TextEncoder.open(opened, workers=workers) as encoder:
        return build_head(
            encoder, opened.manifest.feature_width, names, templates, class_ids=class_ids, context=context
        )


def build_head(
    encoder: TextEncoder,
    feature_width: int,
    names: Sequence[str],
    templates: Sequence[str] = (DEFAULT_TEMPLATE,),
    *,
    class_ids: Sequence[str] | None = None,
    context: FloatArray | None = None,
) -> Head:
    """Make a classifier with an open encoder; arguments and errors as in `make_head`.

    Args:
        encoder: encodes the texts.
        feature_width: F, to which embeddings are padded.
        names: of the classes.
        templates: texts with `{}` for the name.
        class_ids: identifiers of the classes.
        context: learnt vectors in front of every name.

    Raises:
        InputError: names, templates, identifiers or context cannot be used.
        ComputeError: ONNX Runtime fails.
    """
    names, templates = check_names(names), check_templates(tuple(templates))
    class_ids = _check_ids(names, class_ids)
    _check_context(context, templates, encoder.entry.width)
    units, longest, warning = _encode_templates(encoder, names, templates, context)
    if warning is not None:
        warnings.warn(warning, stacklevel=2)
    record: dict[str, Any] = {"longest_text": longest}
    if warning is not None:
        record["warning"] = warning
    return Head(
        weight=scale_embeddings(units, encoder.entry.logit_scale, feature_width),
        class_ids=class_ids,
        class_names=names,
        templates=templates,
        context=context,
        record=record,
    )


def scale_embeddings(units: FloatArray, scale: float, feature_width: int) -> FloatArray:
    """Return classifiers: unit embeddings times τ, padded with zeros.

    Args:
        units: float32 `[…, K, E]`.
        scale: τ.
        feature_width: F.

    Returns:
        float32 `[…, K, F]`.
    """
    weight = np.zeros((*units.shape[:-1], feature_width), np.float32)
    weight[..., : units.shape[-1]] = units * np.float32(scale)
    return weight


def _encode_templates(
    encoder: TextEncoder, names: Sequence[str], templates: Sequence[str], context: FloatArray | None
) -> tuple[FloatArray, int, str | None]:
    """Return the unit embeddings `[K, E]`, the tokens of the longest text, and a warning about equal texts.

    The embeddings of several templates, of length 1 each, are averaged and normalised again.
    """
    length, vectors = encoder.entry.context_length, None if context is None else len(context)
    total, longest, warning = np.zeros((len(names), encoder.entry.embedding_width)), 0, None
    for template in templates:
        texts = tokenize_classes(encoder.tokenizer, names, template, length, vectors)
        vectors_in_front = encoder.embed_words(split_template(template)[0]) if context is None else context
        units = encoder.encode(texts.tokens, vectors_in_front[None])[0]
        total += units
        longest = max(longest, 1 + len(vectors_in_front) + max(map(len, texts.tokens)))
        warning = warning or describe_duplicates(names, texts)
    if len(templates) > 1:
        units = (total / np.linalg.norm(total, axis=1, keepdims=True)).astype(np.float32)
    return units, longest, warning


def _check_ids(names: tuple[str, ...], class_ids: Sequence[str] | None) -> tuple[str, ...]:
    """Return the identifiers of the classes, which are the names where none are given."""
    if class_ids is None and len(set(names)) < len(names):
        repeated = next(name for name in names if names.count(name) > 1)
        raise InputError(
            f"expected different names, as they are the identifiers of the classes too, found {repeated!r} "
            "twice; give identifiers beside the names"
        )
    identifiers = names if class_ids is None else check_names(class_ids)
    if len(set(identifiers)) != len(names) or len(identifiers) != len(names):
        raise InputError(
            f"expected {len(names)} different identifiers, one per class, found {len(set(identifiers))} "
            f"different ones of {len(identifiers)}"
        )
    return identifiers


def _check_context(context: FloatArray | None, templates: tuple[str, ...], width: int) -> None:
    """Check what can be checked without the text tower.

    Raises:
        InputError: there is no vector, or they are of another width, or there are several templates.
    """
    if context is None:
        return
    if context.ndim != 2 or not len(context) or context.shape[1] != width:
        raise InputError(
            f"expected a context [M, {width}] with M ≥ 1 for this text tower, found shape "
            f"{list(context.shape)}; it was learnt for another model"
        )
    if len(templates) != 1:
        raise InputError(
            f"expected one template beside learnt vectors, like '{{}}.', found {len(templates)}; they were "
            "learnt in front of one"
        )
