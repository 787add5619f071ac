"""Copy results of `fozo adapt` without line breaks and without diagnostics along the stream.

The tables need neither, and the file is less than half as large. `fozo report` still reads it.

    python bench/compact.py results.json bench/results/family-reset.json
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path


def main() -> None:
    """Write the smaller file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("results", type=Path)
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    document = json.loads(options.results.read_text(encoding="utf-8"))
    for run in document["runs"]:
        for trace in run["traces"].values():
            trace["values"] = {}
    text = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
    options.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
