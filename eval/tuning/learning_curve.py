"""Picture of tuning runs: the loss over the calls. Needs matplotlib (`fozo[report]`)."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...engine.errors import InputError
from ...engine.files import write_atomic
from ...engine.model import FloatArray
from ...engine.tuning.sapt import StepRecord

WINDOWS = 100  # points of the smoothed curve, at most
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
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


def list_lines(curve: FloatArray) -> dict[str, FloatArray]:
    """Return the losses of a run by name, `[steps]` each: also at the perturbed context, if there is one.

    Args:
        curve: numbers of every step, `[steps, 3]`, as in `StepRecord`.
    """
    lines = {"loss": curve[:, _LOSS]}
    if curve[:, _RISE].any():
        lines["loss at the perturbed context"] = curve[:, _LOSS] + curve[:, _RISE]
    return lines


def list_seed_lines(contents: Sequence[Mapping[str, Any]]) -> dict[str, FloatArray]:
    """Return the losses of several runs by seed, `[steps]` each, given the JSON data of their results."""
    return {f"seed {content['tuning']['seed']}": np.asarray(content["curve"]["loss"]) for content in contents}


def save_curves(path: Path, lines: Mapping[str, FloatArray], calls_per_step: int, title: str) -> None:
    """Write a PNG of losses over the calls, each as it is and smoothed.

    Args:
        path: the file.
        lines: losses of every step, `[steps]` each, by name.
        calls_per_step: losses of a batch that a step costs.
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
    for number, (name, values) in enumerate(lines.items()):
        colour, steps = _COLOURS[number % len(_COLOURS)], np.arange(1, len(values) + 1)
        middles, means = average_steps(values, WINDOWS)
        axes.plot(calls_per_step * steps, values, color=colour, alpha=0.25, linewidth=0.8)
        axes.plot(calls_per_step * middles, means, color=colour, label=name)
    axes.set_xlabel("calls: losses of a batch under one candidate")
    axes.set_ylabel("loss, nats")
    axes.set_title(title.replace("$", r"\$"), fontsize=9, wrap=True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=150)
    write_atomic(path, content.getvalue())
