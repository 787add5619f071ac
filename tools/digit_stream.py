"""Write a stream of corrupted digits as plain files, for programs that run a compiled step.

    python tools/digit_stream.py OUT --bundle demo/bundle --corruption fog

OUT gets `images.bin`, uint8 `[N, 32, 32, 3]`, `labels.bin`, uint8 `[N]`, and `digits.json` with both shapes
and the names of the classes. They are the images of `fozo adapt --dataset demo`, in the order of its first
seed.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import fozo
import numpy as np
from fozo.evaluation import DatasetRequest, open_dataset, shuffle_order

SEED = 2000


def main() -> None:
    """Write the files."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--bundle", type=Path, required=True, help="bundle of the demonstration")
    parser.add_argument("--corruption", default="gaussian_noise")
    parser.add_argument("--severity", type=int, default=3)
    parser.add_argument("--images", type=int, default=1000)
    options = parser.parse_args()
    manifest = fozo.Bundle.open(options.bundle).manifest
    request = DatasetRequest("demo", severities=(options.severity,), corruptions=(options.corruption,))
    domain = next(d for d in open_dataset(request, manifest, SEED)[1] if d.name == options.corruption)
    order = shuffle_order(len(domain), domain.name, SEED)[: options.images]
    images = np.stack([domain.load(int(row)) for row in order])
    labels = domain.labels[order].astype(np.uint8)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "images.bin").write_bytes(images.tobytes())
    (options.out / "labels.bin").write_bytes(labels.tobytes())
    description = {
        "images": {"file": "images.bin", "type": "uint8", "shape": list(images.shape)},
        "labels": {"file": "labels.bin", "type": "uint8", "shape": list(labels.shape)},
        "classes": list(manifest.class_names or map(str, range(manifest.classes))),
    }
    (options.out / "digits.json").write_text(json.dumps(description, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
