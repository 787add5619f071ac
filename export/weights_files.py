"""Files of weights: in a folder, or in several with an index, as Hugging Face's libraries write them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..engine.errors import ExportError, reason
from ..engine.files import hash_file, hash_texts
from ..engine.ordinary_files import check_ordinary, read_json
from .checkpoint_file import State, check_archive, read_states

# In the order in which transformers and open_clip look for them.
TRANSFORMERS_NAMES = ("model.safetensors", "pytorch_model.bin")
OPEN_CLIP_NAMES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
_INDEX = ".index.json"
_SHARD = re.compile(r"(.+)-\d{5}-of-(\d{5})(\.safetensors|\.bin)")
_MAX_INDEX_BYTES = 1 << 26
_MAX_SHARDS = 1000


def locate_weights(path: Path, names: Sequence[str] = TRANSFORMERS_NAMES) -> Path:
    """Return the file of weights in a folder, or the index of several; a file stands for itself.

    Args:
        path: the folder or file.
        names: of files, the preferred first.

    Raises:
        ExportError: the folder has none of the usual names.
    """
    if not path.is_dir():
        return path
    candidates = [path / f"{name}{end}" for name in names for end in ("", _INDEX)]
    for candidate in candidates:
        if candidate.exists():
            return candidate
    raise ExportError(
        f"expected {', '.join(candidate.name for candidate in candidates[:-1])} or {candidates[-1].name} in "
        f"{path}, found none of them; name the file of the weights"
    )


def check_weights(path: Path) -> str:
    """Check that files can be opened, and return their SHA-256.

    That of several files is the SHA-256 of the list of their hashes, the index first.

    Raises:
        ExportError: a file is missing, no ordinary file, would unpack to many times its size, or is one of
            several.
    """
    _check_file(path)
    if _is_index(path):
        shards = [path.with_name(name) for name in sorted({*_read_index(path).values()})]
        for shard in shards:
            _check_file(shard)
        return hash_texts(*map(hash_file, [path, *shards]))
    match = _SHARD.fullmatch(path.name)
    if match is not None and int(match[2]) != 1:
        raise ExportError(
            f"{path} is one of {int(match[2])} files that hold the weights together; give the index beside "
            f"them, {match[1]}{match[3]}{_INDEX}, or their folder"
        )
    return hash_file(path)


def read_weights(path: Path) -> dict[str, State]:
    """Read all state dicts of a file, or the one of several files with an index.

    Raises:
        ExportError: a file cannot be read or holds no state dict, or the index does not fit its files.
    """
    if not _is_index(path):
        return read_states(path)
    places = _read_index(path)
    state: State = {}
    for shard in sorted({*places.values()}):
        tensors = _read_shard(path.with_name(shard))
        expected = {name for name, place in places.items() if place == shard}
        if different := sorted(expected ^ tensors.keys()):
            where = "only in the index" if different[0] in expected else "only in the file"
            raise ExportError(
                f"{path} does not fit {shard}: {different[0]} is {where}; both must be of one model, so "
                "download or save all files again"
            )
        state |= tensors
    return {"": state}


def _is_index(path: Path) -> bool:
    return path.name.endswith(_INDEX)


def _check_file(path: Path) -> None:
    try:
        check_ordinary(path)
    except OSError as error:
        raise ExportError(f"cannot read the weights {path}: {reason(error)}") from error
    check_archive(path)


def _read_index(path: Path) -> dict[str, str]:
    """Return the name of the file that holds each tensor.

    Raises:
        ExportError: it is no index, or names files in other folders.
    """
    try:
        content = read_json(path, _MAX_INDEX_BYTES)
    except (OSError, ValueError) as error:
        raise ExportError(f"{path} cannot be read as an index of weights: {reason(error)}") from error
    places: Any = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(places, dict) or not places or not all(map(_is_plain_name, places.values())):
        raise ExportError(
            f"{path} is no index of weights: expected weight_map with the file of each tensor, a name "
            "without folders; download or save it again"
        )
    if len({*places.values()}) > _MAX_SHARDS:
        raise ExportError(f"{path} names more than {_MAX_SHARDS:,} files; save the weights in fewer")
    return dict(places)


def _is_plain_name(name: Any) -> bool:
    return isinstance(name, str) and name.endswith((".safetensors", ".bin")) and Path(name).name == name


def _read_shard(path: Path) -> State:
    states = read_states(path)
    if set(states) != {""}:
        raise ExportError(f"{path} holds dictionaries of tensors, expected tensors alone")
    return states[""]
