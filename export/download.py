"""The download of timm's pretrained weights: announced first, and refused at once without a network."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from urllib.parse import urlsplit
from urllib.request import getproxies

import timm
from huggingface_hub import constants, try_to_load_from_cache

from ..data.demo import DEMO_MODEL
from ..engine.errors import ExportError, reason
from .model_request import Request

_TIMEOUT = 5.0  # seconds
_FILES = ("model.safetensors", "pytorch_model.bin")
_SETTINGS = "config.json"
_HUB = "hf-hub:"


def announce_download(request: Request) -> str | None:
    """Return a sentence on what an export will download; None if it downloads nothing that is known.

    Raises:
        ExportError: the server cannot be reached. timm itself would try for more than a minute.
    """
    repository = _find_repository(request)
    if repository is None:
        return None
    takes_weights = not request.random and request.weights_file is None
    on_hub = request.model.startswith(_HUB)  # where timm reads the architecture, too
    if all(_has_copy(repository, files) for files in [(_SETTINGS,)] * on_hub + [_FILES] * takes_weights):
        return None
    files = f"the files of {request.model}" if on_hub else f"timm's pretrained weights of {request.model}"
    check_server(files)
    place = "" if on_hub else f", {repository.partition('@')[0]}"
    return f"Downloading {files}{place}; they are kept for the next time …"


def _has_copy(repository: str, files: Sequence[str]) -> bool:
    """Return whether one of these files of a repository is on this machine."""
    name, _, revision = repository.partition("@")
    copies = (try_to_load_from_cache(name, file, revision=revision or None) for file in files)
    return any(isinstance(copy, str) for copy in copies)


def check_server(files: str) -> None:
    """Connect to the server of pretrained weights, unless a proxy stands between.

    Args:
        files: the files that are needed, in words.

    Raises:
        ExportError: that takes more than a few seconds, or fails.
    """
    address = urlsplit(constants.ENDPOINT)
    advice = "give the weights as a file with --weights, or repeat the command where there is a network"
    if constants.HF_HUB_OFFLINE:
        raise ExportError(
            f"{files} are not on this machine, and HF_HUB_OFFLINE forbids to download them; {advice}"
        )
    if address.hostname is None or address.scheme in getproxies():
        return
    port = address.port or (80 if address.scheme == "http" else 443)
    try:
        socket.create_connection((address.hostname, port), timeout=_TIMEOUT).close()
    except OSError as error:
        raise ExportError(
            f"{files} are not on this machine, and {address.hostname}, which has them, cannot be reached "
            f"({reason(error)}); {advice}"
        ) from error


def _find_repository(request: Request) -> str | None:
    """Return the repository that timm downloads the files of a request from, if it does."""
    if request.model.startswith(_HUB):
        return request.model.removeprefix(_HUB)
    if request.random or request.weights_file is not None or request.model == DEMO_MODEL:
        return None
    if not timm.is_model(request.model):
        return None  # the export says so
    repository = getattr(timm.get_pretrained_cfg(request.model), "hf_hub_id", None)
    return repository if isinstance(repository, str) else None
