"""The training of a context, step by step, which can be saved and continued with the same result."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ...engine.errors import InputError
from ...engine.model import FloatArray, ModelInfo
from ...engine.state import State, variable_length_array
from ...engine.streams.checkpoint import load, save
from ...engine.tuning.batch_order import BatchOrder
from ...engine.tuning.sapt import StepRecord

# Returns, for features or images and labels of a batch, what a method asks in its step: slopes or losses.
Question = Callable[[Any, NDArray[np.int64]], Any]


class Tuner(Protocol):
    """A method that tunes values; its state has them as the attribute `values`."""

    @property
    def losses_per_step(self) -> int:
        """Number of losses of a batch that a step needs."""

    def init(self, values: FloatArray, seed: int) -> Any:
        """Return the state before the first step."""

    def step(self, state: Any, question: Any, /) -> tuple[Any, StepRecord]:
        """Return the next state, and the step in numbers."""


@dataclass(frozen=True)
class TrainingState(State):
    """A training run up to a step.

    Attributes:
        tuned: state of the method.
        curve: numbers of every step, float64 `[steps, 3]`, as in `StepRecord`.
        seconds: wall time so far.
    """

    tuned: Any
    curve: FloatArray = variable_length_array()  # noqa: RUF009
    seconds: float = 0.0


@dataclass(frozen=True)
class ContextTraining:
    """Everything that decides a training run.

    Attributes:
        tuner: the method.
        question: of a batch.
        get_batch: returns what the question is about, given the number of the epoch and the rows of the
            images: their features `[n, F]`, or they themselves.
        labels: classes of the N images.
        order: of the images in batches.
        steps: number of steps.
        encodes_anew: whether every step encodes its images, because their crops are fresh.
        model: the model, for checkpoints.
        key: JSON values that must agree when a run is continued.
    """

    tuner: Tuner
    question: Question
    get_batch: Callable[[int, NDArray[np.int64]], Any]
    labels: NDArray[np.int64]
    order: BatchOrder
    steps: int
    encodes_anew: bool
    model: ModelInfo
    key: Mapping[str, Any]

    def init(self, values: FloatArray, seed: int) -> TrainingState:
        """Return the state before the first step."""
        return TrainingState(0, seed, self.tuner.init(values, seed), np.zeros((0, len(StepRecord._fields))))

    def advance(self, state: TrainingState) -> TrainingState:
        """Return the state after one more step.

        Raises:
            InputError: the loss or the values are no longer finite.
        """
        begin = time.perf_counter()
        tuned, record = self.tuner.step(state.tuned, self._ask(state.step))
        if not math.isfinite(record.loss) or not np.isfinite(tuned.values).all():
            raise InputError(f"the loss is no longer finite in step {state.step + 1}; use a smaller --rate")
        curve = np.concatenate([state.curve, np.asarray([record], np.float64)])
        seconds = state.seconds + time.perf_counter() - begin
        return TrainingState(state.step + 1, state.seed, tuned, curve, seconds)

    def run(
        self, state: TrainingState, progress: Path | None, save_every: float
    ) -> Generator[TrainingState, None, None]:
        """Yield the state after every remaining step, and save it from time to time and at the end.

        An interruption by an error or by Ctrl-C saves the last whole step first.

        Args:
            state: where to begin.
            progress: file to save to; None: nothing is saved.
            save_every: seconds between two saves.

        Raises:
            OutputError: the file cannot be written.
        """
        last_save = time.monotonic()
        try:
            while state.step < self.steps:
                state = self.advance(state)
                if progress is not None and time.monotonic() - last_save >= save_every:
                    self.save(progress, state)
                    last_save = time.monotonic()
                yield state
            if progress is not None:  # what follows may be interrupted, too
                self.save(progress, state)
        except BaseException:
            if progress is not None and state.step:
                self.save(progress, state)
            raise

    def save(self, path: Path, state: TrainingState) -> None:
        """Write a state from which `load` continues.

        Raises:
            OutputError: the file cannot be written.
        """
        save(path, {"key": dict(self.key)}, state)

    def load(self, path: Path, values: FloatArray, seed: int) -> TrainingState:
        """Read a state that `save` has written; `values` and `seed` are those of `init`.

        Raises:
            StateError: the file is damaged, or of another run.
        """
        return load(path, {"key": dict(self.key)}, self.init(values, seed), self.model)

    def time_step(self, state: TrainingState) -> float:
        """Return the seconds of one step, whose result is dropped.

        Features that are computed once are not counted, those of fresh crops are.
        """
        begin = time.perf_counter()
        question = self._ask(state.step)
        if not self.encodes_anew:
            begin = time.perf_counter()
        self.tuner.step(state.tuned, question)
        return time.perf_counter() - begin

    def _ask(self, step: int) -> Any:
        """Return what the method may ask in a step."""
        rows = self.order.get_rows(step)
        return self.question(self.get_batch(self.order.get_epoch(step), rows), self.labels[rows])
