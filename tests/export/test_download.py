"""Downloads of pretrained weights: announced, or refused within seconds."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest
from fozo.engine.errors import ExportError

pytest.importorskip("torch", reason="export needs PyTorch")
pytest.importorskip("timm", reason="export needs timm")
from fozo.export import download
from fozo.export.model_request import Request

MODEL = "vit_tiny_patch16_224"


def offline(*arguments: Any, **options: Any) -> Any:
    raise OSError(101, "Network is unreachable")


@pytest.fixture(autouse=True)
def _nothing_cached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "try_to_load_from_cache", lambda *names, **options: None)
    monkeypatch.setattr(download, "getproxies", dict)
    monkeypatch.setattr(download.constants, "HF_HUB_OFFLINE", False)


def test_without_a_network_the_error_comes_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download.socket, "create_connection", offline)
    with pytest.raises(
        ExportError, match=r"vit_tiny.* cannot be reached \(Network is unreachable\).*--weights"
    ):
        download.announce_download(Request(MODEL))


def test_offline_mode_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ExportError, match="HF_HUB_OFFLINE forbids"):
        download.announce_download(Request(MODEL))


def test_what_is_downloaded_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    ends = socket.socketpair()
    monkeypatch.setattr(download.socket, "create_connection", lambda address, timeout: ends[0])
    note = download.announce_download(Request(MODEL))
    ends[1].close()
    assert note is not None and note.startswith(f"Downloading timm's pretrained weights of {MODEL}, timm/")


@pytest.mark.parametrize("options", [{}, {"random": True}, {"weights": Path("w.pt")}])
def test_models_of_the_hub_need_its_settings_too(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """huggingface_hub tried five times, for half a minute, and said so on five lines."""
    monkeypatch.setattr(download.socket, "create_connection", offline)
    request = Request("hf-hub:owner/name", **options)
    with pytest.raises(ExportError, match="the files of hf-hub:owner/name are not on this machine"):
        download.announce_download(request)
    cached = ["config.json"] if options else ["config.json", "model.safetensors"]

    def look_up(repository: str, file: str, **ignored: Any) -> str | None:
        return file if repository == "owner/name" and file in cached else None

    monkeypatch.setattr(download, "try_to_load_from_cache", look_up)
    assert download.announce_download(request) is None


def test_a_proxy_is_left_to_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "getproxies", lambda: {"https": "a", "http": "b"})
    monkeypatch.setattr(download.socket, "create_connection", offline)
    assert download.announce_download(Request(MODEL)) is not None


@pytest.mark.parametrize(
    "request_", [Request(MODEL, random=True), Request(MODEL, weights=Path("x")), Request("fozo_demo_vit")]
)
def test_nothing_is_downloaded_where_weights_are_here(
    request_: Request, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download.socket, "create_connection", offline)
    assert download.announce_download(request_) is None


def test_a_copy_on_this_machine_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "try_to_load_from_cache", lambda *names, **options: "/some/file")
    monkeypatch.setattr(download.socket, "create_connection", offline)
    assert download.announce_download(Request(MODEL)) is None
