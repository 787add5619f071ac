"""The networks that the methods of a run work on: one graph, opened once per set of re-centred activations.

A network that can re-centre activations computes their moments in every forward. A method that asks for
none would pay for them, and its times would be wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from types import TracebackType

from ...engine.bundle.bundle import Bundle
from ...engine.model import ActivationUse
from ...engine.registry import AnyMethod, count_pull_backs, list_activation_uses
from ...engine.runtime.network import Network


@dataclass(frozen=True)
class MethodNetworks:
    """Networks of one graph, which split their work in the same way.

    Attributes:
        by_use: networks by the activations that methods re-centre; at None that of methods without any. The
            first one is at None if there is such a method.
    """

    by_use: Mapping[ActivationUse | None, Network]

    @staticmethod
    def open(
        bundle: Bundle,
        precision: str,
        methods: Collection[AnyMethod],
        *,
        workers: int | None = None,
        micro_batch: int | None = None,
        provider: str = "cpu",
    ) -> MethodNetworks:
        """Load the graph of a precision as often as these methods need it.

        Raises:
            BundleError, InputError: as `Network.open`.
        """
        uses = dict.fromkeys(map(_get_use, methods)) or {None: None}
        networks: dict[ActivationUse | None, Network] = {}
        for use in sorted(uses, key=lambda use: use is not None):
            network = Network.open(
                bundle,
                precision,
                gradients=any(count_pull_backs(method) for method in methods if _get_use(method) == use),
                activations=() if use is None else [use],
                workers=workers,
                micro_batch=micro_batch,
                provider=provider,
            )
            networks[use] = network
            workers, micro_batch = network.workers, network.micro_batch
        return MethodNetworks(networks)

    @property
    def first(self) -> Network:
        """Network that stands for all of them in what they have in common."""
        return next(iter(self.by_use.values()))

    def find(self, method: AnyMethod) -> Network:
        """Return the network of a method."""
        return self.by_use[_get_use(method)]

    def view(self, make_view: Callable[[Network], Network]) -> MethodNetworks:
        """Return views of all networks, made by a function."""
        return MethodNetworks({use: make_view(network) for use, network in self.by_use.items()})

    def close(self) -> None:
        """Stop the threads of all networks; called at the end of a `with` block too."""
        for network in self.by_use.values():
            network.close()

    def __enter__(self) -> MethodNetworks:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _get_use(method: AnyMethod) -> ActivationUse | None:
    return next(iter(list_activation_uses([method])), None)
