"""Application of what was learnt for the images of a model, in every forward of a network."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from ..errors import BundleError, InputError
from ..model import PIXELS, PROMPTS, Coordinator, FloatArray, ImageArray, ImagePrompt, ModelInfo, Outputs
from .image_decoder import Moments, choose_layout, decode

# Returns the features of images, `[N, Z]`.
Encode = Callable[[ImageArray], FloatArray]


def check_image_prompt(info: ModelInfo) -> None:
    """Check that a network can apply the image prompt of its model, if there is one.

    Raises:
        BundleError: the graph has no such input, or the network was opened with gradients.
    """
    if info.image_prompt is None:
        return
    for name in info.image_prompt.tunables:
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


class ImageCoordinator:
    """Maker of the pixels that a coordinator adds to every image.

    Each depends on its image alone, to the bit.
    """

    def __init__(self, coordinator: Coordinator, image_size: tuple[int, int], encode: Encode | None) -> None:
        """Prepare the decoder.

        Args:
            coordinator: encoder and decoder.
            image_size: height and width of the images.
            encode: returns the features `[N, Z]` of images; None: the network itself does.

        Raises:
            BundleError: the decoder is of another size.
        """
        self._coordinator, self._encode = coordinator, encode
        self._layout = choose_layout(coordinator.width, image_size)
        sizes = len(coordinator.parameters), len(coordinator.mean)
        if sizes != (self._layout.size, self._layout.norm_channels):
            raise BundleError(
                f"expected a decoder of {self._layout.size} parameters and {self._layout.norm_channels} "
                f"channels for these images, found {sizes[0]} and {sizes[1]}; learn the head again"
            )

    def make_pixels(self, images: ImageArray, network: Callable[[ImageArray], Outputs]) -> FloatArray:
        """Return the pixels to add, float32 `[N, H, W, 3]` in units of images in 0..1.

        Args:
            images: uint8 `[N, H, W, 3]`.
            network: the network without its image prompt.
        """
        coordinator = self._coordinator
        if self._encode is None:
            features = network(images).features[:, coordinator.layer, : coordinator.width]
        else:
            features = self._encode(images)
        moments = Moments(coordinator.mean, coordinator.variance)
        prompts = decode(self._layout, coordinator.parameters, features, moments)
        return prompts * coordinator.scale
