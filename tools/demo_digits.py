"""Write the digits that ship with fozo from scikit-learn's copy of them: `python tools/demo_digits.py`.

Only needed to make the file again; `make demo-files` does that, and exports the bundle that ships.
"""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.datasets import load_digits

DIGITS = Path(__file__).parent.parent / "data" / "demo_digits.npz"


def pack(**arrays: Any) -> bytes:
    """Return arrays as a compressed `.npz` with a fixed date, so that equal arrays give equal bytes."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, array in arrays.items():
            member = io.BytesIO()
            np.save(member, array, allow_pickle=False)
            entry = zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0))
            archive.writestr(entry, member.getvalue(), zipfile.ZIP_DEFLATED, compresslevel=9)
    return stream.getvalue()


def main() -> None:
    """Write the file."""
    digits = load_digits()
    images, labels = digits.images.astype(np.uint8), digits.target.astype(np.uint8)
    DIGITS.write_bytes(pack(images=images, labels=labels))
    print(f"wrote {DIGITS}: {len(labels):,} digits, {DIGITS.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
