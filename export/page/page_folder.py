"""The folder of the page: our files, ONNX Runtime for browsers, digits, and compiled steps."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..._version import __version__
from ...data.demo import DEMO_BUNDLE, DEMO_CLASSES, demo_images
from ...engine.bundle.bundle import Bundle
from ...engine.errors import InputError, OutputError, reason
from ...engine.files import write_atomic
from ...engine.registry import method
from ..compile.step_folder import (
    ARCHIVE,
    DESCRIPTION,
    INIT_FILE,
    STEP_FILE,
    StepRequest,
    compile_step,
    to_json,
)
from ..output_folder import check_output_folder

SITE = Path(__file__).with_name("site")
CATALOGUE = "page.json"  # comes last: a folder without it is not complete
DEMO_METHODS = ("no_adapt", "pizo", "neo", "fozo")
RUNTIME_PACKAGE = "onnxruntime-web"
RUNTIME_VERSION = "1.30.0"  # with which the page was tested
RUNTIME_FILES = (
    "ort.wasm.min.mjs",
    "ort-wasm-simd-threaded.mjs",
    "ort-wasm-simd-threaded.wasm",
)
_LICENSE = "demo_digits_license.txt"
_FOLDERS = ("digits", "runtime", "steps")


@dataclass(frozen=True)
class PageRequest:
    """A page to write.

    Attributes:
        runtime: folder of the npm package onnxruntime-web, or its folder `dist`.
        steps: folders of compiled steps that visitors can choose beside those of the demonstration.
    """

    runtime: Path
    steps: tuple[Path, ...] = ()


def write_page(request: PageRequest, folder: Path, *, overwrite: bool = False) -> Mapping[str, Any]:
    """Write the page, and return the content of `page.json`.

    Args:
        request: where the runtime is, and further steps.
        folder: new or empty, or with another page and `overwrite`.
        overwrite: replace another page.

    Raises:
        InputError: the runtime is not there or not complete, or a step is not.
        OutputError: the folder has other content, or cannot be written.
        ExportError: a step of the demonstration differs from the engine.
    """
    own_names = {CATALOGUE, *_FOLDERS, *(path.name for path in SITE.iterdir())}
    check_output_folder(folder, own_names, "page", overwrite)
    runtime = find_runtime(request.runtime)
    guests = {f"steps/{name}": path for name, path in name_steps(request.steps).items()}
    entries = [describe_step_folder(path, name) for name, path in guests.items()]
    _begin(folder)
    for name, content in read_files(runtime, guests):
        _make_folder((folder / name).parent)
        write_atomic(folder / name, content)
    demo = [compile_demo(name, folder) for name in DEMO_METHODS]
    catalogue = {
        "schema": 1,
        "fozo": __version__,
        "digits": "digits",
        "steps": [*demo, *entries],
    }
    write_atomic(folder / CATALOGUE, to_json(catalogue))
    return catalogue


def find_runtime(folder: Path) -> Path:
    """Return the folder with the files of ONNX Runtime for browsers.

    Raises:
        InputError: a file is missing.
    """
    dist = folder / "dist" if (folder / "dist").is_dir() else folder
    missing = [name for name in RUNTIME_FILES if not (dist / name).is_file()]
    if missing:
        raise InputError(
            f"expected ONNX Runtime for browsers in {folder}, found no {missing[0]}; get it with: "
            f"npm install --ignore-scripts {RUNTIME_PACKAGE}@{RUNTIME_VERSION}, and name its folder with "
            f"--runtime node_modules/{RUNTIME_PACKAGE}"
        )
    return dist


def name_steps(paths: tuple[Path, ...]) -> dict[str, Path]:
    """Return steps by a name for each on the page.

    Raises:
        InputError: two steps, or a step and one of the demonstration, have the same name.
    """
    names: dict[str, Path] = {}
    for path in paths:
        name = path.resolve().name
        if name in names or name in DEMO_METHODS:
            raise InputError(f"two steps of the page are called {name}; rename the folder {path}")
        names[name] = path
    return names


def describe_step_folder(path: Path, folder: str) -> dict[str, Any]:
    """Return the entry of a compiled step in `page.json`.

    Args:
        path: the step.
        folder: where it will be on the page.

    Raises:
        InputError: it is no step, or not complete.
    """
    for name in (DESCRIPTION, INIT_FILE, STEP_FILE):
        if not (path / name).is_file():
            raise InputError(
                f"expected a folder of fozo compile, found no {name} in {path}; compile the step again"
            )
    try:
        description = json.loads((path / DESCRIPTION).read_text(encoding="utf-8"))
        return {"folder": folder, **{name: description[name] for name in ("model", "precision", "method")}}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"expected the description of a step in {path / DESCRIPTION} ({reason(error)}); compile it again"
        ) from error


def compile_demo(name: str, folder: Path) -> dict[str, Any]:
    """Compile a method on the demonstration's model into the page, and return its entry in `page.json`."""
    target = f"steps/{name}"
    request = StepRequest(Bundle.open(DEMO_BUNDLE), method(name))
    compile_step(request, folder / target, overwrite=True)
    write_atomic(folder / target / DESCRIPTION, describe_without_archive(folder / target / DESCRIPTION))
    (folder / target / ARCHIVE).unlink()
    return {**describe_step_folder(folder / target, target), "method": name}


def describe_without_archive(path: Path) -> bytes:
    """Return the content of step.json for a page, which lacks vectors.npz: browsers read the plain files."""
    description = json.loads(path.read_bytes())
    description.get("files", {}).pop(ARCHIVE, None)
    return to_json(description)


def read_files(runtime: Path, steps: Mapping[str, Path]) -> Iterator[tuple[str, bytes]]:
    """Yield names and contents of everything that is copied.

    Raises:
        InputError: a file cannot be read.
    """
    yield from _read_digits()
    sources = {path.name: path for path in SITE.iterdir()}
    sources |= {f"runtime/{name}": runtime / name for name in RUNTIME_FILES}
    sources["digits/license.txt"] = DEMO_BUNDLE.with_name(_LICENSE)
    for target, step in steps.items():
        names = [path.relative_to(step).as_posix() for path in step.rglob("*") if path.is_file()]
        sources |= {f"{target}/{name}": step / name for name in names if name != ARCHIVE}
    for name, path in sources.items():
        try:
            is_description = path.name == DESCRIPTION
            yield name, describe_without_archive(path) if is_description else path.read_bytes()
        except OSError as error:
            raise InputError(
                f"cannot read {path}: {reason(error)}; check the path and its permissions"
            ) from error


def _read_digits() -> Iterator[tuple[str, bytes]]:
    """Yield the digits that the demonstration's model has never seen, as tools/digit_stream.py does."""
    images, labels = demo_images("test")
    description = {
        "images": {"file": "images.bin", "type": "uint8", "shape": list(images.shape)},
        "labels": {"file": "labels.bin", "type": "uint8", "shape": list(labels.shape)},
        "classes": list(DEMO_CLASSES),
    }
    yield "digits/images.bin", images.tobytes()
    yield "digits/labels.bin", labels.astype("uint8").tobytes()
    yield "digits/digits.json", to_json(description)


def _begin(folder: Path) -> None:
    """Make the folder of a page, which is not complete from now on."""
    _make_folder(folder)
    try:
        (folder / CATALOGUE).unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"cannot replace {folder}: {reason(error)}; choose another place") from error


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot write {folder}: {reason(error)}; choose another place") from error
