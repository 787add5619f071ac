"""A stream of predictions whose rows and state on disk always belong to the same batches."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, closing, nullcontext
from pathlib import Path

from ...engine.files import check_writable
from ...engine.streams.adapter import Adapter
from .prediction_row import Row
from .prediction_writer import PredictionWriter
from .seen_images import SeenImages

SAVE_SECONDS = 60  # between two saves of the state while a stream runs


def _ignore(value: object) -> None:
    """Do nothing."""


class PredictionRun:
    """Writes predictions batch by batch and saves the adapter's state at intervals and at the end.

    Pass `on_batch` to `predict`, and its rows to `write`.
    """

    def __init__(
        self,
        adapter: Adapter,
        writer: PredictionWriter,
        state_file: Path | None,
        memory: SeenImages | None = None,
    ) -> None:
        """Load the state, if its file exists.

        Args:
            adapter: the stream that predicts.
            writer: receives the rows.
            state_file: where the state is loaded from and saved; None to keep it in memory.
            memory: remembers the images that were predicted, and is saved with the state.

        Raises:
            OutputError: the state could not be saved.
            StateError: the file holds the state of another stream.
        """
        if state_file is not None:
            check_writable(state_file)
            if state_file.exists():
                adapter.load(state_file)
        self._adapter, self._writer, self._state_file = adapter, writer, state_file
        self._memory, self._new_paths = memory, list[str]()
        self._on_images: Callable[[int], None] = _ignore
        self._initial_frozen = adapter.frozen_batches
        self._images = self._skipped = self._unreadable = self._not_finite = 0
        # The state after the last batch whose rows are on disk.
        self._written_state = adapter.snapshot()
        self._start = self._last_save = time.monotonic()

    def write(
        self,
        rows: Generator[Row, None, None],
        progress: AbstractContextManager[Callable[[int], None]] | None = None,
        on_end: Callable[[str], None] = _ignore,
    ) -> None:
        """Write all rows; on any exit, save the state of the last written batch.

        A closed pipe, as in `fozo predict | head`, ends the stream without an error.

        Args:
            rows: as from `predict`; the generator is closed at the end.
            progress: gives a function that is called with the number of rows written after every batch; it is
                left before `on_end`.
            on_end: receives a summary in one line. It is not called when the pipe is closed or when an error
                occurs before the first batch.
        """
        report = True
        try:
            with closing(rows), progress or nullcontext(_ignore) as self._on_images:
                for row in rows:
                    self._writer.add(row)
                    self._new_paths += [row.path] if row.batch is not None else []
                    self._unreadable += row.error is not None and row.batch is None
                    self._not_finite += row.error is not None and row.batch is not None
            self._writer.write()  # without images, this writes the header
        except BrokenPipeError:
            report = False
        except BaseException:
            report = bool(self._images)
            raise
        finally:
            self._writer.close()
            self._save()
            if report:
                on_end(self._summarize())

    def on_batch(self, images: int) -> None:
        """Write the rows of a batch, and save the state if the last save is long ago."""
        self._writer.write()
        self._written_state = self._adapter.snapshot()
        if self._memory is not None:
            self._memory.add(self._new_paths)
        self._new_paths = []
        self._images, self._skipped = self._images + images, self._unreadable
        self._on_images(images)
        if time.monotonic() - self._last_save > SAVE_SECONDS:
            self._save()

    def _save(self) -> None:
        self._adapter.restore(self._written_state)
        if self._memory is not None:  # first: an image must not be learnt from twice
            self._memory.save()
        if self._state_file is not None and self._images:
            self._adapter.save(self._state_file)
        self._last_save = time.monotonic()

    def _summarize(self) -> str:
        seconds = time.monotonic() - self._start
        rate = (self._images - self._skipped) / max(seconds, 1e-9)
        frozen = self._adapter.frozen_batches - self._initial_frozen
        saved = self._state_file is not None and self._state_file.exists()
        state = f"; state: {self._state_file}" if saved else ""
        not_finite = f"{self._not_finite:,} without a finite output, " if self._not_finite else ""
        images = "1 image" if self._images == 1 else f"{self._images:,} images"
        guarded = f", answered by the frozen network: {frozen} batch{'es' * (frozen > 1)}" if frozen else ""
        return (
            f"{images}, {self._skipped:,} unreadable, {not_finite}{seconds:.1f} s, {rate:.1f} images/s"
            f"{guarded}{state}"
        )
