"""The choice of the norms that are adapted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from fozo.engine.errors import BundleError
from fozo.engine.model import ModelInfo
from fozo.engine.search.norm_selection import select_norms

StandIn = Callable[..., Any]


def described(stand_in: StandIn, norms: dict[str, int], layers: int = 2, **changes: Any) -> ModelInfo:
    info: ModelInfo = replace(stand_in(norms=norms).info, layers=layers, **changes)
    return info


def transformer(depth: int, width: int = 768) -> dict[str, int]:
    return {f"blocks.{i}.norm{which}": width for i in range(depth) for which in (1, 2)}


def resnet50() -> dict[str, int]:
    norms = {"bn1": 64}
    for stage, (count, width) in enumerate(((3, 64), (4, 128), (6, 256), (3, 512)), start=1):
        for block in range(count):
            name = f"layer{stage}.{block}"
            norms |= {f"{name}.bn1": width, f"{name}.bn2": width, f"{name}.bn3": 4 * width}
            if not block:
                norms[f"{name}.downsample.1"] = 4 * width
    return norms


def test_norms_of_vit_b(stand_in: StandIn) -> None:
    names = select_norms(described(stand_in, transformer(12), 12), 1, 3, "zoa")
    assert names == tuple(f"blocks.{i}.norm{which}" for i in range(1, 9) for which in (1, 2))


def test_norms_of_resnet50(stand_in: StandIn) -> None:
    norms = resnet50()
    names = select_norms(described(stand_in, norms, 4), 1, 3, "zoa")
    blocks = [f"layer1.{i}" for i in (1, 2)] + [f"layer2.{i}" for i in range(4)]
    blocks += [f"layer3.{i}" for i in range(6)]
    assert names == tuple(f"{block}.bn{which}" for block in blocks for which in (1, 2))
    assert 2 * sum(norms[name] for name in names) == 8704


@pytest.mark.parametrize(
    ("depth", "first", "frozen", "expected"),
    [
        (24, 1, 3, range(1, 21)),
        (6, 1, 3, (1, 2)),
        (4, 1, 3, (1,)),
        (3, 1, 3, (1,)),
        (2, 1, 3, (1,)),
        (1, 0, 3, (0,)),
        (12, 0, 0, range(12)),
        (12, 5, 3, range(5, 9)),
        (12, 5, 12, (5,)),
    ],
)
def test_norms_of_other_depths(stand_in: StandIn, depth: int, first: int, frozen: int, expected: Any) -> None:
    names = select_norms(described(stand_in, transformer(depth), depth), first, frozen, "zoa")
    assert sorted({int(name.split(".")[1]) for name in names}) == list(expected)
    assert len(names) == 2 * len(expected)


def test_blocks_without_tunable_norms_count(stand_in: StandIn) -> None:
    some = {name: width for name, width in transformer(12).items() if int(name.split(".")[1]) > 5}
    names = select_norms(described(stand_in, some, 12), 1, 3, "zoa")
    assert {name.split(".")[1] for name in names} == {"6", "7", "8"}


@pytest.mark.parametrize(
    ("norms", "first"), [({"norm": 3, "bn1": 3}, 0), (transformer(2), 2), (transformer(1), 1)]
)
def test_nothing_to_adapt(stand_in: StandIn, norms: dict[str, int], first: int) -> None:
    info = described(stand_in, norms, max(1, len(norms) // 2))
    with pytest.raises(BundleError, match="first_block"):
        select_norms(info, first, 3, "zoa")
