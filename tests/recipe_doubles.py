"""ImageNet-C in miniature, and recipes for it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from fozo.eval.results.recipe_record import PublishedFigures, Recipe
from fozo.eval.streaming.recipe_files import load_recipe
from PIL import Image

NAMES = ("gaussian_noise", "fog")
CLASSES = 10


def save_miniature(root: Path, images: int = 12, severity: int = 5, names: tuple[str, ...] = NAMES) -> Path:
    """Write images of noise in the published layout, `<corruption>/<severity>/<class>/<file>`."""
    generator = np.random.default_rng(0)
    for name in names:
        for index in range(images):
            path = root / name / str(severity) / str(index % CLASSES) / f"{index:03d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(generator.integers(0, 256, (224, 224, 3), dtype=np.uint8)).save(path)
    return root


def make_recipe(images: int = 8, drawn_from: int = 12, **changes: Any) -> Recipe:
    """Return a recipe like `neo-512` for the miniature."""
    recipe = load_recipe("neo-512")
    options = replace(recipe.options, corruptions=NAMES, subset=str(images), batch_size=4)
    figures = (
        PublishedFigures("NoAdapt", 50.0, {"gaussian_noise": 40.0, "fog": 60.0}, "no_adapt"),
        PublishedFigures("NEO", 55.5, {"gaussian_noise": 44.5, "fog": 66.5}, "neo"),
        PublishedFigures("Surgeon", 51.0, {"gaussian_noise": 42.0, "fog": 60.0}),
        PublishedFigures("Elsewhere", 49.0, label="neo", precision="int8"),
    )
    settings = {
        "images": images,
        "drawn_from": drawn_from,
        "size": (32, 32),
        "options": options,
        "methods": ("no_adapt", "neo"),
        "published": figures,
        **changes,
    }
    return replace(recipe, **settings)
