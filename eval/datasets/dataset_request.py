"""The request for the data of an evaluation: a data set by name, its location and its corruptions."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from ...data.reading import Reading
from ...engine.errors import InputError

if TYPE_CHECKING:
    from ...data.image_reader import ImageReader

ClassOrder = Literal["timm", "torchvision"]
CLASS_ORDERS: tuple[ClassOrder, ...] = get_args(ClassOrder)
PATH_FIELDS = ("data", "clean", "labels", "generate_from", "frost_textures", "class_ids", "split")
# Fields that only some data sets take; all take the name and severities.
OPTION_FIELDS = (*PATH_FIELDS, "corruptions", "class_order")


@dataclass(frozen=True)
class DatasetRequest:
    """A data set, its location and its corruptions.

    Attributes:
        name: one of `dataset_registry.DATASETS`.
        data: folder of the data set, in the official layout.
        clean: for imagenet-c, clean images by class folder, which become the last domain.
        labels: file with the classes of clean images that lie in one folder.
        generate_from: clean images that are corrupted instead of reading a data set.
        frost_textures: folder with the textures of the corruption frost.
        severities: of the corruptions, 1 to 5; the first with every corruption, then the next.
        corruptions: names of the corruptions; None is all that the data set has.
        class_ids: file with the names of the class folders in the order of the model's outputs; None takes
            those of the bundle.
        class_order: how to number class folders if nothing names them; None where all orders agree.
        split: split file of few-shot data; None where the folder has only one, or none.
        reading: how image files are read.
    """

    name: str
    data: Path | None = None
    clean: Path | None = None
    labels: Path | None = None
    generate_from: Path | None = None
    frost_textures: Path | None = None
    severities: tuple[int, ...] = (5,)
    corruptions: tuple[str, ...] | None = None
    class_ids: Path | None = None
    class_order: ClassOrder | None = None
    split: Path | None = None
    reading: Reading = field(default_factory=Reading)

    @property
    def folder(self) -> Path:
        """The folder of the data set.

        Raises:
            InputError: none was given.
        """
        if self.data is None:
            raise InputError(f"--dataset {self.name} needs --data DIR")
        return self.data

    @property
    def options(self) -> tuple[str, ...]:
        """Names of the optional fields that are set."""
        return tuple(name for name in OPTION_FIELDS if getattr(self, name) is not None)

    def make_reader(self) -> ImageReader:
        """Return a new reader of image files."""
        from ...data.image_reader import ImageReader  # loads Pillow, which a command's help does not need

        return ImageReader(self.reading)


def format_options(names: tuple[str, ...] | list[str]) -> str:
    """Return field names as the command line spells them."""
    return ", ".join(f"--{name.replace('_', '-')}" for name in names)
