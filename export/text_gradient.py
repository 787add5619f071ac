"""Gradients of a few-shot loss with respect to a context, by PyTorch through a bundle's text graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from ..engine.errors import ExportError
from ..engine.model import FloatArray
from ..engine.runtime.cpu import count_cpus
from ..engine.runtime.graph_contract import CONTEXTS, EMBEDDINGS, LENGTHS, TOKENS
from ..engine.runtime.text_encoder import TextEncoder
from ..engine.text.class_texts import ClassTexts
from .torch_graph import TorchGraph

TOLERANCE = 1e-4  # of embeddings of length 1


class TextGradient:
    """The texts of K classes behind one context, and the slope of a loss with respect to it.

    Texts of the same length are computed together, so none is padded.
    """

    def __init__(self, graph: Path, texts: Sequence[Sequence[int]], logit_scale: float) -> None:
        """Load a text graph.

        Args:
            graph: the verified file of a bundle.
            texts: tokens of each class behind the context, the end token included.
            logit_scale: τ.

        Raises:
            ExportError: the graph has operators that are not known.
        """
        self._graph = TorchGraph(graph)
        self._scale = logit_scale
        lengths = [len(tokens) for tokens in texts]
        groups = [
            [index for index, own_length in enumerate(lengths) if own_length == length]
            for length in sorted(set(lengths))
        ]
        self._tokens = [torch.tensor([list(texts[index]) for index in group]) for group in groups]
        self._order = torch.from_numpy(np.argsort(np.concatenate(groups), kind="stable"))

    def encode(self, context: Tensor) -> Tensor:
        """Return the unit embeddings `[K, E]` of all classes behind a context `[M, D]`."""
        embeddings = [
            self._graph(
                {
                    TOKENS: tokens,
                    LENGTHS: torch.full((len(tokens),), tokens.shape[1] - 1),
                    CONTEXTS: context[None],
                },
                EMBEDDINGS,
            )[0]
            for tokens in self._tokens
        ]
        return torch.cat(embeddings)[self._order]

    def compute_slope(
        self, context: FloatArray, features: FloatArray, labels: NDArray[np.int64]
    ) -> tuple[float, FloatArray]:
        """Return the mean cross-entropy of N images, and its gradient, float64 `[M, D]`.

        Args:
            context: float32 `[M, D]`.
            features: unit embeddings of the images, float32 `[N, F]`; padding is ignored.
            labels: their classes, `[N]`.
        """
        variable = torch.tensor(context, dtype=torch.float32, requires_grad=True)
        embeddings = self.encode(variable)
        images = torch.from_numpy(np.ascontiguousarray(features[:, : embeddings.shape[1]]))
        loss = F.cross_entropy(self._scale * images @ embeddings.T, torch.from_numpy(labels))
        (gradient,) = torch.autograd.grad(loss, variable)
        return loss.item(), gradient.double().numpy()

    def verify(self, context: FloatArray, expected: FloatArray) -> float:
        """Return the largest difference to the embeddings `[K, E]` that ONNX Runtime computes.

        Raises:
            ExportError: it is too large.
        """
        with torch.no_grad():
            embeddings = self.encode(torch.from_numpy(context)).numpy()
        difference = float(np.abs(embeddings - expected).max())
        if not difference <= TOLERANCE:
            raise ExportError(
                f"PyTorch and ONNX Runtime compute embeddings from the text graph that differ by "
                f"{difference:.2g}, expected at most {TOLERANCE:g}; export the model again"
            )
        return difference


def ask_slopes(
    graph: Path, texts: ClassTexts, encoder: TextEncoder, context: FloatArray, workers: int | None = None
) -> Callable[[FloatArray, NDArray[np.int64]], Any]:
    """Return the question of methods with gradients, after comparing PyTorch with ONNX Runtime.

    Args:
        graph: the verified text graph of a bundle.
        texts: of the classes.
        encoder: the same graph in ONNX Runtime.
        context: where they are compared, float32 `[M, D]`.
        workers: threads of all kernels of PyTorch in this process; None: as many as it may use.

    Raises:
        ExportError: the graph has operators that are not known, or the two compute different embeddings.
    """
    torch.set_num_threads(count_cpus() if workers is None else workers)
    gradient = TextGradient(graph, texts.tokens, encoder.entry.logit_scale)
    gradient.verify(context, encoder.encode(texts.tokens, context[None])[0])

    def ask(features: FloatArray, labels: NDArray[np.int64]) -> Any:
        return lambda values: gradient.compute_slope(values, features, labels)

    return ask
