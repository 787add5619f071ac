"""Named arrays as `.npz` content, without pickle: what a bundle and a checkpoint are made of."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def to_npz(**arrays: NDArray[Any]) -> bytes:
    """Arrays as the content of an uncompressed `.npz` file; equal arrays give equal bytes."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            member = io.BytesIO()
            np.lib.format.write_array(member, np.asarray(array, order="C"), allow_pickle=False)
            # A fixed date: numpy.savez would write the time of day into the file, and so into its hash.
            archive.writestr(zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0)), member.getvalue())
    return stream.getvalue()


def from_npz(path: Path) -> dict[str, NDArray[Any]]:
    """All arrays of an `.npz` file.

    Raises:
        ValueError: the file cannot be read or is no `.npz` of plain arrays; the message says why.
    """
    try:
        with path.open("rb") as stream, np.lib.npyio.NpzFile(stream, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except Exception as error:  # zipfile and NumPy raise a dozen kinds on damaged files
        raise ValueError(f"{type(error).__name__}: {error}") from error
