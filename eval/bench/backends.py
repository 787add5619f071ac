"""The cells of a benchmark: backends × methods × batch sizes × threads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec

from ...engine.errors import InputError
from ...engine.registry import parse_method

TORCH = "torch"  # the provider that is PyTorch instead of one of ONNX Runtime's
TORCH_METHODS = ("no_adapt", "fozo")
TORCH_PRECISIONS = ("fp32", "bf16")
TORCH_CHUNK_SIZES = (None, 8)


@dataclass(frozen=True)
class Backend:
    """A runtime that computes the forwards.

    Attributes:
        precision: a graph of the bundle, or the data type of PyTorch.
        provider: `cpu` or `openvino` of ONNX Runtime, or `torch`.
        chunk_size: images per forward in PyTorch; None is the entire batch. ONNX Runtime has its own
            micro-batches.
    """

    precision: str
    provider: str = "cpu"
    chunk_size: int | None = None

    @property
    def label(self) -> str:
        """Name in the table."""
        if self.provider == TORCH:
            return f"torch {self.precision}" + (f", {self.chunk_size} at a time" if self.chunk_size else "")
        return self.precision if self.provider == "cpu" else f"{self.precision} {self.provider}"

    def supports(self, method: str, batch_size: int) -> bool:
        """Return whether it has the method, and its chunks are smaller than the batch."""
        if self.provider != TORCH:
            return True
        return method in TORCH_METHODS and (self.chunk_size is None or self.chunk_size < batch_size)


@dataclass(frozen=True)
class Cell:
    """A combination to measure; `method` is written as for `parse_method`."""

    backend: Backend
    method: str
    batch_size: int
    threads: int

    @property
    def label(self) -> str:
        """Name of the method in the table."""
        return parse_method(self.method)[0]

    def describe(self) -> str:
        """Return the cell in words, for messages."""
        threads = describe_threads(self.threads)
        return f"{self.backend.label} {self.label}, batch {self.batch_size}, {threads}"


def list_cells(
    backends: Sequence[Backend],
    methods: Sequence[str],
    batch_sizes: Sequence[int],
    threads: Sequence[int],
) -> list[Cell]:
    """Return all cells, in the order of the table. Cells that are compared follow each other."""
    return [
        Cell(backend, method, batch_size, count)
        for batch_size in batch_sizes
        for count in threads
        for backend in backends
        for method in methods
        if backend.supports(method, batch_size)
    ]


def list_torch_backends() -> list[Backend]:
    """Return the variants of eager PyTorch.

    Raises:
        InputError: PyTorch or timm is not installed.
    """
    missing = [name for name in ("torch", "timm") if find_spec(name) is None]
    if missing:
        raise InputError(
            f"--torch compares with PyTorch models of timm, but {' and '.join(missing)} cannot be found; "
            'install both with: pip install "fozo[export]"'
        )
    return [Backend(precision, TORCH, size) for precision in TORCH_PRECISIONS for size in TORCH_CHUNK_SIZES]


def describe_threads(count: int) -> str:
    """Return a number of threads in words."""
    return f"{count} thread{'s' if count > 1 else ''}"
