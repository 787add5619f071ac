"""Picture of a tuning run: the loss along its steps. Needs matplotlib (`fozo[report]`)."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from ...engine.errors import InputError
from ...engine.files import write_atomic
from ...engine.model import FloatArray
from ...engine.tuning.sapt import StepRecord

WINDOWS = 100  # points of the smoothed curve, at most
_LOSS, _RISE = StepRecord._fields.index("loss"), StepRecord._fields.index("sharpness")


def average_steps(values: FloatArray, points: int) -> tuple[FloatArray, FloatArray]:
    """Return the means of consecutive steps, in at most so many groups, and the middle step of each.

    >>> steps, means = average_steps(np.array([1.0, 3.0, 5.0, 7.0]), 2)
    >>> print(steps, means)
    [1.5 3.5] [2. 6.]
    """
    groups = np.array_split(np.arange(len(values)), min(points, len(values)))
    middles = np.array([group.mean() + 1 for group in groups])
    return middles, np.array([values[group].mean() for group in groups])


def save_curve(path: Path, curve: FloatArray, title: str) -> None:
    """Write a PNG of the loss, and of the loss at the perturbed context where there is one.

    Args:
        path: the file.
        curve: numbers of every step, `[steps, 3]`, as in `StepRecord`.
        title: of the picture.

    Raises:
        InputError: matplotlib is not installed.
        OutputError: the file cannot be written.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise InputError(
            'the picture needs matplotlib; install it with: pip install "fozo[report]"'
        ) from error
    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.add_subplot()
    lines = {"loss": curve[:, _LOSS]}
    if curve[:, _RISE].any():
        lines["loss at the perturbed context"] = curve[:, _LOSS] + curve[:, _RISE]
    for (name, values), colour in zip(lines.items(), ("#0072b2", "#d55e00"), strict=False):
        axes.plot(np.arange(1, len(values) + 1), values, color=colour, alpha=0.25, linewidth=0.8)
        axes.plot(*average_steps(values, WINDOWS), color=colour, label=name)
    axes.set_xlabel("step")
    axes.set_ylabel("cross-entropy, nats")
    axes.set_title(title.replace("$", r"\$"), fontsize=9, wrap=True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=150)
    write_atomic(path, content.getvalue())
