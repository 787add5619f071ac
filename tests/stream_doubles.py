"""A stream in the plane: three classes and seven images, of which published methods' answers are known."""

from __future__ import annotations

import numpy as np
from fozo.engine.model import FloatArray, ImageArray, ModelInfo, Outputs
from fozo.testing import StandInNetwork, draw_images

SCALE = 10.0


def on_circle(*angles: float) -> FloatArray:
    """Return vectors of length 1 at some angles, float64 `[N, 2]`."""
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


TEXTS = on_circle(0, 1.2, 2.4)
FEATURES = on_circle(0.2, 0.5, 1, 1.9, 0.45, 2.2, 0.65)
MODEL = ModelInfo(
    "plane", "plane", 1, 2, 1, 0.0, SCALE * TEXTS, np.zeros(3), takes_classifier=True, logit_scale=SCALE
)


def answer_image(index: int) -> Outputs:
    """Return the outputs for one image of the stream, in float64."""
    feature = FEATURES[index : index + 1]
    return Outputs(SCALE * feature @ TEXTS.T, feature[:, None])


def draw_stream(batches: int = 14) -> list[ImageArray]:
    """Return ragged batches for a stand-in."""
    sizes = np.random.default_rng(0).integers(1, 12, batches)
    return [draw_images(int(size), seed=index) for index, size in enumerate(sizes)]


def list_outputs(network: StandInNetwork, stream: list[ImageArray]) -> list[tuple[FloatArray, FloatArray]]:
    """Return logits and last features of length 1 of each batch, float64."""
    result = []
    for images in stream:
        outputs = network(images)
        features = outputs.features[:, -1].astype(np.float64)
        features /= np.linalg.norm(features, axis=1, keepdims=True)
        result.append((outputs.logits.astype(np.float64), features))
    return result
