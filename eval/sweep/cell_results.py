"""Results of one cell: a results file with one seed, one domain, one method, and the cell itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...engine.errors import InputError, reason
from ...engine.ordinary_files import read_json
from ...engine.records import RecordError, load_record, to_dict
from ..results.outcome import DomainResult, MethodResult, Run
from ..results.results_file import SCHEMA, Results, ResultsRecord
from .cell import Cell


@dataclass(frozen=True, kw_only=True)
class CellRecord(ResultsRecord):
    """The content of a cell's file: that of a results file, and the cell."""

    cell: Cell


@dataclass
class CellResults(Results):
    """The complete results of a cell."""

    cell: Cell | None = None

    @property
    def run(self) -> Run:
        """The only run."""
        return self.runs[0]

    @property
    def domain(self) -> DomainResult:
        """The only domain."""
        return self.run.domains[0]

    @property
    def method_result(self) -> MethodResult:
        """The result of the only method."""
        return next(iter(self.domain.methods.values()))

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON data of a results file, with the cell."""
        return {**super().to_dict(), "cell": None if self.cell is None else to_dict(self.cell)}


def parse_cell_results(content: Mapping[str, Any], cell: Cell) -> CellResults:
    """Return a cell's results from their document.

    Raises:
        InputError: the document holds no results, those of another cell, or incomplete ones.
    """
    try:
        record = load_record(CellRecord, content, "cell")
    except RecordError as error:
        raise InputError(f"expected the results of a cell, found something else ({error})") from error
    if record.schema != SCHEMA:
        raise InputError(f"expected results with schema {SCHEMA}, found schema {record.schema}")
    if record.cell != cell:
        raise InputError(f"expected the results of {cell.name}, found those of {record.cell.name}")
    parsed = Results.from_record(record)
    contents = [
        (
            *(run.seed, domain.name, domain.severity, domain.ids_sha256, label),
            result.tally.bin_images.sum() + len(domain.unreadable),
        )
        for run in parsed.runs
        for domain in run.domains
        for label, result in domain.methods.items()
    ]
    expected = [(cell.seed, cell.domain, cell.severity, cell.images_sha256, cell.label, cell.images)]
    if not parsed.complete or contents != expected:
        raise InputError(f"expected {cell.images:,} images of {cell.title}, found fewer or others")
    return CellResults(**vars(parsed), cell=cell)


def read_cell_results(path: Path, cell: Cell) -> CellResults:
    """Return a cell's results from its file.

    Raises:
        InputError: the file cannot be read, or holds no complete results of this cell.
    """
    try:
        content = read_json(path)
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read it: {reason(error)}") from error
    return parse_cell_results(content, cell)
