"""Identifiers and names of ImageNet's classes in the order of the logits."""

from __future__ import annotations

from timm.data import ImageNetInfo, infer_imagenet_subset

from ..data.class_names import Labels


def find_imagenet_classes(classes: int) -> tuple[Labels, Labels] | None:
    """Return identifiers and names if the number of classes is that of an ImageNet subset, else None."""
    subset = infer_imagenet_subset({"num_classes": classes})
    if subset is None:
        return None
    info = ImageNetInfo(subset)
    return tuple(info.label_names()), tuple(info.label_descriptions())
