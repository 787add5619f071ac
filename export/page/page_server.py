"""A server of static files for this machine, with the headers that threads of WebAssembly need."""

from __future__ import annotations

import os
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from ...engine.errors import OutputError, reason

ADDRESS = "127.0.0.1"
# Browsers share memory between threads only in pages that are isolated from others.
HEADERS = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}

# The tables of some systems lack these, and browsers refuse scripts of other types.
TYPES = {
    ".js": "text/javascript",
    ".mjs": "text/javascript",
    ".wasm": "application/wasm",
    ".json": "application/json",
}


class PageHandler(SimpleHTTPRequestHandler):
    """Answers with files of one folder."""

    def __init__(self, *arguments: Any, isolated: bool = True, **options: Any) -> None:
        self._isolated = isolated
        super().__init__(*arguments, **options)

    def end_headers(self) -> None:
        """Add the headers."""
        for name, value in HEADERS.items():
            if self._isolated or not name.startswith("Cross-Origin"):
                self.send_header(name, value)
        super().end_headers()

    def guess_type(self, path: str | os.PathLike[str]) -> str:
        """Return the type of a file."""
        return TYPES.get(Path(path).suffix) or super().guess_type(path)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Stay silent."""


def open_server(folder: Path, port: int = 0, *, isolated: bool = True) -> ThreadingHTTPServer:
    """Return a server of a folder, for this machine only, that waits for `serve_forever`.

    Args:
        folder: the files.
        port: a number, or 0 for any that is free.
        isolated: send the headers that threads need.

    Raises:
        OutputError: the port is in use.
    """
    handler = partial(PageHandler, directory=str(folder), isolated=isolated)
    try:
        return ThreadingHTTPServer((ADDRESS, port), handler)
    except (OSError, OverflowError) as error:
        raise OutputError(
            f"cannot serve at port {port}: {reason(error)}; name another with --port"
        ) from error
