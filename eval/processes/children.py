"""The environment of child processes."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def child_environment(threads: int) -> dict[str, str]:
    """Return the environment of a child with the same modules and a number of threads per library."""
    count = str(threads)
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(path or str(Path.cwd()) for path in sys.path),
        "PYTHONSAFEPATH": "1",  # without the working directory before that
        "OMP_NUM_THREADS": count,
        "OPENBLAS_NUM_THREADS": count,
        "MKL_NUM_THREADS": count,
    }
