"""A process that computes cells: `python -m fozo.eval.sweep.cell_worker`.

It reads and writes one JSON object per line.

In come requests, a job with `threads`. Out come, for each, any number of `{"images": N}`, and at last
`{"document": …}` or `{"error": "…", "again": true or false}`. It ends when its input does, even in the middle
of a cell: whoever asked is gone then.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any, TextIO

from ...engine.errors import ComputeError, FozoError, reason
from .cell import Job, compute

Answer = Callable[[Mapping[str, Any]], None]


def answer(request: Mapping[str, Any], say: Answer) -> None:
    """Computes a request, and says how it goes.

    What failed for lack of memory may succeed once more, when others have finished.
    """
    try:
        job = Job.from_json(request)
        say({"document": compute(job, request["threads"], on_images=lambda images: say({"images": images}))})
    except (ComputeError, MemoryError) as error:
        say({"error": reason(error), "again": True})
    except FozoError as error:
        say({"error": str(error), "again": False})


def main() -> None:
    """Answers until the input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the one who asks, who then ends this process
    # Whatever else prints goes where errors go.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    requests: queue.Queue[str] = queue.Queue()
    threading.Thread(target=_read, args=(sys.stdin, requests), daemon=True).start()
    while True:
        answer(
            json.loads(requests.get()), lambda content: print(json.dumps(content), file=answers, flush=True)
        )


def _read(stream: TextIO, requests: queue.Queue[str]) -> None:
    for line in stream:
        requests.put(line)
    os._exit(0)


if __name__ == "__main__":
    main()
