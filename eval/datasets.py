"""Data sets by name: which domains they have, and what goes with what on the command line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ..engine.bundle import Manifest
from ..engine.errors import InputError
from .corruptions import FROST
from .domains import CLEAN, IMAGENET_C, Domain, demo, generated, imagefolder, imagenet_c

DEMO_CORRUPTIONS = (
    "gaussian_noise",
    "shot_noise",
    "impulse_noise",
    "defocus_blur",
    "contrast",
    "pixelate",
    "jpeg_compression",
    CLEAN,
)


def open_dataset(
    manifest: Manifest,
    dataset: str,
    *,
    data: Path | None,
    generate_from: Path | None = None,
    frost_textures: Path | None = None,
    severities: Sequence[int] = (5,),
    corruptions: Sequence[str] | None = None,
    seed: int = 0,
) -> tuple[str, list[Domain]]:
    """The data set's name for the protocol, and its domains in the order of the stream.

    Args:
        manifest: of the bundle: its classes and how images are prepared.
        dataset: its name.
        data: its folder, in the official layout.
        generate_from: clean images to be corrupted instead.
        frost_textures: what the corruption frost needs.
        severities: of the corruptions, 1 to 5.
        corruptions: their names; None is all that there are.
        seed: of generated corruptions.

    Raises:
        InputError: arguments that do not go together, or data that is not as it should be.
    """
    if dataset == "demo":
        if data is not None or generate_from is not None:
            raise InputError("the demo data set is embedded: it takes neither --data nor --generate-from")
        domains = generated(
            demo(manifest), severities[0], corruptions or DEMO_CORRUPTIONS, seed, frost_textures
        )
        return "demo (generated corruptions)", domains
    if generate_from is not None:
        if dataset != "imagenet-c" or data is not None:
            raise InputError("--generate-from goes with --dataset imagenet-c and without --data")
        clean = replace(imagefolder(generate_from, manifest), name=CLEAN)
        without = corruptions is None and frost_textures is None
        chosen = corruptions or (*(name for name in IMAGENET_C if not (without and name == FROST)), CLEAN)
        label = f"generated corruptions{' without frost' if without else ''} (not the official ImageNet-C)"
        return label, generated(clean, severities[0], chosen, seed, frost_textures)
    if frost_textures is not None:
        raise InputError("--frost-textures goes with --generate-from or with --dataset demo")
    if data is None:
        raise InputError(f"--dataset {dataset} needs --data DIR")
    if dataset == "imagefolder":
        if corruptions is not None:
            raise InputError("--corruptions goes with imagenet-c and demo, an imagefolder is taken as it is")
        return dataset, [imagefolder(data, manifest)]
    return dataset, imagenet_c(data, manifest, severities[0], corruptions or IMAGENET_C)
