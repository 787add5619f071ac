"""Opening ONNX Runtime sessions: who computes, with how many threads, in how little memory."""

from __future__ import annotations

import contextlib
import ctypes
import json
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import onnxruntime as ort

from ..errors import BundleError, ComputeError, InputError, reason
from ..model import Activation
from ..names import PROVIDERS
from .cpu import read_cpu_features
from .recentring_graph import add_recentring

TRIM_SECONDS = 0.02


def check_provider(provider: str) -> None:
    """Check that a provider is installed.

    Raises:
        InputError: there is no such provider, or it is not installed.
    """
    available = [name for name, long in PROVIDERS.items() if long in ort.get_available_providers()]
    if provider not in PROVIDERS:
        raise InputError(f"unknown provider {provider!r}; available here: {', '.join(available)}")
    if provider not in available:
        package = "onnxruntime" if provider == "cpu" else "onnxruntime-openvino"
        raise InputError(
            f"the provider {provider} is not installed; available here: {', '.join(available)}; to get it: "
            f"pip uninstall onnxruntime, then pip install {package} in place of it"
        )


def open_session(
    graph: Path, provider: str, workers: int, *, couples: bool, activations: Sequence[Activation] = ()
) -> Any:
    """Open a session for `workers` calls at a time; if `couples`, for single calls of so many threads.

    Its graph has the additional input and output of `add_recentring` if there are activations.

    Raises:
        BundleError: ONNX Runtime cannot load the file, or it does not compute an activation.
        ComputeError: memory is too short to load it.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = workers if couples else 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Without a pattern of memory, workers share what the arena has (docs/notebook/2026-11-21-speed.md).
    options.enable_mem_pattern = False
    # Whatever the file is called: only ONNX has been checked.
    options.add_session_config_entry("session.load_model_format", "ONNX")
    if read_cpu_features().full_int8 is not True:
        # Its integer kernels may add products of 8-bit weights in 16 bits, which overflow; these are exact.
        # Only constants of the outermost graph are converted, and only larger ones than 7 bits hold.
        options.add_session_config_entry("session.x64quantprecision", "1")
    name = PROVIDERS[provider]
    settings = (
        {} if provider == "cpu" else _build_openvino_settings(provider, workers, 1 if couples else workers)
    )
    model = add_recentring(graph, activations) if activations else str(graph)
    try:
        with _return_freed_memory():
            # Without fallback: silently computing elsewhere would be another network.
            session = ort.InferenceSession(
                model, options, providers=[(name, settings)], enable_fallback=False
            )
    except Exception as error:  # the runtime raises many kinds, all of its own
        if isinstance(error, MemoryError) or "alloc" in str(error):
            raise ComputeError(
                f"memory is too short to load {graph}: {reason(error)}; use a smaller model or the int8 graph"
            ) from error
        raise BundleError(
            f"ONNX Runtime cannot load {graph}: {reason(error)}; export the model again"
        ) from error
    return session


def _build_openvino_settings(provider: str, workers: int, calls: int) -> dict[str, str]:
    """Return OpenVINO's settings for so many calls at a time that share the workers.

    Pinned threads of two processes, or of two networks, would wait for each other on the same processors.
    """
    cpu = {
        "INFERENCE_PRECISION_HINT": "bf16" if provider == "openvino-bf16" else "f32",
        "NUM_STREAMS": str(calls),
        "INFERENCE_NUM_THREADS": str(workers),
        "ENABLE_CPU_PINNING": "NO",
    }
    return {"device_type": "CPU", "load_config": json.dumps({"CPU": cpu})}


@contextlib.contextmanager
def _return_freed_memory() -> Iterator[None]:
    """Return memory that the block frees to the system while the block runs.

    Packing the weights for the kernels frees their first copy piece by piece, and glibc keeps the pieces:
    loading ViT-B would peak at 610 MB, and does at 410. Where ONNX Runtime holds Python's lock while it loads
    (1.24 does, 1.31 does not), only what remains at the end is returned.
    """
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError, TypeError):  # only glibc has it, and only glibc needs it
        yield
        return
    done = threading.Event()

    def keep_trimming() -> None:
        while not done.wait(TRIM_SECONDS):
            trim(0)

    thread = threading.Thread(target=keep_trimming, name="fozo-trim", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        trim(0)


def make_partial_run() -> Any:
    """Return options of a call that computes nothing but the outputs that are asked for."""
    options = ort.RunOptions()
    options.only_execute_path_to_fetches = True
    return options
