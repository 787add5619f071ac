"""One ONNX Runtime session behind `network(images, **tunables) -> Outputs`.

A batch runs as micro-batches, each on one thread of a small pool, several at a time on the same session.
Peak memory is set by micro-batch times workers and not by the batch. Every micro-batch is computed by
single-threaded kernels, so results do not depend on how the work is split (docs/engine.md, determinism).

Two kinds of networks are run in another way: the workers are threads inside of a call, and one call runs at a
time. With the tunable `batch_statistics`, the images of a batch depend on each other and must be computed by
one call. With gradients, a call keeps its activations for the reverse pass, so memory is that of one image.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..bundle.bundle import Bundle
from ..errors import BundleError, ComputeError, InputError, reason
from ..model import (
    BATCH_STATISTICS,
    NORMS,
    PIXELS,
    ActivationUse,
    ClassText,
    FloatArray,
    ImageArray,
    ImagePrompt,
    ModelInfo,
    Outputs,
    Slopes,
    SourceStatistics,
    Tunables,
)
from .arrangement import Arrangement, choose_micro_batch, load_arrangement
from .class_text import open_class_text
from .cpu import count_cpus
from .feature_encoder import FeatureEncoder
from .graph_contract import (
    ACTIVATION_MOMENTS,
    CLASSIFIER,
    IMAGES,
    OUTPUTS,
    PULL_BACK,
    check_contract,
    complete_feed,
    name_gradient,
    read_tunables,
)
from .image_prompt import ImageCoordinator, add_image_prompt, check_frame, check_image_prompt
from .onnx_file import check_graph_file
from .session import check_provider, open_session
from .slope_feed import feed_class_offsets, feed_no_slopes, feed_slopes


class Network:
    """A frozen model. It holds no adaptation state: one network serves any number of streams.

    Attributes:
        info: the model behind it.
        image_size: height and width of the images it reads, in pixels.
        micro_batch: images per call of the runtime.
        workers: calls that run at the same time; or threads of a call, with gradients, or where images may
            depend on each other.
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
        """Load an ONNX file that follows the graph contract (docs/bundle.md).

        Args:
            graph: the ONNX file; a pull-back graph if the model has `gradients`.
            info: the model it belongs to.
            workers: threads; default: as many as this process may use.
            micro_batch: images per forward call; default: chosen by the model's size, and 1 with gradients.
            provider: `cpu`, or where onnxruntime-openvino is installed `openvino` (float32 as it is) or
                `openvino-bf16` (products in bfloat16, fast on processors with AMX).

        Raises:
            BundleError: the file is no ONNX model, is refused (docs/bundle.md), or its inputs and outputs are
                not those of the contract.
            InputError: `workers` or `micro_batch` is less than 1, or the provider is not installed.
        """
        if micro_batch is None:
            micro_batch = 1 if info.gradients else choose_micro_batch(info.tokens * info.width)
        arrangement = Arrangement(count_cpus() if workers is None else workers, micro_batch)
        check_provider(provider)
        check_image_prompt(info)
        check_graph_file(graph)
        self.provider = provider
        # Where calls have several threads, these belong to a session: one for each number of workers in use.
        self._couples = BATCH_STATISTICS in info.tunables or bool(info.gradients)
        self._open = functools.partial(
            open_session, graph, provider, couples=self._couples, activations=info.activations
        )
        self._sessions = {arrangement.workers: self._open(arrangement.workers)}
        self._session = self._sessions[arrangement.workers]
        self.image_size = check_contract(self._session, info, graph)
        self._tunables = read_tunables(self._session)
        self._outputs: dict[str, list[int]] = {
            node.name: node.shape[1:]
            for node in self._session.get_outputs()
            if node.name in (*OUTPUTS, ACTIVATION_MOMENTS)
        }
        self._encoder_threads = arrangement.workers
        self._classes: NDArray[np.int64] | None = None  # columns of the graph's logits; None: all
        self._set_info(info)
        self._owns_threads = True
        self._arrange(arrangement)

    @classmethod
    def open(
        cls,
        bundle: Bundle | str | Path,
        precision: str = "fp32",
        *,
        head: str | None = None,
        gradients: bool = False,
        activations: Sequence[ActivationUse] = (),
        workers: int | None = None,
        micro_batch: int | None = None,
        provider: str = "cpu",
    ) -> Network:
        """Load a graph of a bundle after checking its hash.

        Unspecified `workers` and `micro_batch` default to the tuned arrangement, if there is one for this
        machine and graph (`fozo bench --tune`).

        Args:
            bundle: the bundle, or its folder.
            precision: of the graph.
            head: name of the classes to use, where the bundle makes classes from texts; default: its own.
            gradients: load the pull-back graph of this precision instead. It computes the same forwards, and
                gradients where they are asked for.
            activations: that can be re-centred, and whose moments every forward returns; none by default. If
                the bundle lists none, the network is opened without.
            workers: threads.
            micro_batch: images per forward call.
            provider: `cpu`, `openvino` or `openvino-bf16`.

        Raises:
            BundleError: the bundle or the graph cannot be used, or there is no pull-back graph.
            InputError: `workers` or `micro_batch` is less than 1, the provider is not installed, or both
                gradients and activations are asked for.
        """
        if gradients and activations:
            raise InputError(
                "a network has either exact gradients or activations that can be re-centred; run methods"
                " with exact gradients and methods that re-centre separately"
            )
        if not isinstance(bundle, Bundle):
            bundle = Bundle.open(bundle)
        bundle = bundle if head is None else bundle.select_head(head)
        tuned = load_arrangement(bundle.graph_sha256(precision), provider)
        if tuned is not None and not gradients:
            workers = min(tuned.workers, count_cpus()) if workers is None else workers
            micro_batch = tuned.micro_batch if micro_batch is None else micro_batch
        graph = bundle.pull_back(precision) if gradients else bundle.graph(precision)
        info = bundle.info(precision, gradients=gradients, activations=activations)
        if bundle.manifest.head_name is not None:
            loaded = bundle.load_head(bundle.manifest.head_name)
            info = replace(info, text=open_class_text(bundle, loaded, workers=workers))
        return cls(graph, info, workers=workers, micro_batch=micro_batch, provider=provider)

    def select(self, classes: Sequence[int]) -> Network:
        """Return a view of this network restricted to some classes, e.g. the 200 of ImageNet-R.

        The logits of the other classes are dropped before anything is computed from them. The view shares
        session and threads with this network: closing the view changes nothing, and closing this network
        ends both.

        Raises:
            InputError: the indices are not distinct or out of range.
        """
        view = self._view(self.info.select(classes))
        if not self.info.takes_classifier:
            indices = np.asarray(classes, dtype=np.int64)
            view._classes = indices if self._classes is None else self._classes[indices]
        return view

    def with_classifier(
        self, weight: FloatArray, text: ClassText | None = None, bias: FloatArray | None = None
    ) -> Network:
        """Return a view of this network with other classes, made from texts.

        The view shares session and threads with this network, as one made by `select` does.

        Args:
            weight: float32 `[K, F]`: τ times the unit-length embedding of each class, padded with zeros.
            text: what makes other classifiers for these classes.
            bias: float32 `[K]`, added to the logits; default: zeros.

        Raises:
            InputError: the classes are part of the graph, or weight or bias do not fit.
        """
        return self._view(self.info.with_classifier(weight, text, bias))

    def with_source(self, source: SourceStatistics) -> Network:
        """Return a view of this network whose model has these source statistics.

        The view shares session and threads with this network, as one made by `select` does.
        """
        return self._view(replace(self.info, source=source))

    def with_image_prompt(self, prompt: ImagePrompt) -> Network:
        """Return a view of this network that adds learnt values to every forward.

        It has no source statistics, which are of plain images. It shares session and threads with this
        network, as one made by `select` does.

        Raises:
            BundleError: the graph has no such input.
        """
        return self._view(replace(self.info, image_prompt=prompt, source=None))

    def _view(self, info: ModelInfo) -> Network:
        """Return a network of another model that shares session and threads with this one."""
        view = copy.copy(self)
        view._set_info(info)
        view._owns_threads = False
        return view

    def _set_info(self, info: ModelInfo) -> None:
        """Take a model, and prepare what every call feeds beside images and tunables.

        Raises:
            BundleError: the graph cannot take the image prompt of the model.
        """
        check_image_prompt(info)
        self.info = info
        self._constant_feed: dict[str, NDArray[Any]] = {}
        self._bias = info.head_bias if info.takes_classifier and info.head_bias.any() else None
        if info.takes_classifier:
            self._outputs = {**self._outputs, "logits": [info.classes]}
            self._constant_feed[CLASSIFIER] = np.ascontiguousarray(info.head_weight)
        self._no_slopes = feed_no_slopes(self._outputs) if info.gradients else {}
        self._coordinator = self._open_coordinator(info.image_prompt)

    def _open_coordinator(self, prompt: ImagePrompt | None) -> ImageCoordinator | None:
        """Return what makes pixels for every image, if the prompt has a coordinator.

        Raises:
            BundleError: its encoder or decoder do not fit.
        """
        coordinator = None if prompt is None else prompt.coordinator
        if coordinator is None:
            return None
        if coordinator.encoder is not None:
            source = coordinator.encoder, coordinator.layer, coordinator.width
            encoder = FeatureEncoder(*source, self.image_size, self._encoder_threads)
            return ImageCoordinator(coordinator, self.image_size, encoder.encode)
        return ImageCoordinator(coordinator, self.image_size, None)

    def rearrange(self, workers: int, micro_batch: int) -> Network:
        """Return a view of this network that splits its work in another way.

        It shares the session but has threads of its own: closing one of the two does not affect the other.
        OpenVINO runs no more calls at a time than the network was opened with; the others wait. Where the
        workers are threads of a call, another number of them is another session, loaded again once.

        Raises:
            InputError: `workers` or `micro_batch` is less than 1.
        """
        view = copy.copy(self)
        view._owns_threads = True
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
        """Run one forward.

        Args:
            images: uint8 `[N, H, W, 3]`, RGB, N ≥ 1.
            tunables: by name, float32; the first axis is 1, or N for each image its own: `prompts`
                `[R, P, D]`, `norms` `[S, M, 2, D]`, and `recentring` `[S, 2, C]` where the network was opened
                with activations. What is not given has no effect: without any, the network
                is the plain one. In residual networks, `norms` `[1, M, 2, W]` and `batch_statistics` `[1]`
                are for the whole batch.

        Raises:
            InputError: an array is not of this kind or shape, or there is no such tunable.
            ComputeError: ONNX Runtime fails, most often for lack of memory.
        """
        return self.candidates(images, [tunables])[0]

    def candidates(self, images: ImageArray, tunables: Sequence[Tunables]) -> list[Outputs]:
        """Run one forward over the same images for each of several sets of tunables.

        Their micro-batches are computed in one queue, so that no worker waits between two forwards.

        Args:
            images: uint8 `[N, H, W, 3]`, RGB, N ≥ 1.
            tunables: one mapping per forward, as in `__call__`.

        Raises:
            InputError: an array is not of this kind or shape, or there is no such tunable.
            ComputeError: ONNX Runtime fails, most often for lack of memory.
        """
        self.check_images(images)
        n = len(images)
        feeds = [complete_feed(candidate, self._tunables, n, self.info.name) for candidate in tunables]
        feeds = [add_image_prompt(feed, self.info.image_prompt) for feed in feeds]
        if self._coordinator is not None:
            plain = self._view(replace(self.info, image_prompt=None))
            pixels = self._coordinator.make_pixels(images, plain)
            feeds = [{**feed, PIXELS: feed[PIXELS] + pixels} for feed in feeds]
        results = [self._allocate_outputs(n) for _ in feeds]

        def run(task: tuple[int, int, int]) -> None:
            index, start, stop = task
            rows = slice(start, stop)
            feed = {name: array if len(array) == 1 else array[rows] for name, array in feeds[index].items()}
            self._store(results[index], rows, self._run({IMAGES: images[rows], **feed, **self._no_slopes}))

        tasks = [
            (index, start, min(start + size, n))
            for index, feed in enumerate(feeds)
            for size in [self._count_images_per_call(feed, n)]
            for start in range(0, n, size)
        ]
        if self._pool is None or len(tasks) == 1:
            for task in tasks:
                run(task)
        else:
            for _ in self._pool.map(run, tasks):
                pass
        return results

    def pull_back(self, images: ImageArray, tunables: Tunables, slopes: Slopes) -> Outputs:
        """Run one forward and pull the slopes of a loss back to the tunables.

        The images are computed one by one, so memory does not depend on their number, and the gradient is
        their sum in this order.

        Args:
            images: uint8 `[N, H, W, 3]`, RGB, N ≥ 1.
            tunables: as in `__call__`, shared by all images.
            slopes: derivatives of the loss with respect to the outputs.

        Returns:
            Outputs with `gradients`, equal to the bit whatever `workers` and `micro_batch` are.

        Raises:
            InputError: an array is not of this kind or shape, or a tunable has values per image.
            BundleError: this network has no gradients.
            ComputeError: ONNX Runtime fails, most often for lack of memory.
        """
        if not self.info.gradients:
            raise BundleError(f"this network of {self.info.name} was opened without gradients=True")
        self.check_images(images)
        feed = complete_feed(tunables, self._tunables, len(images), self.info.name)
        if any(len(values) != 1 for values in feed.values()):
            raise InputError("gradients are with respect to tunables that all images share")
        feed |= feed_class_offsets(self._outputs["logits"][0], self._classes, self._bias)
        slope_feed = feed_slopes(slopes, len(images), self._outputs, self._classes)
        gradients = {name: np.zeros(feed[name].shape[1:], np.float64) for name in self.info.gradients}
        result = replace(self._allocate_outputs(len(images)), gradients=gradients)
        for index in range(len(images)):
            rows = slice(index, index + 1)
            slopes_of_image = {name: values[rows] for name, values in slope_feed.items()}
            outputs = self._run(
                {IMAGES: images[rows], **feed, PULL_BACK: np.asarray(True), **slopes_of_image},
                map(name_gradient, gradients),
            )
            for tunable, total in gradients.items():
                total += outputs.pop(name_gradient(tunable))[0]
            self._store(result, rows, outputs)
        return result

    def _allocate_outputs(self, images: int) -> Outputs:
        axes = {**self._outputs, "logits": [self.info.classes]}
        arrays: dict[str, Any] = {name: np.empty((images, *axes[name]), np.float32) for name in axes}
        return Outputs(**arrays)

    def _store(self, result: Outputs, rows: slice, outputs: Mapping[str, FloatArray]) -> None:
        """Store the outputs of some images, their logits those of the predicted classes."""
        for name, values in outputs.items():
            if name == "logits" and self._classes is not None:
                values = values[:, self._classes]
            if name == "logits" and self._bias is not None:
                values = values + self._bias
            getattr(result, name)[rows] = values

    def _count_images_per_call(self, feed: Tunables, images: int) -> int:
        """Return how many images one call of the runtime computes.

        All of them where they depend on each other. With norms for each image it is one: as fast, and equal
        to the bit to what an image would get alone.
        """
        if BATCH_STATISTICS in feed and feed[BATCH_STATISTICS][0] != 0:
            return images
        return 1 if NORMS in feed and len(feed[NORMS]) > 1 else self.micro_batch

    def _run(self, feed: Mapping[str, NDArray[Any]], gradients: Iterable[str] = ()) -> dict[str, FloatArray]:
        names = [*self._outputs, *gradients]
        try:
            outputs = self._session.run(names, {**feed, **self._constant_feed})
            return dict(zip(names, outputs, strict=True))
        except Exception as error:  # the runtime raises many kinds, all of its own
            raise ComputeError(
                f"ONNX Runtime cannot compute {len(feed[IMAGES])} images with {self.info.name}: "
                f"{reason(error)}; if memory is short, use fewer workers or a smaller micro-batch"
            ) from error

    def check_images(self, images: ImageArray) -> None:
        """Check that images can be fed.

        Raises:
            InputError: they are not uint8 `[N, H, W, 3]` of this network's size with N ≥ 1, or lack the frame
                that the image prompt in use was learnt with.
        """
        expected = (*self.image_size, 3)
        actual = f"{type(images).__name__}"
        if isinstance(images, np.ndarray):
            if images.dtype == np.uint8 and images.ndim == 4 and images.shape[1:] == expected and len(images):
                return check_frame(images, self.info.image_prompt, self.info.name)
            actual = f"{images.dtype} of shape {list(images.shape)}"
        raise InputError(
            f"expected images as an array of uint8 and shape [N, {', '.join(map(str, expected))}] with "
            f"N ≥ 1, found {actual}"
        )

    def close(self) -> None:
        """Stop the worker threads; called at the end of a `with` block too.

        A view made by `select` or `with_source` has no threads of its own, and leaves those of its network
        running.
        """
        if self._pool is not None and self._owns_threads:
            self._pool.shutdown(cancel_futures=True)

    def __enter__(self) -> Network:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
