"""The demonstrations of `fozo demo`: bundle, methods, and the lines that are printed of a run."""

from __future__ import annotations

import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from ..eval.results.outcome import DomainResult
    from ..eval.streaming.experiment import Experiment

SEVERITY = 3
_FIRST, _SECOND = "no_adapt", "pizo"  # compared by the bars
_VIEWS = "views=8,view_area=0.8"  # smaller parts of a digit are other digits
_VIT_STEPS = """
  the same as a page:    fozo report {folder}/results.json
  other methods, harder: fozo adapt {folder}/bundle --dataset demo -m no_adapt -m neo -m fozo
  a model of your own:   pip install "fozo[export]"
                         fozo export --model vit_tiny_patch16_224 --source CLEAN_IMAGES"""
_CLIP_STEPS = """
  the same as a page:    fozo report {folder}/results.json
  other methods, harder: fozo adapt {folder}/bundle --dataset demo -m no_adapt -m neo -m t3a
  a CLIP of your own:    pip install "fozo[clip]"
                         fozo export --clip ViT-B-16 --weights FILE --source CLEAN_IMAGES"""


@dataclass(frozen=True)
class Demonstration:
    """A run over corrupted digits.

    Attributes:
        folder: name of the folder where it is written.
        methods: each as for `parse_method`; the first is the frozen network.
        corruptions: names, or None for those of the demonstration's data set.
        subset: images of each, as for `choose_subset`.
        next_steps: commands to try afterwards, with `{folder}`.
    """

    folder: str
    methods: tuple[str, ...]
    corruptions: tuple[str, ...] | None
    subset: str
    next_steps: str

    def describe_next_steps(self, out: Path) -> str:
        """Return where the results are, and what can be typed next."""
        steps = self.next_steps.format(folder=shlex.quote(str(out)))
        return f"\nPicture: {out / 'results.png'}\nResults: {out / 'results.json'}\n\nNext:{steps}"


VIT = Demonstration("demo", (_FIRST, _SECOND), None, "all", _VIT_STEPS)
CLIP = Demonstration(
    "demo-clip",
    ("no_adapt", f"zero=zero:{_VIEWS}", f"stss=stss:{_VIEWS}", "tda", "gauss", "pizo"),
    ("gaussian_noise", "impulse_noise", "contrast", "pixelate", "clean"),
    "400",
    _CLIP_STEPS,
)


class Lines(Protocol):
    """Lines of a run."""

    def begin(self, experiment: Experiment) -> str:
        """Return the lines before the run."""

    def add(self, experiment: Experiment, domain: DomainResult) -> str:
        """Return the line of a domain that is complete."""

    def end(self, experiment: Experiment) -> str:
        """Return the lines after the run."""


class BarLines:
    """A bar per domain, for two methods."""

    def __init__(self) -> None:
        """Take the width of the terminal."""
        self._width = shutil.get_terminal_size().columns

    def begin(self, experiment: Experiment) -> str:
        """Return what is run, and a legend."""
        from ..eval.results.terminal_bars import format_legend

        model, precision = experiment.bundle.manifest.model, experiment.precision
        return (
            f"{model} {precision} predicts corrupted digits, with adaptation and without. "
            "It sees no labels;\nthey only serve to measure. "
            f"{experiment.images:,} images, corrupted by fozo, severity {SEVERITY}.\n\n"
            f"{format_legend(_FIRST, _SECOND)}\n"
        )

    def add(self, experiment: Experiment, domain: DomainResult) -> str:
        """Return the bar of a domain."""
        from ..eval.results.terminal_bars import format_bar

        return format_bar(domain, _FIRST, _SECOND, self._width)

    def end(self, experiment: Experiment) -> str:
        """Return the bar of the average."""
        from ..eval.results.terminal_bars import format_average

        return format_average(experiment.runs, _FIRST, _SECOND, self._width)


class TableLines:
    """A row per domain and a column per method, and a table of averages."""

    def begin(self, experiment: Experiment) -> str:
        """Return what is run, and the heads of the columns."""
        from ..eval.results.table import format_header

        model, precision = experiment.bundle.manifest.model, experiment.precision
        names = experiment.bundle.manifest.class_names or ("",)
        return (
            f"{model} {precision} is a tiny CLIP trained on digits. Its classes are words, {names[0]} to "
            f"{names[-1]}.\nIt sees no labels; they only serve to measure. {experiment.images:,} images, "
            f"corrupted by fozo, severity {SEVERITY}.\n\n"
            f"{format_header(list(experiment.methods))}"
        )

    def add(self, experiment: Experiment, domain: DomainResult) -> str:
        """Return the row of a domain."""
        from ..eval.results.table import format_row

        return format_row(domain, experiment.protocol)

    def end(self, experiment: Experiment) -> str:
        """Return the averages of the methods."""
        from ..eval.results.table import format_summary

        return f"\n{format_summary(experiment.runs)}"


def find_demonstration(*, clip: bool) -> tuple[Demonstration, Lines]:
    """Return a demonstration, and what prints it."""
    return (CLIP, TableLines()) if clip else (VIT, BarLines())
