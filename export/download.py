"""The download of timm's pretrained weights: announced first, and refused at once without a network."""

from __future__ import annotations

import socket
from urllib.parse import urlsplit
from urllib.request import getproxies

import timm
from huggingface_hub import constants, try_to_load_from_cache

from ..engine.errors import ExportError
from .demo_model import DEMO_MODEL
from .model_request import Request

_TIMEOUT = 5.0  # seconds
_FILES = ("model.safetensors", "pytorch_model.bin")


def announce_download(request: Request) -> str | None:
    """Return a sentence on what an export will download; None if it downloads nothing that is known.

    Raises:
        ExportError: the server cannot be reached. timm itself would try for more than a minute.
    """
    repository = _find_repository(request)
    if repository is None:
        return None
    name, _, revision = repository.partition("@")
    copies = (try_to_load_from_cache(name, file, revision=revision or None) for file in _FILES)
    if any(isinstance(copy, str) for copy in copies):
        return None
    check_server(request.model)
    return (
        f"Downloading timm's pretrained weights of {request.model}, {name}; they are kept for the next time …"
    )


def check_server(model: str) -> None:
    """Connect to the server of pretrained weights, unless a proxy stands between.

    Raises:
        ExportError: that takes more than a few seconds, or fails.
    """
    address = urlsplit(constants.ENDPOINT)
    advice = "give the weights as a file with --weights, or repeat the command where there is a network"
    if constants.HF_HUB_OFFLINE:
        raise ExportError(
            f"timm's pretrained weights of {model} are not on this machine, and HF_HUB_OFFLINE forbids to "
            f"download them; {advice}"
        )
    if address.hostname is None or address.scheme in getproxies():
        return
    port = address.port or (80 if address.scheme == "http" else 443)
    try:
        socket.create_connection((address.hostname, port), timeout=_TIMEOUT).close()
    except OSError as error:
        raise ExportError(
            f"timm's pretrained weights of {model} are not on this machine, and {address.hostname}, which "
            f"has them, cannot be reached ({error.strerror or error}); {advice}"
        ) from error


def _find_repository(request: Request) -> str | None:
    """Return the repository that timm downloads the weights of a request from, if it does."""
    if request.random or request.weights_file is not None or request.model == DEMO_MODEL:
        return None
    if not timm.is_model(request.model):
        return None  # the export says so
    repository = getattr(timm.get_pretrained_cfg(request.model), "hf_hub_id", None)
    return repository if isinstance(repository, str) else None
