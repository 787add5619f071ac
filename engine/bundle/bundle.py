"""An exported model on disk: a folder with a manifest, ONNX graphs, the head and source statistics.

Every file but the manifest is listed there with its size and SHA-256, and nothing is used before its hash
has been checked. Files are only ever added under new names; replacing the manifest is what makes a change
take effect, so a bundle is whole at every moment. The format is described in docs/bundle.md.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..errors import BundleError, OutputError, reason
from ..files import (
    FOLDER_LOCK,
    from_npz,
    hash_file,
    hash_texts,
    hold_lock,
    sync_file,
    sync_folder,
    to_npz,
    write_atomic,
)
from ..model import (
    COORDINATOR_ARRAYS,
    PIXELS,
    PROMPTS,
    Activation,
    ActivationUse,
    Coordinator,
    FloatArray,
    ImagePrompt,
    ModelInfo,
    SourceStatistics,
    list_differentiable,
)
from ..ordinary_files import check_ordinary, read_limited
from .head import Head
from .manifest import HEAD_FILE, PORTABLE_SUFFIX, FileEntry, GraphEntry, Manifest, SourceEntry
from .text_entries import HeadEntry

MANIFEST = "bundle.json"
MAX_MANIFEST_BYTES = 1 << 26  # names of a million classes
GRAPH_FILE = "model.onnx"
TEXT_FILE = "text.onnx"
VOCABULARY_FILE = "vocabulary.txt.gz"
PULL_BACK_FILE = "pull-back.onnx"

FIRST_FILES = (GRAPH_FILE, PULL_BACK_FILE, HEAD_FILE, TEXT_FILE, VOCABULARY_FILE)  # of every new bundle

# Files that are named by their content, which fozo adds to a bundle and may remove again.
ADDED_FILE = re.compile(
    r"source-[\w-]+-[0-9a-f]{8}\.npz|encoder-[0-9a-f]{8}\.onnx|head(-[\w-]+)?-[0-9a-f]{8}\.npz"
    r"|(model|pull-back|text)(-[\w-]+)?-[0-9a-f]{8}\.onnx|vocabulary\.txt-[0-9a-f]{8}\.gz"
)
_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


@dataclass(frozen=True)
class NewGraph:
    """A graph that is to be added to a bundle.

    Attributes:
        path: an ONNX file on the bundle's own file system, e.g. from `folder_beside`; it is moved.
        entry: what to record; its `file` is filled in when the graph is added.
    """

    path: Path
    entry: GraphEntry


@dataclass(frozen=True)
class Bundle:
    """An exported model on disk.

    Attributes:
        path: the folder.
        manifest: its content, parsed.
        sha256: hash of the manifest on disk, and through it of everything else.
        selected_head: name of the head that `select_head` put in use; None: that of the manifest on disk.
    """

    path: Path
    manifest: Manifest
    sha256: str
    selected_head: str | None = None

    @staticmethod
    def open(path: str | Path, head: str | None = None) -> Bundle:
        """Read a bundle's manifest; other files are read, and their hashes checked, when they are used.

        Args:
            path: the folder.
            head: name of the head to use, as for `select_head`; None: that of the manifest.

        Raises:
            BundleError: there is no bundle at `path`, or its manifest cannot be used, or it has no such head.
        """
        folder = Path(path)
        manifest = folder / MANIFEST
        try:
            content = read_limited(manifest, MAX_MANIFEST_BYTES)
        except OSError as error:
            raise BundleError(
                f"no bundle at {folder}: cannot read {manifest} ({reason(error)}); "
                "make one with: fozo export --out " + str(folder)
            ) from error
        bundle = Bundle(folder, Manifest.from_json(content, manifest), hashlib.sha256(content).hexdigest())
        return bundle if head is None else bundle.select_head(head)

    def list_files(self) -> list[str]:
        """Return the names of all files, the manifest included."""
        return [MANIFEST, *self.manifest.files]

    def file(self, name: str) -> Path:
        """Return the path of one of the bundle's files, its content verified.

        Raises:
            BundleError: the file is not listed, is missing, or is not the one that was listed.
        """
        entry = self.manifest.files.get(name)
        path = self.path / name
        if entry is None or Path(name).name != name:
            raise BundleError(f"{self.path / MANIFEST} lists no file {name!r}; export the model again")
        try:
            check_ordinary(path)
            size = path.stat().st_size
            # The hash of a file of another size need not be known.
            digest = hash_file(path) if size == entry.bytes else ""
        except OSError as error:
            raise BundleError(
                f"cannot read {path} ({reason(error)}); the bundle is incomplete, export the model again"
            ) from error
        if (size, digest) != (entry.bytes, entry.sha256):
            raise BundleError(
                f"{path} is not the file that was exported: expected {entry.bytes} bytes with "
                f"SHA-256 {entry.sha256[:12]}…, found {size} bytes{digest and f' with {digest[:12]}…'}; "
                "it was truncated or changed, export the model again"
            )
        return path

    def graph(self, precision: str) -> Path:
        """Return the path of the verified ONNX file of a precision (`fp32`, …).

        Raises:
            BundleError: the bundle has no such graph, or the file is not the one that was exported.
        """
        return self.file(self._get_graph_entry(precision).file)

    def pull_back(self, precision: str) -> Path:
        """Return the path of the verified graph of a precision that computes gradients, too.

        Raises:
            BundleError: the bundle has no such graph, or the file is not the one that was exported.
        """
        self._get_graph_entry(precision)
        pull_backs = self.manifest.pull_backs
        if precision not in pull_backs:
            remedy = f"use {' or '.join(pull_backs)}" if pull_backs else "export it again with --gradients"
            raise BundleError(
                f"methods with gradients need a pull-back graph, and the bundle {self.path} has none for "
                f"{precision}; {remedy}, or use methods that need forwards only"
            )
        return self.file(pull_backs[precision].file)

    def _get_pull_back_sha256(self, precision: str) -> str | None:
        entry = self.manifest.pull_backs.get(precision)
        return None if entry is None else self.manifest.files[entry.file].sha256

    def graph_sha256(self, precision: str) -> str:
        """Return the hash of the ONNX file of a precision, as listed."""
        return self.manifest.files[self._get_graph_entry(precision).file].sha256

    def _get_graph_entry(self, precision: str) -> GraphEntry:
        graphs = self.manifest.graphs
        if precision not in graphs:
            raise BundleError(f"the bundle {self.path} has no {precision} graph, it has: {', '.join(graphs)}")
        return graphs[precision]

    def info(
        self, precision: str, *, gradients: bool = False, activations: Sequence[ActivationUse] = ()
    ) -> ModelInfo:
        """Return what methods may know of the model, with the source statistics of this graph, if any.

        There are none for a head that changes the images: they are of plain ones.

        Args:
            precision: of the graph.
            gradients: describe its pull-back graph, which computes gradients for all tunables but the pixels.
            activations: describe the graph in which these can be re-centred.

        Raises:
            BundleError: a file is missing, changed, or of the wrong shape.
        """
        m = self.manifest
        if m.head_name is not None:
            self._check_head(m.head_name)
        entry = None if m.head_name is None else m.heads[m.head_name]
        head = _load_arrays(self.file(m.head), self._list_head_shapes(entry))
        image_prompt = self._read_image_prompt(entry, head)
        source = m.source[precision].file if precision in m.source and image_prompt is None else None
        used = [self._get_graph_entry(precision).file, m.head, *([source] if source else [])]
        selected = m.select_activations(activations)
        identity = hash_texts(*(m.files[name].sha256 for name in used), str(m.prompt_bound))
        return replace(
            m.info(head["weight"], head["bias"]),
            identity=identity,
            source=None if source is None else self.source(precision, selected),
            gradients=list_differentiable(m.tunables) if gradients else (),
            activations=selected,
            activation_uses=tuple(activations) if selected else (),
            precision=precision,
            image_prompt=image_prompt,
        )

    def _list_head_shapes(self, entry: HeadEntry | None) -> dict[str, tuple[int, ...]]:
        """Return the shapes of the arrays in the file of the head in use, whose entry is this, by name."""
        m = self.manifest
        shapes: dict[str, tuple[int, ...]] = {"weight": (m.classes, m.feature_width), "bias": (m.classes,)}
        if entry is None:
            return shapes
        if entry.context_vectors is not None and m.text is not None:
            shapes["context"] = (entry.context_vectors, m.text.width)
        if entry.image_prompt is not None and entry.image_prompt.pixels:
            shapes[PIXELS] = (*m.preprocessing.size, 3)
        if entry.image_prompt is not None and entry.image_prompt.prompts:
            shapes[PROMPTS] = (entry.image_prompt.prompts, m.width)
        if entry.image_prompt is not None and (coordinator := entry.image_prompt.coordinator) is not None:
            channels = coordinator.norm_channels
            lengths = coordinator.parameters, channels, channels, 3
            for name, length in zip(COORDINATOR_ARRAYS, lengths, strict=True):
                shapes[f"coordinator_{name}"] = (length,)
        return shapes

    def _read_image_prompt(
        self, entry: HeadEntry | None, arrays: Mapping[str, FloatArray]
    ) -> ImagePrompt | None:
        """Return what a head adds to the images, given the arrays of its file."""
        if entry is None or entry.image_prompt is None:
            return None
        described, coordinator = entry.image_prompt.coordinator, None
        if described is not None:
            parameters, mean, variance, scale = (arrays[f"coordinator_{name}"] for name in COORDINATOR_ARRAYS)
            encoder = None if described.encoder is None else self.file(described.encoder)
            layer, width = described.layer, described.width
            coordinator = Coordinator(parameters, mean, variance, scale, layer, width, encoder)
        prompt = entry.image_prompt
        return ImagePrompt(prompt.frame, arrays.get(PIXELS), arrays.get(PROMPTS), coordinator)

    @property
    def _head_sha256(self) -> str | None:
        """Hash of the head in use; None where the classes are part of the graphs."""
        return None if self.manifest.text is None else self.manifest.files[self.manifest.head].sha256

    @property
    def text_sha256(self) -> str | None:
        """Hash over text graph and vocabulary, as listed; None where the classes are part of the graphs."""
        text, files = self.manifest.text, self.manifest.files
        return None if text is None else hash_texts(files[text.file].sha256, files[text.vocabulary].sha256)

    def select_head(self, name: str) -> Bundle:
        """Return the bundle with another head in use: its classes are then those of the bundle.

        Nothing is written.

        Raises:
            BundleError: there is no such head, or another text graph or vocabulary made it.
        """
        heads = self.manifest.heads
        if self.manifest.text is None:
            raise BundleError(
                f"the classes of {self.path} are part of its graphs, so it has no heads to choose from; only "
                "bundles exported with --clip have"
            )
        if name not in heads:
            raise BundleError(
                f"the bundle {self.path} has no head {name!r}, it has: {', '.join(heads)}; make one with: "
                "fozo classes BUNDLE NAMES.txt --as NAME"
            )
        self._check_head(name)
        return replace(self, manifest=self.manifest.use_head(heads[name]), selected_head=name)

    def _check_head(self, name: str) -> None:
        """Check that a head was made by the text graph and the vocabulary that the bundle has now."""
        if self.manifest.heads[name].text_sha256 != self.text_sha256:
            raise BundleError(
                f"the head {name} of {self.path} was made by another text graph or vocabulary; make it again "
                "with fozo classes"
            )

    def load_head(self, name: str) -> Head:
        """Return a head with its arrays.

        Raises:
            BundleError: as `select_head`, or its file is missing, changed, or of the wrong shape.
        """
        selected = self.select_head(name)
        entry = selected.manifest.heads[name]
        arrays = _load_arrays(self.file(entry.file), selected._list_head_shapes(entry))
        return Head(
            weight=arrays["weight"],
            class_ids=entry.class_ids,
            class_names=entry.class_names,
            templates=entry.templates,
            context=arrays.get("context"),
            record=entry.record,
            bias=None if entry.images is None else arrays["bias"],
            images=entry.images,
            image_prompt=selected._read_image_prompt(entry, arrays),
        )

    def with_head(self, name: str, head: Head, *, default: bool = False) -> Bundle:
        """Store classes made from texts, or replace those of this name, and return the changed bundle.

        Args:
            name: of the head; lower case letters, digits and hyphens.
            head: the classes.
            default: use this head where none is selected.

        Raises:
            BundleError: the classes of this bundle are part of its graphs, or the name is no such name, or
                the manifest would contradict itself, or a head that changes the images would be in use where
                none is selected.
            OutputError: the bundle's folder cannot be written; the bundle is then as it was.
        """
        text_sha256 = self.text_sha256
        if text_sha256 is None:
            raise BundleError(
                f"the classes of {self.path} are part of its graphs; only bundles exported with --clip take "
                "classes made from texts"
            )
        check_head_name(name)
        stored = self._stored_manifest()
        used = default or stored.head_name == name
        if head.image_prompt is not None:
            check_unused_head(name, used=used)
        content = head.to_npz()
        digest = hashlib.sha256(content).hexdigest()
        file = f"head-{name}-{digest[:8]}.npz"
        encoder = None if head.image_prompt is None else _read_encoder(head.image_prompt)
        entry = head.describe(file, text_sha256, None if encoder is None else encoder[0])
        manifest = replace(stored, heads={**stored.heads, name: entry})
        if used:
            manifest = manifest.use_head(entry)
        with hold_lock(self.path / FOLDER_LOCK, explain_lock(self.path)):
            write_atomic(self.path / file, content)
            new = {file: FileEntry(digest, len(content))}
            if encoder is not None:
                encoder_file, graph = encoder
                write_atomic(self.path / encoder_file, graph)
                new[encoder_file] = FileEntry(hashlib.sha256(graph).hexdigest(), len(graph))
            return self._commit(new, manifest)

    def _stored_manifest(self) -> Manifest:
        """Return the manifest on disk, in which no other head was selected."""
        return self.manifest if self.selected_head is None else Bundle.open(self.path).manifest

    def source(self, precision: str, activations: Sequence[Activation] = ()) -> SourceStatistics | None:
        """Return the source statistics of a graph, or None if the bundle has none for it.

        Fisher information belongs to the classes that it was computed with, and is left out for other heads.
        Those of activations are returned for the given ones.

        Raises:
            BundleError: they were computed with another graph, or their file is damaged.
        """
        m = self.manifest
        entry = m.source.get(precision)
        if entry is None:
            return None
        self._check_graph("graph", precision, entry.graph_sha256, self.graph_sha256(precision))
        shape: tuple[int, ...] = (m.layers, m.feature_width)
        shapes = {"mean": shape, "std": shape}
        if entry.pull_back_sha256 is not None and entry.head_sha256 == self._head_sha256:
            pull_back = self._get_pull_back_sha256(precision)
            self._check_graph("pull-back graph", precision, entry.pull_back_sha256, pull_back)
            shapes["fisher"] = (len(m.norms), 2, max(m.norms.values(), default=0))
        listed, names = self.manifest.activations, ("activation_mean", "activation_std")
        if entry.has_activations and activations:
            shapes |= dict.fromkeys(names, (sum(activation.width for activation in listed),))
        arrays = _load_arrays(self.file(entry.file), shapes)
        channels = np.concatenate(
            [np.full(activation.width, activation in activations) for activation in listed]
            or [np.zeros(0, bool)]
        )
        arrays |= {name: arrays[name][channels] for name in names if name in arrays}
        return SourceStatistics(**arrays, images=entry.images)

    def _check_graph(self, kind: str, precision: str, expected: str, actual: str | None) -> None:
        """Check that source statistics were computed with the graph that the bundle has now."""
        if expected != actual:
            raise BundleError(
                f"the {precision} source statistics of {self.path} were computed with another {kind} "
                f"({expected[:12]}…, the {kind} is {actual[:12] + '…' if actual else 'missing'}); "
                "compute them again: fozo source BUNDLE DIR"
            )

    def check_plain_images(self) -> None:
        """Check that the head in use leaves the images as they are, as source statistics serve all heads.

        Raises:
            BundleError: it changes them.
        """
        name = self.manifest.head_name
        if name is not None and self.manifest.heads[name].image_prompt is not None:
            raise BundleError(
                f"source statistics are of plain images, and the head {name} changes them; select another one"
            )

    def with_source(self, precision: str, statistics: SourceStatistics, origin: str) -> Bundle:
        """Store source statistics for a graph and return the changed bundle.

        Raises:
            BundleError: the head in use changes the images.
            OutputError: the bundle's folder cannot be written; the bundle is then as it was.
        """
        self.check_plain_images()
        fisher = {} if statistics.fisher is None else {"fisher": statistics.fisher}
        mean, std = statistics.activation_mean, statistics.activation_std
        activations = {} if mean is None or std is None else {"activation_mean": mean, "activation_std": std}
        content = to_npz(mean=statistics.mean, std=statistics.std, **fisher, **activations)
        digest = hashlib.sha256(content).hexdigest()
        name = f"source-{precision}-{digest[:8]}.npz"
        pull_back = self._get_pull_back_sha256(precision) if fisher else None
        head = self._head_sha256 if fisher else None
        graph, images = self.graph_sha256(precision), statistics.images
        entry = SourceEntry(name, graph, images, origin, pull_back, head, bool(activations))
        stored = self._stored_manifest()
        manifest = replace(stored, source={**stored.source, precision: entry})
        with hold_lock(self.path / FOLDER_LOCK, explain_lock(self.path)):
            write_atomic(self.path / name, content)
            return self._commit({name: FileEntry(digest, len(content))}, manifest)

    def with_graphs(
        self, graphs: Mapping[str, NewGraph], pull_backs: Mapping[str, NewGraph] | None = None
    ) -> Bundle:
        """Add graphs, or replace those of their precisions, all at once, and return the changed bundle.

        What was made from a replaced graph goes with it: its source statistics, its pull-back graph, and its
        portable form with the statistics of that.

        Args:
            graphs: by what they will be called, e.g. `int8`; lower case letters, digits and hyphens.
            pull_backs: pull-back graphs, by precision of the graph whose derivative they are.

        Raises:
            BundleError: a precision is `fp32`, from which the others are made, or no such name; or there is
                no graph for a pull-back.
            OutputError: the bundle's folder cannot be written; the bundle is then as it was.
        """
        pull_backs = pull_backs or {}
        for precision in graphs:
            _check_graph_name(precision)
        for precision in pull_backs.keys() - graphs.keys():
            self._get_graph_entry(precision)
        stored = self._stored_manifest()
        portable = {precision + PORTABLE_SUFFIX for precision in graphs}
        stale = portable | graphs.keys()
        manifest = replace(
            stored,
            graphs={
                key: value for key, value in stored.graphs.items() if key not in portable - graphs.keys()
            },
            source={key: value for key, value in stored.source.items() if key not in stale},
            pull_backs={key: value for key, value in stored.pull_backs.items() if key not in stale},
        )
        return self._add_graphs(manifest, graphs, pull_backs)

    def _add_graphs(
        self, manifest: Manifest, graphs: Mapping[str, NewGraph], pull_backs: Mapping[str, NewGraph]
    ) -> Bundle:
        """Move graphs into the bundle, and put a manifest in place that has these as well."""
        new: dict[str, FileEntry] = {}
        with hold_lock(self.path / FOLDER_LOCK, explain_lock(self.path)), self._remove_unlisted(new):
            added = {name: self._move_in(graph, f"model-{name}", new) for name, graph in graphs.items()}
            pulled = {name: self._move_in(g, f"pull-back-{name}", new) for name, g in pull_backs.items()}
            manifest = replace(
                manifest,
                graphs={**manifest.graphs, **added},
                pull_backs={**manifest.pull_backs, **pulled},
            )
            return self._replace_manifest(new, manifest)

    def _move_in(self, graph: NewGraph, stem: str, new: dict[str, FileEntry]) -> GraphEntry:
        """Move an ONNX file into the bundle, named by its content; list it in `new` and return its entry."""
        file = FileEntry(hash_file(graph.path), graph.path.stat().st_size)
        name = f"{stem}-{file.sha256[:8]}.onnx"
        new[name] = file
        try:
            sync_file(graph.path)
            graph.path.replace(self.path / name)
            sync_folder(self.path)
        except OSError as error:
            raise OutputError(f"cannot write {self.path / name}: {reason(error)}") from error
        return replace(graph.entry, file=name)

    def _commit(self, new: Mapping[str, FileEntry], manifest: Manifest) -> Bundle:
        """Put a manifest in place that uses new files, by name; on failure, remove these again."""
        with self._remove_unlisted(new):
            return self._replace_manifest(new, manifest)

    @contextmanager
    def _remove_unlisted(self, new: Mapping[str, FileEntry]) -> Iterator[None]:
        """Remove new files, by name, that are not in use if the block fails."""
        try:
            yield
        except BaseException:
            for name in new.keys() - Bundle.open(self.path).manifest.files.keys():
                (self.path / name).unlink(missing_ok=True)
            raise

    def _replace_manifest(self, new: Mapping[str, FileEntry], manifest: Manifest) -> Bundle:
        """Write the new manifest, then remove files that it no longer uses.

        Raises:
            BundleError: it could not be read again.
            OutputError: another process has changed the bundle, or it cannot be written.
        """
        used = {manifest.head} | {entry.file for entry in manifest.graphs.values()}
        used |= {entry.file for entry in manifest.source.values()}
        used |= {entry.file for entry in manifest.pull_backs.values()}
        used |= {entry.file for entry in manifest.heads.values()}
        used |= {manifest.text.file, manifest.text.vocabulary} if manifest.text else set()
        used |= set(manifest.encoders)
        # Only what this class has added itself is ever removed, whatever a changed manifest names.
        stale = {old for old in self.manifest.files if ADDED_FILE.fullmatch(old)} - used
        files = {key: value for key, value in self.manifest.files.items() if key not in stale}
        if Bundle.open(self.path).sha256 != self.sha256:
            raise OutputError(
                f"{self.path} was changed by another process in the meantime, and is left as that made it; "
                "run the command again"
            )
        manifest = replace(manifest, files={**files, **new})
        path = self.path / MANIFEST
        write_atomic(path, manifest.to_checked_json(path))
        for old in stale:
            (self.path / old).unlink(missing_ok=True)
        bundle = Bundle.open(self.path)
        return bundle if self.selected_head is None else bundle.select_head(self.selected_head)


def _check_graph_name(precision: str) -> None:
    """Check that a further graph may have a name.

    Raises:
        BundleError: it is `fp32`, or has other characters than lower case letters, digits and hyphens.
    """
    if precision == "fp32" or not _NAME.fullmatch(precision):
        raise BundleError(
            f"expected the name of a further graph, like int8, found {precision!r}; the fp32 graph "
            "itself is made by fozo export"
        )


def check_head_name(name: str) -> None:
    """Check that a head may have a name.

    Raises:
        BundleError: it has other characters than lower case letters, digits and hyphens.
    """
    if not _NAME.fullmatch(name):
        raise BundleError(
            "expected the name of a head in lower case letters, digits and hyphens, like pets, found "
            f"{name!r}"
        )


def check_unused_head(name: str, *, used: bool) -> None:
    """Check that a head that changes the images is only used where it is selected.

    Raises:
        BundleError: it would be used elsewhere, too.
    """
    if used:
        raise BundleError(
            f"the head {name} would be used where none is selected, and changes the images, for which there "
            "are neither source statistics nor int8 graphs; store it under another name"
        )


def explain_lock(path: Path) -> str:
    """Return the message for a bundle that is locked."""
    return f"{path} is being written by another process; wait until that is done, and run the command again"


def _read_encoder(prompt: ImagePrompt) -> tuple[str, bytes] | None:
    """Return name and content of the file for a coordinator's encoder; None where there is none.

    Raises:
        BundleError: it cannot be read.
    """
    if prompt.coordinator is None or prompt.coordinator.encoder is None:
        return None
    try:
        content = prompt.coordinator.encoder.read_bytes()
    except OSError as error:
        raise BundleError(f"cannot read the encoder {prompt.coordinator.encoder}: {reason(error)}") from error
    return f"encoder-{hashlib.sha256(content).hexdigest()[:8]}.onnx", content


def _load_arrays(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, FloatArray]:
    """Return the named float32 arrays of a file, their shapes checked."""
    try:
        arrays = from_npz(path)
    except ValueError as error:
        raise BundleError(f"{path} cannot be read ({error}); export the model again") from error
    for name, shape in shapes.items():
        array = arrays.get(name, np.zeros(0))
        if array.shape != shape or array.dtype != np.float32 or not np.isfinite(array).all():
            raise BundleError(
                f"{path}: expected finite float32 {name} of shape {shape}, found {array.dtype} of "
                f"shape {array.shape}; export the model again"
            )
    return {name: arrays[name] for name in shapes}
