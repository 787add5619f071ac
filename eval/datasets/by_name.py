"""Data sets by name: which domains they have, and what goes with what on the command line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ...engine.bundle.manifest import Manifest
from ...engine.errors import InputError
from ..corruptions.by_name import FROST
from .cifar import cifar_c
from .domain import CLEAN, IMAGENET_C, Domain, check_severities, demo, generated, imagefolder
from .imagenet import RELATIVES, VALIDATION_IMAGES, imagenet, imagenet_v2, relative, validation
from .imagenet_c import generated_label, imagenet_c
from .names import TAKES

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
CIFAR = {"cifar10-c": 10, "cifar100-c": 100}


def open_dataset(
    manifest: Manifest,
    dataset: str,
    *,
    data: Path | None,
    clean: Path | None = None,
    labels: Path | None = None,
    generate_from: Path | None = None,
    frost_textures: Path | None = None,
    severities: Sequence[int] = (5,),
    corruptions: Sequence[str] | None = None,
    seed: int = 0,
) -> tuple[str, list[Domain]]:
    """The data set's name for the protocol, and its domains in the order of the stream.

    Args:
        manifest: of the bundle: its classes and how images are prepared.
        dataset: its name, one of `TAKES`.
        data: its folder, in the official layout.
        clean: for imagenet-c, clean images by class folder, which become the last domain.
        labels: the classes of clean images that lie in one folder.
        generate_from: clean images to be corrupted instead.
        frost_textures: what the corruption frost needs.
        severities: of the corruptions, 1 to 5; the first with every corruption, then the next.
        corruptions: their names; None is all that there are.
        seed: of generated corruptions.

    Raises:
        InputError: arguments that do not go together, or data that is not as it should be.
    """
    given = {
        "data": data,
        "clean": clean,
        "labels": labels,
        "generate_from": generate_from,
        "frost_textures": frost_textures,
        "corruptions": corruptions,
    }
    _check_options(dataset, [name for name, value in given.items() if value is not None])
    check_severities(severities)
    if dataset == "demo":
        names = DEMO_CORRUPTIONS if corruptions is None else corruptions
        domains = _at_severities(demo(manifest), severities, names, seed, frost_textures)
        return "demo (generated corruptions)", domains
    if generate_from is not None:
        originals = replace(validation(generate_from, manifest, labels), name=CLEAN)
        names = _to_generate(frost_textures) if corruptions is None else corruptions
        return generated_label(names), _at_severities(originals, severities, names, seed, frost_textures)
    if data is None:
        raise InputError(f"--dataset {dataset} needs --data DIR")
    if dataset == "imagenet-c":
        label, domains = imagenet_c(data, manifest, severities, corruptions)
        return label, [*domains, *_clean(clean, manifest, labels, official=not domains[0].generated)]
    if dataset in CIFAR:
        return dataset, cifar_c(CIFAR[dataset], data, manifest, severities, corruptions)
    return dataset, _whole(dataset, data, manifest, labels)


def _check_options(dataset: str, given: Sequence[str]) -> None:
    if dataset not in TAKES:
        raise InputError(
            f"expected a data set out of {', '.join(TAKES)}, found {dataset!r}; pick one of these"
        )
    if wrong := [name for name in given if name not in TAKES[dataset]]:
        raise InputError(
            f"{_options(wrong)} would do nothing with --dataset {dataset}, which takes "
            f"{_options(TAKES[dataset])}; leave it out"
        )
    if "generate_from" in given and (other := [name for name in given if name in ("data", "clean")]):
        raise InputError(f"--generate-from stands in place of {_options(other)}; leave one of them out")
    if "frost_textures" in given and dataset != "demo" and "generate_from" not in given:
        raise InputError("--frost-textures goes with --generate-from or with --dataset demo")
    if "labels" in given and dataset == "imagenet-c" and not {"clean", "generate_from"} & set(given):
        raise InputError("--labels goes with --clean, with --generate-from, or with --dataset imagenet")


def _options(names: Sequence[str]) -> str:
    return ", ".join(f"--{name.replace('_', '-')}" for name in names)


def _to_generate(textures: Path | None) -> tuple[str, ...]:
    return (*(name for name in IMAGENET_C if name != FROST or textures is not None), CLEAN)


def _at_severities(
    clean: Domain, severities: Sequence[int], names: Sequence[str], seed: int, textures: Path | None
) -> list[Domain]:
    """Every corruption at each severity in turn; clean images, which have none, once, in the last turn."""
    turns = [generated(clean, severity, names, seed, textures) for severity in severities]
    return [domain for turn in turns for domain in turn if domain.name != CLEAN or turn is turns[-1]]


def _clean(folder: Path | None, manifest: Manifest, labels: Path | None, official: bool) -> list[Domain]:
    if folder is None:
        return []
    if not official:
        return [replace(validation(folder, manifest, labels), name=CLEAN)]
    try:
        return [replace(validation(folder, manifest, labels), name=CLEAN, expected=VALIDATION_IMAGES)]
    except InputError as error:
        side_by_side = "" if labels else ", or where they lie side by side, with --labels FILE"
        raise InputError(
            f"{error}. --clean names the folder of ImageNet's validation images, from which ImageNet-C was "
            f"made: <wnid>/ILSVRC2012_val_*.JPEG{side_by_side}"
        ) from error


def _whole(dataset: str, data: Path, manifest: Manifest, labels: Path | None) -> list[Domain]:
    if dataset in RELATIVES:
        return [relative(dataset, data, manifest)]
    if dataset == "imagenet-v2":
        return imagenet_v2(data, manifest)
    if dataset == "imagenet":
        return [imagenet(data, manifest, labels)]
    return [imagefolder(data, manifest, dataset)]
