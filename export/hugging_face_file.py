"""Files of settings that Hugging Face's transformers writes beside weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..engine.errors import ExportError, reason
from ..engine.ordinary_files import read_json

_MAX_BYTES = 1 << 20


def read_settings(path: Path) -> dict[str, Any] | None:
    """Read a file of settings; None if there is none.

    Raises:
        ExportError: it is no JSON object, or larger than such files are.
    """
    if not path.is_file():
        return None
    try:
        content = read_json(path, _MAX_BYTES)
    except (OSError, ValueError) as error:
        raise ExportError(
            f"{path}, which lies beside the weights, cannot be used: {reason(error)}; mend it, or move "
            "it away"
        ) from error
    if not isinstance(content, dict):
        raise ExportError(
            f"{path}, which lies beside the weights: expected a JSON object, found {type(content).__name__}; "
            "mend it, or move it away"
        )
    return content
