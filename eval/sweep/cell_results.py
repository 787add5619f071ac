"""Results of one cell: a `results.json` with one seed, one domain, one method, and the cell beside them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...engine.errors import InputError, reason
from ..results import results_file as results
from ..results.outcome import DomainResult, MethodResult, Run
from ..results.results_file import Results
from .cell import Cell


@dataclass
class CellResults(Results):
    """What a cell came to; always whole."""

    cell: Cell | None = None

    @property
    def run(self) -> Run:
        """The only one."""
        return self.runs[0]

    @property
    def domain(self) -> DomainResult:
        """The only one."""
        return self.run.domains[0]

    @property
    def part(self) -> MethodResult:
        """Of the only method."""
        return next(iter(self.domain.methods.values()))

    def to_json(self) -> dict[str, Any]:
        """The document, with the cell."""
        return {**super().to_json(), "cell": None if self.cell is None else self.cell.to_json()}


def parse(content: Mapping[str, Any], cell: Cell) -> CellResults:
    """A cell's results from their document.

    Raises:
        InputError: it is none, is of another cell, or not whole.
    """
    try:
        if content["schema"] != results.SCHEMA:
            raise ValueError(f"schema {content['schema']}, and not {results.SCHEMA}")
        found = results.from_json(content)
        whose = Cell.from_json(content["cell"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"expected the results of a cell, found something else ({reason(error)})") from error
    if whose != cell:
        raise InputError(f"expected the results of {cell.name}, found those of {whose.name}")
    parts = [
        (run.seed, domain.name, domain.severity, domain.ids_sha256, label, part.tally.bin_images.sum())
        for run in found.runs
        for domain in run.domains
        for label, part in domain.methods.items()
    ]
    whole = [(cell.seed, cell.domain, cell.severity, cell.images_sha256, cell.label, cell.images)]
    if not found.complete or parts != whole:
        raise InputError(f"expected {cell.images:,} images of {cell.title}, found less or others")
    return CellResults(**vars(found), cell=cell)


def read(path: Path, cell: Cell) -> CellResults:
    """A cell's results from its file.

    Raises:
        InputError: it cannot be read, is of another cell, or not whole.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise InputError(f"cannot read it: {reason(error)}") from error
    if not isinstance(content, dict):
        raise InputError("expected the results of a cell, found something else")
    return parse(content, cell)
