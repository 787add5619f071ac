"""CLIP models to export: what a request asks for, and the model of open_clip with its weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import open_clip
from open_clip.tokenizer import SimpleTokenizer, default_bpe
from open_clip.transform import PreprocessCfg, merge_preprocess_dict

from ..engine.errors import ExportError
from ..engine.files import hash_file
from .clip_activation import SETTINGS_FILE, Activation, decide_activation
from .clip_configuration import create_clip, find_configuration, read_clip_settings
from .clip_weights import load_clip_weights, read_clip_weights
from .image_format import ImageOptions
from .open_clip_blocks import require
from .weights import LoadedWeights

_LARGE = 1e6  # beyond any mean of pixels between 0 and 1


@dataclass(frozen=True)
class ClipRequest:
    """Request of an export of a CLIP model.

    Attributes:
        model: name of a configuration of open_clip, such as `ViT-B-16`.
        weights: a file; None only with `random`.
        random: random weights instead: for speed measurements and tests.
        activation: one of `engine.names.ACTIVATIONS`; None where file or model tell it.
        classes_file: names of the first classes, one per line; None takes ImageNet's.
        templates: texts with `{}` for the name of a class; several are averaged, none is the usual one.
        norms: blocks, counted from 0, whose norms become tunable; None is all of them.
        gradients: add a pull-back graph, which methods that are not forward-only need.
        pixels: make an addend to the images tunable, too.
        weights_key: dictionary of the file that holds the weights, or prefix of their names.
        images: preparation of images where it differs from open_clip's.
    """

    model: str
    weights: Path | None = None
    random: bool = False
    activation: str | None = None
    classes_file: Path | None = None
    templates: tuple[str, ...] = ()
    norms: tuple[int, ...] | None = None
    gradients: bool = False
    pixels: bool = False
    weights_key: str | None = None
    images: ImageOptions = field(default_factory=ImageOptions)


@dataclass(frozen=True)
class ClipSource:
    """A CLIP model with its weights.

    Attributes:
        name: of the model.
        model: open_clip's model, in eval mode.
        vocabulary: file of the tokenizer's vocabulary.
        start: id of its start token.
        activation: activation of both towers, and what decided it.
        images: preparation of images, as timm's configurations have it.
        weights: where the weights come from.
        options: names of the options that changed the preparation of images.
        settings_file: name of the file of settings that was read, or empty.
        settings_sha256: its hash, or empty.
        notes: what a reader of the export should check, in sentences.
    """

    name: str
    model: Any
    vocabulary: Path
    start: int
    activation: Activation
    images: Mapping[str, Any]
    weights: LoadedWeights
    options: tuple[str, ...] = ()
    settings_file: str = ""
    settings_sha256: str = ""
    notes: tuple[str, ...] = ()


def prepare_clip(request: ClipRequest) -> ClipSource:
    """Create the model that a request asks for, and load its weights.

    Raises:
        ExportError: open_clip does not know it, it cannot be exported, its weights do not fit, or nothing
            tells their activation.
    """
    _check_together(request)
    configuration = find_configuration(request.model)
    file = None if request.weights is None else read_clip_weights(request.weights, request.weights_key)
    settings = read_clip_settings(request.weights, configuration)
    activation = decide_activation(
        request.model,
        configuration,
        asked=request.activation,
        openai_layout=file is not None and file.openai_layout,
        settings=settings,
        random=request.random,
    )
    model = create_clip(configuration, activation.name)
    weights = LoadedWeights("random")
    if file is not None:
        weights = load_clip_weights(model, request.model, file)
    tokenizer = _find_tokenizer(request.model)
    notes = list(weights.notes)
    if file is not None and settings is None and not file.openai_layout and not request.images.given:
        notes.append(
            "the file does not tell how its images were prepared, so mean, std and interpolation are those "
            f"of OpenAI's models; some others need --mean 0.5 --std 0.5. open_clip's {SETTINGS_FILE} beside "
            "the weights would tell"
        )
    return ClipSource(
        name=request.model,
        model=model,
        vocabulary=Path(default_bpe()),
        start=int(tokenizer.sot_token_id),
        activation=activation,
        images=resolve_images(model, settings, request.images),
        weights=weights,
        options=tuple(sorted(request.images.given)),
        **_describe_settings(request.weights if settings is not None else None),
        notes=tuple(notes),
    )


def _check_together(request: ClipRequest) -> None:
    if request.weights is not None and request.random:
        raise ExportError(
            f"expected random weights or those of {request.weights}, found both; leave one of them out"
        )
    if request.weights is None and not request.random:
        raise ExportError(
            "--clip needs --weights FILE: OpenAI's archive, or what open_clip has saved; or --random-weights "
            "to measure speed"
        )
    if request.weights_key is not None and request.weights is None:
        raise ExportError("--weights-key goes with --weights FILE")


def _describe_settings(weights: Path | None) -> dict[str, str]:
    """Return name and hash of the file of settings beside weights."""
    if weights is None:
        return {}
    digest = hash_file(weights.parent / SETTINGS_FILE)
    return {"settings_file": SETTINGS_FILE, "settings_sha256": digest}


def _find_tokenizer(name: str) -> SimpleTokenizer:
    """Return open_clip's tokenizer of a model, if it is the one that fozo has."""
    tokenizer = open_clip.get_tokenizer(name)
    require(
        type(tokenizer) is SimpleTokenizer and tokenizer.reduction_fn is None,
        f"has a {type(tokenizer).__name__} as tokenizer, not CLIP's",
    )
    return tokenizer


def resolve_images(model: Any, settings: Mapping[str, Any] | None, options: ImageOptions) -> dict[str, Any]:
    """Return the preparation of images: the options, then the file of settings, then open_clip's default."""
    described = (settings or {}).get("preprocess_cfg") or {}
    if not isinstance(described, dict):
        raise ExportError(f"{SETTINGS_FILE}: expected an object as preprocess_cfg, found {described!r}")
    prepared = merge_preprocess_dict(PreprocessCfg(), described)
    if prepared["resize_mode"] != "shortest":
        raise ExportError(
            f"images of this model are resized by open_clip's mode {prepared['resize_mode']!r}; fozo knows "
            "shortest"
        )
    height, width = model.visual.image_size
    defaults = {
        "input_size": (3, int(height), int(width)),
        "mean": _read_channels(prepared, "mean"),
        "std": _read_channels(prepared, "std"),
        "interpolation": prepared["interpolation"],
        "crop_pct": 1.0,
        "crop_mode": "center",
    }
    given = options.given
    for name in ("mean", "std"):
        if len(given.get(name, ())) == 1:
            given[name] = given[name] * 3
    return {**defaults, **given}


def _read_channels(prepared: Mapping[str, Any], name: str) -> tuple[float, ...]:
    """Return mean or standard deviation of a configuration, a number for each channel."""
    values = prepared[name]
    if not isinstance(values, list | tuple) or len(values) != 3 or not all(map(_is_ordinary, values)):
        raise ExportError(f"{SETTINGS_FILE}: expected three ordinary numbers as {name}, found {values!r}")
    if name == "std" and min(values) <= 0:
        raise ExportError(f"{SETTINGS_FILE}: expected numbers above 0 as std, found {values!r}")
    return tuple(map(float, values))


def _is_ordinary(value: Any) -> bool:
    return type(value) in (int, float) and -_LARGE < value < _LARGE
