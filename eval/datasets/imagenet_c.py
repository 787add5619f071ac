"""ImageNet-C on disk, `<corruption>/<severity>/<wnid>/<image>`: official, or made by `fozo corrupt`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...data.image_reader import ImageReader
from ...data.images import center_crop
from ...engine.bundle.manifest import Manifest
from ...engine.errors import InputError
from ..corruptions.corruption_registry import FROST
from .class_folders import list_class_folders, list_official_classes
from .class_order import index_classes
from .corrupted_folder import RECORD, Record, read_record
from .corruption_names import CLEAN, EXTRA, IMAGENET_C, check_names, check_severities
from .dataset_request import ClassOrder, DatasetRequest, format_options
from .domain import Domain, Pixels
from .generated_domains import generate_at_severities
from .image_folder import make_loader
from .imagenet import VALIDATION_IMAGES, load_validation
from .nearby_folders import suggest_folder

IMAGES = 50_000
SIZE = 224
ARCHIVES = {
    "noise.tar": IMAGENET_C[:3],
    "blur.tar": IMAGENET_C[3:7],
    "weather.tar": IMAGENET_C[7:11],
    "digital.tar": IMAGENET_C[11:],
    "extra.tar": EXTRA,
}


def open_imagenet_c(request: DatasetRequest, manifest: Manifest, seed: int) -> tuple[str, list[Domain]]:
    """Open ImageNet-C, or generate its corruptions from clean images.

    Args:
        request: with `data` or `generate_from`.
        manifest: of the bundle.
        seed: of generated corruptions.

    Raises:
        InputError: options that do not go together, or data that is not as it should be.
    """
    _check_options(request)
    reader = request.make_reader()
    if request.generate_from is not None:
        clean = _load_clean(request, request.generate_from, manifest, reader)
        originals = replace(clean, name=CLEAN)
        names = _choose_default_names(request) if request.corruptions is None else request.corruptions
        domains = generate_at_severities(originals, request.severities, names, seed, request.frost_textures)
        return label_generated(names), domains
    label, domains = load_imagenet_c(
        request.folder, manifest, request.severities, request.corruptions, request.class_order, reader
    )
    official = not domains[0].generated
    return label, [*domains, *_open_clean(request, manifest, reader, official=official)]


def _load_clean(request: DatasetRequest, folder: Path, manifest: Manifest, reader: ImageReader) -> Domain:
    return load_validation(folder, manifest, request.labels, request.class_order, reader)


def _check_options(request: DatasetRequest) -> None:
    replaced = [name for name in ("data", "clean") if getattr(request, name) is not None]
    if request.generate_from is not None and replaced:
        raise InputError(
            f"--generate-from stands in place of {format_options(replaced)}; leave one of them out"
        )
    if request.frost_textures is not None and request.generate_from is None:
        raise InputError("--frost-textures goes with --generate-from or with --dataset demo")
    if request.labels is not None and request.clean is None and request.generate_from is None:
        raise InputError("--labels goes with --clean, with --generate-from, or with --dataset imagenet")


def _choose_default_names(request: DatasetRequest) -> tuple[str, ...]:
    textures = request.frost_textures
    return (*(name for name in IMAGENET_C if name != FROST or textures is not None), CLEAN)


def _open_clean(
    request: DatasetRequest, manifest: Manifest, reader: ImageReader, *, official: bool
) -> list[Domain]:
    if request.clean is None:
        return []
    if not official:
        return [replace(_load_clean(request, request.clean, manifest, reader), name=CLEAN)]
    try:
        domain = _load_clean(request, request.clean, manifest, reader)
    except InputError as error:
        side_by_side = "" if request.labels else ", or where they lie side by side, with --labels FILE"
        raise InputError(
            f"{error}. --clean names the folder of ImageNet's validation images, from which ImageNet-C was "
            f"made: <wnid>/ILSVRC2012_val_*.JPEG{side_by_side}"
        ) from error
    return [replace(domain, name=CLEAN, official_images=VALIDATION_IMAGES)]


def load_imagenet_c(
    root: Path,
    manifest: Manifest,
    severities: Sequence[int],
    corruptions: Sequence[str] | None = None,
    class_order: ClassOrder | None = None,
    reader: ImageReader | None = None,
) -> tuple[str, list[Domain]]:
    """Open every corruption at each severity in turn; images are only centre-cropped.

    Args:
        root: folder that holds the folders of the corruptions, or those of the archives (`noise/`, …) with
            these inside. A record of `fozo corrupt` in it says that they were generated.
        manifest: of the bundle.
        severities: 1 to 5.
        corruptions: names out of `IMAGENET_C` and `EXTRA`; None is `IMAGENET_C`, or what was generated.
        class_order: as for `index_classes`.
        reader: reads the images; None is one with the defaults.

    Returns:
        The name of the data set, and its domains.

    Raises:
        InputError: a corruption or severity does not exist or its folder is missing, the model reads larger
            images, or a generated folder is not complete.
    """
    if not root.is_dir():
        raise InputError(f"there is no folder {root}; --data names the folder that holds gaussian_noise/, …")
    check_severities(severities)
    reader = reader or ImageReader()
    if record := read_record(root):
        return _open_generated(root, record, manifest, severities, corruptions, class_order, reader)
    names = IMAGENET_C if corruptions is None else corruptions
    check_names(names, (*IMAGENET_C, *EXTRA), "ImageNet-C")
    _check_size(manifest, SIZE, "ImageNet-C")
    _check_folders(root, severities, names)
    domains = _load_domains(root, manifest, severities, names, class_order, reader)
    return "imagenet-c", [
        replace(domain, official_images=IMAGES, benchmark="imagenet-c") for domain in domains
    ]


def label_generated(names: Sequence[str]) -> str:
    """Return a name for generated corruptions that cannot be mistaken for the official ones."""
    only_frost_missing = set(names) - {CLEAN} == set(IMAGENET_C) - {FROST}
    return (
        f"generated corruptions{' without frost' if only_frost_missing else ''} (not the official ImageNet-C)"
    )


def _open_generated(
    root: Path,
    record: Record,
    manifest: Manifest,
    severities: Sequence[int],
    corruptions: Sequence[str] | None,
    class_order: ClassOrder | None,
    reader: ImageReader,
) -> tuple[str, list[Domain]]:
    names = record.corruptions if corruptions is None else corruptions
    check_names(names, record.corruptions, f"the generated data in {root}")
    if absent := [severity for severity in severities if severity not in record.severities]:
        raise InputError(
            f"{root} was generated at severity {', '.join(map(str, record.severities))}, not at "
            f"{', '.join(map(str, absent))}; ask for what is there, or generate the others elsewhere"
        )
    _check_size(manifest, record.size, f"the generated data in {root}")
    complete_folders = all(
        (root / name / str(severity)).is_dir() for severity in severities for name in names
    )
    domains = (
        _load_domains(root, manifest, severities, names, class_order, reader) if complete_folders else []
    )
    short = [len(domain) for domain in domains if len(domain) != record.images]
    if not complete_folders or short:
        content = f"{short[0]:,} in one of them" if complete_folders else "none of some of them"
        raise InputError(
            f"expected {record.images:,} images of each corruption in {root}, as {RECORD} says, "
            f"found {content}; repeat the command fozo corrupt, which goes on where it was interrupted"
        )
    return label_generated(names), [replace(domain, generated=True) for domain in domains]


def _load_domains(
    root: Path,
    manifest: Manifest,
    severities: Sequence[int],
    corruptions: Sequence[str],
    class_order: ClassOrder | None,
    reader: ImageReader,
) -> list[Domain]:
    size = manifest.preprocessing.size
    # The images of all domains usually have the same names: 750,000 texts are stored as 50,000.
    shared: dict[tuple[str, ...], tuple[tuple[str, ...], NDArray[np.int64]]] = {}

    def read(path: str) -> Pixels:
        return center_crop(reader.read(path), size)

    def domain(name: str, severity: int) -> Domain:
        listing = list_class_folders(_find_folder(root, name) / str(severity))
        index = index_classes(listing.classes, manifest, listing.folder, class_order)
        ids, labels = shared.setdefault(listing.ids, (listing.ids, listing.label_images(index)))
        missing = listing.find_missing(list_official_classes(manifest))
        stored = replace(listing, ids=ids)
        return Domain(
            name,
            ids,
            labels,
            make_loader(stored, read),
            make_loader(stored, reader.read),
            severity=severity,
            missing_folders=missing,
            reader=reader,
            left_out=listing.left_out,
        )

    return [domain(name, severity) for severity in severities for name in corruptions]


def _find_folder(root: Path, name: str) -> Path:
    """Return the folder of a corruption: in the root, or in a folder named after its archive."""
    archives = [archive for archive, names in ARCHIVES.items() if name in names]
    places = [root / name, *(root / archive.removesuffix(".tar") / name for archive in archives)]
    return next((folder for folder in places if folder.is_dir()), root / name)


def _check_folders(root: Path, severities: Sequence[int], corruptions: Sequence[str]) -> None:
    absent = [
        (name, severity)
        for severity in severities
        for name in corruptions
        if not (_find_folder(root, name) / str(severity)).is_dir()
    ]
    if not absent:
        return
    archives = [archive for archive, names in ARCHIVES.items() if {name for name, _ in absent} & set(names)]
    raise InputError(
        f"expected {root}/<corruption>/<severity>/<wnid>/*.JPEG; missing: "
        f"{', '.join(f'{name}/{severity}' for name, severity in absent)}. Unpack {', '.join(archives)} of "
        "ImageNet-C side by side there, or choose what you have with --corruptions and --severities"
        f"{suggest_folder(root, absent[0][0])}"
    )


def _check_size(manifest: Manifest, side: int, source: str) -> None:
    size = manifest.preprocessing.size
    if max(size) > side:
        raise InputError(
            f"images of {source} have {side} pixels a side and this model reads {size[0]} × {size[1]}; "
            f"export it with --image-size {side}"
        )
