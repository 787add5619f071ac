"""The manifest of a bundle: the content of `bundle.json`, written and parsed (docs/bundle.md)."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from ..errors import BundleError, has_controls
from ..model import ACTIVATION_KINDS, PIXELS, PROMPTS, Activation, ActivationUse, FloatArray, ModelInfo
from ..ordinary_files import parse_json
from ..records import RecordError, load_record, to_dict
from .preprocessing import Preprocessing
from .text_entries import HeadEntry, TextEntry, find_contradiction_of_head, find_contradiction_of_text

SCHEMA = 2
TEXT_SCHEMA = 3  # of bundles whose classes come from texts
HEAD_FILE = "head.npz"
PORTABLE_SUFFIX = "-qdq"  # of the precision of a graph that is another one in standard operators
READABLE = (1, 2, 3)  # in 1 there were no norms to tune, and no widths of features


@dataclass(frozen=True)
class FileEntry:
    """Content of a file of the bundle: SHA-256 in hexadecimal, and size in bytes."""

    sha256: str
    bytes: int


@dataclass(frozen=True)
class GraphEntry:
    """One graph of the bundle, and its distance from the model or graph that it was made from.

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
        file: name of the `.npz` file with `mean` and `std`, float32 `[L, F]`, and perhaps `fisher`.
        graph_sha256: the graph that computed them; they are never used with another.
        images: how many images they were computed from.
        origin: where the images came from and how they were chosen.
        pull_back_sha256: the pull-back graph that computed `fisher`; None if the file has no such array.
        head_sha256: the head whose predictions `fisher` is of, where classes come from texts; else None.
        has_activations: whether the file also has `activation_mean` and `activation_std`, float32 `[C]`, of
            all activations that the manifest lists.
    """

    file: str
    graph_sha256: str
    images: int
    origin: str
    pull_back_sha256: str | None = None
    head_sha256: str | None = None
    has_activations: bool = False


@dataclass(frozen=True)
class Manifest:
    """The content of `bundle.json`.

    Attributes:
        model: name of the model.
        preprocessing: how a file becomes the image that the graphs read.
        layers: L, number of features per image: one per block, or per stage in a residual network, and a
            last one for the image embedding where the classes come from texts.
        width: D, width of a token and of a prompt; in a residual network F.
        tokens: tokens per image without prompts; in a residual network the positions of the last stage.
        feature_width: F, width of one feature.
        classes: K, number of classes.
        prompt_bound: bound of the uniform initialisation of prompts; 0 where there are none.
        patch_mean, patch_std: mean and standard deviation of the weights that embed patches of normalised
            images; None in residual networks, and in bundles of earlier versions.
        tunables: what adaptation may change, by name of the graph's input: its axes, names for dynamic ones.
        norms: the norms that the tunable `norms` adds to, in its order, each with its number of channels.
        feature_widths: how much of each layer's feature is not padding; none given: all of it.
        class_ids: K identifiers in the order of the logits (WordNet IDs for ImageNet), or None.
        class_names: K names for people, or None.
        head: name of the `.npz` file with the linear head in use.
        graphs: by precision, `fp32` first.
        source: source statistics by precision.
        pull_backs: graphs of gradients, by precision of the graph whose derivative they are.
        text: text side of the model; None where the classes are part of the graphs.
        heads: classes made from texts, by name; `head` and the fields of classes are those of one of them.
        files: every file of the bundle but the manifest.
        provenance: versions and options of the export, for the record.
        activations: tensors of all graphs that can be re-centred, in the order of computation; none in
            residual networks, and in bundles of earlier versions.
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
    head: str = HEAD_FILE
    graphs: Mapping[str, GraphEntry] = field(default_factory=dict)
    source: Mapping[str, SourceEntry] = field(default_factory=dict)
    pull_backs: Mapping[str, GraphEntry] = field(default_factory=dict)
    text: TextEntry | None = None
    heads: Mapping[str, HeadEntry] = field(default_factory=dict)
    files: Mapping[str, FileEntry] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    patch_mean: float | None = None
    patch_std: float | None = None
    activations: tuple[Activation, ...] = ()

    def info(self, head_weight: FloatArray, head_bias: FloatArray) -> ModelInfo:
        """Return what methods may know of the model, without identity, source statistics and gradients.

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
            image_size=self.preprocessing.size,
            takes_classifier=self.text is not None,
            logit_scale=1.0 if self.text is None else self.text.logit_scale,
        )

    def select_activations(self, uses: Sequence[ActivationUse]) -> tuple[Activation, ...]:
        """Return the activations that any of several uses asks for, in the order of computation."""
        selected = {activation for use in uses for activation in use.select(self.activations)}
        return tuple(activation for activation in self.activations if activation in selected)

    @property
    def head_name(self) -> str | None:
        """Name of the head in use, if its classes come from texts."""
        return next((name for name, head in self.heads.items() if head.file == self.head), None)

    @property
    def encoders(self) -> list[str]:
        """Names of the files of encoders that heads have."""
        prompts = [head.image_prompt for head in self.heads.values() if head.image_prompt is not None]
        coordinators = [prompt.coordinator for prompt in prompts if prompt.coordinator is not None]
        return [entry.encoder for entry in coordinators if entry.encoder is not None]

    def use_head(self, entry: HeadEntry) -> Manifest:
        """Return the manifest with another head in use, whose frame images are prepared for."""
        frame = 0 if entry.image_prompt is None else entry.image_prompt.frame
        return replace(
            self,
            preprocessing=replace(self.preprocessing, frame=frame),
            head=entry.file,
            classes=len(entry.class_names),
            class_ids=entry.class_ids,
            class_names=entry.class_names,
        )

    def find_contradiction(self) -> str | None:
        """Return the first contradiction between the fields, or None."""
        return _find_contradiction(self)

    def to_json(self) -> bytes:
        """Return the manifest as it is written: UTF-8 JSON, indented, keys in declared order."""
        data = to_dict(self)
        del data["preprocessing"]["frame"]  # that of a head is in its entry, and none is stored as in use
        if self.text is None:  # as versions before texts read it
            del data["text"], data["heads"]
        schema = SCHEMA if self.text is None else TEXT_SCHEMA
        return (json.dumps({"schema": schema, **data}, indent=1, ensure_ascii=False) + "\n").encode()

    def to_checked_json(self, where: Path) -> bytes:
        """Return the manifest as `to_json` does, after reading it again.

        Raises:
            BundleError: it could not be read again: it contradicts itself, or a text has control characters
                or no form in UTF-8, or a number is not finite.
        """
        try:
            content = self.to_json()
            _parse(parse_json(content), where)
        except ValueError as error:
            raise BundleError(
                f"what was to be written could not be read again, so nothing was changed: {error}"
            ) from error
        return content

    @staticmethod
    def from_json(content: bytes, where: Path) -> Manifest:
        """Parse a manifest.

        Raises:
            BundleError: not JSON, another schema, or a field is missing or of the wrong kind.
        """
        try:
            raw = parse_json(content)
            schema = raw["schema"]
        except (ValueError, KeyError, TypeError) as error:
            raise BundleError(
                f"{where} is not a bundle manifest ({error}); export the model again"
            ) from error
        if schema not in READABLE:
            raise BundleError(
                f"{where} has schema {schema}, this version of fozo reads schema "
                f"{READABLE[0]} to {READABLE[-1]}; "
                "export the model again, or install the version of fozo that wrote it"
            )
        try:
            return _parse(raw, where)
        except RecordError as error:
            raise BundleError(f"{error}; export the model again") from error


def _parse(raw: Mapping[str, Any], where: Path) -> Manifest:
    """Return the manifest of a JSON object, its values checked.

    Raises:
        RecordError: a field is missing or of the wrong kind, or two of them contradict each other.
    """
    if (text := _find_controls(raw)) is not None:
        raise RecordError(f"{where}: expected plain text, found control characters in {text!r}")
    names = [field.name for field in fields(Manifest)]
    data = {name: raw[name] for name in names if name in raw}  # others may come from later versions
    if raw["schema"] == 1:
        data |= {"norms": {}, "feature_widths": []}
    data.setdefault("activations", [])  # bundles of earlier versions
    data.setdefault("pull_backs", {})  # bundles without gradients, and those of earlier versions
    data.setdefault("head", HEAD_FILE)  # and there it always had this name
    data |= {name: data.get(name) for name in ("patch_mean", "patch_std")}
    if raw["schema"] < TEXT_SCHEMA:
        data |= {"text": None, "heads": {}}
    for name in names:  # defaults are for the code that makes bundles, not for files
        if name not in data:
            raise RecordError(f"{where}: {name}: expected this field, found nothing")
    manifest = load_record(Manifest, data, where)
    if problem := manifest.find_contradiction():
        raise RecordError(f"{where}: {problem}")
    return manifest


def _find_controls(value: Any) -> str | None:
    """Return the first text of JSON data with control characters, which terminals obey, or None."""
    if isinstance(value, str):
        return value if has_controls(value) else None
    items = [*value, *value.values()] if isinstance(value, Mapping) else value
    if not isinstance(items, list):
        return None
    return next((text for item in items if (text := _find_controls(item)) is not None), None)


def _find_contradiction(manifest: Manifest) -> str | None:
    for name, labels in (("class_ids", manifest.class_ids), ("class_names", manifest.class_names)):
        if labels is not None and len(labels) != manifest.classes:
            return f"{name}: expected {manifest.classes} entries, one per class, found {len(labels)}"
    if "fp32" not in manifest.graphs:
        return f"graphs: expected an fp32 graph, found {', '.join(manifest.graphs) or 'none'}"
    bound = manifest.prompt_bound
    if bound < 0 or (bound == 0 and PROMPTS in manifest.tunables):
        least = "above 0 for its prompts" if PROMPTS in manifest.tunables else "of at least 0"
        return f"prompt_bound: expected a number {least}, found {bound}"
    widths = manifest.feature_widths
    if widths and (
        len(widths) != manifest.layers or not 0 < min(widths) <= max(widths) <= manifest.feature_width
    ):
        return (
            f"feature_widths: expected {manifest.layers} widths, one per layer, in "
            f"1..{manifest.feature_width}, found {list(widths)}"
        )
    if problem := _find_contradiction_of_activations(manifest):
        return f"activations: {problem}"
    names = [graph.file for graph in manifest.graphs.values()]
    names += [source.file for source in manifest.source.values()]
    names += [graph.file for graph in manifest.pull_backs.values()]
    names += [manifest.head] if manifest.head != HEAD_FILE else []
    names += [head.file for head in manifest.heads.values()]
    names += [manifest.text.file, manifest.text.vocabulary] if manifest.text else []
    names += manifest.encoders
    unlisted = [name for name in names if name not in manifest.files]
    if unlisted:
        return f"files: expected an entry for {unlisted[0]}, found none"
    if manifest.text is None:
        return "heads: expected none without a text graph" if manifest.heads else None
    if manifest.head_name is None:
        return f"head: expected the file of one of the heads, found {manifest.head}"
    if manifest.preprocessing.frame or manifest.heads[manifest.head_name].image_prompt is not None:
        return f"head: expected one that leaves images as they are, found {manifest.head_name}"
    return find_contradiction_of_text(manifest.text, manifest.feature_width) or next(
        (
            f"heads: {name}: {problem}"
            for name, head in manifest.heads.items()
            if (problem := find_contradiction_of_head(head) or _find_lacking_tunable(manifest, head))
        ),
        None,
    )


def _find_contradiction_of_activations(manifest: Manifest) -> str | None:
    blocks = manifest.layers - (manifest.text is not None)  # there, the last layer is the image embedding
    for item in manifest.activations:
        split = item.width % item.heads if item.heads > 0 else item.heads
        if item.kind not in ACTIVATION_KINDS or not 0 <= item.block < blocks or item.width < 1 or split:
            return (
                f"expected one of {', '.join(ACTIVATION_KINDS)} of a block in 0..{blocks - 1}, with at least "
                f"one channel and as many in every head, found {item}"
            )
    counts = Counter(item.tensor for item in manifest.activations)
    repeated = next((tensor for tensor, count in counts.items() if count > 1), None)
    return repeated and f"expected every tensor once, found {repeated} {counts[repeated]} times"


def _find_lacking_tunable(manifest: Manifest, head: HeadEntry) -> str | None:
    """Return that the graphs have no input for what a head adds to the images, or None."""
    prompt = head.image_prompt
    if prompt is None:
        return None
    has_pixels = prompt.pixels or prompt.coordinator is not None
    inputs = [PIXELS] * has_pixels + [PROMPTS] * bool(prompt.prompts)
    lacking = [name for name in inputs if name not in manifest.tunables]
    if lacking:
        return f"expected graphs with the input {lacking[0]}, found {', '.join(manifest.tunables) or 'none'}"
    return None
