"""Weights of CLIP models: OpenAI's archives, and what open_clip writes."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from open_clip.pretrained import get_pretrained_url

from ..engine.errors import ExportError, reason
from .checkpoint_file import State, holds_its_values, is_torchscript
from .weights import LoadedWeights, join_names, refuse_integers, select_states
from .weights_files import check_weights, read_weights
from .weights_fit import Fit, fit_state

# Entries beside the weights that OpenAI's releases have, and nothing else.
_OPENAI_ENTRIES = ("input_resolution", "context_length", "vocab_size")
# Besides, archives of traced models have the causal mask, which is no weight.
_NO_WEIGHTS = (*_OPENAI_ENTRIES, "attn_mask")


@dataclass(frozen=True)
class ClipWeightsFile:
    """A file of weights, read but not loaded.

    Attributes:
        path: the file.
        sha256: its hash.
        states: its state dicts by name.
        is_program: whether it is a TorchScript archive.
        openai_layout: whether it has the entries that only OpenAI's releases have.
    """

    path: Path
    sha256: str
    states: dict[str, State]
    is_program: bool
    openai_layout: bool


def read_clip_weights(path: Path, key: str | None = None) -> ClipWeightsFile:
    """Read a file of weights.

    Args:
        path: a TorchScript archive as OpenAI released them, `.safetensors`, or anything that
            `torch.load(weights_only=True)` reads.
        key: name of a dictionary in the file, or the prefix of some of its names; None takes what fits.

    Raises:
        ExportError: it cannot be read.
    """
    digest = check_weights(path)
    is_program = is_torchscript(path)
    states = {"": _read_torchscript(path)} if is_program else read_weights(path)
    if key is not None:
        states = select_states(states, key, path)
    openai = any(all(entry in state for entry in _OPENAI_ENTRIES) for state in states.values())
    kept = {
        name: {tensor: value for tensor, value in state.items() if tensor not in _NO_WEIGHTS}
        for name, state in states.items()
    }
    return ClipWeightsFile(path, digest, kept, is_program, openai)


def _read_torchscript(path: Path) -> State:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # PyTorch has better formats for new files
            return dict(torch.jit.load(path, map_location="cpu").state_dict())
    except Exception as error:  # damaged archives make PyTorch raise nearly anything
        raise ExportError(
            f"{path} cannot be read as a TorchScript archive: {reason(error)}; download it again"
        ) from error


def load_clip_weights(model: Any, name: str, file: ClipWeightsFile) -> LoadedWeights:
    """Load a file into a model in place.

    Args:
        model: receives the weights.
        name: its name in open_clip.
        file: the file.

    Raises:
        ExportError: its keys or shapes are not those of the model, or several of its dictionaries fit.
    """
    fits = {key: fit_state(model, _shape_scale(state, model)) for key, state in file.states.items()}
    fitting = [key for key, fit in fits.items() if fit.complete]
    if len(fitting) > 1:
        raise ExportError(
            f"{file.path} holds weights of {name} under several names: {join_names(fitting)}; choose with "
            "--weights-key NAME"
        )
    if not fitting:
        raise ExportError(_explain_misfit(fits, model, name, file))
    fit = fits[fitting[0]]
    if not all(map(holds_its_values, fit.state.values())):
        raise ExportError(f"{file.path} declares tensors that are longer than what it holds; save it again")
    refuse_integers(fit.state, model, file.path)
    model.load_state_dict(fit.state)
    origin = ".".join(filter(None, [fitting[0], fit.prefix.rstrip(".")]))
    described = f"{file.path.name}, SHA-256 {file.sha256}{f', {origin}' if origin else ''}"
    weights = LoadedWeights(described, file.sha256, origin)
    if f"/{file.sha256}/" in (get_pretrained_url(name, "openai") or ""):
        return replace(weights, description=f"OpenAI's {described}")
    if not file.is_program:
        return weights
    note = (
        f"{file.path.name} is a TorchScript archive, a program that PyTorch has loaded, and its SHA-256 is "
        f"not that of OpenAI's {name}; use such files only from people you trust"
    )
    return replace(weights, notes=(note,))


def _shape_scale(state: State, model: Any) -> State:
    """Return a state whose logit scale has the model's axes: one number, with an axis or without."""
    expected = model.state_dict()
    for key, value in state.items():
        if key.rpartition(".")[2] == "logit_scale" and value.numel() == 1:
            return {**state, key: value.reshape(expected["logit_scale"].shape)}
    return state


def _explain_misfit(fits: dict[str, Fit], model: Any, name: str, file: ClipWeightsFile) -> str:
    key, fit = min(fits.items(), key=lambda item: item[1].problems)
    where = f"{file.path}, {key}," if key else f"{file.path}"
    advice = "name the model it was made for with --clip"
    if any(tensor.startswith(("text_model.", "vision_model.")) for tensor in fit.state):
        advice = (
            "it has the names of Hugging Face's transformers, and open_clip names its tensors differently; "
            "take the weights that open_clip or OpenAI published"
        )
    elif not any("visual." in tensor for tensor in fit.state):
        advice = "it has no image tower that open_clip names visual; give the weights of a whole CLIP model"
    return f"{where} does not hold the weights of {name}: {fit.describe(model)}; {advice}"
