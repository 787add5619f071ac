"""Application of what was learnt for the images of a model, in every forward of a network."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..errors import BundleError, InputError
from ..model import PIXELS, PROMPTS, FloatArray, ImageArray, ImagePrompt, ModelInfo


def check_image_prompt(info: ModelInfo) -> None:
    """Check that a network can apply the image prompt of its model, if there is one.

    Raises:
        BundleError: the graph has no such input, or the network was opened with gradients.
    """
    if info.image_prompt is None:
        return
    for name in info.image_prompt.arrays:
        info.require_tunable(name, "the head in use")
    if info.gradients:
        raise BundleError(
            f"the head in use changes the images of {info.name}, and there are no gradients with it; use "
            "methods that need forwards only, or a head that was made from texts alone"
        )


def check_frame(images: ImageArray, prompt: ImagePrompt | None, model: str) -> None:
    """Check that images have the black frame in which the pixels of a prompt were learnt.

    Args:
        images: uint8 `[N, H, W, 3]`.
        prompt: of the head in use.
        model: name of the model, for messages.

    Raises:
        InputError: a pixel of the frame is not black.
    """
    if prompt is None or not prompt.frame:
        return
    width = prompt.frame
    sides = (images[:, :width], images[:, -width:], images[:, :, :width], images[:, :, -width:])
    if any(side.any() for side in sides):
        raise InputError(
            f"expected images in a black frame of {width} pixels, as the head in use of {model} was learnt "
            "with, found other pixels there; prepare files with the preprocessing of the bundle after "
            "selecting this head, and leave out views and generated corruptions"
        )


def add_image_prompt(feed: Mapping[str, FloatArray], prompt: ImagePrompt | None) -> dict[str, FloatArray]:
    """Return the tunables of a forward together with those that were learnt.

    Args:
        feed: all tunables, checked: `prompts` `[R, P, D]`, `pixels` `[Q, H, W, 3]`.
        prompt: of the head in use.
    """
    joined = dict(feed)
    if prompt is not None and prompt.prompts is not None:
        prompts = feed[PROMPTS]
        first = np.broadcast_to(prompt.prompts, (len(prompts), *prompt.prompts.shape))
        joined[PROMPTS] = np.concatenate([first, prompts], axis=1)
    if prompt is not None and prompt.pixels is not None:
        joined[PIXELS] = feed[PIXELS] + prompt.pixels
    return joined
