"""What an exported model is on disk: a folder with a manifest, ONNX graphs, the head, source statistics.

Every file but the manifest is listed there with its size and SHA-256, and nothing is used before its hash
has been checked. Files are only ever added under new names; replacing the manifest is what makes a change
take effect, so a bundle is whole at every moment. The format is described in docs/bundle.md.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from ..arrays import from_npz, to_npz
from ..errors import BundleError, OutputError
from ..files import sha256_of, sha256_of_parts, write_atomic
from ..model import FloatArray, ModelInfo, SourceStatistics
from .preprocessing import Preprocessing

SCHEMA = 2
READABLE = (1, 2)  # in 1 there were no norms to tune, and no widths of features
MANIFEST = "bundle.json"
GRAPH_FILE = "model.onnx"

# What this module adds to a bundle, and may remove again.
_ADDED_FILE = re.compile(r"(source-[\w-]+-[0-9a-f]{8}\.npz)|(model-[\w-]+-[0-9a-f]{8}\.onnx)")
_PRECISION = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")

T = TypeVar("T")


@dataclass(frozen=True)
class FileEntry:
    """Content of a file of the bundle: SHA-256 in hexadecimal, and size in bytes."""

    sha256: str
    bytes: int


@dataclass(frozen=True)
class GraphEntry:
    """One graph of the bundle, and how far it was from what it was made from.

    Attributes:
        file: name of the ONNX file.
        opset: version of the standard ONNX operators it uses.
        max_abs_difference: largest absolute difference to `reference` over logits and features, as measured.
        reference: `PyTorch`, or the precision of the graph that this one was made from.
        record: how it was made and what was measured then, for people.
    """

    file: str
    opset: int
    max_abs_difference: float
    reference: str = "PyTorch"
    record: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class SourceEntry:
    """Source statistics of one graph.

    Attributes:
        file: name of the `.npz` file with `mean` and `std`, float32 `[L, F]`.
        graph_sha256: the graph that computed them; they are never used with another.
        images: how many images they were computed from.
        origin: where the images came from and how they were chosen.
    """

    file: str
    graph_sha256: str
    images: int
    origin: str


@dataclass(frozen=True)
class Manifest:
    """The content of `bundle.json`.

    Attributes:
        model: name of the model.
        preprocessing: how a file becomes the image that the graphs read.
        layers: L, number of blocks, or of stages in a residual network.
        width: D, width of a token and of a prompt; in a residual network F.
        tokens: tokens per image without prompts; in a residual network the positions of the last stage.
        feature_width: F, width of one feature.
        classes: K, number of classes.
        prompt_bound: bound of the uniform initialisation of prompts; 0 where there are none.
        tunables: what adaptation may change, by name of the graph's input: its axes, names for dynamic ones.
        norms: the norms that the tunable `norms` adds to, in its order, each with its number of channels.
        feature_widths: how much of each layer's feature is not padding; none given: all of it.
        class_ids: K identifiers in the order of the logits (WordNet IDs for ImageNet), or None.
        class_names: K names for people, or None.
        graphs: by precision, `fp32` first.
        source: source statistics by precision.
        files: every file of the bundle but the manifest.
        provenance: versions and options of the export, for the record.
    """

    model: str
    preprocessing: Preprocessing
    layers: int
    width: int
    tokens: int
    feature_width: int
    classes: int
    prompt_bound: float
    tunables: Mapping[str, tuple[str | int, ...]] = field(default_factory=dict)
    norms: Mapping[str, int] = field(default_factory=dict)
    feature_widths: tuple[int, ...] = ()
    class_ids: tuple[str, ...] | None = None
    class_names: tuple[str, ...] | None = None
    graphs: Mapping[str, GraphEntry] = field(default_factory=dict)
    source: Mapping[str, SourceEntry] = field(default_factory=dict)
    files: Mapping[str, FileEntry] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def info(self, head_weight: FloatArray, head_bias: FloatArray) -> ModelInfo:
        """What methods need to know of the model, without identity and source statistics.

        Args:
            head_weight: float32 `[K, F]`.
            head_bias: float32 `[K]`.
        """
        return ModelInfo(
            name=self.model,
            identity="",
            layers=self.layers,
            width=self.width,
            tokens=self.tokens,
            prompt_bound=self.prompt_bound,
            head_weight=head_weight,
            head_bias=head_bias,
            tunables=tuple(self.tunables),
            norms=self.norms,
            feature_widths=self.feature_widths,
        )

    def to_json(self) -> bytes:
        """The manifest as it is written: UTF-8 JSON, indented, keys in declared order."""
        return (json.dumps({"schema": SCHEMA, **asdict(self)}, indent=1, ensure_ascii=False) + "\n").encode()

    @staticmethod
    def from_json(content: bytes, where: Path) -> Manifest:
        """Parses a manifest.

        Raises:
            BundleError: not JSON, another schema, or a field is missing or of the wrong kind.
        """
        try:
            raw = json.loads(content)
            schema = raw["schema"]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise BundleError(
                f"{where} is not a bundle manifest ({error}); export the model again"
            ) from error
        if schema not in READABLE:
            raise BundleError(
                f"{where} has schema {schema}, this version of fozo reads schema "
                f"{' and '.join(map(str, READABLE))}; "
                "export the model again, or install the version of fozo that wrote it"
            )
        try:
            return _parse(raw)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise BundleError(
                f"{where}: a field is missing or malformed ({type(error).__name__}: {error}); "
                "export the model again"
            ) from error


def _parse(raw: dict[str, Any]) -> Manifest:
    def entries(name: str, kind: Callable[..., T]) -> dict[str, T]:
        return {str(key): _checked(kind(**value)) for key, value in raw[name].items()}

    def strings(name: str) -> tuple[str, ...] | None:
        values = raw[name]
        if values is None:
            return None
        if len(values) != raw["classes"]:
            raise ValueError(f"{name} has {len(values)} entries for {raw['classes']} classes")
        return tuple(str(value) for value in values)

    how = dict(raw["preprocessing"])
    height, width = how.pop("size")
    manifest = Manifest(
        model=str(raw["model"]),
        preprocessing=Preprocessing(size=(int(height), int(width)), **how),
        layers=int(raw["layers"]),
        width=int(raw["width"]),
        tokens=int(raw["tokens"]),
        feature_width=int(raw["feature_width"]),
        classes=int(raw["classes"]),
        prompt_bound=float(raw["prompt_bound"]),
        tunables={str(name): tuple(axes) for name, axes in raw["tunables"].items()},
        norms={str(name): int(n) for name, n in (raw["norms"] if raw["schema"] > 1 else {}).items()},
        feature_widths=tuple(int(n) for n in (raw["feature_widths"] if raw["schema"] > 1 else ())),
        class_ids=strings("class_ids"),
        class_names=strings("class_names"),
        graphs=entries("graphs", GraphEntry),
        source=entries("source", SourceEntry),
        files=entries("files", FileEntry),
        provenance=dict(raw["provenance"]),
    )
    bound = manifest.prompt_bound
    if "fp32" not in manifest.graphs or not 0 <= bound < math.inf:
        raise ValueError("it must have an fp32 graph and a prompt_bound of at least 0")
    if "prompts" in manifest.tunables and bound == 0:
        raise ValueError("it must have a positive prompt_bound for its prompts")
    widths = manifest.feature_widths
    if widths and (
        len(widths) != manifest.layers or not 0 < min(widths) <= max(widths) <= manifest.feature_width
    ):
        raise ValueError("feature_widths must have a width of at most feature_width for each layer")
    needed = [graph.file for graph in manifest.graphs.values()]
    needed += [source.file for source in manifest.source.values()]
    unlisted = [name for name in needed if name not in manifest.files]
    if unlisted:
        raise ValueError(f"files does not list {unlisted[0]}")
    return manifest


def _checked(entry: T) -> T:
    """A record whose values are of the declared types."""
    kinds: dict[str, tuple[type, ...]] = {
        "str": (str,),
        "int": (int,),
        "float": (int, float),
        "dict[str, Any]": (dict,),
    }
    for f in fields(entry):  # type: ignore[arg-type]
        value = getattr(entry, f.name)
        if not isinstance(value, kinds[str(f.type)]):
            raise TypeError(f"{f.name} must be {f.type}, found {value!r}")
    return entry


@dataclass(frozen=True)
class Bundle:
    """An exported model on disk.

    Attributes:
        path: the folder.
        manifest: what it says of itself.
        sha256: hash of the manifest, and through it of everything else.
    """

    path: Path
    manifest: Manifest
    sha256: str

    @staticmethod
    def open(path: str | Path) -> Bundle:
        """Reads a bundle's manifest; other files are read, and their hashes checked, when they are used.

        Raises:
            BundleError: there is no bundle at `path`, or its manifest cannot be used.
        """
        folder = Path(path)
        manifest = folder / MANIFEST
        try:
            content = manifest.read_bytes()
        except OSError as error:
            raise BundleError(
                f"no bundle at {folder}: cannot read {manifest} ({error.strerror}); "
                "make one with: fozo export --out " + str(folder)
            ) from error
        return Bundle(folder, Manifest.from_json(content, manifest), hashlib.sha256(content).hexdigest())

    def file(self, name: str) -> Path:
        """Path of one of the bundle's files, its content verified.

        Raises:
            BundleError: the file is not listed, is missing, or is not the one that was listed.
        """
        entry = self.manifest.files.get(name)
        path = self.path / name
        if entry is None or Path(name).name != name:
            raise BundleError(f"{self.path / MANIFEST} lists no file {name!r}; export the model again")
        try:
            size, digest = path.stat().st_size, sha256_of(path)
        except OSError as error:
            raise BundleError(
                f"cannot read {path} ({error.strerror}); the bundle is incomplete, export the model again"
            ) from error
        if (size, digest) != (entry.bytes, entry.sha256):
            raise BundleError(
                f"{path} is not the file that was exported: expected {entry.bytes} bytes with "
                f"SHA-256 {entry.sha256[:12]}…, found {size} bytes with {digest[:12]}…; "
                "it was truncated or changed, export the model again"
            )
        return path

    def graph(self, precision: str) -> Path:
        """Path of the verified ONNX file of a precision (`fp32`, …).

        Raises:
            BundleError: the bundle has no such graph, or the file is not the one that was exported.
        """
        return self.file(self._graph_entry(precision).file)

    def graph_sha256(self, precision: str) -> str:
        """Hash of the ONNX file of a precision, as listed."""
        return self.manifest.files[self._graph_entry(precision).file].sha256

    def _graph_entry(self, precision: str) -> GraphEntry:
        graphs = self.manifest.graphs
        if precision not in graphs:
            raise BundleError(f"the bundle {self.path} has no {precision} graph, it has: {', '.join(graphs)}")
        return graphs[precision]

    def info(self, precision: str) -> ModelInfo:
        """What methods need to know of the model, with the source statistics of this graph if there are any.

        Raises:
            BundleError: a file is missing, changed, or of the wrong shape.
        """
        m = self.manifest
        shapes: dict[str, tuple[int, ...]] = {"weight": (m.classes, m.feature_width), "bias": (m.classes,)}
        head = _load_arrays(self.file("head.npz"), shapes)
        source = m.source[precision].file if precision in m.source else None
        used = [self._graph_entry(precision).file, "head.npz", *([source] if source else [])]
        identity = sha256_of_parts(*(m.files[name].sha256 for name in used), str(m.prompt_bound))
        return replace(m.info(head["weight"], head["bias"]), identity=identity, source=self.source(precision))

    def source(self, precision: str) -> SourceStatistics | None:
        """Source statistics of a graph, or None if the bundle has none for it.

        Raises:
            BundleError: they were computed with another graph, or their file is damaged.
        """
        m = self.manifest
        entry = m.source.get(precision)
        if entry is None:
            return None
        graph = self.graph_sha256(precision)
        if entry.graph_sha256 != graph:
            raise BundleError(
                f"the {precision} source statistics of {self.path} were computed with another graph "
                f"({entry.graph_sha256[:12]}…, the graph is {graph[:12]}…); "
                "compute them again: fozo source BUNDLE DIR"
            )
        shape = (m.layers, m.feature_width)
        arrays = _load_arrays(self.file(entry.file), {"mean": shape, "std": shape})
        return SourceStatistics(arrays["mean"], arrays["std"], entry.images)

    def with_source(self, precision: str, statistics: SourceStatistics, origin: str) -> Bundle:
        """Stores source statistics for a graph and returns the changed bundle.

        Raises:
            OutputError: the bundle's folder cannot be written; the bundle is then as it was.
        """
        content = to_npz(mean=statistics.mean, std=statistics.std)
        digest = hashlib.sha256(content).hexdigest()
        name = f"source-{precision}-{digest[:8]}.npz"
        write_atomic(self.path / name, content)
        entry = SourceEntry(name, self.graph_sha256(precision), statistics.images, origin)
        return self._with(
            name,
            FileEntry(digest, len(content)),
            replace(self.manifest, source={**self.manifest.source, precision: entry}),
        )

    def with_graph(self, precision: str, graph: Path, entry: GraphEntry) -> Bundle:
        """Adds a graph, or replaces that of a precision, and returns the changed bundle.

        Source statistics of a replaced graph go with it: they belong to the graph that computed them.

        Args:
            precision: what the graph will be called, e.g. `int8`; lower case letters, digits and hyphens.
            graph: an ONNX file on the bundle's own file system, e.g. from `folder_beside`; it is moved.
            entry: what to record; its `file` is filled in here.

        Raises:
            BundleError: the precision is `fp32`, from which the others are made, or no such name.
            OutputError: the bundle's folder cannot be written; the bundle is then as it was.
        """
        if precision == "fp32" or not _PRECISION.fullmatch(precision):
            raise BundleError(
                f"expected the name of a further graph, like int8, found {precision!r}; the fp32 graph "
                "itself is made by fozo export"
            )
        file = FileEntry(sha256_of(graph), graph.stat().st_size)
        name = f"model-{precision}-{file.sha256[:8]}.onnx"
        try:
            graph.replace(self.path / name)
        except OSError as error:
            raise OutputError(f"cannot write {self.path / name}: {error.strerror or error}") from error
        graphs = {**self.manifest.graphs, precision: replace(entry, file=name)}
        source = {key: value for key, value in self.manifest.source.items() if key != precision}
        return self._with(name, file, replace(self.manifest, graphs=graphs, source=source))

    def _with(self, name: str, file: FileEntry, manifest: Manifest) -> Bundle:
        """Puts a manifest in place that uses one new file; on failure, that file is removed again."""
        try:
            return self._replace_manifest(name, file, manifest)
        except BaseException:
            if name not in Bundle.open(self.path).manifest.files:
                (self.path / name).unlink(missing_ok=True)
            raise

    def _replace_manifest(self, name: str, file: FileEntry, manifest: Manifest) -> Bundle:
        """What the new manifest no longer uses is removed afterwards."""
        used = {entry.file for entry in manifest.graphs.values()}
        used |= {entry.file for entry in manifest.source.values()}
        # Only what this class has added itself is ever removed, whatever a changed manifest names.
        stale = {old for old in self.manifest.files if _ADDED_FILE.fullmatch(old)} - used
        files = {key: value for key, value in self.manifest.files.items() if key not in stale}
        if Bundle.open(self.path).sha256 != self.sha256:
            raise OutputError(
                f"{self.path} was changed by another process in the meantime, and is left as that made it; "
                "run the command again"
            )
        write_atomic(self.path / MANIFEST, replace(manifest, files={**files, name: file}).to_json())
        for old in stale:
            (self.path / old).unlink(missing_ok=True)
        return Bundle.open(self.path)


def _load_arrays(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, FloatArray]:
    try:
        found = from_npz(path)
    except ValueError as error:
        raise BundleError(f"{path} cannot be read ({error}); export the model again") from error
    for name, shape in shapes.items():
        array = found.get(name, np.zeros(0))
        if array.shape != shape or array.dtype != np.float32 or not np.isfinite(array).all():
            raise BundleError(
                f"{path}: expected finite float32 {name} of shape {shape}, found {array.dtype} of "
                f"shape {array.shape}; export the model again"
            )
    return {name: found[name] for name in shapes}


def create(
    path: Path,
    manifest: Manifest,
    write: Mapping[str, Callable[[Path], object]],
    *,
    overwrite: bool = False,
) -> Bundle:
    """Writes a new bundle: in a temporary folder first, moved into place when it is complete.

    Args:
        path: where the bundle shall be.
        manifest: without `files`, which is filled in here.
        write: for each file of the bundle, what writes it to a given path.
        overwrite: replace a bundle that is already there. Anything else is never replaced.

    Raises:
        OutputError: something is in the way, or the folder cannot be written; nothing is changed then.
    """
    check_writable(path, overwrite=overwrite)
    with folder_beside(path) as temporary:
        folder = temporary / path.name
        folder.mkdir()
        files = {}
        for name, writer in write.items():
            writer(folder / name)
            files[name] = FileEntry(sha256_of(folder / name), (folder / name).stat().st_size)
        (folder / MANIFEST).write_bytes(replace(manifest, files=files).to_json())
        _move_into_place(folder, path)
    return Bundle.open(path)


@contextmanager
def folder_beside(path: Path) -> Iterator[Path]:
    """A temporary folder on the file system of `path`, gone afterwards.

    Raises:
        OutputError: it cannot be made, or something in the block cannot be written.
    """
    try:
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp") as folder:
            yield Path(folder)
    except OSError as error:
        raise OutputError(
            f"cannot write {path}: {error.strerror or error}; choose another place, or make room there"
        ) from error


def _move_into_place(folder: Path, path: Path) -> None:
    """Puts `folder` where `path` is; what was there is removed only when that has succeeded."""
    if not path.exists():
        folder.rename(path)
        return
    # Not inside the temporary folder: should even moving it back fail, the old bundle is still there.
    keep = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.old."))
    path.replace(keep / path.name)
    try:
        folder.rename(path)
    except OSError:
        (keep / path.name).replace(path)
        keep.rmdir()
        raise
    shutil.rmtree(keep)


def check_writable(path: Path, *, overwrite: bool) -> None:
    """Finds out whether a bundle can be created at `path`, before any long work is done for it.

    Raises:
        OutputError: the parent folder is missing or not writable, or something is in the way.
    """
    if path.exists() and (hint := _in_the_way(path, overwrite)):
        raise OutputError(f"{path} already exists; {hint}")
    try:
        probe = tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
        shutil.rmtree(probe)
    except OSError as error:
        raise OutputError(
            f"cannot create {path}: {error.strerror or error}; choose another place with --out"
        ) from error


def _in_the_way(path: Path, overwrite: bool) -> str | None:
    """What to do about what is at `path`; None if it may be replaced: an empty folder, or a pure bundle."""
    elsewhere = "choose another place with --out"
    found = {entry.name for entry in path.iterdir()} if path.is_dir() else {path.name}
    if path.is_dir() and not found:
        return None
    try:
        foreign = sorted(found - {MANIFEST, *Bundle.open(path).manifest.files})
    except BundleError:
        return elsewhere
    if foreign:
        return f"it holds {foreign[0]}, which is no part of the bundle: move it away, or {elsewhere}"
    return None if overwrite else f"pass --overwrite to replace it, or {elsewhere}"
