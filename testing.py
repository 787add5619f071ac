"""Checks of methods, for their authors: `fozo.testing.check_method(MyMethod())`.

Every requirement that can be checked without real images is checked on a small network in NumPy, or on a
network of your own.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import FrozenInstanceError, dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ._stand_in import StandInNetwork, StandInText, add_views, draw_images, sum_logits_slopes
from .engine.errors import BundleError, FozoError
from .engine.interface.method import AnyBoundMethod, AnyMethod, Prediction, count_pull_backs, count_views
from .engine.interface.method_options import describe
from .engine.interface.request import Request, Requests, answer_with, drive
from .engine.model import RECENTRING, Forward, ImageArray, ModelInfo, Outputs, Tunables
from .engine.state import State, iterate_values
from .engine.streams.adapter import Adapter

__all__ = [
    "MethodError",
    "StandInNetwork",
    "StandInText",
    "add_views",
    "check_method",
    "check_options",
    "draw_images",
    "sum_logits_slopes",
]

BATCH_SIZES = (7, 1, 2, 7, 7, 3)  # ragged, with a single image in the middle
SEED = 5


class MethodError(FozoError, AssertionError):
    """A method does not keep its contract."""


def check_method(
    method: Any, network: Forward | None = None, images: Callable[[int, int], ImageArray] = draw_images
) -> None:
    """Check that a method keeps its contract.

    Args:
        method: an instance, with the options to be checked.
        network: the network to run it on; default: a small stand-in.
        images: `images(count, seed)` returns a batch that the network can read. For a method that looks at
            several views of each image, the others are shifted and mirrored copies.

    Raises:
        MethodError: it does not; the message says what was expected and what was found.
        BundleError: the method cannot be bound to the network.
    """
    check_options(method)
    network = network or _choose_network(method)
    stream = [images(size, index) for index, size in enumerate(BATCH_SIZES)]
    if count_views(method) > 1:
        stream = [add_views(batch, count_views(method)) for batch in stream]
    _Check(method, network, stream).run()


def check_options(method: Any) -> None:
    """Check that a method is a frozen dataclass of described options, without running it.

    Raises:
        MethodError: it is not.
    """
    kind = type(method).__name__
    _require(
        is_dataclass(method) and not isinstance(method, type), f"expected a dataclass instance, found {kind}"
    )
    _require(isinstance(getattr(method, "name", None), str), f"{kind} has no name: set name: ClassVar[str]")
    forwards = getattr(method, "forwards", None)
    least = 0 if count_pull_backs(method) else 1
    _require(
        type(forwards) is int and forwards >= least,
        f"{method.name}: forwards must be an int ≥ {least}, found {forwards!r}",
    )
    for f in fields(method):
        try:
            setattr(method, f.name, getattr(method, f.name))
        except FrozenInstanceError:
            continue
        raise MethodError(f"{method.name}: use @dataclass(frozen=True); the option {f.name} can be assigned")
    _require(
        hash(method) == hash(replace(method)) and method == replace(method),
        f"{method.name}: equal options must give equal methods with equal hashes",
    )
    for option in describe(method):
        _require(
            bool(option.help.strip()), f"{method.name}: the option {option.name} has no text that explains it"
        )


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise MethodError(message)


def _choose_network(method: AnyMethod) -> StandInNetwork:
    """Return the stand-in that the method can be bound to; a method may refuse two of the three kinds."""
    for network in (StandInNetwork(), StandInNetwork(texts=True)):
        try:
            method.bind(network.info)
        except BundleError:
            continue
        return network
    network = StandInNetwork(batch_norms=True)
    method.bind(network.info)
    return network


@dataclass(frozen=True)
class _Check:
    """The checks of one method on one network.

    Attributes:
        method: the method.
        network: runs the forwards.
        stream: ragged batches, uint8 `[N, H, W, 3]`, or `[N, V, H, W, 3]` for methods with views.
    """

    method: AnyMethod
    network: Forward
    stream: Sequence[ImageArray]

    def run(self) -> None:
        """Run all checks."""
        bound = self.method.bind(self.network.info)
        self._check_start(bound)
        self._check_steps(bound)
        self._check_prediction(bound)
        self._check_repeatability()
        self._check_checkpoints()
        self._check_classes()
        if count_views(self.method) > 1:
            self._check_lazy_views()

    def _check_start(self, bound: AnyBoundMethod) -> None:
        state = bound.init(SEED)
        _require(isinstance(state, State), f"{self._name}: init must return a State, found {type(state)}")
        self._require_state(state, 0)
        try:
            state.step = 1
        except FrozenInstanceError:
            pass
        else:
            raise MethodError(f"{self._name}: use @dataclass(frozen=True) for the state")
        _require(
            _list_bits(state) == _list_bits(bound.init(SEED)),
            f"{self._name}: init must return the same state for the same seed",
        )

    def _check_steps(self, bound: AnyBoundMethod) -> None:
        """Step through the stream with read-only images, states and outputs."""
        state = _lock(bound.init(SEED))
        for index, images in enumerate(self.stream):
            counter = _Counter(self.network, self._name, len(images) if count_views(self.method) > 1 else 0)
            pixels, bits = images.tobytes(), _list_bits(state)
            prediction, next_state = self._drive(bound.step(state, images), counter)
            _require(pixels == images.tobytes(), f"{self._name}: a step changed its images")
            _require(bits == _list_bits(state), f"{self._name}: a step changed the state that it was given")
            self._require_prediction(prediction, len(images))
            self._require_state(next_state, index + 1)
            if getattr(self.method, "method", None) is None:  # wrappers count forwards in their own way
                for kind, used in (
                    ("forwards", counter.forwards),
                    ("pull_backs", counter.pulled_images / len(images)),
                ):
                    reported = getattr(prediction, kind)
                    _require(
                        abs(used - reported) < 1e-9,
                        f"{self._name}: a step used {used:g} {kind} and reported {reported}",
                    )
            state = _lock(next_state)

    def _check_prediction(self, bound: AnyBoundMethod) -> None:
        state, images = bound.init(SEED), self.stream[0]
        for batch in (None, *self.stream[:2]):
            if batch is not None:
                _, state = self._drive(bound.step(state, batch))
            first, second = (self._drive(bound.predict(_lock(state), images)) for _ in range(2))
            self._require_prediction(first, len(images))
            _require(
                first.logits.tobytes() == second.logits.tobytes(),
                f"{self._name}: predict must give the same logits twice",
            )

    def _check_repeatability(self) -> None:
        """Run two streams at once: neither the global generator nor another stream may have a say."""
        expected = self._run(Adapter(self.network, self.method, SEED))
        streams = [Adapter(self.network, self.method, seed) for seed in (SEED, SEED + 1)]
        predictions = []
        for images in self.stream:
            streams[1].step(images[::-1])
            predictions.append(streams[0].step(images))
        _require(
            [_list_bits(prediction) for prediction in predictions] == expected,
            f"{self._name}: two streams with one seed differ; draw from default_rng([seed, step + 1, …]) and "
            "keep everything else in the state",
        )
        streams[0].reset()
        _require(
            _list_bits(streams[0].state) == _list_bits(Adapter(self.network, self.method, SEED).state),
            f"{self._name}: a reset must lead back to the initial state",
        )
        _require(self._run(streams[0]) == expected, f"{self._name}: after a reset the stream is another one")

    def _check_checkpoints(self) -> None:
        for cut in (0, 1, 4):
            original, resumed = (Adapter(self.network, self.method, SEED) for _ in range(2))
            for images in self.stream[:cut]:
                original.step(images)
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "state.npz"
                original.save(path)
                try:
                    resumed.load(path)
                except FozoError as error:
                    raise MethodError(
                        f"{self._name}: the state after {cut} batches cannot be loaded ({error}); declare "
                        "arrays with optional_array or variable_length_array"
                    ) from error
            _require(
                _list_bits(original.state) == _list_bits(resumed.state),
                f"{self._name}: the state after {cut} batches is another one when it is loaded",
            )
            continued = [
                [_list_bits(s.step(images)) for images in self.stream[cut:]] for s in (original, resumed)
            ]
            _require(continued[0] == continued[1], f"{self._name}: a resumed stream goes on differently")

    def _check_classes(self) -> None:
        select = getattr(self.network, "select", None)
        if select is None:
            return
        network = select([3, 0, 2])
        adapter = Adapter(network, self.method, SEED)
        for images in self.stream:
            self._require_prediction(adapter.step(images), len(images), network.info)

    def _check_lazy_views(self) -> None:
        """Give the views one slice at a time, as a run does."""
        adapter = Adapter(self.network, self.method, SEED)
        _require(
            [_list_bits(adapter.step(_LazyBatch(images))) for images in self.stream]
            == self._run(Adapter(self.network, self.method, SEED)),
            f"{self._name}: views that are made on demand give other predictions than views in an array",
        )

    def _run(self, adapter: Adapter) -> list[Any]:
        return [_list_bits(adapter.step(images)) for images in self.stream]

    def _drive(self, requests: Requests[Any], counter: _Counter | None = None) -> Any:
        try:
            return drive(requests, counter or _Counter(self.network, self._name))
        except ValueError as error:
            if "read-only" not in str(error):
                raise
            raise MethodError(
                f"{self._name}: images, states and outputs must not be changed in place ({error})"
            ) from error

    def _require_prediction(self, prediction: Any, images: int, model: ModelInfo | None = None) -> None:
        _require(
            isinstance(prediction, Prediction), f"{self._name}: expected a Prediction, found {prediction!r}"
        )
        expected, logits = (images, (model or self.network.info).classes), prediction.logits
        _require(
            logits.shape == expected and logits.dtype == np.float32,
            f"{self._name}: expected logits float32 {list(expected)}, found {logits.dtype} "
            f"{list(logits.shape)}",
        )
        _require(bool(np.isfinite(logits).all()), f"{self._name}: logits must be finite")
        for name, value in {"loss": prediction.loss or 0.0, **prediction.diagnostics}.items():
            _require(
                isinstance(value, float) and bool(np.isfinite(value)),
                f"{self._name}: expected a finite float as {name}, found {value!r}",
            )

    def _require_state(self, state: Any, step: int) -> None:
        _require(
            (state.step, state.seed) == (step, SEED),
            f"{self._name}: expected a state with step {step} and seed {SEED}, found step {state.step} and "
            f"seed {state.seed}",
        )
        for name, value in iterate_values(state):
            _require(
                value is None or bool(np.isfinite(value).all()),
                f"{self._name}: the state must be finite, found {name} = {value}",
            )

    @property
    def _name(self) -> str:
        return self.method.name


class _Counter:
    """Answers requests with read-only outputs, counts forwards and checks tunables.

    With the number of images of a batch of views, a forward counts by its share of that number.
    """

    def __init__(self, network: Forward, name: str, images: int = 0) -> None:
        self._network, self._name, self._images = network, name, images
        self.forwards: float = 0
        self.pulled_images = 0

    def __call__(self, request: Request) -> list[Outputs]:
        _require(isinstance(request, Request), f"{self._name}: a step must yield Request, found {request!r}")
        for tunables in request.tunables:
            self._check_tunables(tunables, len(request.images))
        if request.slopes is None:
            share = len(request.images) / self._images if self._images else 1
            self.forwards += share * len(request.tunables)
        else:
            self.pulled_images += len(request.images)
        answers = answer_with(self._network)(request)
        for outputs in answers:
            moments = outputs.activation_moments
            for array in (outputs.logits, outputs.features, outputs.embedding, moments):
                if array is not None:
                    array.setflags(write=False)
            for array in (outputs.gradients or {}).values():
                array.setflags(write=False)
        return answers

    def _check_tunables(self, tunables: Tunables, images: int) -> None:
        info = self._network.info
        names = (*info.tunables, RECENTRING) if info.activations else info.tunables
        for name, array in tunables.items():
            _require(
                name in names, f"{self._name}: the network has no tunable {name!r}, only {', '.join(names)}"
            )
            _require(
                array.dtype == np.float32 and len(array) in (1, images),
                f"{self._name}: expected {name} as float32 with 1 or {images} rows, found {array.dtype} of "
                f"shape {list(array.shape)}",
            )


class _LazyBatch:
    """Views that can be sliced, and nothing else."""

    def __init__(self, images: ImageArray) -> None:
        self._images = images

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> _LazyImage:
        return _LazyImage(self._images[index])


class _LazyImage:
    """The views of one image."""

    def __init__(self, views: ImageArray) -> None:
        self._views = views

    def __len__(self) -> int:
        return len(self._views)

    def __getitem__(self, numbers: slice) -> ImageArray:
        if not isinstance(numbers, slice):
            raise MethodError("views are taken by slices, such as images[i][0:16]")
        views: ImageArray = self._views[numbers].copy()
        return views


def _lock(state: Any) -> Any:
    for _, value in iterate_values(state):
        if isinstance(value, np.ndarray):
            value.setflags(write=False)
    return state


def _list_bits(record: Any) -> list[Any]:
    """Return every value of a state or prediction in a form that is equal only if every bit is."""
    return [
        (name, value.dtype.str, value.shape, value.tobytes())
        if isinstance(value, np.ndarray)
        else (name, type(value), value)
        for name, value in iterate_values(record)
    ]
