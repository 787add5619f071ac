"""Texts to unit embeddings: a session of a text graph, opened only while something is encoded."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..bundle.bundle import Bundle
from ..bundle.text_entries import TextEntry
from ..errors import BundleError, ComputeError, InputError, reason
from ..model import FloatArray
from ..text.tokenizer import Tokenizer
from .cpu import count_cpus
from .graph_contract import CONTEXTS, EMBEDDED, EMBEDDINGS, LENGTHS, TOKENS
from .onnx_file import check_graph_file
from .session import make_partial_run, open_session
from .text_calls import TextCall, plan_text_calls
from .text_contract import check_text_contract

Tokens = Sequence[int]
TOKENS_PER_CALL = 4096  # where embeddings of single tokens are asked for


class TextEncoder:
    """The text side of a model that compares images with texts.

    It holds the whole text tower in memory: use it in a `with` block, and keep what it returns.

    Attributes:
        entry: facts of the text side.
        tokenizer: texts to tokens.
    """

    def __init__(
        self, graph: Path, vocabulary: Path, entry: TextEntry, *, workers: int | None = None
    ) -> None:
        """Load a text graph and its vocabulary.

        Args:
            graph: the ONNX file.
            vocabulary: the vocabulary, as `read_vocabulary` reads it.
            entry: facts of the text side.
            workers: threads; default: as many as this process may use. Results do not depend on it.

        Raises:
            BundleError: the graph cannot be loaded, is refused, or does not follow the contract.
            InputError: the vocabulary cannot be used, or `workers` is less than 1.
        """
        workers = count_cpus() if workers is None else workers
        if workers < 1:
            raise InputError(f"workers must be an integer of at least 1, found {workers}")
        self.entry = entry
        self.tokenizer = read_tokenizer(vocabulary, entry)
        check_graph_file(graph)
        self._session = open_session(graph, "cpu", workers, couples=False)
        check_text_contract(self._session, entry, graph)
        self._options = make_partial_run()
        self._pool = ThreadPoolExecutor(workers, "fozo-text")

    @classmethod
    def open(cls, bundle: Bundle, *, workers: int | None = None) -> TextEncoder:
        """Load the text side of a bundle after checking its hashes.

        Raises:
            BundleError: the bundle has no text side, or its files cannot be used.
            InputError: the vocabulary cannot be used, or `workers` is less than 1.
        """
        entry = require_text(bundle)
        return cls(bundle.file(entry.file), bundle.file(entry.vocabulary), entry, workers=workers)

    def embed_words(self, words: str) -> FloatArray:
        """Return the vectors of words, without positions: a context that stands for them, float32 `[M, D]`.

        Raises:
            InputError: the words cannot be used, or leave no room for the name of a class.
            ComputeError: ONNX Runtime fails.
        """
        tokens = self.tokenizer.encode(words)
        if len(tokens) + 3 > self.entry.context_length:
            raise InputError(
                f"expected at most {self.entry.context_length - 3} tokens in front of the name of a class, "
                f"found {len(tokens)} in {words[:100]!r}; shorten them"
            )
        none = np.zeros((1, 0, self.entry.width), np.float32)
        row = np.asarray([[*tokens, self.tokenizer.vocabulary.end]], np.int64)
        feed: dict[str, NDArray[Any]] = {
            TOKENS: row,
            LENGTHS: np.asarray([len(tokens)], np.int64),
            CONTEXTS: none,
        }
        embedded: FloatArray = self._run(EMBEDDED, feed)[0, :-1]
        return embedded

    def compute_token_std(self) -> float:
        """Return the unbiased standard deviation of all entries of the token embeddings.

        Raises:
            ComputeError: ONNX Runtime fails.
        """
        none = np.zeros((1, 0, self.entry.width), np.float32)
        count, total, squares = 0, 0.0, 0.0
        vocabulary = np.arange(self.tokenizer.vocabulary.end + 1)
        for start in range(0, len(vocabulary), TOKENS_PER_CALL):
            tokens = vocabulary[start : start + TOKENS_PER_CALL, None]
            lengths = np.zeros(len(tokens), np.int64)
            embedded = self._run(EMBEDDED, {TOKENS: tokens, LENGTHS: lengths, CONTEXTS: none})
            values = embedded.astype(np.float64)
            count, total = count + values.size, total + float(values.sum())
            squares += float(np.square(values).sum())
        return math.sqrt((squares - total**2 / count) / (count - 1))

    def encode_sentences(self, sentences: Sequence[str]) -> FloatArray:
        """Return the unit embeddings of texts without context, float32 `[T, E]`.

        Raises:
            InputError: a text cannot be used or has too many tokens, or there is none.
            ComputeError: ONNX Runtime fails.
        """
        end = self.tokenizer.vocabulary.end
        tokens = [(*self.tokenizer.encode(sentence), end) for sentence in sentences]
        embeddings: FloatArray = self.encode(tokens, np.zeros((1, 0, self.entry.width), np.float32))[0]
        return embeddings

    def encode(self, texts: Sequence[Tokens], contexts: FloatArray) -> FloatArray:
        """Return the unit embedding of every text behind every context, float32 `[R, T, E]`.

        A text gets the same embedding, equal to the bit, whatever else is encoded beside it.

        Args:
            texts: tokens of each text, the end token included, the start token not.
            contexts: float32 `[R, M, D]`, M ≥ 0: the vectors between start token and texts.

        Raises:
            InputError: the contexts do not fit, there is no text, or one has too many tokens.
            ComputeError: ONNX Runtime fails, most often for lack of memory.
        """
        self._check(texts, contexts)
        calls = plan_text_calls([len(tokens) for tokens in texts], len(contexts), contexts.shape[1])
        result = np.empty((len(contexts), len(texts), self.entry.embedding_width), np.float32)

        def run(call: TextCall) -> None:
            tokens = np.asarray([texts[index] for index in call.texts], np.int64)
            lengths = np.full(len(tokens), tokens.shape[1] - 1, np.int64)
            rows = slice(*call.contexts)
            feed = {TOKENS: tokens, LENGTHS: lengths, CONTEXTS: contexts[rows]}
            result[rows, list(call.texts)] = self._run(EMBEDDINGS, feed)

        for _ in self._pool.map(run, calls):
            pass
        return result

    def _check(self, texts: Sequence[Tokens], contexts: FloatArray) -> None:
        width, longest = self.entry.width, max(map(len, texts), default=0)
        fits = isinstance(contexts, np.ndarray) and contexts.dtype == np.float32 and contexts.ndim == 3
        if not fits or contexts.shape[2] != width or not len(contexts) or not np.isfinite(contexts).all():
            actual = f"{getattr(contexts, 'dtype', type(contexts))} of shape {np.shape(contexts)}"
            raise InputError(
                f"expected contexts of finite float32 [R, M, {width}] with R ≥ 1, found {actual}"
            )
        count = 1 + contexts.shape[1] + longest
        if not longest or count > self.entry.context_length:
            raise InputError(
                f"expected at least one text, and at most {self.entry.context_length} tokens with start, "
                f"context and end, found {len(texts)} texts of up to {count} tokens; shorten them"
            )

    def _run(self, output: str, feed: Mapping[str, NDArray[Any]]) -> FloatArray:
        try:
            (values,) = self._session.run([output], feed, self._options)
        except Exception as error:  # the runtime raises many kinds, all of its own
            shapes = {name: list(array.shape) for name, array in feed.items()}
            raise ComputeError(
                f"ONNX Runtime cannot encode texts of shapes {shapes}: {reason(error)}; if memory is short, "
                "use fewer workers"
            ) from error
        return np.asarray(values)

    def close(self) -> None:
        """Free the text tower and stop the threads; called at the end of a `with` block too."""
        self._pool.shutdown(cancel_futures=True)
        self._session = None

    def __enter__(self) -> TextEncoder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def require_text(bundle: Bundle) -> TextEntry:
    """Return the entry of a bundle's text side.

    Raises:
        BundleError: it has none.
    """
    if bundle.manifest.text is None:
        raise BundleError(
            f"{bundle.path} has no text side: its classes are part of its graphs; only bundles exported with "
            "--clip make classes from names"
        )
    return bundle.manifest.text


def read_tokenizer(vocabulary: Path, entry: TextEntry) -> Tokenizer:
    """Return the tokenizer of a text side.

    Raises:
        InputError: the vocabulary cannot be used, or has another end token.
    """
    tokenizer = Tokenizer.read(vocabulary, entry.start_token)
    if tokenizer.vocabulary.end != entry.end_token:
        raise InputError(
            f"expected the end token {tokenizer.vocabulary.end:,} behind the start token of the vocabulary "
            f"{vocabulary}, found {entry.end_token:,}; export the model again"
        )
    return tokenizer
