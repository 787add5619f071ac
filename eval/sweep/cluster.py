"""Runner that computes the cells of a sweep on a Ray cluster, one task per cell.

Only the driver writes results, and Ray restarts tasks whose process or machine dies. So no result is lost or
counted twice, even if a task ran twice. Workers need the driver's version of fozo, and the data under the
same paths. Bundles are sent to them.
"""

from __future__ import annotations

import contextlib
import socket
import warnings
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..._version import __version__
from ...engine.bundle.bundle import MANIFEST, Bundle
from ...engine.errors import FozoError, reason
from ...engine.records import to_dict
from .cell import Job
from .events import Event, Failed, Finished

PATIENCE = 60.0  # seconds to wait for the machines of a cluster to report what they lack
CONNECT_SECONDS = 5.0


class RayError(FozoError):
    """A Ray cluster that cannot be used."""


def run_on_ray(
    jobs: Sequence[Job],
    address: str,
    threads: int = 1,
    retries: int = 2,
    environment: Mapping[str, str] | None = None,
) -> Generator[Event, None, None]:
    """Compute jobs on a cluster; with the other arguments bound, this is a `Runner`.

    Closing the generator cancels all tasks.

    Args:
        jobs: the cells to compute.
        address: address of a running cluster, or `auto`; ignored if the program is already connected to one.
        threads: processors per task.
        retries: number of retries of a task whose process or machine died or ran out of memory.
        environment: variables of the workers' processes.

    Yields:
        `Finished` and `Failed`, in the order of occurrence.

    Raises:
        RayError: Ray is not installed, there is no cluster, or one of its machines lacks fozo or data.
        BundleError: a bundle cannot be sent.
    """
    ray = _import_ray()
    connected = bool(ray.is_initialized())
    if not connected:
        _connect(ray, address, environment or {})
    pending: dict[Any, Job] = {}
    try:
        _check_nodes(ray, jobs, threads)
        bundles = {
            path: ray.put(_pack_bundle(Path(path))) for path in dict.fromkeys(job.bundle for job in jobs)
        }
        task = ray.remote(_make_task()).options(num_cpus=threads, max_retries=retries, retry_exceptions=True)
        for job in jobs:
            # Inside a list, Ray does not resolve the reference, so only machines without the bundle fetch it.
            request = (to_dict(job), threads, [bundles[job.bundle]])
            pending[task.remote(__version__, _list_data([job]), *request)] = job
        while pending:
            (reference,), _ = ray.wait(list(pending), num_returns=1)
            yield _await_event(ray, pending[reference], reference)
            del pending[reference]
    finally:
        if not connected:
            ray.shutdown()  # this kills the tasks of the driver
        else:
            for reference in pending:
                # Not with force=True, which may abort this process if the task finishes meanwhile (Ray 2.60).
                ray.cancel(reference)


def _await_event(ray: Any, job: Job, reference: Any) -> Event:
    try:
        answer = ray.get(reference)
    except ray.exceptions.RayError as error:
        cause = getattr(error, "cause", None) or error
        return Failed(job.cell, f"{type(cause).__name__}: {reason(cause)}")
    if "document" in answer:
        return Finished(job.cell, answer["document"])
    return Failed(job.cell, answer["error"])


def _import_ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise RayError('Ray was not found; install it with: pip install "fozo[ray]"') from error
    return ray


def _connect(ray: Any, address: str, environment: Mapping[str, str]) -> None:
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    try:
        if colon:  # Ray itself would wait for minutes before it fails
            socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS).close()
        ray.init(
            address,
            runtime_env={"env_vars": dict(environment)} if environment else None,
            log_to_driver=False,
            logging_level="error",
        )
    except (ConnectionError, OSError, ValueError, RuntimeError) as error:
        raise RayError(
            f"cannot connect to a Ray cluster at {address} ({reason(error)}); start one with "
            "ray start --head, and name its address with --ray HOST:6379"
        ) from error


# --- on the workers ---


def _make_task() -> Callable[..., dict[str, Any]]:
    """Return the function that is sent to workers.

    A local function is sent as code and not as a name, so it can report that fozo is missing or outdated.
    """

    def compute_cell(version: str, paths: Sequence[str], *request: Any) -> dict[str, Any]:
        import os
        import socket

        host = socket.gethostname()
        try:
            from ..._version import __version__ as installed
        except ImportError as error:
            return {"error": f"the machine {host} cannot load fozo ({error}); install fozo {version} there"}
        if installed != version:
            return {
                "error": f"expected fozo {version} on the machine {host}, found {installed}; install it there"
            }
        if absent := [path for path in paths if not os.path.exists(path)]:  # noqa: PTH110
            return {"error": f"the machine {host} has no {', '.join(absent)}; make it visible there"}
        from .cluster_task import compute_on

        return compute_on(host, *request) if request else {}

    return compute_cell


def _check_nodes(ray: Any, jobs: Sequence[Job], threads: int) -> None:
    """Check that all machines that can run a task have fozo and the data.

    Machines that do not answer in time, or join later, are checked by every task.
    """
    nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) >= threads]
    if not nodes:
        warnings.warn(
            f"no machine of the cluster has {threads} processors, so nothing will run until one comes",
            stacklevel=2,
        )
    check, paths = ray.remote(_make_task()), _list_data(jobs)
    affinity = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
    strategies = [affinity(node["NodeID"], soft=False) for node in nodes]
    checks = [
        check.options(num_cpus=0, max_retries=0, scheduling_strategy=strategy).remote(__version__, paths)
        for strategy in strategies
    ]
    answers, _ = ray.wait(checks, num_returns=len(checks), timeout=PATIENCE) if checks else ([], [])
    problems = []
    for reference in answers:
        with contextlib.suppress(ray.exceptions.RayError):  # the machine died meanwhile
            problems += ray.get(reference).values()
    if problems:
        raise RayError("; ".join(dict.fromkeys(problems)))


def _list_data(jobs: Sequence[Job]) -> list[str]:
    """Return the paths of the data of jobs."""
    return sorted({str(path) for job in jobs for path in job.spec.input_paths})


def _pack_bundle(folder: Path) -> dict[str, bytes]:
    """Return the files of a bundle by name, after checking them."""
    bundle = Bundle.open(folder)
    names = [MANIFEST, *bundle.manifest.files]
    return {name: (folder / name if name == MANIFEST else bundle.file(name)).read_bytes() for name in names}
