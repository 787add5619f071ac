"""Computes the cells of a sweep on this machine, in several processes that each compute one cell at a time.

A process runs many cells in turn, as starting one takes a second. If it dies, its cell goes to the end of the
line, where fewer others compete for memory, and another process is started.
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
from ...engine.runtime.cpu import available_cpus
from ..processes.children import child_environment
from .cell import Job
from .events import Again, Event, Failed, Finished, Seen

RETRIES = 2


def default_processes(threads: int) -> int:
    """As many as there are processors for."""
    return max(1, available_cpus() // threads)


def run_locally(
    jobs: Sequence[Job], processes: int, threads: int = 1, retries: int = RETRIES
) -> Generator[Event, None, None]:
    """Computes jobs; a `Runner` once the other arguments are given.

    Args:
        jobs: what to compute.
        processes: how many at a time.
        threads: that compute in each of them.
        retries: how often a cell is begun again after its process died or memory ran out.

    Yields:
        What happens, in the order in which it does. Closing ends all processes at once.
    """
    team = _Team(jobs, threads, retries)
    members = [threading.Thread(target=team.serve, daemon=True) for _ in range(min(processes, len(jobs)))]
    try:
        for member in members:
            member.start()
        left = len(jobs)
        while left:
            event = team.events.get()
            if isinstance(event, BaseException):
                raise event
            left -= isinstance(event, (Finished, Failed))
            yield event
    finally:
        team.stop()
        for member in members:
            if member.ident is not None:
                member.join()


class _Team:
    """What the threads share that each look after one process.

    Attributes:
        events: what happens, or an error that is a bug.
    """

    def __init__(self, jobs: Sequence[Job], threads: int, retries: int) -> None:
        self.events: queue.Queue[Event | BaseException] = queue.Queue()
        self._jobs = deque((job, retries) for job in jobs)
        self._threads = threads
        self._lock = threading.Lock()
        self._workers: set[_Worker] = set()
        self._stopped = False

    def serve(self) -> None:
        """Has job after job done by a process, until there is none left."""
        worker: _Worker | None = None
        try:
            while self._jobs and (worker := worker or self._start()):
                try:
                    job, retries = self._jobs.popleft()
                except IndexError:  # another thread was faster
                    return
                lost = self._do(worker, job)
                if lost is None:
                    continue
                self._end(worker)
                worker = None
                if retries:
                    self.events.put(Again(job.cell, lost))
                    self._jobs.append((job, retries - 1))
                else:
                    self.events.put(Failed(job.cell, lost))
        except BaseException as error:
            self.events.put(error)
        finally:
            if worker is not None:
                self._end(worker)

    def stop(self) -> None:
        """Ends all processes; the threads then come to their end by themselves."""
        with self._lock:
            self._stopped = True
            for worker in self._workers:
                worker.kill()

    def _do(self, worker: _Worker, job: Job) -> str | None:
        """Passes on what the process says of a job; why it is lost, if it may be begun again."""
        for said in worker.ask({**job.to_json(), "threads": self._threads}):
            if "images" in said:
                self.events.put(Seen(job.cell, said["images"]))
            elif "document" in said:
                self.events.put(Finished(job.cell, said["document"]))
                return None
            elif said["again"]:
                return str(said["error"])
            else:
                self.events.put(Failed(job.cell, said["error"]))
                return None
        return worker.cause_of_death()

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
    """A process of `worker`."""

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

    def ask(self, request: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """The answers, up to the last one, or to the death of the process."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # then there is no answer either
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        for line in self._process.stdout:
            if not line.endswith("\n"):  # it died while it wrote
                return
            yield json.loads(line)

    def cause_of_death(self) -> str:
        """For people."""
        code = self._process.wait()
        if code < 0:
            out_of_memory = ", perhaps as memory ran out" if -code == signal.SIGKILL else ""
            return f"its process was ended by signal {-code} ({signal.strsignal(-code)}){out_of_memory}"
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return f"its process ended with code {code}: {lines[-1] if lines else 'it said nothing'}"

    def kill(self) -> None:
        """Ends it now; from any thread."""
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """Closes what is left of it; from the thread that asked it."""
        for stream in (self._process.stdin, self._process.stdout, self._errors):
            with contextlib.suppress(OSError):  # requests that it did not read
                if stream is not None:
                    stream.close()
