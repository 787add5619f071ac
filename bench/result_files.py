"""Reading of bench/results/ and writing of Markdown tables."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent / "results"
NONE = "–"


def read_document(name: str) -> dict[str, Any]:
    """Return a JSON document in bench/results/."""
    document: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return document


def format_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return Markdown with the first column to the left and the others to the right."""
    rule = ["---", *("---:" for _ in head[1:])]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, rule, *rows))
