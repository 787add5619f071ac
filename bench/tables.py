"""Rewrite the tables of the documents from the results in bench/results/.

A table stands between `<!-- table: NAME -->` and `<!-- end -->`. The results are files that `fozo adapt`,
`fozo bench` and bench/agreement.py wrote; bench/run.sh has the commands.

    python bench/tables.py            # rewrite the documents
    python bench/tables.py --check    # exit with 1 if a table is not that of the results
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from accuracy_tables import tabulate_averages, tabulate_domains, tabulate_precisions
from bits_tables import tabulate_bits, tabulate_foa
from clip_tables import (
    tabulate_clip,
    tabulate_clip_cost,
    tabulate_clip_domains,
    tabulate_clip_memory,
    tabulate_clip_speed,
    tabulate_settings,
    tabulate_texts,
    tabulate_views,
)
from gradient_tables import tabulate_gradients
from pizo_tables import tabulate_agreement, tabulate_continual, tabulate_reset
from provenance_table import tabulate_results
from speed_tables import tabulate_backends, tabulate_methods
from step_tables import tabulate_steps, tabulate_zip_steps

ROOT = Path(__file__).resolve().parent.parent
PAGES = ("benchmarks", "clip", "embedding", "gradients", "pizo")
DOCUMENTS = tuple(ROOT / "docs" / f"{page}.md" for page in PAGES)
TABLES: Mapping[str, Callable[[], str]] = {
    "results": tabulate_results,
    "family-reset": lambda: tabulate_averages("family-reset"),
    "family-reset-domains": lambda: tabulate_domains("family-reset"),
    "family-continual": lambda: tabulate_averages("family-continual"),
    "family-continual-domains": lambda: tabulate_domains("family-continual"),
    "bits": tabulate_bits,
    "bits-long": lambda: tabulate_bits("bits-long"),
    "bits-long-foa": tabulate_foa,
    "bits-long-continual": lambda: tabulate_averages("bits-long-continual"),
    "gradients": tabulate_gradients,
    "clip": tabulate_clip,
    "clip-domains": tabulate_clip_domains,
    "clip-texts": tabulate_texts,
    "clip-views": tabulate_views,
    "clip-settings": tabulate_settings,
    "clip-cost": tabulate_clip_cost,
    "clip-speed": tabulate_clip_speed,
    "clip-memory": tabulate_clip_memory,
    "precision": lambda: tabulate_precisions("family-fp32", "family-reset"),
    "speed-tiny": lambda: tabulate_methods("speed-tiny"),
    "speed-base": lambda: tabulate_backends("speed-base"),
    "speed-gradients": lambda: tabulate_backends("speed-gradients"),
    "step-speed": tabulate_steps,
    "tuning-speed": tabulate_zip_steps,
    "pizo-reset": tabulate_reset,
    "pizo-continual": tabulate_continual,
    "pizo-stream": lambda: tabulate_domains("pizo-stream"),
    "pizo-agreement": tabulate_agreement,
}
_MARKED = re.compile(r"(<!-- table: ([\w-]+) -->\n)(?:(?!<!-- table: ).)*?(<!-- end -->)", re.DOTALL)


def main(arguments: Sequence[str] | None = None) -> int:
    """Rewrite or check the documents; return the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="change nothing, and fail on a difference")
    check = parser.parse_args(arguments).check
    outdated = False
    for document in DOCUMENTS:
        text = document.read_text(encoding="utf-8")
        current = replace_tables(text)
        if current != text:
            outdated = True
            print(f"{document.relative_to(ROOT)}: {'outdated' if check else 'rewritten'}")
            if not check:
                document.write_text(current, encoding="utf-8")
    return int(check and outdated)


def replace_tables(text: str, tables: Mapping[str, Callable[[], str]] = TABLES) -> str:
    """Return a document with each marked table built anew.

    Args:
        text: the document.
        tables: builders of tables, by name.

    Raises:
        ValueError: a marked table has no end.
        KeyError: there is no table of that name.
    """
    begun, complete = text.count("<!-- table: "), len(_MARKED.findall(text))
    if begun != complete:
        raise ValueError(
            f"expected `<!-- end -->` behind each of {begun} tables, found it behind {complete}; add it"
        )
    return _MARKED.sub(lambda match: f"{match[1]}{tables[match[2]]()}\n{match[3]}", text)


if __name__ == "__main__":
    sys.exit(main())
