"""Draws accuracy against forwards per image, a line per method, of what `bench/family.py` has written.

Options of a method are points of its line, so name them all:
`-m pizo:learn_every=2 -m pizo -m pizo:samples=2`.

    python bench/curve.py family.json --out curve.png
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path

import numpy as np
from fozo.engine.registry import parse_method
from fozo.eval.datasets.corruption_names import CLEAN
from matplotlib.figure import Figure


def main() -> None:
    """Prints the points as Markdown, and draws them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("results", type=Path)
    parser.add_argument("--setting", default="reset")
    parser.add_argument("--out", type=Path, default=Path("curve.png"))
    options = parser.parse_args()
    content = json.loads(options.results.read_text())
    found: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for row in content["rows"]:
        if row["setting"] == options.setting and row["domain"] != CLEAN:
            found[row["method"]].append((row["forwards"], row["accuracy"]))
    lines: dict[str, list[tuple[float, float]]] = defaultdict(list)
    print("| method | forwards per image | accuracy, % |\n|---|---:|---:|")
    for label, each in found.items():
        forwards, accuracy = np.mean(each, axis=0)
        print(f"| {label} | {forwards:.2f} | {accuracy:.1f} |")
        lines[parse_method(label)[1].name if ":" in label else label].append((forwards, accuracy))
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.add_subplot()
    for name, points in lines.items():
        across, up = zip(*sorted(points), strict=True)
        axes.plot(across, up, "o-", label=name, markersize=5)
    axes.set_xscale("log", base=2)
    axes.set_xticks([1, 2, 4, 8, 16, 28], ["1", "2", "4", "8", "16", "28"])
    axes.set_xlabel("forwards per image")
    axes.set_ylabel("top-1 accuracy, %")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="0.92")
    axes.legend(frameon=False)
    figure.savefig(options.out, dpi=110)


if __name__ == "__main__":
    main()
