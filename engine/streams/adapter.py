"""The façade for people who embed the engine: one stream of batches on one network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from ..errors import InputError
from ..interface.method import AnyBoundMethod, AnyMethod, Prediction, State
from ..interface.request import answer_with, drive
from ..interface.view_batch import ViewBatch, check_views
from ..model import Forward, ImageArray
from ..names import DEFAULT_SEED
from ..registry import count_pull_backs, count_views, get_options, list_activation_uses
from ..registry import method as configured_method
from ..runtime.network import Network
from ..wrappers.fallback import step_with_fallback
from . import checkpoint

DEFAULT_METHOD = "pizo"


@dataclass(frozen=True)
class StreamState:
    """Everything that a stream carries from batch to batch.

    Attributes:
        method: state of the method.
        frozen_batches: batches that the frozen network answered instead of the method since the last reset.
    """

    method: State
    frozen_batches: int = 0

    def advance(self, prediction: Prediction, method: State) -> StreamState:
        """Return the state after a batch.

        Args:
            prediction: the answer to the batch.
            method: state of the method after it.
        """
        return StreamState(method, self.frozen_batches + prediction.frozen)


class Adapter:
    """One stream: feed it batches, it predicts and adapts.

    An adapter belongs to one thread. A network may be shared by many adapters in many threads.

    >>> import fozo
    >>> from fozo.testing import StandInNetwork, draw_images
    >>> adapter = fozo.Adapter(StandInNetwork(), fozo.method("fozo", prompts=1), seed=0)
    >>> prediction = adapter.step(draw_images(8))
    >>> prediction.logits.shape, prediction.forwards
    ((8, 6), 2)
    >>> round(prediction.diagnostics["epsilon"], 2), adapter.state.step
    (0.5, 1)
    >>> adapter.reset()
    >>> adapter.state.step
    0

    Attributes:
        network: runs the forwards.
        method: the method with its options.
        bound: the method bound to the network's model.
        seed: seed of the method's random draws.
    """

    def __init__(self, network: Forward, method: AnyMethod, seed: int = DEFAULT_SEED) -> None:
        """Start a stream.

        Raises:
            BundleError: the bundle lacks something the method needs, such as source statistics.
            InputError: the seed is no integer in 0..2⁶³−1.
        """
        if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or not 0 <= seed < 2**63:
            raise InputError(f"a seed must be an integer in 0..2^63-1, found {seed!r}")
        self.network = network
        self.method = method
        self.bound: AnyBoundMethod = method.bind(network.info)
        self.seed = int(seed)
        self._state = self.initial_state()

    @property
    def state(self) -> State:
        """The current state of the method."""
        return self._state.method

    @property
    def frozen_batches(self) -> int:
        """Number of batches that the frozen network answered instead of the method since the last reset."""
        return self._state.frozen_batches

    @classmethod
    def open(
        cls,
        bundle: str | Path,
        *,
        precision: str = "fp32",
        head: str | None = None,
        method: str = DEFAULT_METHOD,
        seed: int = DEFAULT_SEED,
        classes: Sequence[int] | None = None,
        workers: int | None = None,
        micro_batch: int | None = None,
        provider: str = "cpu",
        **options: object,
    ) -> Adapter:
        """Load a bundle and start a stream on it.

        Args:
            bundle: folder made by `fozo export`.
            precision: name of the graph, `fp32` by default.
            head: name of the classes to use, where the bundle makes classes from texts; default: its own.
            method: a name of `fozo.METHODS`; the default is for vision transformers.
            seed: seed of the method's random draws.
            classes: indices of the classes to predict, for streams that hold only some of them.
            workers: threads; default: the tuned number, or as many as this process may use.
            micro_batch: images per call of the runtime; default: the tuned number, or by the model's size.
            provider: the execution provider, `cpu` or `openvino`.
            options: the method's options (`fozo methods` lists them).

        Raises:
            BundleError: the bundle cannot be used.
            InputError: a method, option or argument does not exist or cannot be used.
        """
        configured = configured_method(method, **options)
        network = Network.open(
            bundle,
            precision,
            head=head,
            gradients=count_pull_backs(configured) > 0,
            activations=list_activation_uses([configured]),
            workers=workers,
            micro_batch=micro_batch,
            provider=provider,
        )
        return cls(network if classes is None else network.select(classes), configured, seed)

    def step(self, images: ImageArray | ViewBatch | Sequence[ImageArray]) -> Prediction:
        """Predict a batch and adapt to it.

        Args:
            images: uint8 `[N, H, W, 3]`, RGB, resized and cropped as the bundle's preprocessing says. Methods
                that look at several views of each image take those: `[N, V, H, W, 3]`, a list of arrays
                `[V, H, W, 3]` from `fozo.views`, or another `ViewBatch`.

        Raises:
            InputError: images of another type or shape. The state is as it was.
        """
        step = step_with_fallback(self.bound, self.state, self.check_batch(images))
        prediction, method_state = drive(step, answer_with(self.network))
        self._state = self._state.advance(prediction, method_state)
        return prediction

    def check_batch(self, images: Any) -> ImageArray:
        """Return a batch as the method takes it, after checking that there are as many views as it looks at.

        Raises:
            InputError: it is no array of images, or does not have the views that the method looks at.
        """
        views = count_views(self.method)
        if views > 1:
            return cast(ImageArray, check_views(images, views, self.method.name))
        if not isinstance(images, np.ndarray):
            raise InputError(
                f"expected images as an array of uint8 and shape [N, H, W, 3], found "
                f"{type(images).__name__}; {self.method.name} looks at one view of each image"
            )
        return images

    def reset(self) -> None:
        """Forget everything that was learnt: the state is again the initial one, bit for bit."""
        self._state = self.initial_state()

    def initial_state(self) -> StreamState:
        """Return the state before the first batch."""
        return StreamState(self.bound.init(self.seed))

    def snapshot(self) -> StreamState:
        """Return the whole state of the stream, for `restore`."""
        return self._state

    def restore(self, state: StreamState) -> None:
        """Continue from a state that `snapshot` returned."""
        self._state = state

    def save(self, path: str | Path) -> None:
        """Write a checkpoint (`.npz`), atomically.

        Raises:
            OutputError: the file cannot be written; an older one is left as it was.
        """
        checkpoint.save(Path(path), self._build_header(), self.snapshot())

    def load(self, path: str | Path) -> None:
        """Continue from a checkpoint: predictions are those of a stream that was never interrupted.

        Raises:
            StateError: it is missing, damaged, or belongs to another bundle, method or set of options. The
                state is as it was.
        """
        info = self.network.info
        self.restore(checkpoint.load(Path(path), self._build_header(), self.initial_state(), info))

    def _build_header(self) -> dict[str, Any]:
        return {
            "precision": self.network.info.precision,
            "identity": self.network.info.identity,
            "method": self.method.name,
            "options": get_options(self.method),
            "seed": self.seed,
        }
