"""Tables of compiled steps and of ZIP's steps, from bench/step_speed.py and bench/tuning_speed.py."""

from __future__ import annotations

from result_files import RESULTS, format_table, read_document

_MISSING = "Not measured yet: `bench/run.sh speed`."


def tabulate_steps() -> str:
    """Return a row per model, precision, method and batch: seconds and memory of graph and engine."""
    if not (RESULTS / "step-speed.json").exists():
        return _MISSING
    rows = [
        [
            cell["model"].partition(".")[0],
            cell["precision"],
            f"`{cell['method']}`",
            f"{cell['batch']}",
            f"{1e3 * cell['engine_seconds']:,.0f}",
            f"{1e3 * cell['graph_seconds']:,.0f}",
            f"{cell['ratio']:.2f}",
            f"{cell['engine_mb']:,.0f}",
            f"{cell['graph_mb']:,.0f}",
        ]
        for cell in read_document("step-speed")["cells"]
    ]
    head = (
        "model",
        "precision",
        "method",
        "batch",
        "engine, ms",
        "graph, ms",
        "graph ÷ engine",
        "engine, MB",
        "graph, MB",
    )
    return format_table(head, rows)


def tabulate_zip_steps() -> str:
    """Return a row per arm: seconds of a step of ZIP, how much faster than open_clip, and peak memory."""
    if not (RESULTS / "tuning-speed.json").exists():
        return _MISSING
    document = read_document("tuning-speed")
    slowest = document["seconds"]["open_clip"]
    rows = []
    for arm, seconds in document["seconds"].items():
        memory = document["peak_mb"].get(arm.removeprefix("fozo "))
        rows.append(
            [arm, f"{seconds:,.1f}", f"{slowest / seconds:.1f}", "–" if memory is None else f"{memory:,.0f}"]
        )
    return format_table(("computed by", "seconds per step", "times as fast", "peak MB"), rows)
