"""The specification of a tuning run, as one value."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from ...data.reading import Reading
from ...engine.errors import InputError
from ..datasets.few_shots import ClassHalf
from .tuning_presets import IMAGE_METHODS, OPTIONS

TuningMethod = Literal["sapt", "zo-sapt", "zip", "zip-cached", "bpt", "gda", "bar", "blackvip"]
TUNING_METHODS: tuple[TuningMethod, ...] = get_args(TuningMethod)
Update = Literal["spsa-clip", "spsa", "spsa-gc"]
UPDATES: tuple[Update, ...] = get_args(Update)
ENDING = "{}."


@dataclass(frozen=True)
class TuningSpec:
    """A tuning run.

    Attributes:
        data: folder of the data set.
        method: what is learnt, and how.
        shots: training images of each class; 0: all.
        split, dataset: as for `open_split_data`.
        classes: classes to learn from.
        head: head of the bundle whose names the classes get; None: see `name_classes`.
        words: words that the context starts from; empty: random vectors.
        vectors: number of random vectors.
        ending: text behind the context, with `{}` for the name of the class, which it begins with.
        seed: of shots, initial vectors, order, crops and directions.
        epochs: passes over the training images, if there is no budget.
        budget: losses of a batch under one candidate after which training ends; not for `sapt`.
        batch: images in a step; None: all.
        crops: random crops of each image, used in turn by the epochs; 0: the ordinary crop alone; None: fresh
            ones in every epoch.
        rate: largest learning rate of `sapt` and `bar`, and a of the gains of other methods.
        sharpness: λ.
        radius: ρ.
        momentum, decay: of `sapt`.
        pairs, perturbation: q and c of methods without gradients.
        directions: of BAR, in each step.
        update: step of ZIP: with its limit for the gradient, plain, or with momentum.
        dimension: number of values that a context is computed from, in ZIP and BPT.
        rank, shared: of ZIP's parameters, as in `make_low_rank_context`.
        alpha: of GDA; None: chosen by cross-validation.
        population, sigma, first_batches: of BPT's search, as in `Bpt`.
        encoder: bundle whose features BlackVIP's decoder reads; None: the model's own.
        visual: whether BPT learns prompts of the image tower, too, each from `dimension` further values.
        precision, workers, provider: as for `Network.open`.
        reading: how image files are read.
    """

    data: Path
    method: TuningMethod = "sapt"
    shots: int = 16
    split: Path | None = None
    dataset: str | None = None
    classes: ClassHalf = "all"
    head: str | None = None
    words: str = "a photo of a"
    vectors: int = 4
    ending: str = ENDING
    seed: int = 1
    epochs: int = 50
    budget: int | None = None
    batch: int | None = 32
    crops: int | None = 0
    rate: float = 0.002
    sharpness: float = 1.0
    radius: float = 0.1
    momentum: float = 0.9
    decay: float = 5e-4
    pairs: int = 5
    directions: int = 5
    perturbation: float = 0.01
    update: Update = "spsa-clip"
    dimension: int = 500
    rank: int = 5
    shared: bool = True
    alpha: float | None = None
    population: int = 15
    sigma: float = 1.0
    first_batches: bool = False
    visual: bool = False
    encoder: Path | None = None
    precision: str = "fp32"
    workers: int | None = None
    provider: str = "cpu"
    reading: Reading = field(default_factory=Reading)

    def __post_init__(self) -> None:
        """Refuse values that have no meaning.

        Raises:
            InputError: a number is too small, or the ending does not begin with the name.
        """
        if self.budget is not None and (self.method == "sapt" or self.budget < 1):
            raise InputError(
                f"expected a budget of at least one call, for a method other than sapt, found {self.budget} "
                f"for {self.method}; give epochs instead"
            )
        if min(self.epochs, self.vectors) < 1 or min(self.shots, self.crops or 0) < 0 or not self.rate > 0:
            raise InputError(
                "expected at least one epoch and one vector, no negative number of shots and crops, and a "
                f"rate above 0, found {self.epochs}, {self.vectors}, {self.shots}, {self.crops} and "
                f"{self.rate}"
            )
        if self.batch is not None and self.batch < 1:
            raise InputError(f"expected a batch of at least one image, found {self.batch}")
        if self.visual and self.method != "bpt":
            raise InputError(f"expected visual prompts with bpt alone, found {self.method}; leave them out")
        if not self.ending.startswith("{}") or self.ending.count("{}") != 1:
            raise InputError(
                "expected a text that begins with {} for the name, as the context comes before it, like "
                f"'{{}}, a type of pet.', found {self.ending!r}"
            )

    @property
    def changes_images(self) -> bool:
        """True if something is learnt for the images, which are then encoded under every candidate."""
        return self.method in IMAGE_METHODS or self.visual

    @property
    def learns_context(self) -> bool:
        """True if the method learns vectors in front of the names."""
        return "vectors" in OPTIONS[self.method]

    @property
    def template(self) -> str:
        """Texts of methods that learn no context."""
        return f"{self.words} {self.ending}".strip()
