"""Many streams on one network: their forwards run together, their states stay their own.

A step is a generator of requests. Whenever every stream has made its next request or is done, the requests
run in as few calls of the network as possible. Methods know nothing of it.
"""

from __future__ import annotations

import threading
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

import numpy as np

from ..errors import FozoError, InputError
from ..interface.method import AnyMethod, Prediction, State, Step
from ..interface.request import Request
from ..interface.view_batch import ViewBatch, get_plain_images
from ..model import ImageArray, Outputs
from ..names import DEFAULT_SEED
from ..registry import count_views
from ..registry import method as configured_method
from ..runtime.network import Network
from ..wrappers.fallback import step_with_fallback
from .adapter import DEFAULT_METHOD, Adapter, StreamState
from .stacking import group_requests, run_stacked

Key = TypeVar("Key", bound=Hashable)
Outcome = tuple[Prediction, State]


class Pool:
    """Any number of streams, each with its own method, options, seed and state, served by one network.

    Every prediction and every state is what an adapter of its own would give the stream, bit for bit; the
    network is better used, most of all where batches are small.

    Any thread may call the pool and its streams at any time: they take turns.

    Attributes:
        network: runs the forwards of all streams; it is not closed with them. Methods with gradients need one
            that was opened with them.
    """

    def __init__(self, network: Network) -> None:
        self.network = network
        self._streams: dict[Hashable, _Stream] = {}
        self._turn = threading.Lock()

    def open(
        self, key: Hashable, method: str = DEFAULT_METHOD, *, seed: int = DEFAULT_SEED, **options: object
    ) -> Adapter:
        """Start a stream.

        Args:
            key: name of the stream in `step` and `close`.
            method: a name of `fozo.METHODS`.
            seed: seed of the method's random draws.
            options: the method's options.

        Returns:
            The stream: its state, to be saved, loaded and reset. It may also be stepped on its own.

        Raises:
            InputError: a stream of this key is open, or a method, option or seed cannot be used.
            BundleError: the bundle lacks something the method needs, such as source statistics.
        """
        stream = _Stream(self.network, configured_method(method, **options), seed, self._turn)
        with self._turn:
            if key in self._streams:
                raise InputError(f"stream {key!r} is open already; close it first, or use another key")
            self._streams[key] = stream
        return stream

    def close(self, key: Hashable) -> None:
        """Take a stream out of the pool. It can still be saved, and stepped on its own.

        Raises:
            InputError: no stream of this key is open.
        """
        with self._turn:
            self._get_stream(key)
            del self._streams[key]

    def step(
        self, batches: Mapping[Key, ImageArray | ViewBatch | Sequence[ImageArray]]
    ) -> dict[Key, Prediction]:
        """Predict one batch for each of some streams, and adapt each stream to its own batch.

        Either all of these streams advance or, where anything is raised, none.

        Args:
            batches: by key of the stream, as for `Adapter.step`; N may differ.

        Raises:
            InputError: no batch, no stream of a key, or images of another type or shape. Nothing has run.
            FozoError: the step of a stream failed; the message names the stream.
            RuntimeError: the same, with an error that is not fozo's as its cause.
        """
        with self._turn:
            steps = self._begin_steps(batches)
            try:
                with np.errstate(over="ignore", invalid="ignore"):
                    _run_together(self.network, steps)
            finally:
                for step in steps:
                    step.requests.close()
            _advance(steps)
            return {key: step.outcome[0] for key, step in zip(batches, steps, strict=True)}

    def _begin_steps(self, batches: Mapping[Key, Any]) -> list[_StreamStep]:
        if not batches:
            raise InputError("expected a batch of images for at least one stream, found none")
        streams = {key: self._get_stream(key) for key in batches}
        checked: dict[Hashable, ImageArray] = {}
        for key, stream in streams.items():
            try:
                checked[key] = stream.check_batch(batches[key])
                is_plain = count_views(stream.method) == 1
                self.network.check_images(checked[key] if is_plain else get_plain_images(checked[key]))
            except InputError as error:
                _raise_for([key], error)
        return [
            _StreamStep(key, stream, step_with_fallback(stream.bound, stream.state, checked[key]))
            for key, stream in streams.items()
        ]

    def _get_stream(self, key: Hashable) -> _Stream:
        if key not in self._streams:
            names = ", ".join(map(repr, self._streams)) or "none"
            raise InputError(f"there is no stream {key!r}; open are: {names}")
        return self._streams[key]


class _Stream(Adapter):
    """An adapter that takes turns with its pool, so that no step overwrites another."""

    def __init__(self, network: Network, method: AnyMethod, seed: int, turn: threading.Lock) -> None:
        super().__init__(network, method, seed)
        self._turn = turn

    def step(self, images: ImageArray | ViewBatch | Sequence[ImageArray]) -> Prediction:
        with self._turn:
            return super().step(images)

    def reset(self) -> None:
        with self._turn:
            super().reset()

    def snapshot(self) -> StreamState:
        with self._turn:
            return self._state

    def restore(self, state: StreamState) -> None:
        with self._turn:
            self._state = state


@dataclass
class _StreamStep:
    """One step of one stream.

    Attributes:
        key: of the stream.
        stream: the stream.
        requests: its step.
        outcome: prediction and next state; only set once the step has ended.
    """

    key: Hashable
    stream: _Stream
    requests: Step[State]
    outcome: Outcome = NotImplemented

    def resume(self, outputs: list[Outputs] | None) -> Request | None:
        """Return the next request, given the outputs of the last one; None at the end of the step."""
        try:
            return self.requests.send(outputs)  # type: ignore[arg-type]  # None starts a generator
        except StopIteration as end:
            self.outcome = end.value
            return None
        except Exception as error:
            _raise_for([self.key], error)


def _run_together(network: Network, steps: Sequence[_StreamStep]) -> None:
    """Run the steps to their ends, one round of requests after the other."""
    pending = [(step, request) for step in steps if (request := step.resume(None))]
    while pending:
        next_requests: dict[int, Request | None] = {}
        for stack in group_requests(network, [request for _, request in pending]):
            try:
                answers = run_stacked(network, [pending[index][1] for index in stack])
            except Exception as error:
                _raise_for([pending[index][0].key for index in stack], error)
            for index, outputs in zip(stack, answers, strict=True):
                next_requests[index] = pending[index][0].resume(outputs)
        pending = [
            (step, request) for index, (step, _) in enumerate(pending) if (request := next_requests[index])
        ]


def _raise_for(keys: Sequence[Hashable], error: Exception) -> NoReturn:
    """Raise an error with the streams that it belongs to; of its own kind if it is fozo's."""
    names = ("stream " if len(keys) == 1 else "streams ") + ", ".join(map(repr, keys))
    if isinstance(error, FozoError):
        raise type(error)(f"{names}: {error}") from error
    raise RuntimeError(f"{names}: {type(error).__name__}: {error}") from error


def _advance(steps: Sequence[_StreamStep]) -> None:
    """Advance all streams or, where an interrupt comes in between, none."""
    before = [step.stream._state for step in steps]
    after = [state.advance(*step.outcome) for state, step in zip(before, steps, strict=True)]
    try:
        for step, state in zip(steps, after, strict=True):
            step.stream._state = state
    except BaseException:
        for step, state in zip(steps, before, strict=True):
            step.stream._state = state
        raise
