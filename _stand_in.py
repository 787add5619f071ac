"""A small network in NumPy with all that a network has, for checks of methods; `fozo.testing` exports it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import numpy as np

from .engine.model import (
    ACTIVATION_KINDS,
    BATCH_STATISTICS,
    NORMS,
    PROMPTS,
    RECENTRING,
    Activation,
    ActivationUse,
    FloatArray,
    ImageArray,
    ModelInfo,
    Outputs,
    Slopes,
    SourceStatistics,
    Tunables,
)
from .engine.statistics.output_slopes import derive_entropy


class StandInNetwork:
    """A deterministic network of two blocks in NumPy, for images `[N, 4, 4, 3]`.

    Attributes:
        info: the description that methods are bound to.
    """

    def __init__(
        self, *, batch_norms: bool = False, texts: bool = False, classes: int = 6, width: int = 8
    ) -> None:
        """Create the network.

        Args:
            batch_norms: describe a residual network, with the tunable `batch_statistics` and no prompts.
            texts: describe a model that compares images with texts: a third feature of unit length, and a
                classifier from a `StandInText`. It has no gradients.
            classes: number of classes.
            width: number of channels of a token and of a norm.
        """
        generator = np.random.default_rng(0)
        names = ("layer1.0.bn1", "layer1.0.bn2", "layer2.0.bn1", "layer2.0.bn2")
        if not batch_norms:
            names = ("blocks.0.norm1", "blocks.0.norm2", "blocks.1.norm1", "blocks.1.norm2")
        norms = dict.fromkeys(names, width)

        def draw(*shape: int) -> FloatArray:
            return generator.normal(size=shape).astype(np.float32)

        self._images, self._prompts = draw(48, 2 * width) / 4, draw(width, 2 * width)
        self._norms = draw(2 * len(norms) * width, 2 * width)
        source = SourceStatistics(
            0.3 * draw(2, width),
            generator.uniform(0.2, 0.8, (2, width)),
            100,
            fisher=None if batch_norms else np.full((len(norms), 2, width), 0.01, np.float32),
        )
        self.info = ModelInfo(
            name="stand-in",
            identity="stand-in",
            layers=2,
            width=width,
            tokens=5,
            prompt_bound=0.1,
            head_weight=draw(classes, width),
            head_bias=draw(classes),
            source=source,
            tunables=(NORMS, BATCH_STATISTICS) if batch_norms else (PROMPTS, NORMS),
            norms=norms,
            gradients=() if batch_norms else (PROMPTS, NORMS),
        )
        # The pixels are 16 tokens of 3 channels, and what comes of them 2 tokens.
        activations = (
            Activation(1, "fc1", "pixels", 3),
            Activation(0, "output", "hidden.0", width),
            Activation(1, "output", "hidden.1", width),
        )
        if not batch_norms:
            source = replace(
                source,
                activation_mean=generator.uniform(0.3, 0.6, 3 + 2 * width).astype(np.float32),
                activation_std=generator.uniform(0.1, 0.4, 3 + 2 * width).astype(np.float32),
            )
            uses = (ActivationUse(ACTIVATION_KINDS),)
            self.info = replace(self.info, source=source, activations=activations, activation_uses=uses)
        if texts:
            self.info = _describe_texts(self.info, StandInText(classes, width))

    def __call__(self, images: ImageArray, **tunables: FloatArray) -> Outputs:
        """Compute one forward."""
        pixels = images.reshape(len(images), -1, 3).astype(np.float32) / 255
        hidden = _recentre(pixels, tunables, slice(0, 3)).reshape(len(images), -1) @ self._images
        if PROMPTS in tunables:
            positions = np.arange(1, tunables[PROMPTS].shape[1] + 1, dtype=np.float32)[:, None]
            hidden = hidden + np.sin(positions * tunables[PROMPTS]).sum(axis=1) @ self._prompts
        if NORMS in tunables:
            hidden = hidden + tunables[NORMS].reshape(len(tunables[NORMS]), -1) @ self._norms
        if BATCH_STATISTICS in tunables:
            hidden = hidden - tunables[BATCH_STATISTICS] * hidden.mean(axis=0)
        hidden = hidden.reshape(len(images), 2, -1)
        width = hidden.shape[2]
        blocks = [hidden[:, index : index + 1] for index in range(2)]
        channels = [slice(3 + index * width, 3 + (index + 1) * width) for index in range(2)]
        moved = [_recentre(block, tunables, entry) for block, entry in zip(blocks, channels, strict=True)]
        features = np.tanh(np.concatenate(moved, axis=1)).astype(np.float32)
        if self.info.takes_classifier:
            features = np.concatenate([features, _normalise(features[:, -1:])], axis=1)
        logits = features[:, -1] @ self.info.head_weight.T + self.info.head_bias
        moments = _compute_moments(pixels)
        joined = [moments, *map(_compute_moments, blocks)]
        all_moments = np.concatenate(joined, axis=2) if self.info.activations else None
        return Outputs(logits, features, moments, activation_moments=all_moments)

    def pull_back(self, images: ImageArray, tunables: Tunables, slopes: Slopes) -> Outputs:
        """Compute one forward and the gradients of a loss with these slopes."""
        outputs = self(images, **tunables)
        features = np.zeros(outputs.features.shape) if slopes.features is None else slopes.features.copy()
        features[:, -1] += sum_logits_slopes(slopes, outputs.logits) @ self.info.head_weight
        hidden = (features * (1 - np.square(outputs.features))).reshape(len(images), -1)
        gradients: dict[str, FloatArray] = {}
        if "norms" in self.info.gradients:
            shape = (len(self.info.norms), 2, self.info.width)
            gradients["norms"] = (hidden @ self._norms.T).sum(axis=0).reshape(shape)
        if "prompts" in tunables and "prompts" in self.info.gradients:
            prompts = tunables["prompts"][0]
            positions = np.arange(1, len(prompts) + 1, dtype=np.float32)[:, None]
            slope = (hidden @ self._prompts.T).sum(axis=0)
            gradients["prompts"] = positions * np.cos(positions * prompts) * slope
        return replace(outputs, gradients=gradients)

    def candidates(self, images: ImageArray, tunables: Sequence[Tunables]) -> list[Outputs]:
        """Compute one forward for each set of tunables."""
        return [self(images, **candidate) for candidate in tunables]

    def select(self, classes: Sequence[int]) -> StandInNetwork:
        """Return the same network restricted to some classes."""
        view = object.__new__(StandInNetwork)
        view.__dict__.update(self.__dict__)
        view.info = self.info.select(classes)
        return view


def _recentre(tokens: FloatArray, tunables: Tunables, channels: slice) -> FloatArray:
    """Return tokens `[N, T, C]` that are moved by their channels of the tunable `recentring`."""
    if RECENTRING not in tunables:
        return tokens
    gain, offset = np.moveaxis(tunables[RECENTRING][:, :, None, channels], 1, 0)
    return cast(FloatArray, tokens * (1 + gain) + offset)


def _compute_moments(tokens: FloatArray) -> FloatArray:
    """Return mean and biased variance over the tokens of each image, float32 `[N, 2, C]`."""
    return np.stack([tokens.mean(axis=1), tokens.var(axis=1)], axis=1).astype(np.float32)


class StandInText:
    """Class texts of a stand-in: six names behind a context of two vectors of width 3.

    Attributes:
        context: float32 `[2, 3]`.
        contexts_encoded: number of contexts that `encode` was given.
    """

    SCALE = 20.0  # τ

    def __init__(self, classes: int = 6, width: int = 8) -> None:
        """Draw names, and what the context does to them."""
        generator = np.random.default_rng(1)
        self.context: FloatArray = generator.normal(size=(2, 3)).astype(np.float32) / 4
        self._names = generator.normal(size=(classes, width))
        self._mix = generator.normal(size=(6, classes, width)) / 2
        self.contexts_encoded = 0

    def encode(self, contexts: FloatArray) -> FloatArray:
        """Return the classifier of each context, float32 `[R, K, F]`."""
        self.contexts_encoded += len(contexts)
        moved = np.sin(
            np.tensordot(contexts.reshape(len(contexts), -1).astype(np.float64), self._mix, axes=1)
        )
        return (self.SCALE * _normalise(self._names + moved)).astype(np.float32)

    def select(self, classes: Sequence[int]) -> StandInText:
        """Return the same texts restricted to some classes."""
        view = object.__new__(StandInText)
        view.__dict__.update(self.__dict__)
        view._names, view._mix = self._names[list(classes)], self._mix[:, list(classes)]
        return view


def _describe_texts(info: ModelInfo, text: StandInText) -> ModelInfo:
    """Return the facts of a stand-in whose classes come from texts."""
    assert info.source is not None
    generator = np.random.default_rng(2)
    source = replace(
        info.source,
        mean=np.concatenate([info.source.mean, generator.normal(size=(1, info.width)) / 10]),
        std=np.concatenate([info.source.std, generator.uniform(0.2, 0.5, (1, info.width))]),
    )
    return replace(
        info,
        layers=3,
        head_weight=text.encode(text.context[None])[0],
        head_bias=np.zeros(info.classes, np.float32),
        source=source,
        gradients=(),
        takes_classifier=True,
        logit_scale=StandInText.SCALE,
        text=text,
    )


def _normalise(rows: FloatArray) -> FloatArray:
    return cast(FloatArray, rows / np.linalg.norm(rows, axis=-1, keepdims=True))


def sum_logits_slopes(slopes: Slopes, logits: FloatArray) -> FloatArray:
    """Return the slopes of a loss at the logits `[N, K]`, those of its entropies included."""
    total = np.zeros(logits.shape) if slopes.logits is None else slopes.logits
    if slopes.entropy_weights is not None:
        total = total + slopes.entropy_weights[:, None] * derive_entropy(logits)
    return total


def draw_images(count: int, seed: int = 0) -> ImageArray:
    """Return read-only random images for `StandInNetwork`, uint8 `[count, 4, 4, 3]`."""
    images: ImageArray = np.random.default_rng([seed, count]).integers(
        0, 256, (count, 4, 4, 3), dtype=np.uint8
    )
    images.setflags(write=False)
    return images


def add_views(images: ImageArray, count: int) -> ImageArray:
    """Return views of each image, uint8 `[N, count, H, W, 3]`: itself, and shifted and mirrored copies."""
    height = images.shape[1]
    shifted = [np.roll(images, (number % height, number // height), axis=(1, 2)) for number in range(count)]
    views: ImageArray = np.stack(
        [view[:, :, ::-1] if number % 2 else view for number, view in enumerate(shifted)], axis=1
    )
    views.setflags(write=False)
    return views
