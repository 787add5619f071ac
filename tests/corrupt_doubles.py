"""Clean images and corrupted copies of them: import with `from corrupt_doubles import …`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from doubles import WNIDS, draw_picture
from fozo.engine.bundle.manifest import Manifest
from fozo.eval.datasets.corrupt_dataset import Recipe, Work, prepare, write
from fozo.eval.datasets.dataset_registry import open_dataset
from fozo.eval.datasets.dataset_request import DatasetRequest
from fozo.eval.datasets.domain import Domain
from PIL import Image

SMALL = Recipe(("gaussian_noise", "contrast"), (5, 3), seed=11, resize=40, size=32)


def open_named(bundle: Manifest, name: str, *, seed: int = 0, **options: Any) -> tuple[str, list[Domain]]:
    """Open a data set by the fields of its request."""
    return open_dataset(DatasetRequest(name, **options), bundle, seed)


def save_clean_images(folder: Path, names: tuple[str, ...] = (), size: tuple[int, int] = (48, 60)) -> Path:
    for seed, name in enumerate(names or (f"{WNIDS[1]}/a.png", f"{WNIDS[0]}/b.JPEG", f"{WNIDS[1]}/c.jpg")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw_picture(seed, size)).save(folder / name)
    return folder


def make_corrupted(folder: Path, out: Path, recipe: Recipe = SMALL, workers: int = 1) -> Work:
    work = prepare(folder, out, recipe)
    for _ in write(work, workers):
        pass
    return work


def read_files(folder: Path) -> dict[str, bytes]:
    """Content of every file, hidden ones too."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
