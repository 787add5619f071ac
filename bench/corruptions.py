"""Compares fozo's generated corruptions with those of the package imagecorruptions, on images of yours.

Prints, per corruption and severity, the mean absolute difference to the clean image in grey levels: fozo's,
the other's, and their ratio. Without imagecorruptions, only fozo's. That package needs old companions, so
give it an environment of its own:

    pip install fozo imagecorruptions "numpy<2" "scipy<1.13" "scikit-image<0.21" "setuptools<70" \
        "opencv-python-headless<4.12"
    python bench/corruptions.py IMAGES --frost-textures FROST
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from fozo.data.images import list_images, read_image
from fozo.eval.corruptions import FROST, NAMES, SEVERITIES, corrupt

SIZE = 224


def main() -> None:
    """Reads the images, spread over the folder, and prints the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("images", type=Path, help="folder of images, searched recursively")
    parser.add_argument("--frost-textures", type=Path)
    parser.add_argument("--count", type=int, default=40)
    parser.add_argument("--only", nargs="*", default=NAMES, metavar="NAME")
    options = parser.parse_args()
    paths = list_images(options.images)
    images = [_read(path) for path in paths[:: max(len(paths) // options.count, 1)][: options.count]]
    other = _imagecorruptions()
    print(f"{len(images)} images; fozo / imagecorruptions (ratio), by severity\n")
    print("| corruption |" + "".join(f" {severity} |" for severity in SEVERITIES))
    print("|---|" + "---|" * len(SEVERITIES))
    for name in options.only:
        if name != FROST or options.frost_textures is not None:
            cells = (_cell(images, name, severity, options.frost_textures, other) for severity in SEVERITIES)
            print(f"| {name} | {' | '.join(cells)} |", flush=True)


def _cell(images: list[Any], name: str, severity: int, textures: Path | None, other: Any) -> str:
    ours = np.mean(
        [
            _distance(image, corrupt(image, name, severity, image_id=str(index), seed=0, textures=textures))
            for index, image in enumerate(images)
        ]
    )
    if other is None:
        return f"{ours:.1f}"
    np.random.seed(severity)
    theirs = np.mean([_distance(image, other(image, severity, name)) for image in images])
    return f"{ours:.1f} / {theirs:.1f} ({ours / theirs:.2f})"


def _distance(image: Any, corrupted: Any) -> float:
    return float(np.abs(np.asarray(corrupted, np.float64) - image).mean())


def _read(path: Path) -> Any:
    image = read_image(path)
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return np.asarray(image.resize((SIZE, SIZE), box=(left, top, left + side, top + side)))


def _imagecorruptions() -> Any:
    warnings.simplefilter("ignore")
    try:
        from imagecorruptions import corrupt as other
        from imagecorruptions import corruptions
    except ImportError as error:
        print(f"imagecorruptions is not compared: {error}\n")
        return None
    smooth = corruptions.gaussian

    def gaussian(*values: Any, multichannel: bool = False, **options: Any) -> Any:
        """Under the name that scikit-image's option had when the package was written."""
        return smooth(*values, channel_axis=-1 if multichannel else None, **options)

    corruptions.gaussian = gaussian
    return other


if __name__ == "__main__":
    main()
