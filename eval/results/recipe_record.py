"""A recipe: a published protocol, and the figures that were published for it, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ...engine.bundle.manifest import PORTABLE_SUFFIX
from ..protocol import Setting

FP32 = "fp32"


@dataclass(frozen=True)
class PublishedFigures:
    """Accuracies that a publication reports of one method, top-1 in percent.

    Attributes:
        name: name of the method in the publication.
        average: over the corruptions.
        accuracy: by corruption; empty if only the average is published.
        label: label of fozo's method that does the same; None: fozo has none, or the recipe does not run it.
        precision: name of the graph that the figures are compared with.
        source: where the figures were read; None if in the recipe's source.
    """

    name: str
    average: float
    accuracy: Mapping[str, float] = field(default_factory=dict)
    label: str | None = None
    precision: str = FP32
    source: str | None = None


@dataclass(frozen=True)
class RecipeOptions:
    """The options of `fozo adapt` that make the protocol.

    Attributes:
        dataset, severities, corruptions: as in `DatasetRequest`.
        setting, subset, batch_size, seed, seeds: as in `EvaluationSpec`.
    """

    dataset: str
    severities: tuple[int, ...]
    corruptions: tuple[str, ...]
    setting: Setting
    subset: str
    batch_size: int
    seed: int
    seeds: int


@dataclass(frozen=True)
class Recipe:
    """A published protocol and its figures.

    Attributes:
        name: name for `--recipe`.
        summary: publication and protocol in one line.
        source: where the figures were read that name no source of their own.
        models: names of the model that they were measured on, as manifests have them.
        images: number of images of each corruption.
        drawn_from: number of images of each corruption in the data that they are drawn from.
        size: height and width of the images that the network reads, in pixels.
        mean, std: of each colour, with which pixels in 0..1 are normalised.
        options: the protocol.
        methods: each as for `parse_method`.
        published: the figures.
        notes: sentences on what is unknown, or differs in fozo.
    """

    name: str
    summary: str
    source: str
    models: tuple[str, ...]
    images: int
    drawn_from: int
    size: tuple[int, int]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    options: RecipeOptions
    methods: tuple[str, ...]
    published: tuple[PublishedFigures, ...]
    notes: tuple[str, ...] = ()

    def list_figures(self, precision: str) -> list[PublishedFigures]:
        """Return the figures that a precision is compared with."""
        name = self.choose_precision(precision)
        return [row for row in self.published if row.precision == name]

    def choose_precision(self, precision: str) -> str:
        """Return the precision whose figures are shown beside those of another: fp32 if it has none."""
        return precision.removesuffix(PORTABLE_SUFFIX) if self.has_figures(precision) else FP32

    def has_figures(self, precision: str) -> bool:
        """Return True if there are figures of a precision or, for a portable form, of its bits."""
        return precision.removesuffix(PORTABLE_SUFFIX) in {row.precision for row in self.published}
