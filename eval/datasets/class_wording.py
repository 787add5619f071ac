"""Names of classes as they stand in texts, made from names of folders by the rules of CoOp's code."""

from __future__ import annotations

import re

# Folders of Caltech101 that are no class there.
_CALTECH_SKIPPED = ("BACKGROUND_Google", "Faces_easy")
_CALTECH = {"airplanes": "airplane", "Faces": "face", "Leopards": "leopard", "Motorbikes": "motorbike"}
_EUROSAT = {
    "AnnualCrop": "Annual Crop Land",
    "Forest": "Forest",
    "HerbaceousVegetation": "Herbaceous Vegetation Land",
    "Highway": "Highway or Road",
    "Industrial": "Industrial Buildings",
    "Pasture": "Pasture Land",
    "PermanentCrop": "Permanent Crop Land",
    "Residential": "Residential Buildings",
    "River": "River",
    "SeaLake": "Sea or Lake",
}
_RENAMED = {"caltech101": _CALTECH, "eurosat": _EUROSAT}
_SKIPPED = {"caltech101": _CALTECH_SKIPPED}


def word_class(identifier: str, dataset: str | None = None) -> str:
    """Return the name of a class as it stands in a text, given the name of its folder.

    >>> word_class("ApplyEyeMakeup", "ucf101"), word_class("SeaLake", "eurosat"), word_class("Siamese_cat")
    ('Apply Eye Makeup', 'Sea or Lake', 'Siamese cat')

    Args:
        identifier: name of the folder, or the name in a split file.
        dataset: one of `PUBLISHED_SETS` whose rule applies; None for the general one, spaces for underscores.
    """
    name = _RENAMED.get(dataset or "", {}).get(identifier, identifier)
    if dataset == "ucf101" and "_" not in name:
        name = " ".join(re.findall("[A-Z][^A-Z]*", name)) or name
    return name.replace("_", " ")


def is_skipped_class(identifier: str, dataset: str | None = None) -> bool:
    """Return whether a folder of a published data set is no class there."""
    return identifier in _SKIPPED.get(dataset or "", ())
