"""Prints what `bench/family.py` has written as Markdown: averages, each domain and, of several, each round.

Gains are over the method that was named first, on the same images, mean ± standard deviation over seeds.

    python bench/tables.py family.json
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from fozo.eval.datasets.corruption_names import CLEAN

Row = dict[str, Any]
# Corruptions that PIZO's options were chosen on; the others are held out.
DEVELOPMENT = ("gaussian_noise", "motion_blur", "snow", "contrast", "pixelate")


def main() -> None:
    """Prints all tables of a file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("results", type=Path)
    print(tables(json.loads(parser.parse_args().results.read_text())["rows"]))


def tables(rows: Sequence[Row]) -> str:
    """Those of every setting, one after the other."""
    found = []
    for setting in _distinct(rows, "setting"):
        chosen = [row for row in rows if row["setting"] == setting]
        found += [f"{setting}:", averages(chosen), across(chosen, "domain")]
        if len(_distinct(rows, "round")) > 1:
            for group in (corrupted, clean):
                found.append(f"{group.__name__}, by round:\n\n{across(list(filter(group, chosen)), 'round')}")
    return "\n\n".join(found)


def corrupted(row: Row) -> bool:
    """Whether a row is of corrupted images."""
    return not clean(row)


def clean(row: Row) -> bool:
    """Whether a row is of clean images."""
    return bool(row["domain"] == CLEAN)


def averages(rows: Sequence[Row]) -> str:
    """A row per method: accuracy, gains over groups of domains, the corruption that gains least, and ECE."""
    groups: dict[str, Callable[[Row], bool]] = {
        "gain": corrupted,
        "development": lambda row: row["domain"] in DEVELOPMENT,
        "held out": lambda row: corrupted(row) and row["domain"] not in DEVELOPMENT,
        "clean": clean,
    }
    base, *_ = methods = _distinct(rows, "method")
    lines = [f"| | accuracy | {' | '.join(groups)} | worst | ECE |", "|---|" + "---:|" * 7]
    for name in methods:
        mine, others = _of(rows, name), _of(rows, base)
        cells = [_cell(mine, "accuracy")]
        for group in groups.values():
            cells.append(
                "" if name == base else _gain(list(filter(group, mine)), list(filter(group, others)))
            )
        cells.append("" if name == base else _worst(mine, others))
        cells.append(_cell(mine, "ece"))
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def across(rows: Sequence[Row], key: str) -> str:
    """Mean accuracy: a row for each domain or round, a column per method, the best in bold."""
    methods = _distinct(rows, "method")
    lines = [f"| | {' | '.join(methods)} |", "|---|" + "---:|" * len(methods)]
    for value in _distinct(rows, key):
        some = [row for row in rows if row[key] == value]
        cells = [f"{_mean(_of(some, name)):.1f}" for name in methods]
        best = max(cells, key=float)
        lines.append(f"| {value} | {' | '.join(f'**{c}**' if c == best else c for c in cells)} |")
    return "\n".join(lines)


def _cell(rows: Sequence[Row], figure: str) -> str:
    values = [row[figure] for row in rows if corrupted(row)]
    return f"{np.mean(values):.1f}" if values else "–"


def _gain(mine: Sequence[Row], others: Sequence[Row]) -> str:
    seeds = [
        _mean(row for row in mine if row["seed"] == seed)
        - _mean(row for row in others if row["seed"] == seed)
        for seed in _distinct(mine, "seed")
    ]
    spread = f" ± {np.std(seeds, ddof=1):.1f}" if len(seeds) > 1 else ""
    return f"{np.mean(seeds):+.1f}{spread}" if seeds else "–"


def _worst(mine: Sequence[Row], others: Sequence[Row]) -> str:
    gains = {
        domain: _mean(row for row in mine if row["domain"] == domain)
        - _mean(row for row in others if row["domain"] == domain)
        for domain in _distinct(list(filter(corrupted, mine)), "domain")
    }
    if not gains:
        return "–"
    domain = min(gains, key=gains.__getitem__)
    return f"{gains[domain]:+.1f} ({domain})"


def _of(rows: Sequence[Row], method: str) -> list[Row]:
    return [row for row in rows if row["method"] == method]


def _mean(rows: Iterable[Row]) -> float:
    return float(np.mean([row["accuracy"] for row in rows]))


def _distinct(rows: Sequence[Row], key: str) -> list[Any]:
    return list(dict.fromkeys(row.get(key) for row in rows))


if __name__ == "__main__":
    main()
