"""The specification of a tuning run, as one value."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from ...data.reading import Reading
from ...engine.errors import InputError
from ..datasets.few_shots import ClassHalf

TuningMethod = Literal["sapt", "zo-sapt"]
TUNING_METHODS: tuple[TuningMethod, ...] = get_args(TuningMethod)
WORDS = "a photo of a"
ENDING = "{}."


@dataclass(frozen=True)
class TuningSpec:
    """A tuning run.

    Attributes:
        data: folder of the data set.
        method: how the context is learnt.
        shots: training images of each class; 0: all.
        split, dataset: as for `open_split_data`.
        classes: classes to learn from.
        head: head of the bundle whose names the classes get; None: see `name_classes`.
        words: words that the context starts from; empty: random vectors.
        vectors: number of random vectors.
        ending: text behind the context, with `{}` for the name of the class, which it begins with.
        seed: of shots, initial vectors, order, crops and directions.
        epochs: passes over the training images.
        batch: images in a step; None: all.
        crops: random crops of each image, used in turn by the epochs; 0: the ordinary crop alone.
        rate: largest learning rate of `sapt`, and a of the gains of `zo-sapt`.
        sharpness: λ.
        radius: ρ.
        momentum, decay: of `sapt`.
        pairs, perturbation: q and c of `zo-sapt`.
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
    words: str = WORDS
    vectors: int = 4
    ending: str = ENDING
    seed: int = 1
    epochs: int = 50
    batch: int | None = 32
    crops: int = 0
    rate: float = 0.002
    sharpness: float = 1.0
    radius: float = 0.1
    momentum: float = 0.9
    decay: float = 5e-4
    pairs: int = 5
    perturbation: float = 0.01
    precision: str = "fp32"
    workers: int | None = None
    provider: str = "cpu"
    reading: Reading = field(default_factory=Reading)

    def __post_init__(self) -> None:
        """Refuse values that have no meaning.

        Raises:
            InputError: a number is too small, or the ending does not begin with the name.
        """
        if min(self.epochs, self.vectors) < 1 or min(self.shots, self.crops) < 0 or not self.rate > 0:
            raise InputError(
                "expected at least one epoch and one vector, no negative number of shots and crops, and a "
                f"rate above 0, found {self.epochs}, {self.vectors}, {self.shots}, {self.crops} and "
                f"{self.rate}"
            )
        if self.batch is not None and self.batch < 1:
            raise InputError(f"expected a batch of at least one image, found {self.batch}")
        if not self.ending.startswith("{}") or self.ending.count("{}") != 1:
            raise InputError(
                "expected a text that begins with {} for the name, as the context comes before it, like "
                f"'{{}}, a type of pet.', found {self.ending!r}"
            )
