"""Identifiers and names of ImageNet's classes in the order of the logits."""

from __future__ import annotations

from typing import Any

from timm.data import ImageNetInfo, infer_imagenet_subset

from ..data.class_names import Labels


def find_imagenet_classes(classes: int) -> tuple[Labels, Labels] | None:
    """Return identifiers and names if the number of classes is that of an ImageNet subset, else None."""
    subset = infer_imagenet_subset({"num_classes": classes})
    if subset is None:
        return None
    info = ImageNetInfo(subset)
    return tuple(info.label_names()), tuple(info.label_descriptions())


def read_own_labels(config: dict[str, Any], classes: int) -> tuple[Labels, Labels] | None:
    """Return the names that a model's configuration carries, as those of a hub do; None if it has none.

    Args:
        config: timm's `pretrained_cfg` of the model.
        classes: number of classes.
    """
    names = config.get("label_names")
    if not isinstance(names, list | tuple) or len(names) != classes or len(set(names)) != classes:
        return None
    texts = config.get("label_descriptions")
    texts = texts if isinstance(texts, dict) else {}
    return tuple(map(str, names)), tuple(str(texts.get(name, name)) for name in names)
