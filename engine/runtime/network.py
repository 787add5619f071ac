"""One ONNX Runtime session behind `network(images, **tunables) -> Outputs`.

A batch runs as micro-batches, each on one thread of a small pool, several at a time on the same session.
Peak memory is set by micro-batch times workers and not by the batch. Every micro-batch is computed by
single-threaded kernels, so results do not depend on how the work is split (docs/engine.md, determinism).

Networks with the tunable `batch_statistics` are run in another way: where it is not zero, the images of a
batch depend on each other and must be computed by one call. So the workers are threads inside of a call, and
one call runs at a time.
"""

from __future__ import annotations

import contextlib
import copy
import ctypes
import functools
import json
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from ..bundle.bundle import Bundle
from ..errors import BundleError, ComputeError, InputError, reason
from ..model import FloatArray, ImageArray, ModelInfo, Outputs, Tunables
from ..names import PROVIDERS
from .cpu import available_cpus, cpu_features
from .onnx_file import check_graph_file
from .tuning import Arrangement, remembered

IMAGES = "images"
COUPLING = "batch_statistics"  # not zero: the images of a call depend on each other
OUTPUTS = ("logits", "features", "embedding")
# Activations of about this many values per worker stay close to the processor: ViT-B runs 2 images at a
# time, and so does ViT-Tiny (measured in docs/benchmarks.md; the optimum is flat, and less is leaner).
MICRO_BATCH_VALUES = 100_000
TRIM_SECONDS = 0.02


class Network:
    """A frozen model. It holds no adaptation state: one network serves any number of streams.

    Attributes:
        info: the model behind it.
        image_size: height and width of the images it reads, in pixels.
        micro_batch: images per call of the runtime.
        workers: calls that run at the same time; or threads of a call, where images may depend on each other.
        provider: who computes, a name of `PROVIDERS`.
    """

    def __init__(
        self,
        graph: Path,
        info: ModelInfo,
        *,
        workers: int | None = None,
        micro_batch: int | None = None,
        provider: str = "cpu",
    ) -> None:
        """Loads an ONNX file that follows the graph contract (docs/bundle.md).

        Args:
            graph: the ONNX file.
            info: the model it belongs to.
            workers: threads; default: as many as this process may use.
            micro_batch: images per call; default: chosen by the model's size.
            provider: `cpu`, or where onnxruntime-openvino is installed `openvino` (float32 as it is) or
                `openvino-bf16` (products in bfloat16, fast on processors with AMX).

        Raises:
            BundleError: the file is no ONNX model, is refused (docs/bundle.md), or its inputs and outputs are
                not those of the contract.
            InputError: `workers` or `micro_batch` is less than 1, or the provider is not installed.
        """
        arrangement = Arrangement(
            available_cpus() if workers is None else workers,
            _default_micro_batch(info.tokens * info.width) if micro_batch is None else micro_batch,
        )
        _check_provider(provider)
        check_graph_file(graph)
        self.info = info
        self.provider = provider
        # Where calls have several threads, these belong to a session: one for each number of workers in use.
        self._couples = COUPLING in info.tunables
        self._open = functools.partial(_session, graph, provider, couples=self._couples)
        self._sessions = {arrangement.workers: self._open(arrangement.workers)}
        self._session = self._sessions[arrangement.workers]
        self.image_size = _check_contract(self._session, info, graph)
        # Axes of every tunable; None is any length, and as the first one 1 or the number of images.
        self._axes: dict[str, list[int | None]] = {
            node.name: [axis if isinstance(axis, int) else None for axis in node.shape]
            for node in self._session.get_inputs()
            if node.name != IMAGES
        }
        self._outputs: dict[str, list[int]] = {
            node.name: node.shape[1:] for node in self._session.get_outputs()
        }
        self._classes: NDArray[np.int64] | None = None
        self._arrange(arrangement)

    @classmethod
    def open(
        cls,
        bundle: Bundle | str | Path,
        precision: str = "fp32",
        *,
        workers: int | None = None,
        micro_batch: int | None = None,
        provider: str = "cpu",
    ) -> Network:
        """Loads a graph of a bundle after checking its hash.

        What is not given of `workers` and `micro_batch` is what tuning has found to be the fastest here
        (`fozo.engine.runtime.tuning`), or else the default.

        Raises:
            BundleError: the bundle or the graph cannot be used.
            InputError: `workers` or `micro_batch` is less than 1, or the provider is not installed.
        """
        if not isinstance(bundle, Bundle):
            bundle = Bundle.open(bundle)
        tuned = remembered(bundle.graph_sha256(precision), provider)
        if tuned is not None:
            workers = min(tuned.workers, available_cpus()) if workers is None else workers
            micro_batch = tuned.micro_batch if micro_batch is None else micro_batch
        graph, info = bundle.graph(precision), bundle.info(precision)
        _warn_of_overflow(bundle, precision)
        return cls(graph, info, workers=workers, micro_batch=micro_batch, provider=provider)

    def select(self, classes: Sequence[int]) -> Network:
        """The same network restricted to some classes, e.g. the 200 of ImageNet-R; it shares the session.

        The logits of the other classes are dropped before anything is computed from them.

        Raises:
            InputError: the indices are not distinct or out of range.
        """
        view = copy.copy(self)
        view.info = self.info.select(classes)
        chosen = np.asarray(classes, dtype=np.int64)
        view._classes = chosen if self._classes is None else self._classes[chosen]
        return view

    def arranged(self, workers: int, micro_batch: int) -> Network:
        """The same network with its work split in another way.

        It shares the session but has threads of its own: closing one of the two leaves the other as it is.
        OpenVINO runs no more calls at a time than the network was opened with; the others wait. Where the
        workers are threads of a call, another number of them is another session, loaded again once.

        Raises:
            InputError: `workers` or `micro_batch` is less than 1.
        """
        view = copy.copy(self)
        view._arrange(Arrangement(workers, micro_batch))
        return view

    def _arrange(self, arrangement: Arrangement) -> None:
        self.workers, self.micro_batch = arrangement.workers, arrangement.micro_batch
        if self._couples:
            if self.workers not in self._sessions:
                self._sessions[self.workers] = self._open(self.workers)
            self._session = self._sessions[self.workers]
        pooled = self.workers > 1 and not self._couples
        self._pool = ThreadPoolExecutor(self.workers, "fozo-network") if pooled else None

    def __call__(self, images: ImageArray, **tunables: FloatArray) -> Outputs:
        """One forward.

        Args:
            images: uint8 `[N, H, W, 3]`, RGB, N ≥ 1.
            tunables: by name, float32; the first axis is 1, or N for each image its own: `prompts`
                `[R, P, D]`, `norms` `[S, M, 2, D]`. What is not given has no effect: without any, the network
                is the plain one. In residual networks, `norms` `[1, M, 2, W]` and `batch_statistics` `[1]`
                are for the whole batch.

        Raises:
            InputError: an array is not of this kind or shape, or there is no such tunable.
            ComputeError: ONNX Runtime fails, most often for lack of memory.
        """
        return self.candidates(images, [tunables])[0]

    def candidates(self, images: ImageArray, tunables: Sequence[Tunables]) -> list[Outputs]:
        """One forward over the same images for each of several sets of tunables, their micro-batches mixed.

        Args:
            images: uint8 `[N, H, W, 3]`, RGB, N ≥ 1.
            tunables: one mapping per forward, as in `__call__`.

        Raises:
            InputError: an array is not of this kind or shape, or there is no such tunable.
            ComputeError: ONNX Runtime fails, most often for lack of memory.
        """
        self.check_images(images)
        n = len(images)
        feeds = [self._feed(candidate, n) for candidate in tunables]
        results = [self._empty(n) for _ in feeds]

        def run(task: tuple[int, int, int]) -> None:
            index, start, stop = task
            part = slice(start, stop)
            own = {name: array if len(array) == 1 else array[part] for name, array in feeds[index].items()}
            found = self._run({IMAGES: images[part], **own})
            if self._classes is not None:
                found["logits"] = found["logits"][:, self._classes]
            for name, values in found.items():
                getattr(results[index], name)[part] = values

        tasks = [
            (index, start, min(start + size, n))
            for index, feed in enumerate(feeds)
            for size in [self._images_per_call(feed, n)]
            for start in range(0, n, size)
        ]
        if self._pool is None or len(tasks) == 1:
            for task in tasks:
                run(task)
        else:
            for _ in self._pool.map(run, tasks):
                pass
        return results

    def _empty(self, images: int) -> Outputs:
        axes = {**self._outputs, "logits": [self.info.classes]}
        return Outputs(**{name: np.empty((images, *axes[name]), np.float32) for name in axes})

    def _images_per_call(self, feed: Tunables, images: int) -> int:
        """All of them where they depend on each other.

        Norms of their own take one call per image: as fast, and to the bit what each would get alone.
        """
        if COUPLING in feed and feed[COUPLING][0] != 0:
            return images
        return 1 if "norms" in feed and len(feed["norms"]) > 1 else self.micro_batch

    def _run(self, feed: Mapping[str, NDArray[Any]]) -> dict[str, FloatArray]:
        try:
            return dict(zip(self._outputs, self._session.run(list(self._outputs), feed), strict=True))
        except Exception as error:  # the runtime raises many kinds, all of its own
            raise ComputeError(
                f"ONNX Runtime cannot compute {len(feed[IMAGES])} images with {self.info.name}: "
                f"{reason(error)}; if memory is short, use fewer workers or a smaller micro-batch"
            ) from error

    def check_images(self, images: ImageArray) -> None:
        """Makes sure that images can be fed.

        Raises:
            InputError: they are no uint8 `[N, H, W, 3]` of this network's size with N ≥ 1.
        """
        expected = (*self.image_size, 3)
        found = f"{type(images).__name__}"
        if isinstance(images, np.ndarray):
            if images.dtype == np.uint8 and images.ndim == 4 and images.shape[1:] == expected and len(images):
                return
            found = f"{images.dtype} of shape {list(images.shape)}"
        raise InputError(
            f"expected images as an array of uint8 and shape [N, {', '.join(map(str, expected))}] with "
            f"N ≥ 1, found {found}"
        )

    def _feed(self, tunables: Tunables, images: int) -> dict[str, FloatArray]:
        """The checked tunables of one forward; what is not given is neutral: no prompts, addends of zero."""
        unknown = tunables.keys() - self._axes.keys()
        if unknown:
            raise InputError(
                f"{self.info.name} has no tunable {', '.join(sorted(unknown))}; it has: "
                f"{', '.join(self._axes)}"
            )
        for name, array in tunables.items():
            first, *axes = self._axes[name]
            fits = array.dtype == np.float32 and array.ndim == 1 + len(axes)
            fits = fits and len(array) in ((1, images) if first is None else (first,))
            if not fits or any(axis not in (None, n) for axis, n in zip(axes, array.shape[1:], strict=True)):
                named = [f"1 or {images}" if first is None else str(first)]
                named += ["any number" if axis is None else str(axis) for axis in axes]
                raise InputError(
                    f"expected {name} of type float32 and shape [{', '.join(named)}], "
                    f"found {array.dtype} of shape {list(array.shape)}"
                )
        if COUPLING in tunables and not 0 <= tunables[COUPLING][0] <= 1:
            raise InputError(
                f"expected {COUPLING}, the share of the batch in the statistics, in 0..1, found "
                f"{tunables[COUPLING][0]}"
            )
        return {
            name: tunables[name]
            if name in tunables
            else np.zeros((1, *(0 if axis is None else axis for axis in axes[1:])), np.float32)
            for name, axes in self._axes.items()
        }

    def close(self) -> None:
        """Stops the worker threads. Also called at the end of a `with` block."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def __enter__(self) -> Network:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _warn_of_overflow(bundle: Bundle, precision: str) -> None:
    """Warns where this processor's integer kernels may overflow with the weights of a graph."""
    bits = bundle.manifest.graphs[precision].record.get("weight_bits")
    cpu = cpu_features()
    if bits == 8 and cpu.full_int8 is False:
        warnings.warn(
            f"the {precision} graph of {bundle.path} has 8-bit weights, and kernels of {cpu.model} add in "
            "16 bits, which may overflow; make another with: fozo quantize --weight-bits 7",
            stacklevel=3,
        )


def _check_provider(provider: str) -> None:
    available = [name for name, long in PROVIDERS.items() if long in ort.get_available_providers()]
    if provider not in PROVIDERS:
        raise InputError(f"unknown provider {provider!r}; available here: {', '.join(available)}")
    if provider not in available:
        package = "onnxruntime" if provider == "cpu" else "onnxruntime-openvino"
        raise InputError(
            f"the provider {provider} is not installed; available here: {', '.join(available)}; to get it: "
            f"pip uninstall onnxruntime, then pip install {package} in place of it"
        )


def _session(graph: Path, provider: str, workers: int, *, couples: bool) -> Any:
    """A session for so many calls at a time, or if `couples` for single calls of so many threads."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = workers if couples else 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Without a pattern of memory, workers share what the arena has (docs/benchmarks.md).
    options.enable_mem_pattern = False
    # Whatever the file is called: only ONNX has been checked.
    options.add_session_config_entry("session.load_model_format", "ONNX")
    name = PROVIDERS[provider]
    settings = {} if provider == "cpu" else _openvino_settings(provider, workers, 1 if couples else workers)
    try:
        with _returning_freed_memory():
            # Without fallback: silently computing elsewhere would be another network.
            session = ort.InferenceSession(
                str(graph), options, providers=[(name, settings)], enable_fallback=False
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


def _openvino_settings(provider: str, workers: int, calls: int) -> dict[str, str]:
    """As the CPU provider computes: so many calls at a time, sharing the workers; in float32 or bfloat16.

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
def _returning_freed_memory() -> Iterator[None]:
    """Gives back what the block frees, while it runs.

    Packing the weights for the kernels frees their first copy piece by piece, and glibc keeps the pieces:
    loading ViT-B would peak at 610 MB, and does at 410. Where ONNX Runtime holds Python's lock while it loads
    (1.24 does, 1.31 does not), only what is left at the end is given back.
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


def _check_contract(session: Any, info: ModelInfo, graph: Path) -> tuple[int, int]:
    """Height and width of the images, after checking names, types and widths against what is known."""
    inputs = {node.name: node for node in session.get_inputs()}
    outputs = {node.name: node for node in session.get_outputs()}
    types = {IMAGES: "tensor(uint8)", **dict.fromkeys(info.tunables, "tensor(float)")}
    wanted = dict.fromkeys(OUTPUTS if "embedding" in outputs else OUTPUTS[:2], "tensor(float)")
    for what, expected, found in (("inputs", types, inputs), ("outputs", wanted, outputs)):
        kinds = {name: node.type for name, node in found.items()}
        if kinds != expected:
            raise BundleError(
                f"{graph} does not follow the graph contract: expected {what} {expected}, "
                f"found {kinds}; export the model with fozo export"
            )
    height, width = (*inputs[IMAGES].shape[1:3], None, None)[:2]
    expected_axes = {
        IMAGES: [height, width, 3],
        "logits": [info.classes],
        "features": [info.layers, info.feature_width],
    }
    if "prompts" in inputs:
        expected_axes["prompts"] = [info.width]
    if "norms" in inputs:
        expected_axes["norms"] = [len(info.norms), 2, max(info.norms.values(), default=0)]
    if COUPLING in inputs:
        expected_axes[COUPLING] = []
    nodes = {**inputs, **outputs}
    found_axes = {name: nodes[name].shape[1:] for name in expected_axes}
    if "prompts" in found_axes:
        found_axes["prompts"] = found_axes["prompts"][1:]
    if found_axes != expected_axes or not isinstance(height, int) or not isinstance(width, int):
        raise BundleError(
            f"{graph} does not fit its manifest: expected axes {expected_axes}, found {found_axes}; "
            "export the model again"
        )
    return height, width


def _default_micro_batch(values_per_image: int) -> int:
    return max(2, min(32, MICRO_BATCH_VALUES // max(1, values_per_image)))
