"""Runner that computes the cells of a sweep on this machine, in several processes.

A process computes one cell after the other, because starting a process takes a second. If it dies, its cell
is queued again, behind the others, where fewer processes compete for memory, and a new process is started.
"""

from __future__ import annotations

import contextlib
import json
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from typing import IO, Any

from ...engine.errors import ComputeError, reason
from ...engine.records import to_dict
from ...engine.runtime.cpu import count_cpus
from ..processes.children import child_environment
from .cell import Job
from .cell_worker import Request
from .events import Event, Failed, Finished, Processed, Retried

RETRIES = 2


def default_processes(threads: int) -> int:
    """Return the number of processes that occupy all processors."""
    return max(1, count_cpus() // threads)


def run_locally(
    jobs: Sequence[Job], processes: int, threads: int = 1, retries: int = RETRIES
) -> Generator[Event, None, None]:
    """Compute jobs in processes; with the other arguments bound, this is a `Runner`.

    Closing the generator ends all processes at once.

    Args:
        jobs: the cells to compute.
        processes: number of processes.
        threads: threads per process.
        retries: number of retries of a cell whose process died or ran out of memory.

    Yields:
        Events in the order of occurrence.
    """
    supervisor = _Supervisor(jobs, threads, retries)
    threads_of_workers = [
        threading.Thread(target=supervisor.serve, daemon=True) for _ in range(min(processes, len(jobs)))
    ]
    try:
        for thread in threads_of_workers:
            thread.start()
        unfinished = len(jobs)
        while unfinished:
            event = supervisor.events.get()
            if isinstance(event, BaseException):
                raise event
            unfinished -= isinstance(event, (Finished, Failed))
            yield event
    finally:
        supervisor.stop()
        for thread in threads_of_workers:
            if thread.ident is not None:
                thread.join()


class _Supervisor:
    """State shared by the threads, each of which supervises one process.

    Attributes:
        events: events, or an unexpected exception.
    """

    def __init__(self, jobs: Sequence[Job], threads: int, retries: int) -> None:
        self.events: queue.Queue[Event | BaseException] = queue.Queue()
        self._jobs = deque((job, retries) for job in jobs)
        self._threads = threads
        self._lock = threading.Lock()
        self._workers: set[_Worker] = set()
        self._stopped = False

    def serve(self) -> None:
        """Pass one job after the other to a process, until none is queued."""
        worker: _Worker | None = None
        try:
            while self._jobs and (worker := worker or self._start()):
                try:
                    job, retries = self._jobs.popleft()
                except IndexError:  # another thread was faster
                    return
                failure = self._compute(worker, job)
                if failure is None:
                    continue
                self._end(worker)
                worker = None
                if retries:
                    self.events.put(Retried(job.cell, failure))
                    self._jobs.append((job, retries - 1))
                else:
                    self.events.put(Failed(job.cell, failure))
        except BaseException as error:
            self.events.put(error)
        finally:
            if worker is not None:
                self._end(worker)

    def stop(self) -> None:
        """End all processes; the threads then end by themselves."""
        with self._lock:
            self._stopped = True
            for worker in self._workers:
                worker.kill()

    def _compute(self, worker: _Worker, job: Job) -> str | None:
        """Compute a job and report its events; return the reason if it should be retried, else None."""
        for answer in worker.compute(Request(job, self._threads)):
            if "images" in answer:
                self.events.put(Processed(job.cell, answer["images"]))
            elif "document" in answer:
                self.events.put(Finished(job.cell, answer["document"]))
                return None
            elif answer["again"]:
                return str(answer["error"])
            else:
                self.events.put(Failed(job.cell, answer["error"]))
                return None
        return worker.describe_exit()

    def _start(self) -> _Worker | None:
        with self._lock:
            if self._stopped:
                return None
            worker = _Worker(self._threads)
            self._workers.add(worker)
            return worker

    def _end(self, worker: _Worker) -> None:
        worker.kill()
        worker.close()
        with self._lock:
            self._workers.discard(worker)


class _Worker:
    """A running `cell_worker` process."""

    def __init__(self, threads: int) -> None:
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - the process writes to it
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "fozo.eval.sweep.cell_worker"],
                env=child_environment(threads),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                encoding="utf-8",
            )
        except OSError as error:
            raise ComputeError(
                f"cannot start another process ({reason(error)}); use fewer of them with --processes"
            ) from error

    def compute(self, request: Request) -> Iterator[dict[str, Any]]:
        """Send a request, and yield the answers until the process ends."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # the process has died, so there is no answer either
            self._process.stdin.write(json.dumps(to_dict(request)) + "\n")
            self._process.stdin.flush()
        for line in self._process.stdout:
            if not line.endswith("\n"):  # the process died while it wrote
                return
            yield json.loads(line)

    def describe_exit(self) -> str:
        """Return why the process ended, for people."""
        code = self._process.wait()
        if code < 0:
            out_of_memory = ", perhaps as memory ran out" if -code == signal.SIGKILL else ""
            return f"its process was ended by signal {-code} ({signal.strsignal(-code)}){out_of_memory}"
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return f"its process ended with code {code}: {lines[-1] if lines else 'it printed nothing'}"

    def kill(self) -> None:
        """End the process at once; callable from any thread."""
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """Close the streams; callable only from the thread that sends requests."""
        for stream in (self._process.stdin, self._process.stdout, self._errors):
            with contextlib.suppress(OSError):  # the process did not read all requests
                if stream is not None:
                    stream.close()
