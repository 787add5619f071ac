"""Facts that decide what a bundle computes beside its graph's form: weights, and preparation of images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from .head_description import describe_head_facts, describe_transfer_facts, list_head_facts
from .manifest import Manifest

_HASH_LENGTH = 12
_SHARED = (
    "weights",
    "weights_sha256",
    "weights_key",
    "timm_tag",
    "mean",
    "std",
    "options",
    "image_settings",
    "notes",
)


def list_origin(manifest: Manifest) -> dict[str, Any]:
    """Return weights, timm's tag, preparation of images, and the head where classes come from texts, by name.

    Values of old bundles are missing.
    """
    provenance = manifest.provenance
    facts = {name: provenance[name] for name in _SHARED if provenance.get(name)}
    images = {**asdict(manifest.preprocessing), "size": list(manifest.preprocessing.size)}  # as JSON has it
    if not images["frame"]:
        del images["frame"]
    head = list_head_facts(manifest)
    return {**facts, "preprocessing": images, **({} if head is None else {"head": head})}


def describe_weights(origin: Mapping[str, Any]) -> str:
    """Return the weights in one line: where they are from, their hash, and timm's tag."""
    weights, digest = str(origin.get("weights", "unknown")), str(origin.get("weights_sha256", ""))
    if digest and digest not in weights:
        weights += f", SHA-256 {digest}"
    weights = weights.replace(digest, f"{digest[:_HASH_LENGTH]}…") if digest else weights
    tag = origin.get("timm_tag")
    return weights if not tag or f"tag {tag}" in weights else f"{weights}; timm's configuration {tag}"


def describe_preparation(origin: Mapping[str, Any]) -> str:
    """Return in one line how a file becomes the numbers that the first layer reads."""
    try:
        return _describe_images(origin)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):  # files can hold anything
        return "unknown"


def _describe_images(origin: Mapping[str, Any]) -> str:
    images = origin["preprocessing"]
    height, width = images["size"]
    resize = f"resize shorter side to {images['resize']}"
    if images["crop_mode"] == "squash":
        resize = f"squash to {images['resize']} × {images['resize']}"
    text = f"{resize} ({images['interpolation']}), crop {height} × {width}"
    if images.get("frame"):
        text += f", all smaller inside a frame of {images['frame']}"
    if "mean" in origin and "std" in origin:
        text += f", mean {_join(origin['mean'])}, std {_join(origin['std'])}"
    options = [f"--{name.replace('_', '-')}" for name in origin.get("options", ())]
    if origin.get("image_settings"):
        options.append(str(origin["image_settings"]))
    return f"{text} (by {', '.join(options)})" if options else text


def describe_origin(origin: Mapping[str, Any]) -> str:
    """Return the lines below a table that say which weights, preparation of images and texts it is of."""
    lines = [f"weights: {describe_weights(origin)}", f"images: {describe_preparation(origin)}"]
    if "head" in origin or "transfer" in origin:
        lines.append(f"classes: {describe_classes(origin)}")
    return "\n".join(lines)


def describe_classes(origin: Mapping[str, Any]) -> str:
    """Return in one line which head was used and the texts it was made from, or the texts of a transfer."""
    try:
        if "transfer" in origin:
            return f"those of each data set, from {describe_transfer_facts(origin['transfer'])}"
        return describe_head_facts(origin["head"])
    except (KeyError, TypeError, ValueError, IndexError):  # results files can hold anything
        return "unknown"


def _join(values: Any) -> str:
    return " ".join(f"{value:.4g}" for value in values)
