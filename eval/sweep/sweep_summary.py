"""The outcome of a sweep, as JSON and as text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from .folder import RESULTS_FOLDER, TABLE_FILE, Sweep
from .graph_results import GraphResults
from .sweep_table import format_tables, summarize_graphs


def build_summary(sweep: Sweep, graphs: Sequence[GraphResults]) -> dict[str, Any]:
    """Return counts, failures and averages as a JSON document."""
    return {
        "folder": str(sweep.folder),
        "cells": len(sweep.jobs),
        "finished": len(sweep.finished),
        "failed": [{"cell": cell.name, "reason": reason} for cell, reason in sweep.failed.items()],
        "averages": [asdict(summary) for summary in summarize_graphs(graphs)],
    }


def format_summary_text(sweep: Sweep, graphs: Sequence[GraphResults]) -> str:
    """Return tables of the finished cells, and where the files are."""
    finished, total = len(sweep.finished), len(sweep.jobs)
    cells = "All cells" if finished == total else f"{finished:,} of {total:,} cells"
    lines = [f"{cells}: {sweep.folder / TABLE_FILE}"]
    if finished:
        lines.insert(0, f"\n{format_tables(graphs)}\n")
        lines.append(f"For fozo report: {sweep.folder / RESULTS_FOLDER}")
    return "\n".join(lines)
