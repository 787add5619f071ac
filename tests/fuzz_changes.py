"""Random changes of files that are fuzzed: to their bytes, and to what archives and JSON files hold."""

from __future__ import annotations

import io
import json
import random
import warnings
import zipfile
from typing import Any, Literal

import numpy as np

Form = Literal["bytes", "json", "zip", "safetensors"]

_BYTES = [
    b"", b"\0", b"\xff", b"\x80", b"\n", b"\x1b", b"=", b",", b":", b'"', b"[" * 300, b"{" * 300, b"9" * 5000,
]  # fmt: skip
_VALUES: list[Any] = [
    None, True, -1, 0, 1, 2**31, 2**63, 10**400, 0.5, 1e308, float("nan"),
    [], [[]], [1], {}, {"a": 1}, [0] * 10_000,
    "", "\0", "\x1b[2J", "\ud800", "fp32", "../../etc/passwd", "x" * 10_000,
]  # fmt: skip
_NPY_HEADER = 128  # bytes before the values of an array in one dimension
_NAMES = ["", "x", "../x", "header.npy", "archive/code/x", "\x1b", "a" * 300]
_KEYS = ["", "surprise", "\x1b", "model.x"]


def change(content: bytes, generator: random.Random, form: Form) -> bytes:
    """Return a content with a few random changes; six in ten keep the outer form intact."""
    if generator.random() < 0.6:
        if form == "json":
            return _change_json(content, generator)
        if form == "zip" and zipfile.is_zipfile(io.BytesIO(content)):
            return _change_archive(content, generator)
        if form == "safetensors":
            return _change_safetensors(content, generator)
    return _change_bytes(content, generator)


def _change_bytes(content: bytes, generator: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(generator.choice([1, 1, 2, 4, 16])):
        start = generator.randrange(len(changed) + 1)
        stop = min(len(changed), start + generator.choice([0, 1, 1, 2, 4, 8, 64, 1000]))
        kind = generator.randrange(4)
        if kind == 0:  # other bytes
            changed[start:stop] = generator.randbytes(stop - start)
        elif kind == 1:  # remove, or truncate
            del changed[start : stop if generator.random() < 0.9 else None]
        elif kind == 2:  # insert
            changed[start:start] = generator.choice(_BYTES)
        else:  # copy
            position = generator.randrange(len(changed) + 1)
            changed[position:position] = changed[start:stop]
    return bytes(changed)


def _change_json(content: bytes, generator: random.Random) -> bytes:
    document = json.loads(content)
    for _ in range(generator.choice([1, 1, 1, 2, 4])):
        document = _change_value(document, generator)
    return json.dumps(document).encode()


def _change_value(value: Any, generator: random.Random) -> Any:
    """Return JSON data with one value, somewhere inside, replaced, removed or added."""
    if not value or not isinstance(value, (dict, list)) or generator.random() < 0.15:
        return generator.choice(_VALUES)
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    key, copy = generator.choice(keys), value.copy()
    kind = generator.random()
    if kind < 0.1:
        del copy[key]
    elif kind < 0.2 and isinstance(copy, dict):
        copy[generator.choice([*_KEYS, f"{key}x"])] = generator.choice([*_VALUES, value[key]])
    else:
        copy[key] = _change_value(value[key], generator)
    return copy


def _change_archive(content: bytes, generator: random.Random) -> bytes:
    """Change one member of an archive, so that its checksum is right again."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = [(name, archive.read(name)) for name in archive.namelist()]
    index = generator.randrange(len(members))
    name, member = members[index]
    kind = generator.random()
    if kind < 0.1:
        del members[index]
    elif kind < 0.2:
        members[index] = (generator.choice([*_NAMES, generator.choice(members)[0]]), member)
    else:
        members[index] = (name, _change_member(member, generator))
    if len({name for name, _ in members}) < len(members):
        warnings.filterwarnings("ignore", message="Duplicate name")
    stream = io.BytesIO()
    compression = zipfile.ZIP_STORED if generator.random() < 0.8 else zipfile.ZIP_DEFLATED
    with zipfile.ZipFile(stream, "w", compression) as archive:
        for name, member in members:
            archive.writestr(zipfile.ZipInfo(name), member, compression)
    return stream.getvalue()


def _change_member(member: bytes, generator: random.Random) -> bytes:
    """Change bytes, or the JSON data in an array of NumPy."""
    start = _NPY_HEADER
    if member[start : start + 2] == b'{"' and generator.random() < 0.7:
        text = _change_json(member[start:], generator)
        stream = io.BytesIO()
        np.save(stream, np.frombuffer(text, np.uint8))
        return stream.getvalue()
    return _change_bytes(member, generator)


def _change_safetensors(content: bytes, generator: random.Random) -> bytes:
    """Change the header, so that its length is right again."""
    end = 8 + int.from_bytes(content[:8], "little")
    header = _change_json(content[8:end], generator)
    return len(header).to_bytes(8, "little") + header + content[end:]
