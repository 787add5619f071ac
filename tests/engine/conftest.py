"""Networks of the exported models, for tests of the engine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fozo.engine.runtime.network import Network


@pytest.fixture(scope="module")
def networks(bundle_paths: dict[int, Path]) -> Iterator[dict[int, Network]]:
    """Open the networks of all widths, with one worker each."""
    opened = {width: Network.open(path, workers=1) for width, path in bundle_paths.items()}
    yield opened
    for network in opened.values():
        network.close()


@pytest.fixture(scope="module")
def network(networks: dict[int, Network]) -> Network:
    return networks[64]


@pytest.fixture(scope="module")
def int8_network(int8_bundle_path: Path) -> Iterator[Network]:
    """Open the network of `network`, on integers."""
    with Network.open(int8_bundle_path, "int8", workers=1) as opened:
        yield opened


@pytest.fixture(params=["fp32", "int8"])
def either_network(request: pytest.FixtureRequest, network: Network, int8_network: Network) -> Network:
    """Both, one after the other."""
    return network if request.param == "fp32" else int8_network
