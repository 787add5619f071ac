"""Arrangements: measured, remembered, and without influence on any result. And execution providers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from fozo.engine.bundle.bundle import Bundle
from fozo.engine.errors import InputError, OutputError
from fozo.engine.model import ImageArray, SourceStatistics
from fozo.engine.names import PROVIDERS
from fozo.engine.registry import method
from fozo.engine.runtime import arrangement as arrangement_module
from fozo.engine.runtime import session as session_module
from fozo.engine.runtime import tuning
from fozo.engine.runtime.arrangement import Arrangement, load_arrangement, store_arrangement
from fozo.engine.runtime.network import Network
from fozo.engine.runtime.tuning import list_arrangements, tune
from fozo.engine.streams.adapter import Adapter

MakeImages = Callable[..., ImageArray]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Empty the cache, and return the path of the file that will be in it."""
    monkeypatch.setenv("FOZO_CACHE_DIR", str(tmp_path / "cache" / "deep"))
    return tmp_path / "cache" / "deep" / "arrangements.json"


def opened(bundle_path: Path, **options: Any) -> Arrangement:
    """Return the arrangement that a network of the bundle gets."""
    with Network.open(bundle_path, **options) as network:
        return Arrangement(network.workers, network.micro_batch)


def graph_of(bundle_path: Path) -> str:
    return Bundle.open(bundle_path).graph_sha256("fp32")


# --- measuring


def test_tune_measures_every_arrangement(
    bundle_path: Path, random_images: MakeImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuning, "count_cpus", lambda: 3)
    steps: list[int] = []
    with Network.open(bundle_path, workers=2, micro_batch=5) as network:
        measured = tune(network, random_images(20), rounds=2, on_step=steps.append)
        assert (network.workers, network.micro_batch) == (2, 5)
        network(random_images(20))  # its threads are as they were
    assert [each.seconds for each in measured] == sorted(each.seconds for each in measured)
    assert all(each.seconds > 0 for each in measured)
    assert {each.arrangement for each in measured} == set(list_arrangements())
    assert {(w, m) for w in (1, 3) for m in (1, 2, 4, 8, 16)} == {
        (each.workers, each.micro_batch) for each in list_arrangements()
    }
    assert steps == [20] * 2 * 10


def test_rounds_are_interleaved_and_the_median_counts(
    bundle_path: Path, random_images: MakeImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[Arrangement] = []
    clock = iter(np.cumsum([0.0, 1.0, 0.0, 3.0, 0.0, 100.0, 0.0, 4.0, 0.0, 2.0, 0.0, 5.0]).tolist())
    monkeypatch.setattr(tuning, "list_arrangements", lambda: [Arrangement(1, 1), Arrangement(1, 2)])
    monkeypatch.setattr(tuning.time, "perf_counter", lambda: next(clock))
    with Network.open(bundle_path, workers=1) as network:
        rearrange = network.rearrange

        def record(workers: int, micro_batch: int) -> Network:
            order.append(Arrangement(workers, micro_batch))
            return rearrange(workers, micro_batch)

        monkeypatch.setattr(network, "rearrange", record)
        measured = tune(network, random_images(2), rounds=3)
    assert order == [Arrangement(1, 1), Arrangement(1, 2)] * 3
    assert [(each.arrangement.micro_batch, each.seconds) for each in measured] == [(1, 1.0), (2, 2.0)]


def test_tune_refuses_what_it_cannot_measure(bundle_path: Path, random_images: MakeImages) -> None:
    with Network.open(bundle_path, workers=1) as network:
        with pytest.raises(InputError, match="rounds"):
            tune(network, random_images(2), rounds=0)
        with pytest.raises(InputError, match="expected images"):
            tune(network, random_images(2)[:0], rounds=1)


@pytest.mark.parametrize("values", [(0, 1), (1, 0), (1.0, 1), (True, 1), (1, None), ("1", 1), (-1, 1)])
def test_arrangements_are_positive_integers(values: Any, bundle_path: Path) -> None:
    with pytest.raises(InputError, match="must be an integer of at least 1"):
        Arrangement(*values)
    with Network.open(bundle_path, workers=1) as network, pytest.raises(InputError):
        network.rearrange(*values)


def test_closing_a_restricted_view_leaves_the_network_running(
    bundle_path: Path, random_images: MakeImages
) -> None:
    images = random_images(6)
    with Network.open(bundle_path, workers=2, micro_batch=2) as network:
        expected = network(images).logits
        with network.select([3, 1]) as view:
            assert view(images).logits.tobytes() == np.ascontiguousarray(expected[:, [3, 1]]).tobytes()
        assert network(images).logits.tobytes() == expected.tobytes()
        with network.select([3, 1]).rearrange(2, 1) as rearranged:
            rearranged(images)
        with pytest.raises(RuntimeError):
            rearranged(images)  # its own threads have ended
        assert network(images).logits.tobytes() == expected.tobytes()


def test_a_view_with_other_source_statistics(bundle_path: Path, random_images: MakeImages) -> None:
    images = random_images(6)
    with Network.open(bundle_path, workers=2, micro_batch=2) as network:
        info, expected = network.info, network(images).logits.tobytes()
        shape = (info.layers, info.feature_width)
        source = SourceStatistics(np.zeros(shape, np.float32), np.ones(shape, np.float32), 9)
        with network.with_source(source) as view:
            assert view.info.source is source
            assert view(images).logits.tobytes() == expected
        assert network.info is info
        assert network(images).logits.tobytes() == expected  # its threads are still running


def test_views_have_threads_of_their_own(bundle_path: Path, random_images: MakeImages) -> None:
    images = random_images(9)
    network = Network.open(bundle_path, workers=2, micro_batch=2)
    chosen = network.select([3, 1]).rearrange(3, 1)
    expected = network(images).logits[:, [3, 1]].tobytes()
    assert np.ascontiguousarray(chosen(images).logits).tobytes() == expected
    chosen.close()
    assert len(network(images).logits) == 9
    view = network.rearrange(2, 4)
    network.close()
    with view:
        assert view.select([3, 1])(images).logits.tobytes() == expected


# --- remembering


def test_nothing_is_remembered_at_first(cache: Path) -> None:
    assert load_arrangement("abc", "cpu") is None
    assert not cache.parent.exists()


def test_remembered_by_graph_and_provider(cache: Path) -> None:
    store_arrangement("abc", "cpu", Arrangement(2, 4))
    store_arrangement("abd", "cpu", Arrangement(1, 8))
    store_arrangement("abc", "openvino", Arrangement(3, 16))
    store_arrangement("abd", "cpu", Arrangement(1, 2))
    assert load_arrangement("abc", "cpu") == Arrangement(2, 4)
    assert load_arrangement("abd", "cpu") == Arrangement(1, 2)
    assert load_arrangement("abc", "openvino") == Arrangement(3, 16)
    assert load_arrangement("abe", "cpu") is None
    assert [path.name for path in cache.parent.iterdir()] == ["arrangements.json"]


@pytest.mark.parametrize("what", ["processors", "model", "runtime"])
def test_another_machine_or_runtime_remembers_nothing(
    what: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store_arrangement("abc", "cpu", Arrangement(2, 4))
    if what == "processors":
        monkeypatch.setattr(arrangement_module, "count_cpus", lambda: 777)
    elif what == "model":
        features = arrangement_module.read_cpu_features()
        monkeypatch.setattr(
            arrangement_module, "read_cpu_features", lambda: type(features)("Other", "z80", ())
        )
    else:
        monkeypatch.setattr(arrangement_module.ort, "__version__", "0.0.1")
    assert load_arrangement("abc", "cpu") is None
    store_arrangement("abc", "cpu", Arrangement(1, 1))
    monkeypatch.undo()
    monkeypatch.setenv("FOZO_CACHE_DIR", str(cache.parent))
    assert load_arrangement("abc", "cpu") == Arrangement(2, 4)


DAMAGED: dict[str, bytes] = {
    "empty": b"",
    "text": b"hello",
    "bytes": bytes(range(256)),
    "half": b'{"schema": 1, "arrangem',
    "list": b"[]",
    "number": b"1",
    "null": b"null",
    "nothing in it": b"{}",
    "another schema": b'{"schema": 2, "arrangements": {"KEY": {"workers": 1, "micro_batch": 1}}}',
    "no mapping": b'{"schema": 1, "arrangements": [1]}',
    "entry is a list": b'{"schema": 1, "arrangements": {"KEY": [1, 2]}}',
    "entry is null": b'{"schema": 1, "arrangements": {"KEY": null}}',
    "entry lacks one": b'{"schema": 1, "arrangements": {"KEY": {"workers": 1}}}',
    "entry has more": b'{"schema": 1, "arrangements": {"KEY": {"workers": 1, "micro_batch": 1, "a": 1}}}',
    "zero": b'{"schema": 1, "arrangements": {"KEY": {"workers": 0, "micro_batch": 1}}}',
    "text as a number": b'{"schema": 1, "arrangements": {"KEY": {"workers": "1", "micro_batch": 1}}}',
    "true": b'{"schema": 1, "arrangements": {"KEY": {"workers": true, "micro_batch": 1}}}',
    "no number": b'{"schema": 1, "arrangements": {"KEY": {"workers": NaN, "micro_batch": 1}}}',
    "lone surrogate": b'{"schema": 1, "arrangements": {"\\ud800": {"workers": 1, "micro_batch": 1}}}',
    "deep": b"[" * 100_000,
    "many digits": b'{"schema": 1, "arrangements": ' + b"9" * 10_000 + b"}",
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_damaged_files_are_ignored_and_replaced(kind: str, cache: Path, bundle_path: Path) -> None:
    expected = opened(bundle_path)
    graph = graph_of(bundle_path)
    key = json.dumps(arrangement_module._build_key(graph, "cpu"))[1:-1].encode()
    cache.parent.mkdir(parents=True)
    cache.write_bytes(DAMAGED[kind].replace(b"KEY", key))
    assert load_arrangement(graph, "cpu") is None
    assert opened(bundle_path) == expected
    store_arrangement(graph, "cpu", Arrangement(1, 3))
    assert opened(bundle_path) == Arrangement(1, 3)


def test_a_usable_entry_beside_a_damaged_one(cache: Path) -> None:
    store_arrangement("abc", "cpu", Arrangement(1, 2))
    content = json.loads(cache.read_bytes())
    content["arrangements"]["other"] = 5
    cache.write_text(json.dumps(content), encoding="utf-8")
    assert load_arrangement("abc", "cpu") == Arrangement(1, 2)


@pytest.mark.parametrize("obstacle", ["file", "folder"])
def test_a_cache_that_cannot_be_written(obstacle: str, cache: Path, bundle_path: Path) -> None:
    expected = opened(bundle_path)
    if obstacle == "file":  # where the folder should be
        cache.parent.parent.write_text("in the way", encoding="utf-8")
    else:
        cache.mkdir(parents=True)
        (cache / "in the way").touch()
    assert load_arrangement("abc", "cpu") is None
    assert opened(bundle_path) == expected
    with pytest.raises(OutputError, match="FOZO_CACHE_DIR"):
        store_arrangement("abc", "cpu", Arrangement(1, 2))


def test_where_the_cache_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FOZO_CACHE_DIR", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(arrangement_module.Path, "home", lambda: tmp_path)
    for platform, variable, usual in (
        ("linux", "XDG_CACHE_HOME", ".cache"),
        ("win32", "LOCALAPPDATA", "AppData/Local"),
        ("darwin", None, "Library/Caches"),
    ):
        monkeypatch.setattr(arrangement_module.sys, "platform", platform)
        assert arrangement_module.locate_cache_folder() == tmp_path / usual / "fozo"
        if variable:
            monkeypatch.setenv(variable, str(tmp_path / "set"))
            assert arrangement_module.locate_cache_folder() == tmp_path / "set" / "fozo"
            monkeypatch.setenv(variable, "relative")
            assert arrangement_module.locate_cache_folder() == tmp_path / usual / "fozo"
    monkeypatch.setenv("FOZO_CACHE_DIR", str(tmp_path / "chosen"))
    assert arrangement_module.locate_cache_folder() == tmp_path / "chosen"


def test_no_home(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    for name in ("FOZO_CACHE_DIR", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(arrangement_module.Path, "home", homeless)
    assert load_arrangement("abc", "cpu") is None
    with pytest.raises(OutputError, match="home directory"):
        store_arrangement("abc", "cpu", Arrangement(1, 1))


# --- what a network makes of it


def test_explicit_arguments_win(cache: Path, bundle_path: Path) -> None:
    before = opened(bundle_path)
    store_arrangement(graph_of(bundle_path), "cpu", Arrangement(1, 3))
    assert opened(bundle_path) == Arrangement(1, 3)
    assert opened(bundle_path, workers=5) == Arrangement(5, 3)
    assert opened(bundle_path, micro_batch=7) == Arrangement(1, 7)
    assert opened(bundle_path, workers=5, micro_batch=7) == Arrangement(5, 7)
    cache.unlink()
    assert opened(bundle_path) == before
    with pytest.raises(InputError, match="workers"):
        Network.open(bundle_path, workers=0)


def test_never_more_workers_than_processors(cache: Path, bundle_path: Path) -> None:
    store_arrangement(graph_of(bundle_path), "cpu", Arrangement(100_000, 3))
    assert opened(bundle_path) == Arrangement(arrangement_module.count_cpus(), 3)


def test_another_graph_is_not_concerned(cache: Path, bundle_paths: dict[int, Path]) -> None:
    before = opened(bundle_paths[192])
    store_arrangement(graph_of(bundle_paths[64]), "cpu", Arrangement(1, 3))
    assert opened(bundle_paths[192]) == before


@pytest.mark.parametrize("options", [{}, {"workers": 1}, {"micro_batch": 3}])
def test_what_is_remembered_changes_no_bit(
    cache: Path, bundle_path: Path, random_images: MakeImages, options: dict[str, Any]
) -> None:
    def stream() -> list[bytes]:
        adapter = Adapter(Network.open(bundle_path, **options), method("fozo"), seed=3)
        found = [adapter.step(random_images(n, seed=n)).logits.tobytes() for n in (7, 1, 5)]
        adapter.network.close()  # type: ignore[attr-defined]
        return found

    expected = stream()
    for arrangement in [Arrangement(1, 1), Arrangement(2, 2), Arrangement(2, 16), Arrangement(1, 5)]:
        store_arrangement(graph_of(bundle_path), "cpu", arrangement)
        assert stream() == expected, arrangement


# --- providers


def test_unknown_provider(bundle_path: Path) -> None:
    with pytest.raises(InputError, match="unknown provider 'gpu'; available here: cpu"):
        Network.open(bundle_path, provider="gpu")


def test_provider_that_is_not_installed(bundle_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_module.ort, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(InputError, match=r"available here: cpu; .*pip install onnxruntime-openvino"):
        Network.open(bundle_path, provider="openvino")


def test_cpu_is_the_default(bundle_path: Path) -> None:
    with Network.open(bundle_path, workers=1) as network:
        assert network.provider == "cpu"
        assert network.rearrange(1, 1).provider == "cpu"


@pytest.mark.skipif(
    PROVIDERS["openvino"] not in ort.get_available_providers(),
    reason="needs onnxruntime-openvino in place of onnxruntime",
)
@pytest.mark.parametrize("width", [64, 192, 384])
def test_openvino_agrees_with_the_cpu(
    bundle_paths: dict[int, Path], random_images: MakeImages, width: int
) -> None:
    images = random_images(9)
    generator = np.random.default_rng(0)
    plain = Network.open(bundle_paths[width], workers=1, micro_batch=4)
    with Network.open(bundle_paths[width], workers=2, micro_batch=2, provider="openvino") as network:
        for shape in [(1, 0, width), (1, 3, width), (9, 1, width), (9, 2, width)]:
            prompts = generator.normal(size=shape).astype(np.float32)
            expected, found = plain(images, prompts=prompts), network(images, prompts=prompts)
            np.testing.assert_allclose(found.logits, expected.logits, rtol=1e-3, atol=1e-3)
            np.testing.assert_allclose(found.features, expected.features, rtol=1e-3, atol=1e-3)
            for arrangement in [(1, 1), (2, 4), (1, 16)]:
                with network.rearrange(*arrangement) as other:
                    assert other(images, prompts=prompts).logits.tobytes() == found.logits.tobytes()


def test_only_glibc_is_asked_to_return_memory(
    bundle_path: Path, random_images: MakeImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows has no `CDLL(None)`, and other libraries no `malloc_trim`."""
    for missing in (TypeError, OSError, AttributeError):

        def library(name: str | None, missing: type[Exception] = missing) -> Any:
            raise missing("no such thing")

        monkeypatch.setattr(session_module.ctypes, "CDLL", library)
        with Network.open(bundle_path, workers=1) as network:
            assert len(network(random_images(2)).logits) == 2
