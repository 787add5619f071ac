"""The specification of an evaluation, as one value that can be sent to another process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

from ...data.reading import Reading
from ...engine.errors import InputError
from ...engine.names import DEFAULT_SEED
from ...engine.records import RecordError, load_record, to_dict
from ..datasets.dataset_request import OPTION_FIELDS, PATH_FIELDS, DatasetRequest
from ..protocol import Setting
from ..results.recipe_record import Recipe

_DATASET_OPTIONS = (*OPTION_FIELDS, "severities")
_READING_OPTIONS = tuple(field.name for field in fields(Reading))


@dataclass(frozen=True)
class EvaluationSpec:
    """The methods, bundle and stream of an evaluation.

    Attributes:
        bundle: folder of the bundle.
        methods: each as for `parse_method`.
        dataset: the data set and its location.
        setting, rounds, concentration, batch_size: as in `Protocol`; rounds None is the default.
        subset, subset_list: as for `choose_subset`.
        classes: classes to predict among: of the data set (`auto`), all of the bundle, or `present` ones.
        seed: the first seed.
        seeds: number of seeds, counting up.
        orders: number of orders of the same images, one for each of so many seeds; None: the seeds choose
            images and corruptions, too.
        head: name of the classes to use, where the bundle makes classes from texts; None: its own.
        precision, provider, workers, micro_batch: as for `Network.open`.
        on_error: at an unreadable image, `stop`, or `skip` it and count it.
        recipe: published protocol that set these options; None if no recipe was used.
    """

    bundle: Path
    methods: tuple[str, ...]
    dataset: DatasetRequest
    setting: Setting = "reset"
    subset: str = "all"
    subset_list: Path | None = None
    classes: Literal["auto", "all", "present"] = "auto"
    batch_size: int = 64
    seed: int = DEFAULT_SEED
    seeds: int = 1
    orders: int | None = None
    rounds: int | None = None
    concentration: float | None = None
    head: str | None = None
    precision: str = "fp32"
    provider: str = "cpu"
    workers: int | None = None
    micro_batch: int | None = None
    on_error: Literal["stop", "skip"] = "stop"
    recipe: Recipe | None = None

    def __post_init__(self) -> None:
        """Refuse options that have no effect in this setting, or contradict each other.

        Raises:
            InputError: `rounds` or `concentration` is given with another setting, or seeds beside orders.
        """
        if self.orders is not None and self.seeds != 1:
            raise InputError("expected --seeds or --orders, found both; orders count the seeds up, too")
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
        reading = {name: options.pop(name) for name in _READING_OPTIONS if name in options}
        data["reading"] = Reading(**reading)
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
        return to_dict(self)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> EvaluationSpec:
        """Return the evaluation of a dictionary that `to_dict` has made.

        Raises:
            InputError: it is something else.
        """
        try:
            return load_record(cls, content, "evaluation")
        except RecordError as error:
            raise InputError(f"expected an evaluation, found something else ({error})") from error
