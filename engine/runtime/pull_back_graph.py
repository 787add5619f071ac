"""A bundle's pull-back graph: forwards together with the gradients of a loss with respect to the tunables."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import BundleError, ComputeError, InputError, reason
from ..model import FloatArray, ImageArray, ModelInfo, Outputs, Slopes
from .graph_contract import IMAGES, OUTPUTS
from .onnx_file import check_graph_file
from .session import open_session

LOGITS_SLOPES = "logits_slopes"
FEATURES_SLOPES = "features_slopes"
RunAll = Callable[[Callable[[int], dict[str, FloatArray]], Sequence[int]], Iterable[dict[str, FloatArray]]]


class PullBackGraph:
    """A pull-back graph, loaded when it is first used.

    It computes image by image, so memory does not depend on the batch.
    """

    def __init__(self, find: Callable[[], Path | None], info: ModelInfo, provider: str, workers: int) -> None:
        """Prepare to load an ONNX file that follows the contract of pull-back graphs (docs/bundle.md).

        Args:
            find: returns the file, verified, or None if there is none; called once, before the first use.
            info: the model.
            provider: that computes.
            workers: calls that run at the same time.
        """
        self._find, self._info = find, info
        self._provider, self._workers = provider, workers
        self._session: Any = None
        self._outputs: list[str] = []
        self._loading = threading.Lock()

    def _load(self) -> None:
        """Load the file, once.

        Raises:
            BundleError: there is none, it is no ONNX model, is refused, or does not fit the model.
        """
        with self._loading:
            if self._session is None:
                graph = self._find()
                if graph is None:
                    raise BundleError(
                        f"the bundle of {self._info.name} has no pull-back graph, which gradients need; "
                        "export it again with --gradients"
                    )
                check_graph_file(graph)
                session = open_session(graph, self._provider, self._workers, couples=False)
                self._check_contract(session, graph)
                self._outputs = [node.name for node in session.get_outputs()]
                self._session = session

    def _check_contract(self, session: Any, graph: Path) -> None:
        info = self._info
        inputs = {node.name for node in session.get_inputs()}
        outputs = {node.name for node in session.get_outputs()}
        expected = {IMAGES, *info.tunables, LOGITS_SLOPES, FEATURES_SLOPES}
        gradients = {_gradient_name(tunable) for tunable in info.gradients}
        if inputs != expected or outputs != {*OUTPUTS, *gradients}:
            raise BundleError(
                f"{graph} does not follow the contract of pull-back graphs: expected {sorted(expected)} to "
                f"{sorted({*OUTPUTS, *gradients})}, found {sorted(inputs)} to {sorted(outputs)}; export the "
                "model again with --gradients"
            )

    def run(self, images: ImageArray, feed: Mapping[str, FloatArray], slopes: Slopes, run: RunAll) -> Outputs:
        """Return the outputs of a forward with the gradients of Σ ⟨slopes, outputs⟩.

        The sum over the images is taken in their order, so it does not depend on how the work is shared.

        Args:
            images: uint8 `[N, H, W, 3]`.
            feed: values of all tunables, one row each.
            slopes: of the loss, for these images.
            run: applies a function to all image indices and yields the results in their order.

        Raises:
            BundleError: the graph cannot be used.
            InputError: a tunable has values per image, or slopes do not fit.
            ComputeError: ONNX Runtime fails.
        """
        self._load()
        if any(len(values) != 1 for values in feed.values()):
            raise InputError("gradients are with respect to tunables that all images share")
        arrays = self._read_slopes(slopes, len(images))

        def compute(index: int) -> dict[str, FloatArray]:
            rows = slice(index, index + 1)
            return self._compute(
                {IMAGES: images[rows], **feed, **{name: array[rows] for name, array in arrays.items()}}
            )

        answers: dict[str, list[FloatArray]] = {name: [] for name in OUTPUTS}
        gradients = {
            tunable: np.zeros(feed[tunable].shape[1:], np.float64) for tunable in self._info.gradients
        }
        for outputs in run(compute, range(len(images))):
            for name, values in answers.items():
                values.append(outputs[name])
            for tunable, total in gradients.items():
                total += outputs[_gradient_name(tunable)][0]
        return Outputs(
            **{name: np.concatenate(values) for name, values in answers.items()}, gradients=gradients
        )

    def _read_slopes(self, slopes: Slopes, images: int) -> dict[str, FloatArray]:
        """Return the slopes as they are fed, float32, after checking their shapes."""
        features = (images, self._info.layers, self._info.feature_width)
        arrays = {LOGITS_SLOPES: slopes.logits, FEATURES_SLOPES: slopes.features}
        shapes = {LOGITS_SLOPES: (images, *slopes.logits.shape[1:]), FEATURES_SLOPES: features}
        result = {}
        for name, array in arrays.items():
            values = np.zeros(shapes[name], np.float32) if array is None else np.asarray(array, np.float32)
            if values.shape != shapes[name]:
                raise InputError(f"expected {name} of shape {list(shapes[name])}, found {list(values.shape)}")
            result[name] = values
        return result

    def _compute(self, feed: Mapping[str, NDArray[Any]]) -> dict[str, FloatArray]:
        try:
            return dict(zip(self._outputs, self._session.run(self._outputs, feed), strict=True))
        except Exception as error:  # the runtime raises many kinds, all of its own
            raise ComputeError(
                f"ONNX Runtime cannot compute gradients with {self._info.name}: {reason(error)}; if memory "
                "is short, use fewer workers"
            ) from error


def _gradient_name(tunable: str) -> str:
    return f"{tunable}_gradient"
