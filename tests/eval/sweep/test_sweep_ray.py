"""Sweeps on a real Ray cluster of two nodes on this machine, one of which is killed."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import fozo
import pytest
from doubles import child_environment, fozo_command, save_class_folders
from fozo.engine.bundle.bundle import Bundle
from fozo.engine.errors import BundleError
from fozo.eval.sweep import cluster
from fozo.eval.sweep.cell import Job
from fozo.eval.sweep.cluster import RayError, run_on_ray
from fozo.eval.sweep.cluster_task import unpack_bundle
from fozo.eval.sweep.events import Event, Failed, Finished
from fozo.eval.sweep.folder import Sweep
from fozo.eval.sweep.local import run_locally
from sweep_doubles import OPTIONS, counts, plan_named

needs_ray = pytest.mark.skipif(
    find_spec("ray") is None, reason="Ray is not installed: pip install 'fozo[ray]'"
)
SOURCES = {"PYTHONPATH": child_environment()["PYTHONPATH"]}
# The second has Ray use the loopback interface, as it does elsewhere than on Linux.
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
NODE = {"num_cpus": 1, "object_store_memory": 100_000_000, "node_ip_address": "127.0.0.1"}


@pytest.fixture(scope="module")
def jobs(
    bundle_path: Path, random_images: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> list[Job]:
    """Eight cells of 60 images, one by one: about a second each."""
    folder = save_class_folders(tmp_path_factory.mktemp("pictures"), random_images(60))
    options = {**OPTIONS, "generate_from": folder, "corruptions": ("contrast", "fog"), "seeds": 2}
    options |= {"batch_size": 1, "seed": 0}
    return plan_named([bundle_path], ["no_adapt", "fozo:samples=8"], **options)


# --- bundles on workers, without Ray ---


def files_of(bundle: Bundle) -> dict[str, bytes]:
    return {name: (bundle.path / name).read_bytes() for name in ["bundle.json", *bundle.manifest.files]}


def test_a_packed_bundle_is_the_whole_of_it(bundle_path: Path) -> None:
    assert cluster._pack_bundle(bundle_path) == files_of(Bundle.open(bundle_path))


def test_a_bundle_is_unpacked_once(bundle_path: Path, tmp_path: Path) -> None:
    bundle = Bundle.open(bundle_path)
    fetched: list[int] = []

    def fetch() -> dict[str, bytes]:
        fetched.append(1)
        return files_of(bundle)

    places = [unpack_bundle(bundle.sha256, fetch, tmp_path / "home") for _ in range(2)]
    assert places == [tmp_path / "home" / bundle.sha256] * 2
    assert len(fetched) == 1
    assert files_of(Bundle.open(places[0])) == files_of(bundle)
    assert [path.name for path in (tmp_path / "home").iterdir()] == [bundle.sha256]


def test_many_may_unpack_at_a_time(bundle_path: Path, tmp_path: Path) -> None:
    bundle = Bundle.open(bundle_path)
    together = threading.Barrier(4)

    def fetch() -> dict[str, bytes]:
        together.wait(60)
        return files_of(bundle)

    with ThreadPoolExecutor(4) as pool:
        places = list(pool.map(lambda _: unpack_bundle(bundle.sha256, fetch, tmp_path), range(4)))
    assert set(places) == {tmp_path / bundle.sha256}
    assert files_of(Bundle.open(places[0])) == files_of(bundle)
    assert [path.name for path in tmp_path.iterdir()] == [bundle.sha256]


@pytest.mark.parametrize("damage", ["cut", "removed", "manifest"])
def test_a_damaged_bundle_is_replaced(bundle_path: Path, tmp_path: Path, damage: str) -> None:
    bundle = Bundle.open(bundle_path)
    folder = unpack_bundle(bundle.sha256, lambda: files_of(bundle), tmp_path)
    target = folder / ("bundle.json" if damage == "manifest" else "model.onnx")
    if damage == "removed":
        target.unlink()
    else:
        target.write_bytes(target.read_bytes()[:-1])
    assert unpack_bundle(bundle.sha256, lambda: files_of(bundle), tmp_path) == folder
    assert files_of(Bundle.open(folder)) == files_of(bundle)


def test_another_bundle_than_expected_is_refused(
    bundle_path: Path, bundle_paths: dict[int, Path], tmp_path: Path
) -> None:
    sent = files_of(Bundle.open(bundle_paths[192]))
    with pytest.raises(BundleError, match="found another"):
        unpack_bundle(Bundle.open(bundle_path).sha256, lambda: sent, tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(BundleError, match="cannot unpack the bundle"):
        unpack_bundle(Bundle.open(bundle_path).sha256, lambda: sent, tmp_path / "file")


# --- what a worker says before it computes ---


def test_a_worker_that_does_not_fit_says_so(tmp_path: Path) -> None:
    ask = cluster._make_task()
    assert ask(fozo.__version__, [str(tmp_path)]) == {}
    assert re.fullmatch(
        r"expected fozo 99 on the machine \S+, found [\d.]+; install it there", ask("99", [])["error"]
    )
    absent = ask(fozo.__version__, [str(tmp_path), str(tmp_path / "absent")])["error"]
    assert re.fullmatch(rf"the machine \S+ has no {tmp_path}/absent; make it visible there", absent)


@needs_ray
def test_the_function_that_is_sent_needs_no_fozo() -> None:
    """It is sent as code, so that it can say that fozo is missing."""
    from ray import cloudpickle

    sent = cloudpickle.dumps(cluster._make_task())
    code = (
        "import sys\nfrom ray import cloudpickle\n"
        "sys.path = [path for path in sys.path if 'site-packages' in path or 'lib' in path]\n"
        "sys.meta_path.insert(0, type('No', (), {'find_spec': staticmethod(lambda name, *_: "
        "(_ for _ in ()).throw(ModuleNotFoundError('none here')) if name.startswith('fozo') else None)}))\n"
        "print(cloudpickle.loads(sys.stdin.buffer.read())('1.2', [])['error'])"
    )
    process = subprocess.run([sys.executable, "-c", code], input=sent, capture_output=True, timeout=120)
    assert re.fullmatch(
        r"the machine \S+ cannot load fozo \(none here\); install fozo 1.2 there\n", process.stdout.decode()
    ), process.stderr.decode()


# --- a cluster ---


@pytest.fixture(scope="module")
def one_node() -> Iterator[Any]:
    """Start a cluster with one processor, on the loopback interface alone."""
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'fozo[ray]'")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in QUIET.items():
            patch.setenv(name, value)
        patch.setattr("ray._private.ray_constants.ENABLE_RAY_CLUSTER", False)
        from ray.cluster_utils import Cluster

        started = Cluster(initialize_head=True, head_node_args={**NODE, "include_dashboard": False})
        try:
            yield started
        finally:
            started.shutdown()


@pytest.fixture
def two_nodes(one_node: Any) -> Iterator[tuple[Any, Any]]:
    """Return the cluster with a second node, and that node."""
    second = one_node.add_node(**NODE)
    yield one_node, second
    if second in one_node.worker_nodes:
        one_node.remove_node(second)


@pytest.fixture(scope="module")
def variables(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return the variables that tell workers where fozo is and where to unpack bundles."""
    return {**SOURCES, "TMPDIR": str(tmp_path_factory.mktemp("unpacked"))}


@needs_ray
def test_a_node_that_dies_loses_nothing(
    two_nodes: tuple[Any, Any], jobs: list[Job], variables: dict[str, str], tmp_path: Path
) -> None:
    started, second = two_nodes
    happened: list[Event] = []

    def disturbed(pending: Sequence[Job]) -> Iterator[Event]:
        with contextlib.closing(run_on_ray(pending, started.address, environment=variables)) as events:
            for event in events:
                if not happened:  # both nodes are at work
                    started.remove_node(second, allow_graceful=False)
                happened.append(event)
                yield event

    sweep = Sweep.open(tmp_path / "ray", jobs)
    assert sum(sweep.run(disturbed, print)) == 8 * 60  # type: ignore[arg-type]
    assert all(isinstance(event, Finished) for event in happened), happened
    assert sorted(event.cell.key for event in happened) == sorted(job.cell.key for job in jobs)
    files = sorted(path.name for path in (tmp_path / "ray" / "cells").iterdir())
    assert files == sorted(f"{job.cell.name}.json" for job in jobs)
    local = Sweep.open(tmp_path / "local", jobs)
    list(local.run(partial(run_locally, processes=2), print))
    for job in jobs:
        assert counts(sweep.finished[job.cell].method_result) == counts(
            local.finished[job.cell].method_result
        )
        assert sweep.finished[job.cell].bundle["path"] == job.bundle
    assert Sweep.open(tmp_path / "ray", jobs).pending == []


@needs_ray
def test_what_cannot_run_is_said_with_the_machine(
    one_node: Any, jobs: list[Job], variables: dict[str, str], monkeypatch: Any
) -> None:
    import ray

    (job, *_) = jobs
    ray.init(
        one_node.address, runtime_env={"env_vars": variables}, log_to_driver=False, logging_level="error"
    )
    try:
        dataset = replace(job.spec.dataset, labels=Path("/absent/labels.txt"))
        absent = replace(job, spec=replace(job.spec, dataset=dataset))
        with pytest.raises(
            RayError, match=r"the machine \S+ has no /absent/labels.txt; make it visible there"
        ):
            list(run_on_ray([absent], "not used"))
        changed = replace(job, cell=replace(job.cell, images_sha256="0" * 64))
        (event,) = run_on_ray([changed], "not used")
        assert re.search(
            r"expected 60 images of contrast as they were .* \(on the machine \S+\)", failure(event)
        )
        monkeypatch.setattr(cluster, "__version__", "99")
        with pytest.raises(RayError, match=r"expected fozo 99 on the machine \S+, found"):
            list(run_on_ray([job], "not used"))
        monkeypatch.undo()
        with contextlib.closing(run_on_ray(jobs * 10, "not used")) as events:
            assert isinstance(next(events), Finished)
        assert idle(ray), "closing cancels what is left"
        assert ray.is_initialized(), "it is the caller's connection"
    finally:
        ray.shutdown()


def idle(ray: Any) -> bool:
    """Whether the processor of the cluster is free within some time, and stays so."""
    end = time.monotonic() + 30
    while time.monotonic() < end:
        if ray.available_resources().get("CPU") == 1:
            time.sleep(0.5)
            if ray.available_resources().get("CPU") == 1:
                return True
        time.sleep(0.1)
    return False


def failure(event: Event) -> str:
    assert isinstance(event, Failed)
    return event.reason


@needs_ray
def test_the_command_is_interrupted_and_goes_on(
    one_node: Any, jobs: list[Job], variables: dict[str, str], tmp_path: Path
) -> None:
    originals = jobs[0].spec.dataset.generate_from
    arguments = [jobs[0].bundle, "--generate-from", originals, "--corruptions", "contrast,fog"]
    arguments += ["--severities", "3", "--seed", "0", "--seeds", "2", "--batch-size", "1", "--json"]
    arguments += ["-m", "no_adapt", "-m", "fozo:samples=8", "--out", tmp_path / "out"]
    arguments += ["--ray", one_node.address]
    arguments += [text for name, value in variables.items() for text in ("--ray-env", f"{name}={value}")]
    command = fozo_command("sweep", *arguments)
    begin = partial(
        subprocess.Popen,
        command,
        env=child_environment(**QUIET),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    with begin() as process:
        watchdog = threading.Timer(120, process.kill)
        watchdog.start()
        while process.poll() is None and not list(tmp_path.glob("out/cells/*.json")):
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate()
        watchdog.cancel()
    assert (process.returncode, errors.splitlines()[-1]) == (130, "Interrupted."), errors
    assert "Traceback" not in errors
    finished = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out" / "cells").iterdir()}
    assert 0 < json.loads(output)["finished"] == len(finished) < 8

    with begin() as process:
        output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert f"8 cells, {len(finished)} of them finished" in errors
    assert json.loads(output)["finished"] == 8
    cells = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out" / "cells").iterdir()}
    assert set(cells) == {f"{job.cell.name}.json" for job in jobs}
    assert finished.items() <= cells.items()


@needs_ray
def test_no_cluster_is_said_at_once(jobs: list[Job]) -> None:
    before = time.monotonic()
    for address in ("127.0.0.1:1", "nonsense:x", "nonsense"):
        with pytest.raises(RayError, match=f"cannot connect to a Ray cluster at {address}"):
            list(run_on_ray(jobs[:1], address))
    assert time.monotonic() - before < 30


def test_ray_may_not_be_installed(jobs: list[Job], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(RayError, match=r'pip install "fozo\[ray\]"'):
        list(run_on_ray(jobs, "auto"))
