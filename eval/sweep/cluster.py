"""Computes the cells of a sweep on a Ray cluster, one task per cell.

The driver alone writes results, and Ray begins tasks again whose process or machine dies. So nothing is
lost, and nothing counts twice, even if a task ran twice. Workers need fozo of the driver's version, and the
data under the driver's paths. Bundles are sent.
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
from .cell import PATHS, Job
from .events import Event, Failed, Finished

PATIENCE = 60.0  # seconds for the machines of a cluster to say whether they have what it takes
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
    """Computes jobs; a `Runner` once the other arguments are given.

    Args:
        jobs: what to compute.
        address: of an existing cluster, or `auto`; not used where the program is connected to one.
        threads: processors that a task takes.
        retries: how often a task is begun again after its process or machine died or memory ran out.
        environment: variables of the workers' processes.

    Yields:
        `Finished` and `Failed`, in the order in which it happens. Closing cancels all tasks.

    Raises:
        RayError: Ray is not installed, there is no cluster, or a machine of it lacks what it takes.
        BundleError: a bundle cannot be sent.
    """
    ray = _ray()
    connected = bool(ray.is_initialized())
    if not connected:
        _connect(ray, address, environment or {})
    pending: dict[Any, Job] = {}
    try:
        _check_nodes(ray, jobs, threads)
        bundles = {path: ray.put(_packed(Path(path))) for path in dict.fromkeys(job.bundle for job in jobs)}
        task = ray.remote(_task()).options(num_cpus=threads, max_retries=retries, retry_exceptions=True)
        for job in jobs:
            # Within a list, so that only those fetch it who do not have it yet.
            request = (job.to_json(), threads, [bundles[job.bundle]])
            pending[task.remote(__version__, _paths([job]), *request)] = job
        while pending:
            (reference,), _ = ray.wait(list(pending), num_returns=1)
            yield _event(ray, pending[reference], reference)
            del pending[reference]
    finally:
        if not connected:
            ray.shutdown()  # without the driver, its tasks are killed
        else:
            for reference in pending:
                # Not by force: that may abort this very process, if the task finishes at that moment (2.60).
                ray.cancel(reference)


def _event(ray: Any, job: Job, reference: Any) -> Event:
    try:
        said = ray.get(reference)
    except ray.exceptions.RayError as error:
        cause = getattr(error, "cause", None) or error
        return Failed(job.cell, f"{type(cause).__name__}: {reason(cause)}")
    if "document" in said:
        return Finished(job.cell, said["document"])
    return Failed(job.cell, said["error"])


def _ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise RayError('Ray was not found; install it with: pip install "fozo[ray]"') from error
    return ray


def _connect(ray: Any, address: str, environment: Mapping[str, str]) -> None:
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    try:
        if colon:  # Ray itself would wait for minutes
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


# --- what runs on the workers ---


def _task() -> Callable[..., dict[str, Any]]:
    """The function that is sent to workers.

    Made here, it is sent as code and not as a name, so it can say that fozo is missing or is another version.
    """

    def compute_cell(version: str, paths: Sequence[str], *request: Any) -> dict[str, Any]:
        import os
        import socket

        host = socket.gethostname()
        try:
            from ..._version import __version__ as found
        except ImportError as error:
            return {"error": f"the machine {host} cannot load fozo ({error}); install fozo {version} there"}
        if found != version:
            return {
                "error": f"expected fozo {version} on the machine {host}, found {found}; install it there"
            }
        if absent := [path for path in paths if not os.path.exists(path)]:  # noqa: PTH110
            return {"error": f"the machine {host} has no {', '.join(absent)}; make it visible there"}
        from .cluster_task import compute_on

        return compute_on(host, *request) if request else {}

    return compute_cell


def _check_nodes(ray: Any, jobs: Sequence[Job], threads: int) -> None:
    """Asks all machines that can run a task whether they have fozo and the data.

    Those that do not answer in time, and those that come later, are asked with every task.
    """
    nodes = [each for each in ray.nodes() if each["Alive"] and each["Resources"].get("CPU", 0) >= threads]
    if not nodes:
        warnings.warn(
            f"no machine of the cluster has {threads} processors, so nothing will run until one comes",
            stacklevel=2,
        )
    check, paths = ray.remote(_task()), _paths(jobs)
    affinity = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
    there = [affinity(node["NodeID"], soft=False) for node in nodes]
    asked = [
        check.options(num_cpus=0, max_retries=0, scheduling_strategy=each).remote(__version__, paths)
        for each in there
    ]
    answers, _ = ray.wait(asked, num_returns=len(asked), timeout=PATIENCE) if asked else ([], [])
    problems = []
    for reference in answers:
        with contextlib.suppress(ray.exceptions.RayError):  # it died meanwhile
            problems += ray.get(reference).values()
    if problems:
        raise RayError("; ".join(dict.fromkeys(problems)))


def _paths(jobs: Sequence[Job]) -> list[str]:
    """Where the data of jobs is."""
    return sorted({str(job.arguments[name]) for job in jobs for name in PATHS if job.arguments.get(name)})


def _packed(folder: Path) -> dict[str, bytes]:
    """The files of a bundle by name, each checked."""
    bundle = Bundle.open(folder)
    names = [MANIFEST, *bundle.manifest.files]
    return {name: (folder / name if name == MANIFEST else bundle.file(name)).read_bytes() for name in names}
