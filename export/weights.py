"""Loading of weights files into timm models; every tensor must fit, and what was chosen is said."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from timm.models.vision_transformer import VisionTransformer

from ..engine.errors import ExportError
from .checkpoint_file import State
from .foreign_names import name_foreign_format
from .google_weights import load_google_weights
from .hugging_face_weights import SETTINGS, lacks_second_classifier, map_names, take_settings
from .weights_files import check_weights, read_weights
from .weights_fit import Fit, count_pixels, fit_state

# Moving averages of the weights, and the plain weights that they lie beside: the averages are the weights
# that timm and DeiT evaluate, and that timm's loader takes.
_AVERAGES = {"state_dict_ema": "state_dict", "model_ema": "model"}


@dataclass(frozen=True)
class LoadedWeights:
    """Weights of a model, and where they come from.

    Attributes:
        description: in words.
        sha256: of the file, or of all tensors where timm loaded them; empty for random ones.
        key: dictionary of the file that holds them, and prefix of their names; empty if there is neither.
        own_classes: the classes are the user's, so nothing is known of their names.
        notes: what was chosen or changed, in sentences.
        settings: `config.json` of transformers beside weights with its names, whether it exists or not; None
            beside others.
    """

    description: str
    sha256: str = ""
    key: str = ""
    own_classes: bool = True
    notes: tuple[str, ...] = ()
    settings: Path | None = None


def load_weights(model: Any, path: Path, key: str | None = None, *, resample: bool = False) -> LoadedWeights:
    """Load a file into a model in place.

    Args:
        model: receives the weights.
        path: `.safetensors`, Google's `.npz`, anything that `torch.load(weights_only=True)` reads, or an
            index of several such files, with timm's names, or those of Hugging Face's transformers for ViT
            and DeiT.
        key: name of a dictionary in the file, or the prefix of some of its names; None takes what fits.
        resample: resample position embeddings of another image size, as timm does.

    Raises:
        ExportError: the file cannot be read, its keys or shapes are not those of the model, or several of its
            dictionaries fit.
    """
    digest = check_weights(path)
    if path.suffix == ".npz":
        if key is not None:
            raise ExportError(f"--weights-key is for checkpoints of PyTorch, and {path} is an .npz file")
        notes = load_google_weights(model, path, resample=resample)
        return LoadedWeights(f"{path.name}, SHA-256 {digest}", digest, notes=notes)
    states = read_weights(path)
    if key is not None:
        states = select_states(states, key, path)
    mapped = _map_states(states, model)
    fits = {name: fit_state(model, state, resample=resample) for name, state in {**states, **mapped}.items()}
    name, notes = _choose(fits, path, model, states, mapped)
    refuse_integers(fits[name].state, model, path)
    model.load_state_dict(fits[name].state)
    if name in mapped:
        notes = (*notes, *take_settings(model, path))
    origin = ".".join(filter(None, [name, fits[name].prefix.rstrip(".")]))
    described = f"{path.name}, SHA-256 {digest}{f', {origin}' if origin else ''}"
    settings = path.with_name(SETTINGS) if name in mapped else None
    return LoadedWeights(described, digest, origin, notes=(*notes, *fits[name].notes), settings=settings)


def _map_states(states: Mapping[str, State], model: Any) -> dict[str, State]:
    """Return the states with names of Hugging Face's transformers, under timm's names."""
    if not isinstance(model, VisionTransformer):
        return {}
    named = {name: map_names(state) for name, state in states.items()}
    return {name: state for name, state in named.items() if state is not None}


def refuse_integers(state: State, model: Any, path: Path) -> None:
    """Refuse quantised weights: without their scales they would be taken for the numbers themselves."""
    for name, expected in model.state_dict().items():
        if expected.is_floating_point() and not state[name].is_floating_point():
            raise ExportError(
                f"{path}: expected weights in floating point, found {name} of {state[name].dtype}: quantised "
                "weights mean nothing without their scales; give the weights that they were made from, and "
                "quantise the bundle with fozo quantize"
            )


def select_states(states: Mapping[str, State], key: str, path: Path) -> dict[str, State]:
    """Return the dictionary of this name, or the tensors of one whose names begin with it."""
    if key in states:
        return {key: states[key]}
    for name, state in states.items():
        start = f"{key.removeprefix(f'{name}.') if name else key}."
        if selected := {tensor: value for tensor, value in state.items() if tensor.startswith(start)}:
            return {name: selected}
    raise ExportError(
        f"{path} has no {key!r}; --weights-key names one of its dictionaries, {join_names(states)}, or the "
        "beginning of some of their names"
    )


def _choose(
    fits: Mapping[str, Fit],
    path: Path,
    model: Any,
    states: Mapping[str, State],
    mapped: Mapping[str, State],
) -> tuple[str, tuple[str, ...]]:
    """Return the name of the dictionary to load, and what must be said about the choice."""
    fitting = [name for name, fit in fits.items() if fit.complete]
    if not fitting:
        raise ExportError(_explain_misfit(fits, path, model, states, mapped))
    if len(fitting) == 1:
        return fitting[0], ()
    averages = [name for name in fitting if _AVERAGES.get(name) in fitting]
    if len(averages) == 1 and len(fitting) == 2:
        plain = _AVERAGES[averages[0]]
        return averages[0], (
            f"{path.name} holds {averages[0]}, a moving average of the weights, and {plain}, the plain ones; "
            f"the average was taken, as timm does. For the others, give --weights-key {plain}",
        )
    raise ExportError(
        f"{path} holds weights of this model under several names: {join_names(fitting)}; choose with "
        "--weights-key NAME"
    )


def _explain_misfit(
    fits: Mapping[str, Fit],
    path: Path,
    model: Any,
    states: Mapping[str, State],
    mapped: Mapping[str, State],
) -> str:
    name, fit = min(fits.items(), key=lambda item: item[1].problems)
    where = f"{path}, {name}" if name else f"{path}"
    if name in mapped:
        where += ", with the names of Hugging Face's transformers mapped to timm's,"
    elif foreign := name_foreign_format([tensor for state in states.values() for tensor in state]):
        return f"{path} holds {foreign}"
    advice = "give the model it was made for with --model, --num-classes and --image-size"
    if name in mapped and lacks_second_classifier(fit.state):
        advice = (
            "it has a distillation token but one classifier, which reads the class token alone, and timm has "
            "no such model; train one with two classifiers (DeiTForImageClassificationWithTeacher)"
        )
    elif fit.misshapen == ("pos_embed",) and isinstance(model, VisionTransformer):
        old, (new, _) = count_pixels(model, fit.state["pos_embed"].shape[1]), model.patch_embed.img_size
        if old is not None and not (fit.missing or fit.unexpected):
            advice = (
                f"it was made for images of {old} × {old} pixels: give --image-size {old} for such images, "
                f"or --image-size {new} to resample its position embeddings for images of {new} × {new}"
            )
    return f"{where} does not hold the weights of this model: {fit.describe(model)}; {advice}"


def join_names(names: Mapping[str, State] | list[str]) -> str:
    """Return the names of dictionaries of a file, for messages."""
    return ", ".join(name or "the file itself" for name in names)
