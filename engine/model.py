"""A model as the engine sees it: its facts and its outputs, as plain arrays without a session."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from .errors import BundleError, InputError
from .files import hash_texts, to_npz

FloatArray = NDArray[np.floating[Any]]
ImageArray = NDArray[np.uint8]
# What adaptation may change of a network, by name of the graph's input.
Tunables = Mapping[str, FloatArray]

# Names of the graph's inputs that adaptation may change.
PROMPTS = "prompts"
NORMS = "norms"
PIXELS = "pixels"  # what is added to the images, which are read as numbers in 0..1
COORDINATOR_ARRAYS = ("parameters", "mean", "variance", "scale")
RECENTRING = "recentring"  # of activations inside; an input of networks that were opened for it
BATCH_STATISTICS = "batch_statistics"  # not zero: the images of a call depend on each other


def list_differentiable(tunables: Iterable[str]) -> tuple[str, ...]:
    """Return the tunables with respect to which graphs have gradients: all but the pixels."""
    return tuple(name for name in tunables if name != PIXELS)


# Activations by what reads them, and the sum that leaves a block.
ACTIVATION_KINDS = ("qkv", "proj", "fc1", "fc2", "output")


@dataclass(frozen=True)
class Activation:
    """A tensor inside of a vision transformer that can be re-centred and whose moments can be read.

    Attributes:
        block: that it belongs to, from 0.
        kind: one of `ACTIVATION_KINDS`: the product that reads it, or `output` for the sum behind the block.
        tensor: its name in every graph of the bundle.
        width: number of channels.
        heads: 0 if the tensor is `[N, T, width]`; otherwise it is `[N, heads, T, width / heads]`.
    """

    block: int
    kind: str
    tensor: str
    width: int
    heads: int = 0


@dataclass(frozen=True)
class ActivationUse:
    """The activations that a method re-centres.

    Attributes:
        kinds: out of `ACTIVATION_KINDS`.
        last_blocks: number of blocks at the end that they belong to; None: all blocks.
    """

    kinds: tuple[str, ...]
    last_blocks: int | None = None

    def describe_blocks(self) -> str:
        """Return which blocks they belong to, in words."""
        return "all blocks" if self.last_blocks is None else f"the last {self.last_blocks} blocks"

    def covers(self, other: ActivationUse) -> bool:
        """Return if all activations of another use are among those of this one."""
        if not set(other.kinds) <= set(self.kinds):
            return False
        return self.last_blocks is None or (
            other.last_blocks is not None and other.last_blocks <= self.last_blocks
        )

    def select(self, activations: Sequence[Activation]) -> list[Activation]:
        """Return those of these kinds and blocks, in their order."""
        blocks = 1 + max((activation.block for activation in activations), default=-1)
        first = 0 if self.last_blocks is None else blocks - self.last_blocks
        return [item for item in activations if item.kind in self.kinds and item.block >= first]


@dataclass(frozen=True)
class SourceStatistics:
    """Mean and unbiased standard deviation of the features over clean images, without prompts.

    Attributes:
        mean: float32 `[L, F]`.
        std: float32 `[L, F]`, with `images - 1` in the denominator.
        images: how many images they were computed from.
        fisher: Fisher information of gain and bias of each tunable norm, float32 `[M, 2, W]`, as
            `compute_fisher` computes it; None where the bundle has no gradients.
        activation_mean, activation_std: mean and standard deviation of every channel of the model's
            activations, over all tokens of all images, float32 `[C]`; None if they were not computed, or the
            network was opened without activations. All tokens count alike, and the variance is biased.
    """

    mean: FloatArray
    std: FloatArray
    images: int
    fisher: FloatArray | None = None
    activation_mean: FloatArray | None = None
    activation_std: FloatArray | None = None


@dataclass(frozen=True, eq=False)
class Coordinator:
    """A frozen encoder and a learnt decoder, which make an addend to every image from its features.

    Attributes:
        parameters: of the decoder (`runtime.image_decoder`), float32 `[δ]`.
        mean, variance: running moments of its batch norms, float32 `[C]`.
        scale: standard deviation of images of each channel, in which the decoder answers, float32 `[3]`.
        layer: the feature that it reads, counted from the last, which is -1.
        width: channels of that feature.
        encoder: ONNX graph of the encoder; None: the network itself.
    """

    parameters: FloatArray
    mean: FloatArray
    variance: FloatArray
    scale: FloatArray
    layer: int
    width: int
    encoder: Path | None = None


@dataclass(frozen=True, eq=False)
class ImagePrompt:
    """Values that were learnt for the image side of a model; a network adds them in every forward.

    Attributes:
        frame: width in pixels of the black frame that images must have; 0: none.
        pixels: added to the tunable of this name, float32 `[H, W, 3]`; None: nothing.
        prompts: in front of the prompts that are fed, float32 `[P, D]`; None: none.
        coordinator: makes further pixels for every image; None: there is none.
    """

    frame: int = 0
    pixels: FloatArray | None = None
    prompts: FloatArray | None = None
    coordinator: Coordinator | None = None

    @property
    def tunables(self) -> list[str]:
        """Inputs that the graph needs."""
        has_pixels = self.pixels is not None or self.coordinator is not None
        return [PIXELS] * has_pixels + [PROMPTS] * (self.prompts is not None)

    @property
    def arrays(self) -> dict[str, FloatArray]:
        """The arrays that there are, by their names in the file of a head."""
        arrays = {PIXELS: self.pixels, PROMPTS: self.prompts}
        if self.coordinator is not None:
            arrays |= {f"coordinator_{name}": getattr(self.coordinator, name) for name in COORDINATOR_ARRAYS}
        return {name: array for name, array in arrays.items() if array is not None}


class ClassText(Protocol):
    """Text side of a model that compares images with texts: the classes' names behind one context."""

    @property
    def context(self) -> FloatArray:
        """The vectors in front of every class name, float32 `[M, D]`, M ≥ 1, D the width of the text tower.

        Raises:
            BundleError: the text graph cannot be used.
        """

    def encode(self, contexts: FloatArray) -> FloatArray:
        """Return the classifier that each context makes, float32 `[R, K, F]`, as `head_weight` is.

        Results of recent calls are remembered, so a method may ask for the same ones in every step.

        Args:
            contexts: float32 `[R, M, D]`.

        Raises:
            BundleError: the text graph cannot be used.
            ComputeError: ONNX Runtime fails.
        """

    def select(self, classes: Sequence[int]) -> ClassText:
        """Return the same text restricted to some classes, in the order of `classes`."""


@dataclass(frozen=True)
class ModelInfo:
    """Facts that a method may know of the model it adapts.

    Attributes:
        name: the model's name, for messages.
        identity: hash of everything that shapes the outputs; a checkpoint belongs to one identity.
        layers: L, number of features per image: one per block, or per stage in a residual network, and a
            last one for the image embedding where the classes come from texts.
        width: D, the width of a token and so of a prompt; in a residual network F.
        tokens: tokens per image without prompts; in a residual network the positions of the last stage.
        prompt_bound: prompts are initialised uniformly in `[-prompt_bound, prompt_bound]`; 0 where there
            are none.
        head_weight: float32 `[K, F]`; `logits(f + d) = logits(f) + head_weight @ d`.
        head_bias: float32 `[K]`; `logits = features[:, -1] @ head_weight.T + head_bias`.
        source: source statistics of this very graph, if the bundle has them.
        tunables: names of what adaptation may change, inputs of the graph.
        norms: the norms that the tunable `norms` adds to, in its order, each with its number of channels.
        feature_widths: how much of each layer's feature is not padding; none given: all of it.
        gradients: names of the tunables whose gradients the network computes; none unless it was opened with
            them.
        activations: that the tunable `recentring` moves, in its order; none unless the network was opened
            with them.
        activation_uses: that it was opened with.
        image_size: height and width of the images in pixels; None if only the graph says it.
        precision: name of the graph in its bundle; empty outside of bundles.
        takes_classifier: whether `head_weight` is an input of the graph, made from texts, and the last
            feature the image embedding of unit length.
        logit_scale: τ; where `takes_classifier`, rows of `head_weight` have this length, and logits are
            cosines times τ. 1 elsewhere.
        text: what makes other classifiers for the same classes; None without texts, or where the classes
            have no single context.
        image_prompt: learnt together with the classes in use; None: the images stay as they are.
    """

    name: str
    identity: str
    layers: int
    width: int
    tokens: int
    prompt_bound: float
    head_weight: FloatArray
    head_bias: FloatArray
    source: SourceStatistics | None = None
    tunables: tuple[str, ...] = (PROMPTS,)
    norms: Mapping[str, int] = field(default_factory=dict)
    feature_widths: tuple[int, ...] = ()
    gradients: tuple[str, ...] = ()
    activations: tuple[Activation, ...] = ()
    activation_uses: tuple[ActivationUse, ...] = ()
    image_size: tuple[int, int] | None = None
    precision: str = ""
    takes_classifier: bool = False
    logit_scale: float = 1.0
    text: ClassText | None = None
    image_prompt: ImagePrompt | None = None

    @property
    def classes(self) -> int:
        """Number of classes K that the logits cover."""
        return int(self.head_weight.shape[0])

    @property
    def blocks(self) -> int:
        """Number of blocks, or of stages in a residual network."""
        return self.layers - self.takes_classifier

    @property
    def feature_width(self) -> int:
        """F, the width of one feature: D, or 2 D where the head reads two tokens (distilled DeiT)."""
        return int(self.head_weight.shape[1])

    def require_source(self, user: str) -> SourceStatistics:
        """Return the source statistics, or raise an error that says how to get them.

        Raises:
            BundleError: the bundle has none for this graph.
        """
        if self.source is None and self.image_prompt is not None:
            raise BundleError(
                f"{user} needs source statistics, and those of {self.name} are of plain images: the head in "
                "use changes what the network computes; use a method without source statistics, or a head "
                "that was made from texts alone"
            )
        if self.source is None:
            raise BundleError(
                f"{user} needs source statistics, and the bundle of {self.name} has none for this "
                "graph; compute them from clean images: fozo source BUNDLE DIR"
            )
        return self.source

    def require_tunable(self, tunable: str, user: str) -> None:
        """Check that the graph has a tunable.

        Raises:
            BundleError: it has not.
        """
        if tunable not in self.tunables:
            option = " with --pixels" if tunable == PIXELS else ""
            raise BundleError(
                f"{user} tunes {tunable}, and the graph of {self.name} has no such input, only: "
                f"{', '.join(self.tunables) or 'none'}; use another method, or export the model again{option}"
            )

    def require_separate_images(self, user: str) -> None:
        """Check that images of a batch do not depend on each other, so that each can be perturbed on its own.

        Raises:
            BundleError: they do, by batch statistics.
        """
        if BATCH_STATISTICS in self.tunables:
            raise BundleError(
                f"{user} perturbs every image on its own, and {self.name} normalises over the batch; "
                "use zoa for residual networks"
            )

    def require_gradient(self, tunable: str, user: str) -> None:
        """Check that gradients with respect to a tunable can be computed.

        Raises:
            BundleError: they cannot.
        """
        self.require_tunable(tunable, user)
        if tunable not in self.gradients:
            raise BundleError(
                f"{user} needs exact gradients with respect to {tunable}, and this network of {self.name} "
                "computes none: the bundle was exported without --gradients, or the network opened without "
                "gradients=True; do both with them, or use a method that needs forwards only"
            )

    def require_activations(self, use: ActivationUse, user: str) -> list[Activation]:
        """Return the activations of some kinds and blocks, whose source statistics the model has.

        Raises:
            BundleError: the network has no such activations or was opened for others, or the bundle has no
                statistics of them.
        """
        selected = use.select(self.activations)
        if selected and not any(opened.covers(use) for opened in self.activation_uses):
            raise BundleError(
                f"{user} re-centres activations ({', '.join(use.kinds)}; {use.describe_blocks()}), and this "
                f"network of {self.name} was opened for others; open it with "
                "Network.open(bundle, activations=[method.activations])"
            )
        if not selected:
            raise BundleError(
                f"{user} re-centres activations ({', '.join(use.kinds)}), and this network of {self.name} "
                "offers none: only vision transformers have them, and the bundle may come from an earlier "
                "version of fozo, or the network was opened without activations; export the model again with "
                "fozo export"
            )
        if self.require_source(user).activation_mean is None:
            raise BundleError(
                f"{user} needs source statistics of activations, and those of {self.name} are of features "
                "alone; compute them again from clean images: fozo source BUNDLE DIR"
            )
        return selected

    def select(self, classes: Sequence[int]) -> ModelInfo:
        """Return the same model restricted to some of its classes, in the order of `classes`.

        Raises:
            InputError: an index is out of range or given twice, or none is given.
        """
        indices = np.asarray(classes)
        if indices.dtype.kind not in "iu" or indices.ndim != 1 or len(set(indices.tolist())) != indices.size:
            raise InputError(
                f"expected distinct class indices, found {indices.dtype} of shape {indices.shape}"
            )
        if indices.min() < 0 or indices.max() >= self.classes:
            raise InputError(
                f"class indices must lie in 0..{self.classes - 1}, found {indices.min()}..{indices.max()}"
            )
        return replace(
            self,
            head_weight=self.head_weight[indices],
            head_bias=self.head_bias[indices],
            identity=hash_texts(self.identity, *map(str, indices)),
            text=None if self.text is None else self.text.select(classes),
        )

    def with_classifier(
        self, weight: FloatArray, text: ClassText | None = None, bias: FloatArray | None = None
    ) -> ModelInfo:
        """Return the same model with other classes.

        Args:
            weight: float32 `[K, F]`, its rows τ times the unit-length embedding of a class, padded with
                zeros.
            text: what makes other classifiers for these classes.
            bias: float32 `[K]`, added to the logits; default: zeros.

        Raises:
            InputError: the classifier of this model is part of its graph, or weight or bias do not fit.
        """
        if not self.takes_classifier:
            raise InputError(
                f"the classes of {self.name} are part of its graph; only models exported with --clip take "
                "others"
            )
        fits = weight.dtype == np.float32 and weight.ndim == 2 and len(weight)
        if not fits or weight.shape[1] != self.feature_width or not np.isfinite(weight).all():
            raise InputError(
                f"expected a classifier of finite float32 [K, {self.feature_width}] with K ≥ 1, found "
                f"{weight.dtype} of shape {list(weight.shape)}"
            )
        arrays = {"weight": weight} if bias is None else {"weight": weight, "bias": bias}
        bias = np.zeros(len(weight), np.float32) if bias is None else bias
        if bias.dtype != np.float32 or bias.shape != weight.shape[:1] or not np.isfinite(bias).all():
            raise InputError(
                f"expected a bias of finite float32 [{len(weight)}], found {bias.dtype} of shape "
                f"{list(bias.shape)}"
            )
        return replace(
            self,
            head_weight=weight,
            head_bias=bias,
            identity=hash_texts(self.identity, hashlib.sha256(to_npz(**arrays)).hexdigest()),
            text=text,
        )


@dataclass(frozen=True, eq=False)
class Slopes:
    """Derivatives of a loss with respect to the outputs of a forward, where gradients are asked for.

    Attributes:
        logits: float `[N, K]`, with respect to the unshifted logits; None stands for zeros.
        features: float `[N, L, F]`; None stands for zeros.
        entropy_weights: float `[N]`, factors of the entropies of these very predictions, in nats, which are
            added to the loss. Such a loss needs no forward beforehand. None stands for zeros.
    """

    logits: FloatArray | None = None
    features: FloatArray | None = None
    entropy_weights: FloatArray | None = None


@dataclass(frozen=True)
class Outputs:
    """Outputs of one forward.

    Attributes:
        logits: float32 `[N, K]`, unshifted.
        features: float32 `[N, L, F]`; the last one, `features[:, -1]`, is what the head reads.
        embedding: float32 `[N, 2, E]`: mean and biased variance of each channel over the positions of an
            image, before anything that can be tuned; what tells domains apart. None for graphs of schema 1.
        gradients: where slopes were given, the gradient of the loss with respect to each tunable: float64, of
            the tunable's shape without its first axis, summed over the images. None otherwise.
        activation_moments: float32 `[N, 2, C]`: mean and biased variance over the tokens of each image, of
            every channel of the model's activations, before they are re-centred. None where it has none.
    """

    logits: FloatArray
    features: FloatArray
    embedding: FloatArray | None = None
    gradients: Mapping[str, FloatArray] | None = None
    activation_moments: FloatArray | None = None


class Forward(Protocol):
    """Interface of a network; `Network` has it, and so has any stand-in in a test."""

    @property
    def info(self) -> ModelInfo:
        """The model behind this network."""

    def __call__(self, images: ImageArray, **tunables: FloatArray) -> Outputs:
        """Run one forward over `images` uint8 `[N, H, W, 3]`, e.g. with `prompts` `[1 or N, P, D]`."""

    def candidates(self, images: ImageArray, tunables: Sequence[Tunables]) -> list[Outputs]:
        """Run one forward over the same images for each of several sets of tunables."""

    def pull_back(self, images: ImageArray, tunables: Tunables, slopes: Slopes) -> Outputs:
        """Run one forward and pull the slopes of a loss back to the tunables: outputs with gradients."""
