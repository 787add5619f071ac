"""The templates that CLIP's authors published for ImageNet: all 80, and the best seven of them.

Their names in options are `imagenet-80` and `imagenet-7` (CLIP's repository, notebooks/
Prompt_Engineering_for_ImageNet.ipynb).
"""

from __future__ import annotations

_PHOTOS = (
    "bad",
    "black and white",
    "blurry",
    "bright",
    "close-up",
    "cropped",
    "dark",
    "good",
    "jpeg corrupted",
    "low resolution",
    "pixelated",
)
_LOOKS = ("clean", "cool", "dirty", "hard to see", "large", "nice", "small", "weird")
_WORKS = (
    *("art", "graffiti", "itap"),  # "I took a picture"
    *(
        "a doodle",
        "a drawing",
        "a painting",
        "a rendering",
        "a rendition",
        "a sculpture",
        "a sketch",
        "a tattoo",
    ),
)
_MATERIALS = ("cartoon", "embroidered", "origami", "plastic", "plushie", "toy")


def _list_templates() -> tuple[str, ...]:
    templates = ["a photo of many {}.", "a photo of one {}.", "a photo of my {}.", "itap of my {}."]
    for article in ("a", "the"):
        templates += [f"a photo of {article} {{}}.", f"{article} {{}} in a video game."]
        templates += [f"a {kind} photo of {article} {{}}." for kind in _PHOTOS]
        templates += [f"a photo of {article} {look} {{}}." for look in _LOOKS]
        templates += [f"{work} of {article} {{}}." for work in _WORKS]
        templates += [f"{article} {material} {{}}." for material in _MATERIALS]
    return tuple(templates)


PRESETS: dict[str, tuple[str, ...]] = {
    "imagenet-7": (
        "itap of a {}.",
        "a bad photo of the {}.",
        "a origami {}.",
        "a photo of the large {}.",
        "a {} in a video game.",
        "art of the {}.",
        "a photo of the small {}.",
    ),
    "imagenet-80": _list_templates(),
}
