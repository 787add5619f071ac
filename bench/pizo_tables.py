"""Tables of docs/pizo.md."""

from __future__ import annotations

from accuracy_tables import tabulate_averages
from result_files import format_table, read_document


def tabulate_reset() -> str:
    """Return averages of PIZO and its rivals, each domain for itself."""
    return tabulate_averages("family-reset", ("no_adapt", "shift_origin", "neo", "fozo", "zoa", "pizo"))


def tabulate_continual() -> str:
    """Return averages over changing domains, with and without a memory of domains."""
    return tabulate_averages("family-continual", ("no_adapt", "neo", "neo16", "pizo", "pizo16"))


def tabulate_agreement() -> str:
    """Return a row per domain: how much the images of a batch agree, and the signal of an estimate."""
    head = ("domain", "r", "signal, one direction per image", "signal, one direction for all")
    rows = [
        [domain, f"{values['agreement']:.1f}", f"{values['signal']:.3f}", f"{values['shared_signal']:.3f}"]
        for domain, values in read_document("pizo-agreement")["domains"].items()
    ]
    return format_table(head, rows)
