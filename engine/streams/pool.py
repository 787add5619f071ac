"""Many streams on one network: their forwards run together, their states stay their own.

A method asks for forwards in the middle of its step. So each stream's step runs in a thread in which forwards
only wait; once every stream waits or is done, what they wait for runs in as few calls of the network as
possible: images one after the other, tunables as those of each image. Methods know nothing of it.
"""

from __future__ import annotations

import threading
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from queue import SimpleQueue
from typing import Any, NoReturn, TypeVar

import numpy as np

from ..errors import FozoError, InputError
from ..model import FloatArray, ImageArray, Outputs, Tunables
from ..registry import AnyMethod, Prediction, State
from ..registry import method as configured_method
from ..runtime.graph_contract import BATCH_STATISTICS
from ..runtime.network import Network
from ..wrappers.fallback import guarded_step
from .adapter import DEFAULT_SEED, Adapter

# More images at once save no time, only cost memory, unless there are many workers to keep busy.
IMAGES_PER_STACK = 64
CALLS_PER_WORKER = 4

Key = TypeVar("Key", bound=Hashable)
Outcome = tuple[Prediction, State]


class Pool:
    """Any number of streams, each with its own method, options, seed and state, served by one network.

    Every prediction and every state is what an adapter of its own would give the stream, bit for bit; the
    network is better used, most of all where batches are small.

    Any thread may call the pool and its streams at any time: they take turns.

    Attributes:
        network: what runs the forwards of all streams; it is not closed with them.
    """

    def __init__(self, network: Network) -> None:
        self.network = network
        self._streams: dict[Hashable, _Stream] = {}
        self._turn = threading.Lock()

    def open(
        self, key: Hashable, method: str = "fozo", *, seed: int = DEFAULT_SEED, **options: object
    ) -> Adapter:
        """Starts a stream.

        Args:
            key: what to call it from now on.
            method: a name of `fozo.METHODS`.
            seed: what the method's random draws derive from.
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
        """Takes a stream out of the pool. What `open` returned can still be saved, and stepped on its own.

        Raises:
            InputError: no stream of this key is open.
        """
        with self._turn:
            self._find(key)
            del self._streams[key]

    def step(self, batches: Mapping[Key, ImageArray]) -> dict[Key, Prediction]:
        """Predicts a batch of each of some streams and adapts each stream to its own.

        Either all of these streams advance or, where anything is raised, none.

        Args:
            batches: by key of the stream, uint8 `[N, H, W, 3]` as for `Adapter.step`; N may differ.

        Raises:
            InputError: no batch, no stream of a key, or images of another type or shape. Nothing has run.
            FozoError: the step of a stream failed; the message names the stream.
            RuntimeError: the same, with an error that is not fozo's as its cause.
        """
        with self._turn:
            steps = self._steps(batches)
            outcomes = _run_together(self.network, steps)
            _advance([step.stream for step in steps], outcomes)
            return {key: prediction for key, (prediction, _) in zip(batches, outcomes, strict=True)}

    def _steps(self, batches: Mapping[Key, ImageArray]) -> list[_Step]:
        if not batches:
            raise InputError("expected a batch of images for at least one stream, found none")
        steps = [_Step(key, self._find(key), images) for key, images in batches.items()]
        for step in steps:
            try:
                self.network.check_images(step.images)
            except InputError as error:
                _fail([step], error)
        return steps

    def _find(self, key: Hashable) -> _Stream:
        if key not in self._streams:
            known = ", ".join(map(repr, self._streams)) or "none"
            raise InputError(f"there is no stream {key!r}; open are: {known}")
        return self._streams[key]


class _Stream(Adapter):
    """An adapter that takes turns with its pool, so that no step overwrites another."""

    def __init__(self, network: Network, method: AnyMethod, seed: int, turn: threading.Lock) -> None:
        super().__init__(network, method, seed)
        self._turn = turn

    def step(self, images: ImageArray) -> Prediction:
        with self._turn:
            return super().step(images)

    def reset(self) -> None:
        with self._turn:
            super().reset()

    def save(self, path: str | Path) -> None:
        with self._turn:
            super().save(path)

    def load(self, path: str | Path) -> None:
        with self._turn:
            super().load(path)


@dataclass(frozen=True)
class _Request:
    """What `Network.candidates` is asked for."""

    images: ImageArray
    tunables: Sequence[Tunables]

    @property
    def kind(self) -> Hashable:
        """Requests of one kind can be stacked: as many forwards, with tunables of the same shapes."""
        return tuple(
            tuple(sorted((name, array.dtype.str, array.shape[1:]) for name, array in each.items()))
            for each in self.tunables
        )


class _Abandoned(BaseException):
    """Ends a step whose pool has given up; not an `Exception`, so that no method takes it for a failure."""


class _Step:
    """One step of one stream in a thread of its own. To its method it is the network, which takes its time.

    Attributes:
        report: what it waits for, or what came of it: a request, an outcome, or an error.
        reported: gets an entry with every report.
        answers: to its requests; None ends it.
    """

    def __init__(self, key: Hashable, stream: _Stream, images: ImageArray) -> None:
        self.key, self.stream, self.images = key, stream, images
        self.info = stream.network.info
        self.report: _Request | Outcome | BaseException | None = None
        self.reported: SimpleQueue[None] = SimpleQueue()
        self.answers: SimpleQueue[list[Outputs] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=f"fozo-stream-{key}")

    def start(self) -> None:
        self._thread.start()

    def end(self) -> None:
        """Waits for the thread, which ends at its next request, if it has not ended yet."""
        if self._thread.is_alive():
            self._thread.join()

    def __call__(self, images: ImageArray, **tunables: FloatArray) -> Outputs:
        return self.candidates(images, [tunables])[0]

    def candidates(self, images: ImageArray, tunables: Sequence[Tunables]) -> list[Outputs]:
        self.report = _Request(images, tunables)
        self.reported.put(None)
        answer = self.answers.get()
        if answer is None:
            raise _Abandoned
        return answer

    def _run(self) -> None:
        try:
            self.report = guarded_step(self.stream.method, self.stream.state, self.images, self)
        except BaseException as error:  # whatever it is, it belongs to the caller of the pool
            self.report = error
        self.reported.put(None)


_Waiting = tuple[_Step, _Request]


def _run_together(network: Network, steps: Sequence[_Step]) -> list[Outcome]:
    """Runs the steps to their ends; an error or an interrupt ends all of them, and their threads."""
    outcomes: dict[Hashable, Outcome] = {}
    running = list(steps)
    try:
        for step in steps:
            step.start()
        while running:
            for step in running:
                step.reported.get()
            waiting: list[_Waiting] = []
            for step in running:
                if isinstance(step.report, _Request):
                    waiting.append((step, step.report))
                elif isinstance(step.report, tuple):
                    outcomes[step.key] = step.report
                else:
                    assert step.report is not None
                    _fail([step], step.report)
            _serve(network, waiting)
            running = [step for step, _ in waiting]
    finally:
        for step in steps:
            step.answers.put(None)
        for step in steps:
            step.end()
    return [outcomes[step.key] for step in steps]


def _serve(network: Network, waiting: Sequence[_Waiting]) -> None:
    """Answers every request; who has an answer goes on while the others' are computed."""
    for stack in _stacks(network, waiting):
        steps, requests = zip(*stack, strict=True)
        try:
            answers = _answers(network, requests)
        except Exception as error:
            _fail(steps, error)
        for step, answer in zip(steps, answers, strict=True):
            step.answers.put(answer)


def _stacks(network: Network, waiting: Sequence[_Waiting]) -> list[list[_Waiting]]:
    """What runs together: requests of one kind, up to a number of images."""
    limit = max(IMAGES_PER_STACK, CALLS_PER_WORKER * network.workers * network.micro_batch)
    coupled = BATCH_STATISTICS in network.info.tunables  # streams would influence each other
    stacks: list[list[_Waiting]] = []
    latest: dict[Hashable, tuple[list[_Waiting], int]] = {}  # per kind, and its images
    for step, request in waiting:
        kind = request.kind
        stack, images = latest.get(kind, ([], limit))
        images += len(request.images)
        if coupled or images > limit:
            stack, images = [], len(request.images)
            stacks.append(stack)
        stack.append((step, request))
        latest[kind] = stack, images
    return stacks


def _answers(network: Network, requests: Sequence[_Request]) -> list[list[Outputs]]:
    """The answers to requests of one kind, from one call of the network."""
    if len(requests) == 1:
        return [network.candidates(requests[0].images, requests[0].tunables)]
    images = np.concatenate([request.images for request in requests])
    found = network.candidates(images, [_stacked(requests, i) for i in range(len(requests[0].tunables))])
    ends = np.cumsum([len(request.images) for request in requests])
    parts = [slice(end - len(request.images), end) for end, request in zip(ends, requests, strict=True)]
    return [[_part(outputs, part) for outputs in found] for part in parts]


def _stacked(requests: Sequence[_Request], candidate: int) -> dict[str, FloatArray]:
    """The tunables of one candidate of all requests, per image: `[ΣN, …]` of `[1 or N, …]` each."""
    return {
        name: np.concatenate(
            [
                np.broadcast_to(array, (len(request.images), *array.shape[1:]))
                for request in requests
                for array in [request.tunables[candidate][name]]
            ]
        )
        for name in requests[0].tunables[candidate]
    }


def _part(outputs: Outputs, part: slice) -> Outputs:
    """Some images' outputs, copied: what a stream keeps of them must not keep those of all streams."""
    arrays = {f.name: getattr(outputs, f.name) for f in fields(outputs)}
    own: dict[str, Any] = {
        name: None if array is None else array[part].copy() for name, array in arrays.items()
    }
    return Outputs(**own)


def _fail(steps: Sequence[_Step], error: BaseException) -> NoReturn:
    """Raises an error with the streams it belongs to; of its own kind if it is fozo's."""
    if not isinstance(error, Exception):
        raise error
    names = ("stream " if len(steps) == 1 else "streams ") + ", ".join(repr(step.key) for step in steps)
    if isinstance(error, FozoError):
        raise type(error)(f"{names}: {error}") from error
    raise RuntimeError(f"{names}: {type(error).__name__}: {error}") from error


def _advance(streams: Sequence[_Stream], outcomes: Sequence[Outcome]) -> None:
    """All streams or, where an interrupt comes in between, none."""
    before = [(stream.state, stream.guarded) for stream in streams]
    after = [
        (state, stream.guarded + prediction.guarded)
        for stream, (prediction, state) in zip(streams, outcomes, strict=True)
    ]
    try:
        for stream, following in zip(streams, after, strict=True):
            stream.state, stream.guarded = following
    except BaseException:
        for stream, previous in zip(streams, before, strict=True):
            stream.state, stream.guarded = previous
        raise
