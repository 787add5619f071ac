"""Feed damaged files to every reader: `python tools/fuzz.py [TARGET …] [--inputs N] [--seed S]`.

A reader may answer with its declared errors only, within two seconds, and without taking much memory.
Anything else is a finding: it is printed with its input, and the exit code is 1. A short version is in
tests/test_fuzz.py.
"""

from __future__ import annotations

import argparse
import faulthandler
import random
import resource
import signal
import sys
import tempfile
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from fozo.engine.errors import has_controls

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from fuzz_changes import change
from fuzz_targets import TARGETS, Target

SECONDS = 2.0
MEGABYTES = 500  # that a whole session may grow by
SHOWN = 20  # findings of a target after which it is left


@dataclass(frozen=True)
class Finding:
    """An input to which a reader does not answer as it should."""

    content: bytes
    report: str


class TooSlow(BaseException):
    """An input takes longer than allowed; no reader catches this."""


def fuzz(target: Target, inputs: int, seed: int, folder: Path) -> Iterator[Finding]:
    """Yield the findings of so many inputs; equal seeds give equal inputs."""
    generator = random.Random(seed)
    path = folder / target.name
    target.prepare(folder)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(inputs):
        content = change(generator.choice(target.seeds), generator, target.form)
        path.write_bytes(content)
        if report := _try_read(target, path):
            yield Finding(content, report)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory) / 1024
    if grown > MEGABYTES:
        yield Finding(b"", f"memory grew by {grown:.0f} MB, expected at most {MEGABYTES}")


def _try_read(target: Target, path: Path) -> str | None:
    """Return a report if a reader does not answer as it should."""
    try:
        with _time_limit():
            target.read(path)
    except target.errors as error:
        message = str(error)
        return (
            None if not has_controls(message) else f"the message is not one line of plain text: {message!r}"
        )
    except (Exception, TooSlow):
        return traceback.format_exc()
    return None


@contextmanager
def _time_limit() -> Iterator[None]:
    def stop(number: int, frame: object) -> None:
        raise TooSlow(f"longer than {SECONDS} s")

    signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def main() -> None:
    """Fuzz the named targets, or all."""
    parser = argparse.ArgumentParser(description="Feed damaged files to every reader.")
    parser.add_argument(
        "targets", nargs="*", metavar="TARGET", help=f"one of: {', '.join(TARGETS)}; default: all"
    )
    parser.add_argument(
        "--inputs", type=int, default=100_000, help="inputs per target (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the changes (default: %(default)s)")
    arguments = parser.parse_args()
    faulthandler.enable()
    warnings.simplefilter("ignore")  # of NumPy and Pillow, on what they read
    count = 0
    for name in arguments.targets or TARGETS:
        with tempfile.TemporaryDirectory() as folder:
            findings = fuzz(TARGETS[name](), arguments.inputs, arguments.seed, Path(folder))
            for finding in islice(findings, SHOWN):
                count += 1
                print(f"{name}: {finding.content[:2000]!r}\n{finding.report}", flush=True)
        print(f"{name}: {arguments.inputs:,} inputs, {count} findings so far", flush=True)
    sys.exit(count > 0)


if __name__ == "__main__":
    main()
