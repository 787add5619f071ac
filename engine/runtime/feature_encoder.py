"""Features of images by the graph of any bundle, plain and in single precision, for a coordinator."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import BundleError, ComputeError, reason
from ..model import FloatArray, ImageArray
from .graph_contract import CLASSIFIER, IMAGES, read_tunables
from .onnx_file import check_graph_file
from .session import open_session

IMAGES_PER_CALL = 4


class FeatureEncoder:
    """A frozen graph that only gives features."""

    def __init__(
        self, graph: Path, layer: int, width: int, image_size: tuple[int, int], workers: int
    ) -> None:
        """Load a graph that follows the graph contract.

        Args:
            graph: the ONNX file.
            layer: the feature to return, counted from the last, which is -1.
            width: its channels.
            image_size: height and width of the images that it will get.
            workers: threads.

        Raises:
            BundleError: the file cannot be used, or reads images of another size.
        """
        check_graph_file(graph)
        self._session = open_session(graph, "cpu", workers, couples=False)
        self._layer, self._width, self._workers = layer, width, workers
        inputs = {node.name: node for node in self._session.get_inputs()}
        shape = list(inputs[IMAGES].shape[1:]) if IMAGES in inputs else None
        if shape != [*image_size, 3] or "features" not in {o.name for o in self._session.get_outputs()}:
            raise BundleError(
                f"expected an encoder of images of {image_size[0]} x {image_size[1]} with the output "
                f"features, found {graph} for images of shape {shape}; export one for this size with "
                "--image-size"
            )
        tunables = read_tunables(self._session).values()
        self._feed: dict[str, NDArray[Any]] = {tunable.name: tunable.neutral for tunable in tunables}
        if CLASSIFIER in inputs:
            self._feed[CLASSIFIER] = np.zeros((1, inputs[CLASSIFIER].shape[1]), np.float32)

    def encode(self, images: ImageArray) -> FloatArray:
        """Return the features of images, float32 `[N, Z]`.

        Raises:
            ComputeError: ONNX Runtime fails, most often for lack of memory.
        """
        batches = [
            images[start : start + IMAGES_PER_CALL] for start in range(0, len(images), IMAGES_PER_CALL)
        ]
        with ThreadPoolExecutor(self._workers, "fozo-encoder") as pool:
            return np.concatenate(list(pool.map(self._run, batches)))

    def _run(self, images: ImageArray) -> FloatArray:
        try:
            (features,) = self._session.run(["features"], {**self._feed, IMAGES: images})
        except Exception as error:  # the runtime raises many kinds, all of its own
            raise ComputeError(
                f"ONNX Runtime cannot encode {len(images)} images: {reason(error)}; if memory is short, use "
                "fewer workers"
            ) from error
        return np.asarray(features[:, self._layer, : self._width])
