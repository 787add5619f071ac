"""Process that computes cells: `python -m fozo.eval.sweep.cell_worker`.

It reads and writes one JSON object per line.

A request is a `Request`. The answers to it are any number of `{"images": N}`, and at last
`{"document": …}` or `{"error": "…", "again": true or false}`. The process ends when its input does, even in
the middle of a cell, because nobody waits for the answer then.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TextIO

from ...engine.errors import ComputeError, FozoError, reason
from ...engine.records import load_record
from .cell import Job, compute

Send = Callable[[Mapping[str, Any]], None]


@dataclass(frozen=True)
class Request:
    """A job, and the number of threads to compute it with."""

    job: Job
    threads: int


def answer(request: Request, send: Send) -> None:
    """Compute a cell, and send progress and the result.

    A cell that failed for lack of memory may succeed later, when other processes have finished.

    Args:
        request: the job.
        send: receives each answer.
    """
    try:
        document = compute(request.job, request.threads, on_images=lambda count: send({"images": count}))
        send({"document": document})
    except (ComputeError, MemoryError) as error:
        send({"error": reason(error), "again": True})
    except FozoError as error:
        send({"error": str(error), "again": False})


def main() -> None:
    """Answer requests until the input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C, and then ends this process
    # Anything else that prints goes to standard error.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    requests: queue.Queue[str] = queue.Queue()
    threading.Thread(target=_read_requests, args=(sys.stdin, requests), daemon=True).start()
    while True:
        request = load_record(Request, json.loads(requests.get()), "request")
        answer(request, lambda content: print(json.dumps(content), file=answers, flush=True))


def _read_requests(stream: TextIO, requests: queue.Queue[str]) -> None:
    for line in stream:
        requests.put(line)
    os._exit(0)


if __name__ == "__main__":
    main()
