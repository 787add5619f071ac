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

from .engine.errors import BundleError, FozoError
from .engine.interface.method import AnyBoundMethod, AnyMethod, Prediction, count_pull_backs
from .engine.interface.method_options import describe
from .engine.interface.request import Request, Requests, answer_with, drive
from .engine.model import (
    BATCH_STATISTICS,
    NORMS,
    PROMPTS,
    FloatArray,
    Forward,
    ImageArray,
    ModelInfo,
    Outputs,
    Slopes,
    SourceStatistics,
    Tunables,
)
from .engine.state import State, iterate_values
from .engine.statistics.output_slopes import derive_entropy
from .engine.streams.adapter import Adapter

__all__ = ["MethodError", "StandInNetwork", "check_method", "check_options", "draw_images"]

BATCH_SIZES = (7, 1, 2, 7, 7, 3)  # ragged, with a single image in the middle
SEED = 5


class MethodError(FozoError, AssertionError):
    """A method does not keep its contract."""


class StandInNetwork:
    """A deterministic network of two blocks in NumPy, for images `[N, 4, 4, 3]`.

    Attributes:
        info: the description that methods are bound to.
    """

    def __init__(self, *, batch_norms: bool = False, classes: int = 6, width: int = 8) -> None:
        """Create the network.

        Args:
            batch_norms: describe a residual network, with the tunable `batch_statistics` and no prompts.
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

    def __call__(self, images: ImageArray, **tunables: FloatArray) -> Outputs:
        """Compute one forward."""
        pixels = images.reshape(len(images), -1, 3).astype(np.float32) / 255
        hidden = pixels.reshape(len(images), -1) @ self._images
        if PROMPTS in tunables:
            positions = np.arange(1, tunables[PROMPTS].shape[1] + 1, dtype=np.float32)[:, None]
            hidden = hidden + np.sin(positions * tunables[PROMPTS]).sum(axis=1) @ self._prompts
        if NORMS in tunables:
            hidden = hidden + tunables[NORMS].reshape(len(tunables[NORMS]), -1) @ self._norms
        if BATCH_STATISTICS in tunables:
            hidden = hidden - tunables[BATCH_STATISTICS] * hidden.mean(axis=0)
        features = np.tanh(hidden).reshape(len(images), 2, -1).astype(np.float32)
        logits = features[:, -1] @ self.info.head_weight.T + self.info.head_bias
        return Outputs(logits, features, np.stack([pixels.mean(axis=1), pixels.var(axis=1)], axis=1))

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


def check_method(
    method: Any, network: Forward | None = None, images: Callable[[int, int], ImageArray] = draw_images
) -> None:
    """Check that a method keeps its contract.

    Args:
        method: an instance, with the options to be checked.
        network: the network to run it on; default: a small stand-in.
        images: `images(count, seed)` returns a batch that the network can read.

    Raises:
        MethodError: it does not; the message says what was expected and what was found.
        BundleError: the method cannot be bound to the network.
    """
    check_options(method)
    network = network or _choose_network(method)
    stream = [images(size, index) for index, size in enumerate(BATCH_SIZES)]
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
    """Return the stand-in that the method can be bound to; a method may refuse one of the two kinds."""
    network = StandInNetwork()
    try:
        method.bind(network.info)
    except BundleError:
        network = StandInNetwork(batch_norms=True)
        method.bind(network.info)
    return network


@dataclass(frozen=True)
class _Check:
    """The checks of one method on one network.

    Attributes:
        method: the method.
        network: runs the forwards.
        stream: ragged batches.
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
            counter = _Counter(self.network, self._name)
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
    """Answers requests with read-only outputs, counts forwards and checks tunables."""

    def __init__(self, network: Forward, name: str) -> None:
        self._network, self._name = network, name
        self.forwards = self.pulled_images = 0

    def __call__(self, request: Request) -> list[Outputs]:
        _require(isinstance(request, Request), f"{self._name}: a step must yield Request, found {request!r}")
        for tunables in request.tunables:
            self._check_tunables(tunables, len(request.images))
        if request.slopes is None:
            self.forwards += len(request.tunables)
        else:
            self.pulled_images += len(request.images)
        answers = answer_with(self._network)(request)
        for outputs in answers:
            for array in (outputs.logits, outputs.features, outputs.embedding):
                if array is not None:
                    array.setflags(write=False)
            for array in (outputs.gradients or {}).values():
                array.setflags(write=False)
        return answers

    def _check_tunables(self, tunables: Tunables, images: int) -> None:
        names = self._network.info.tunables
        for name, array in tunables.items():
            _require(
                name in names, f"{self._name}: the network has no tunable {name!r}, only {', '.join(names)}"
            )
            _require(
                array.dtype == np.float32 and len(array) in (1, images),
                f"{self._name}: expected {name} as float32 with 1 or {images} rows, found {array.dtype} of "
                f"shape {list(array.shape)}",
            )


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
