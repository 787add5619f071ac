"""The specification of a transfer, as one value."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from ...data.reading import Reading
from ...engine.errors import InputError
from ...engine.names import DEFAULT_SEED
from ..datasets.published_sets import PLAIN_TEMPLATE

PUBLISHED = "published"  # stands for the template of each data set


@dataclass(frozen=True)
class TransferSpec:
    """A prompt, methods, and the data sets that they are evaluated on.

    Attributes:
        targets: data sets, each as for `open_target`.
        methods: each as for `parse_method`.
        context: head whose context every data set gets; None: the templates are the prompt.
        context_seeds: seeds of `fozo tune`, whose heads are named `context` with the seed; each gets a run,
            which has the same seed. Empty: `context` is one head.
        templates: texts of the classes without a context, or `PUBLISHED` alone for those of each data set.
        subset: as for `choose_subset`.
        batch_size: images per batch.
        seed: of order, subset and methods; the first of several.
        seeds, orders: as in `EvaluationSpec`.
        precision, provider, workers, micro_batch: as for `Network.open`.
        on_error: at an unreadable image, `stop`, or `skip` it and count it.
        reading: how image files are read.
    """

    targets: tuple[str, ...]
    methods: tuple[str, ...] = ("no_adapt",)
    context: str | None = None
    context_seeds: tuple[int, ...] = ()
    templates: tuple[str, ...] = (PLAIN_TEMPLATE,)
    subset: str = "all"
    batch_size: int = 64
    seed: int = DEFAULT_SEED
    seeds: int = 1
    orders: int | None = None
    precision: str = "fp32"
    provider: str = "cpu"
    workers: int | None = None
    micro_batch: int | None = None
    on_error: Literal["stop", "skip"] = "stop"
    reading: Reading = field(default_factory=Reading)

    def __post_init__(self) -> None:
        """Refuse options that contradict each other.

        Raises:
            InputError: there are several of orders, seeds, and seeds of contexts; seeds of no context; or no
                data set.
        """
        if self.orders is not None and self.seeds != 1:
            raise InputError("expected --seeds or --orders, found both; orders count the seeds up, too")
        if self.context_seeds and (self.seeds != 1 or self.orders is not None):
            raise InputError(
                "expected --context-seeds, --seeds or --orders, found two; each context has one run, with its"
                " own seed"
            )
        if self.context_seeds and self.context is None:
            raise InputError(
                "expected --head-context with --context-seeds, found none; give the name that was given to "
                "fozo tune --as"
            )
        if not self.targets:
            raise InputError(
                "expected data sets to evaluate on, found none; name each with --data [NAME=]DIR"
            )

    @property
    def run_seeds(self) -> tuple[int, ...]:
        """Seed of every run."""
        return self.context_seeds or tuple(range(self.seed, self.seed + (self.orders or self.seeds)))
