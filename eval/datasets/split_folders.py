"""Training and test images in class folders: `train/` and `test/` or `val/`, or class folders alone."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from ...engine.errors import InputError
from .class_folders import ClassFolders, list_class_folders
from .class_wording import is_skipped_class, word_class
from .split_data import LabelledImage, SplitData

TRAIN = "train"
_TESTS = ("test", "val")  # ImageNet is tested on its validation images


def find_training_folder(folder: Path) -> Path | None:
    """Return the folder that holds `train/`: this one, or `images` below it as CoOp lays out ImageNet."""
    return next((path for path in (folder, folder / "images") if (path / TRAIN).is_dir()), None)


def read_split_folders(folder: Path, dataset: str | None = None) -> SplitData:
    """Read images in class folders; the classes are numbered in the order of their folders' names.

    Images come in the order of their names. CoOp's code lists ImageNet's folders in the order of the file
    system instead, so its few-shot choices of ImageNet cannot be repeated anywhere.

    Args:
        folder: holds `train/<class>/<image>` and `test/` or `val/` alike; or class folders, which are then
            training images alone.
        dataset: one of `PUBLISHED_SETS` whose rule makes names of classes from those of folders.

    Raises:
        InputError: a folder is not as it should be, or a test class has no training images.
    """
    base = find_training_folder(folder)
    if base is None:
        training, test = list_class_folders(folder), None
        base = folder
    else:
        training = list_class_folders(base / TRAIN)
        names = [name for name in _TESTS if (base / name).is_dir()]
        test = list_class_folders(base / names[0]) if names else None
    identifiers = tuple(name for name in training.classes if not is_skipped_class(name, dataset))
    labels = {name: label for label, name in enumerate(identifiers)}
    if test is not None and (unknown := test.find_missing_from(training)):
        raise InputError(
            f"{test.folder} has classes without training images in {training.folder}: "
            f"{', '.join(unknown[:3])}{', …' if len(unknown) > 3 else ''}"
        )
    return SplitData(
        name=dataset or folder.resolve().name,
        folder=base,
        class_ids=identifiers,
        class_names=tuple(word_class(name, dataset) for name in identifiers),
        train=_label_images(training, labels, base),
        test=() if test is None else _label_images(test, labels, base),
        published=dataset,
        origin="its listing",
        left_out=Counter(training.left_out) + Counter({} if test is None else test.left_out),
    )


def _label_images(listing: ClassFolders, labels: dict[str, int], base: Path) -> tuple[LabelledImage, ...]:
    prefix = "" if listing.folder == base else f"{listing.folder.name}/"
    pairs = ((identifier, identifier.partition("/")[0]) for identifier in listing.ids)
    return tuple(LabelledImage(prefix + path, labels[name]) for path, name in pairs if name in labels)
