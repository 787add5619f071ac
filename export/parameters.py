"""Parameters and settings of PyTorch modules as plain arrays and pairs."""

from __future__ import annotations

from typing import Any

from ..engine.model import FloatArray


def read_array(parameter: Any) -> FloatArray:
    """Return a parameter or buffer as a float32 array of the same shape."""
    array: FloatArray = parameter.detach().float().cpu().numpy()
    return array


def read_array_or(default: FloatArray, parameter: Any) -> FloatArray:
    """Return a parameter as a float32 array, or the default where the module has no such parameter."""
    return default if parameter is None else read_array(parameter)


def read_pair(value: Any) -> tuple[int, int]:
    """Return rows and columns; a single number stands for both."""
    rows, columns = value if isinstance(value, tuple) else (value, value)
    return int(rows), int(columns)
