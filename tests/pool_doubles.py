"""A network that is watched, and what a pool must be after a failed step."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Sequence
from typing import Any

from doubles import state_bits
from fozo.engine.model import ImageArray, Outputs, Tunables
from fozo.engine.runtime.network import Network
from fozo.engine.streams.adapter import Adapter
from fozo.engine.streams.pool import Pool


class Watched:
    """A view of a network that writes down what it is asked for, and may be told to misbehave.

    Attributes:
        view: the network to use.
        calls: images and number of candidates of every call.
        before: called with the images and tunables of every call.
    """

    def __init__(self, network: Network) -> None:
        self.view, self.calls = copy.copy(network), list[tuple[int, int]]()
        self.before: Callable[[ImageArray, Sequence[Tunables]], None] = lambda images, tunables: None
        self.view.candidates = self._candidates  # type: ignore[method-assign]
        self._network = network

    def _candidates(self, images: ImageArray, tunables: Sequence[Tunables]) -> list[Outputs]:
        self.calls.append((len(images), len(tunables)))
        self.before(images, tunables)
        return self._network.candidates(images, tunables)


def one_of_three(pool: Pool, name: str) -> dict[str, Adapter]:
    """Streams a, b and c, of which b is of the named method."""
    return {key: pool.open(key, name if key == "b" else "fozo") for key in "abc"}


def assert_unchanged_and_usable(
    pool: Pool, streams: dict[str, Adapter], before: list[Any], images: ImageArray
) -> None:
    assert not streams_running()
    assert [state_bits(stream.state) for stream in streams.values()] == before
    alone = {key: Adapter(stream.network, stream.method) for key, stream in streams.items()}
    for key, prediction in pool.step(dict.fromkeys(streams, images)).items():
        assert state_bits(prediction) == state_bits(alone[key].step(images))
        assert streams[key].state.step == 1


def streams_running() -> list[str]:
    return [each.name for each in threading.enumerate() if each.name.startswith("fozo-stream")]
