"""The façade for people who embed the engine: a bundle, a method, its state, and the guard."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..interface.method import AnyMethod, Prediction, State
from ..model import Forward, ImageArray
from ..registry import method as configured_method
from ..registry import options_of
from ..runtime.network import Network
from ..wrappers.fallback import guarded_step
from . import checkpoint

DEFAULT_SEED = 2000  # FOZO's official runs


class Adapter:
    """One stream: feed it batches, it predicts and adapts.

    An adapter belongs to one thread. A network may be shared by many adapters in many threads.

    Attributes:
        network: what runs the forwards.
        method: the method with its options.
        seed: what the method's random draws derive from.
        state: all that the method carries.
        guarded: batches on which the guard stepped in since the last reset.
    """

    def __init__(self, network: Forward, method: AnyMethod, seed: int = DEFAULT_SEED) -> None:
        """Starts a stream.

        Raises:
            BundleError: the bundle lacks something the method needs, such as source statistics.
            InputError: the seed is no integer in 0..2⁶³−1.
        """
        if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or not 0 <= seed < 2**63:
            raise InputError(f"a seed must be an integer in 0..2^63-1, found {seed!r}")
        seed = int(seed)
        self.network = network
        self.method = method
        self.seed = seed
        self.state: State = method.init(network.info, seed)
        self.guarded = 0

    @classmethod
    def open(
        cls,
        bundle: str | Path,
        *,
        precision: str = "fp32",
        method: str = "pizo",
        seed: int = DEFAULT_SEED,
        classes: Sequence[int] | None = None,
        workers: int | None = None,
        micro_batch: int | None = None,
        provider: str = "cpu",
        **options: object,
    ) -> Adapter:
        """Loads a bundle and starts a stream on it.

        Args:
            bundle: folder made by `fozo export`.
            precision: which graph, `fp32` by default.
            method: a name of `fozo.METHODS`; the default is for vision transformers.
            seed: what the method's random draws derive from.
            classes: indices of the classes to predict, for streams that hold only some of them.
            workers: threads; default: what tuning found, or as many as this process may use.
            micro_batch: images per call of the runtime; default: what tuning found, or by the model's size.
            provider: who computes, `cpu` or `openvino`.
            options: the method's options (`fozo methods` lists them).

        Raises:
            BundleError: the bundle cannot be used.
            InputError: a method, option or argument does not exist or cannot be used.
        """
        configured = configured_method(method, **options)
        network = Network.open(bundle, precision, workers=workers, micro_batch=micro_batch, provider=provider)
        return cls(network if classes is None else network.select(classes), configured, seed)

    def step(self, images: ImageArray) -> Prediction:
        """Predicts a batch and adapts to it.

        Args:
            images: uint8 `[N, H, W, 3]`, RGB, resized and cropped as the bundle's preprocessing says.

        Raises:
            InputError: images of another type or shape. The state is as it was.
        """
        prediction, self.state = guarded_step(self.method, self.state, images, self.network)
        self.guarded += prediction.guarded
        return prediction

    def reset(self) -> None:
        """Forgets everything that was learnt: the state is again the initial one, bit for bit."""
        self.state = self.method.init(self.network.info, self.seed)
        self.guarded = 0

    def save(self, path: str | Path) -> None:
        """Writes a checkpoint (`.npz`), atomically.

        Raises:
            OutputError: the file cannot be written; an older one is left as it was.
        """
        checkpoint.save(Path(path), {**self._header(), "guarded": self.guarded}, self.state)

    def load(self, path: str | Path) -> None:
        """Continues from a checkpoint: predictions are those of a stream that was never interrupted.

        Raises:
            StateError: it is missing, damaged, or belongs to another bundle, method or set of options. The
                state is as it was.
        """
        info = self.network.info
        initial = self.method.init(info, self.seed)
        self.state, header = checkpoint.load(Path(path), self._header(), initial, info)
        self.guarded = int(header.get("guarded", 0))

    def _header(self) -> dict[str, Any]:
        return {
            "identity": self.network.info.identity,
            "method": self.method.name,
            "options": options_of(self.method),
            "seed": self.seed,
        }
