"""Data sets by name with the options each accepts, in a module that loads nothing."""

from __future__ import annotations

# Any other option would have no effect, and is refused.
TAKES: dict[str, tuple[str, ...]] = {
    "imagenet-c": ("data", "clean", "labels", "generate_from", "frost_textures", "corruptions"),
    "imagenet": ("data", "labels"),
    "imagenet-r": ("data",),
    "imagenet-a": ("data",),
    "imagenet-v2": ("data",),
    "imagenet-sketch": ("data",),
    "cifar10-c": ("data", "corruptions"),
    "cifar100-c": ("data", "corruptions"),
    "imagefolder": ("data",),
    "demo": ("frost_textures", "corruptions"),
}
