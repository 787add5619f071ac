"""Methods that look at many views, on networks that were really exported, alone and inside other methods."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from doubles import state_bits
from fozo.engine.errors import InputError
from fozo.engine.model import ImageArray
from fozo.engine.registry import AnyMethod, method
from fozo.engine.runtime.network import Network
from fozo.engine.streams.adapter import Adapter
from fozo.engine.streams.pool import Pool
from fozo.testing import StandInNetwork, add_views, check_method, draw_images

MakeImages = Callable[..., ImageArray]

VARIANTS: dict[str, AnyMethod] = {
    "zero": method("zero", views=4),
    "zero-blocks": method("zero", views=6, block=2, certain=0.9, skip=0.3),
    "zero-interval": method("zero", views=3, interval=4),
    "zero-domains": method("zero", views=3, domains=1, domains_threshold=0.0),
    "zero-guard": method("zero", views=3, guard="reset", guard_diversity=0.01),
    "zero-all": method("zero", views=3, interval=4, domains=3, guard="rollback", guard_diversity=0.01),
}
every_method = pytest.mark.parametrize("name", VARIANTS)


@pytest.fixture(autouse=True)
def domains_of_few_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or else no batch here would be enough to check for a change."""
    monkeypatch.setattr("fozo.engine.wrappers.domain_states.IMAGES", 8)


@pytest.fixture(scope="module", params=["fp32", "int8"])
def network(request: pytest.FixtureRequest, int8_bundle_path: Path) -> Iterator[Network]:
    with Network.open(int8_bundle_path, request.param, workers=2, micro_batch=3) as opened:
        yield opened


@every_method
def test_the_contract_is_kept(network: Network, random_images: MakeImages, name: str) -> None:
    check_method(VARIANTS[name], network, random_images)


@every_method
def test_splitting_the_work_changes_no_bit(
    int8_bundle_path: Path, random_images: MakeImages, name: str
) -> None:
    stream = [add_views(random_images(size, seed=size), 6) for size in (5, 1, 4)]
    results = []
    for workers, micro_batch in ((1, 64), (2, 3), (1, 1)):
        with Network.open(int8_bundle_path, workers=workers, micro_batch=micro_batch) as opened:
            adapter = Adapter(opened, VARIANTS[name], seed=3)
            logits = [adapter.step(images).logits.tobytes() for images in stream]
            results.append((logits, state_bits(adapter.state)))
    assert results[0] == results[1] == results[2]


def test_streams_with_and_without_views_share_a_pool(network: Network, random_images: MakeImages) -> None:
    pool = Pool(network)
    options: dict[str, dict[str, Any]] = {
        "door": {"method": "zero", "views": 5},
        "yard": {"method": "neo"},
        "roof": {"method": "zero", "views": 3, "guard": "reset"},
    }
    for key, values in options.items():
        pool.open(key, **values)
    alone = {
        key: Adapter(network, method(values["method"], **{k: v for k, v in values.items() if k != "method"}))
        for key, values in options.items()
    }
    for seed in range(3):
        images = random_images(4, seed=seed)
        batches: dict[str, Any] = {
            "door": add_views(images, 5),
            "yard": images,
            "roof": list(add_views(images, 3)),
        }
        predictions = pool.step(batches)
        for key, adapter in alone.items():
            assert state_bits(predictions[key]) == state_bits(adapter.step(batches[key])), key


def test_a_pool_refuses_a_batch_without_views(network: Network, random_images: MakeImages) -> None:
    pool = Pool(network)
    streams = [pool.open("yard", "neo"), pool.open("door", "zero", views=5)]
    images = random_images(2)
    for batches, message in (
        ({"yard": images, "door": images}, "stream 'door': zero looks at 5 views"),
        ({"yard": add_views(images, 5), "door": add_views(images, 5)}, "stream 'yard': expected images"),
        ({"yard": images, "door": add_views(images[:, :16], 5)}, "stream 'door': expected images"),
    ):
        with pytest.raises(InputError, match=message):
            pool.step(batches)
    assert [stream.state.step for stream in streams] == [0, 0]


# --- inside other methods: the frozen network sees view 0


class Broken(StandInNetwork):
    """A stand-in whose answers about more than one image are not finite, as for views of a broken image."""

    def __call__(self, images: ImageArray, **tunables: Any) -> Any:
        outputs = super().__call__(images, **tunables)
        if len(images) == 3:
            outputs.logits[:] = np.nan
        return outputs


def test_the_fallback_is_the_frozen_network_on_view_0() -> None:
    views = add_views(draw_images(2), 4)
    prediction = Adapter(Broken(), method("zero", views=4, kept=1.0)).step(views)
    assert prediction.fallback and prediction.forwards == 5
    expected = StandInNetwork()(views[:, 0]).logits
    assert np.array_equal(prediction.logits, expected)


def test_the_guard_compares_with_view_0_at_no_cost() -> None:
    """All views are black, so that even the frozen network cannot tell the images apart."""
    images = np.zeros((16, 4, 4, 4, 3), np.uint8)
    network = StandInNetwork()
    prediction = Adapter(network, method("zero", views=4, guard="rollback")).step(images)
    assert prediction.guarded and prediction.forwards == 4
    assert np.array_equal(prediction.logits, network(images[:, 0]).logits)


def test_domains_are_told_apart_by_view_0_at_no_cost() -> None:
    adapter = Adapter(StandInNetwork(), method("zero", views=4, domains=2))
    dark, bright = (add_views(draw_images(8) // 8 + level, 4) for level in (0, np.uint8(200)))
    assert adapter.step(dark).diagnostics["domains"] == 1
    changed = adapter.step(bright)
    assert changed.diagnostics["domains"] == 2 and changed.forwards == 8  # predicted once more
    assert adapter.step(bright).forwards == 4


def test_an_interval_keeps_all_views_and_needs_no_new_ones() -> None:
    adapter = Adapter(StandInNetwork(), method("zero", views=4, interval=6))
    views = add_views(draw_images(4), 5)
    first, second = adapter.step(views), adapter.step(list(views))
    assert first.diagnostics["updated"] == 0 and second.diagnostics["updated"] == 1
    assert (first.forwards, second.forwards) == (4, 4 + 8)
    assert adapter.method.forwards == 4 + 4  # on the average, if batches are as large as the interval
