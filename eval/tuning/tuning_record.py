"""The results of a tuning run as `tuning.json` holds them (docs/results.md)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ...engine.errors import InputError, reason
from ...engine.ordinary_files import read_json
from ...engine.records import RecordError, load_record
from ..results.method_record import TallyRecord
from .tuning_cost import TuningCost

SCHEMA: Literal[1] = 1
KIND: Literal["tuning"] = "tuning"
SEEDS_KIND: Literal["tuning-seeds"] = "tuning-seeds"
# Facts that every tuning has, and their types; methods have options of their own.
_FACTS: dict[str, type] = {"method": str, "data": str, "classes": str, "shots": int, "seed": int}


@dataclass(frozen=True)
class EvaluationRecord:
    """Counts of several prompts on the same images; fields as in `Evaluation`, `prompts` are its results."""

    images: str
    target: str
    classes: int
    images_sha256: str
    prompts: dict[str, TallyRecord]


@dataclass(frozen=True)
class TuningRecord:
    """The content of a results file.

    Attributes:
        created: time of writing, UTC.
        complete: every step was made.
        seconds: wall time of the steps and of encoding their images, over all processes of a continued run.
        bundle: `path`, `sha256` of the manifest before the head was added, `model`, and what `list_origin`
            says of weights and images.
        head: name of the head that was stored.
        tuning: options, data, hashes and counts, as `TuningRun.describe` returns them.
        cost: counts of the run.
        machine: as in `results.json`.
        images: paths of the images that were learnt from.
        class_ids, class_names: the classes that were learnt.
        curve: numbers of every step by name, as in `StepRecord`.
        evaluations: what was measured on test images.
        harmonic_means: of learnt and new classes, by prompt.
    """

    schema: Literal[1]
    kind: Literal["tuning"]
    created: str
    complete: bool
    seconds: float
    bundle: dict[str, Any]
    head: str
    tuning: dict[str, Any]
    cost: TuningCost
    machine: dict[str, Any]
    images: tuple[str, ...]
    class_ids: tuple[str, ...]
    class_names: tuple[str, ...]
    curve: dict[str, tuple[float, ...]]
    evaluations: tuple[EvaluationRecord, ...]
    harmonic_means: dict[str, float]

    def __post_init__(self) -> None:
        """Refuse facts that are missing, or contradict each other.

        Raises:
            ValueError: a fact of `tuning` is missing or of another type, or the curve has other steps.
        """
        for name, kind in _FACTS.items():
            if type(self.tuning.get(name)) is not kind:
                raise ValueError(f"tuning.{name}: expected {kind.__name__}, found {self.tuning.get(name)!r}")
        lengths = {len(values) for values in self.curve.values()}
        if "loss" not in self.curve or len(lengths) > 1:
            raise ValueError(
                f"curve: expected lists of equal length, one of them loss, found lengths {sorted(lengths)} "
                f"of {', '.join(self.curve) or 'nothing'}"
            )


def read_tuning(path: Path) -> TuningRecord:
    """Read the results of a tuning run.

    Raises:
        InputError: the file cannot be read, or holds no such results.
    """
    try:
        content = read_json(path)
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read results from {path}: {reason(error)}") from error
    try:
        return load_record(TuningRecord, content, path)
    except RecordError as error:
        raise InputError(f"{error}; run fozo tune again with this version") from error


def list_seed_files(path: Path, content: dict[str, Any]) -> list[Path]:
    """Return the results files of the seeds that a summary names; they lie beside it.

    Args:
        path: the summary.
        content: its JSON data.

    Raises:
        InputError: the summary is damaged, or a file is missing.
    """
    runs = content.get("runs")
    names = [run.get("file") for run in runs if isinstance(run, dict)] if isinstance(runs, list) else []
    if not names or not all(isinstance(name, str) and name and Path(name).name == name for name in names):
        raise InputError(
            f"expected the files of seeds under runs in {path}, found {names}; run fozo tune again"
        )
    files = [path.with_name(str(name)) for name in names]
    if missing := [file.name for file in files if not _is_file(file)]:
        raise InputError(
            f"expected {', '.join(missing)}, which {path} sums up, beside it, found nothing; put the files "
            "of all seeds there, or name those that are left instead"
        )
    return files


def _is_file(path: Path) -> bool:
    """Return whether there is a file; there is none of a name that the system does not allow."""
    try:
        return path.is_file()
    except OSError:
        return False
