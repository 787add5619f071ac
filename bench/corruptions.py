"""Compares fozo's generated corruptions with those of the package imagecorruptions, on images of yours.

Prints, per corruption and severity, the mean absolute difference to the clean image in grey levels: fozo's,
the other's, and their ratio; or with a bundle, how many images the plain network still recognises.
Without imagecorruptions, only fozo's. That package needs old companions, so give it its own environment:

    pip install fozo imagecorruptions "numpy<2" "scipy<1.13" "scikit-image<0.21" "setuptools<70" \
        "opencv-python-headless<4.12"
    python bench/corruptions.py IMAGES --frost-textures FROST
    python bench/corruptions.py IMAGES --frost-textures FROST --bundle BUNDLE --count 1000 --severities 5
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from fozo.data.images import list_images, read_image
from fozo.engine.bundle.bundle import Bundle
from fozo.engine.runtime.network import Network
from fozo.eval.corruptions.corruption_registry import FROST, NAMES, SEVERITIES, corrupt
from fozo.eval.datasets.image_folder import load_image_folder
from numpy.typing import NDArray

SIZE = 224
BATCH = 64
Pixels = NDArray[np.uint8]


Corruption = Callable[[Pixels, int], Pixels]  # of an image and its number


def main() -> None:
    """Reads the images, spread over the folder, and prints the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "images", type=Path, help="folder of images, searched recursively; by class for a bundle"
    )
    parser.add_argument("--frost-textures", type=Path)
    parser.add_argument("--count", type=int, default=40)
    parser.add_argument("--only", nargs="*", default=NAMES, metavar="NAME")
    parser.add_argument("--severities", nargs="*", type=int, default=SEVERITIES)
    parser.add_argument("--bundle", type=Path, help="whose accuracy on both is compared")
    parser.add_argument("--precision", default="fp32")
    options = parser.parse_args()
    other = _imagecorruptions()
    with contextlib.ExitStack() as stack:
        if options.bundle is None:
            paths = list_images(options.images)
            images = [_read(path) for path in _spread(paths, options.count)]
            compare: Callable[[Corruption, Corruption | None], str] = functools.partial(_pixels, images)
            print(f"{len(images)} images; fozo / imagecorruptions (ratio), by severity\n")
        else:
            network = stack.enter_context(Network.open(options.bundle, options.precision))
            domain = load_image_folder(options.images, Bundle.open(options.bundle).manifest)
            chosen = _spread(range(len(domain)), options.count)
            images = [domain.load(index) for index in chosen]
            compare = functools.partial(_accuracies, network, images, domain.labels[chosen])
            print(
                f"{len(images)} images; correct in %: fozo / imagecorruptions (difference ± standard error)\n"
            )
        print("| corruption |" + "".join(f" {severity} |" for severity in options.severities))
        print("|---|" + "---|" * len(options.severities))
        for name in options.only:
            if name != FROST or options.frost_textures is not None:
                pairs = (
                    _pair(name, severity, options.frost_textures, other) for severity in options.severities
                )
                print(f"| {name} | {' | '.join(compare(*pair) for pair in pairs)} |", flush=True)


def _spread(items: Any, count: int) -> Any:
    return items[:: max(len(items) // count, 1)][:count]


def _pair(
    name: str, severity: int, textures: Path | None, other: Any
) -> tuple[Corruption, Corruption | None]:
    """A corruption by fozo, and by the other package where it is there."""

    def ours(image: Pixels, index: int) -> Pixels:
        return corrupt(image, name, severity, image_id=str(index), seed=0, textures=textures)

    def theirs(image: Pixels, index: int) -> Pixels:
        np.random.seed([severity, index])
        return np.asarray(other(image, severity, name))

    return ours, None if other is None else theirs


def _pixels(images: Sequence[Pixels], ours: Corruption, theirs: Corruption | None) -> str:
    found = _distance(images, ours)
    if theirs is None:
        return f"{found:.1f}"
    expected = _distance(images, theirs)
    return f"{found:.1f} / {expected:.1f} ({found / expected:.2f})"


def _distance(images: Sequence[Pixels], corruption: Corruption) -> float:
    distances = [
        np.abs(corruption(image, index).astype(np.float64) - image).mean()
        for index, image in enumerate(images)
    ]
    return float(np.mean(distances))


def _accuracies(
    network: Network, images: Sequence[Pixels], labels: Any, ours: Corruption, theirs: Corruption | None
) -> str:
    found = _right(network, images, labels, ours)
    if theirs is None:
        return f"{100 * found.mean():.1f}"
    difference = found - _right(network, images, labels, theirs)
    error = difference.std(ddof=1) / np.sqrt(len(difference))
    expected = 100 * (found - difference).mean()
    return f"{100 * found.mean():.1f} / {expected:.1f} ({100 * difference.mean():+.1f} ± {100 * error:.1f})"


def _right(network: Network, images: Sequence[Pixels], labels: Any, corruption: Corruption) -> Any:
    """For each image 1 where the plain network recognises it, else 0."""
    guesses = []
    for start in range(0, len(images), BATCH):
        part = range(start, min(start + BATCH, len(images)))
        batch = np.stack([corruption(images[index], index) for index in part])
        guesses.append(network(batch.astype(np.uint8)).logits.argmax(axis=1))
    return (np.concatenate(guesses) == labels).astype(np.float64)


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
