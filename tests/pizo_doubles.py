"""Options under which PIZO is compared with calculations by hand."""

from __future__ import annotations

BATCH = 4
NARROW = {
    "first_block": 1,
    "frozen_last_blocks": 0,
    "shift": "none",
    "epsilon": 0.01,
    "rate": 0.005,
    "anchor": 0.0,
    "tolerance": 0.0,
}
