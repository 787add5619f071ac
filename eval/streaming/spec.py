"""Everything that an evaluation is asked for, as one value that can be sent to another process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

from ...engine.errors import InputError, reason
from ..datasets.request import OPTION_FIELDS, PATH_FIELDS, DatasetRequest
from ..protocol import Setting

_DATASET_OPTIONS = (*OPTION_FIELDS, "severities")


@dataclass(frozen=True)
class EvaluationSpec:
    """An evaluation: which methods adapt which bundle on which stream.

    Attributes:
        bundle: folder of the bundle.
        methods: each as for `parse_method`.
        dataset: the data set and its location.
        setting, rounds, concentration, batch_size: as in `Protocol`; rounds None is the default.
        subset, subset_list: as for `choose_subset`.
        classes: to predict among: those of the data set (`auto`), all of the bundle's, or those that occur.
        seed: the first seed.
        seeds: how many, counting up.
        precision, provider, workers, micro_batch: as for `Network.open`.
    """

    bundle: Path
    methods: tuple[str, ...]
    dataset: DatasetRequest
    setting: Setting = "reset"
    subset: str = "all"
    subset_list: Path | None = None
    classes: Literal["auto", "all", "present"] = "auto"
    batch_size: int = 64
    seed: int = 2000
    seeds: int = 1
    rounds: int | None = None
    concentration: float | None = None
    precision: str = "fp32"
    provider: str = "cpu"
    workers: int | None = None
    micro_batch: int | None = None

    def __post_init__(self) -> None:
        """Refuse options that do nothing in this setting.

        Raises:
            InputError: `rounds` or `concentration` is given with another setting.
        """
        if self.rounds is not None and self.setting != "rounds":
            raise InputError("--rounds goes with --setting rounds")
        if self.concentration is not None and self.setting != "label_shift":
            raise InputError("--concentration goes with --setting label_shift")

    @classmethod
    def from_options(
        cls, bundle: Path, methods: tuple[str, ...] | list[str], dataset: str, **options: Any
    ) -> EvaluationSpec:
        """Return the evaluation of the command line's options, which are those of the data set too."""
        data = {name: options.pop(name) for name in _DATASET_OPTIONS if name in options}
        for name in ("severities", "corruptions"):
            if data.get(name) is not None:
                data[name] = tuple(data[name])
        return cls(Path(bundle), tuple(methods), DatasetRequest(dataset, **data), **options)

    @property
    def input_paths(self) -> tuple[Path, ...]:
        """The files and folders that are read, beside the bundle."""
        paths = (*(getattr(self.dataset, name) for name in PATH_FIELDS), self.subset_list)
        return tuple(path for path in paths if path is not None)

    def with_absolute_paths(self) -> EvaluationSpec:
        """Return the same evaluation for a process with another working directory."""
        data = {name: getattr(self.dataset, name) for name in PATH_FIELDS}
        absolute = {name: path.absolute() for name, path in data.items() if path is not None}
        subset_list = None if self.subset_list is None else self.subset_list.absolute()
        dataset = replace(self.dataset, **absolute)
        return replace(self, bundle=self.bundle.absolute(), dataset=dataset, subset_list=subset_list)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        return {**_to_json(self), "dataset": _to_json(self.dataset)}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> EvaluationSpec:
        """Return the evaluation of a dictionary that `to_dict` has made.

        Raises:
            InputError: it is something else.
        """
        try:
            values = _from_json(content, ("bundle", "subset_list"), ("methods",))
            data = _from_json(content["dataset"], PATH_FIELDS, ("severities", "corruptions"))
            return cls(**{**values, "dataset": DatasetRequest(**data)})
        except (KeyError, TypeError, AttributeError) as error:
            raise InputError(f"expected an evaluation, found something else ({reason(error)})") from error


def _to_json(record: Any) -> dict[str, Any]:
    values = {field.name: getattr(record, field.name) for field in fields(record)}
    texts = {name: str(value) for name, value in values.items() if isinstance(value, Path)}
    lists = {name: list(value) for name, value in values.items() if isinstance(value, tuple)}
    return {**values, **texts, **lists}


def _from_json(content: Mapping[str, Any], paths: tuple[str, ...], lists: tuple[str, ...]) -> dict[str, Any]:
    values = {**content}
    values |= {name: Path(values[name]) for name in paths if values[name] is not None}
    return values | {name: tuple(values[name]) for name in lists if values[name] is not None}
