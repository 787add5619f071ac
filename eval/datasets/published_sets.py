"""Data sets of the few-shot and transfer protocols: files, prompts and numbers as published."""

from __future__ import annotations

from dataclasses import dataclass

PLAIN_TEMPLATE = "a photo of a {}."


@dataclass(frozen=True)
class PublishedSet:
    """A data set as CoOp (IJCV 2022) uses it; the last three as BlackVIP (CVPR 2023) and ZIP (ICLR 2025) do.

    Attributes:
        split: name of the file with its training, validation and test images; None where text files or
            folders say that.
        images: folder that the paths in this file are relative to, below the folder of the data set.
        template: text of a class in CLIP's zero-shot baseline.
        classes: number of classes.
        test_images: number of test images.
    """

    split: str | None
    images: str
    template: str
    classes: int
    test_images: int


PUBLISHED_SETS = {
    "caltech101": PublishedSet(
        "split_zhou_Caltech101.json", "101_ObjectCategories", PLAIN_TEMPLATE, 100, 2_465
    ),
    "oxford_pets": PublishedSet(
        "split_zhou_OxfordPets.json", "images", "a photo of a {}, a type of pet.", 37, 3_669
    ),
    "stanford_cars": PublishedSet("split_zhou_StanfordCars.json", "", PLAIN_TEMPLATE, 196, 8_041),
    "oxford_flowers": PublishedSet(
        "split_zhou_OxfordFlowers.json", "jpg", "a photo of a {}, a type of flower.", 102, 2_463
    ),
    "food101": PublishedSet(
        "split_zhou_Food101.json", "images", "a photo of {}, a type of food.", 101, 30_300
    ),
    "fgvc_aircraft": PublishedSet(None, "images", "a photo of a {}, a type of aircraft.", 100, 3_333),
    "sun397": PublishedSet("split_zhou_SUN397.json", "SUN397", PLAIN_TEMPLATE, 397, 19_850),
    "dtd": PublishedSet("split_zhou_DescribableTextures.json", "images", "{} texture.", 47, 1_692),
    "eurosat": PublishedSet(
        "split_zhou_EuroSAT.json", "2750", "a centered satellite photo of {}.", 10, 8_100
    ),
    "ucf101": PublishedSet(
        "split_zhou_UCF101.json", "UCF-101-midframes", "a photo of a person doing {}.", 101, 3_783
    ),
    "svhn": PublishedSet("split_SVHN.json", "train", "This is a photo of a {}.", 10, 26_032),
    "resisc45": PublishedSet(
        "split_mlai_Resisc45.json", "NWPU-RESISC45", "This is a photo of a {}.", 45, 9_450
    ),
    "clevr": PublishedSet("split_mlai_CLEVR.json", "images", "This is a photo of {} objects.", 8, 15_000),
}

CROSS_DATASET = (
    *("caltech101", "oxford_pets", "stanford_cars", "oxford_flowers", "fgvc_aircraft"),
    *("sun397", "dtd", "eurosat", "food101", "ucf101"),
)


def find_published_set(split: str) -> str | None:
    """Return the name of the data set whose split file has this name; None if it is no published one."""
    return next((name for name, facts in PUBLISHED_SETS.items() if facts.split == split), None)
