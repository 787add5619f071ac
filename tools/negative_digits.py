"""Write the digits that ship with fozo in negative, as class folders: `python tools/negative_digits.py DIR`.

The demonstration's tiny CLIP reads half of them wrong, so that there is something to learn from a few images.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Literal

from fozo.data.demo import demo_images
from PIL import Image

SPLITS: tuple[Literal["train", "test"], ...] = ("train", "test")


def write_folders(folder: Path) -> int:
    """Write `train/` and `test/` with a folder for each class, and return the number of images."""
    count = 0
    for split in SPLITS:
        images, labels = demo_images(split)
        for number, (image, label) in enumerate(zip(images, labels, strict=True)):
            path = folder / split / str(label) / f"{number:04d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(255 - image).save(path)
            count += 1
    return count


if __name__ == "__main__":
    print(f"wrote {write_folders(Path(sys.argv[1])):,} digits in negative")
