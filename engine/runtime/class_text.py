"""The names of a head's classes behind other contexts, encoded when they are asked for."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from ..bundle.bundle import Bundle
from ..bundle.head import Head
from ..errors import InputError
from ..model import FloatArray
from ..text.class_texts import ClassTexts, tokenize_classes
from ..text.templates import split_template
from .class_head import scale_embeddings
from .text_encoder import TextEncoder, read_tokenizer, require_text

REMEMBERED_CALLS = 8

_Key = tuple[str, tuple[int, ...]]


@dataclass(eq=False)
class _Texts:
    """The texts of a head, shared by all selections of its classes.

    Attributes:
        bundle: it has the text side.
        head: names, template and perhaps context.
        workers: threads that encode; None: as many as this process may use.
        recent: classifiers of the latest calls by hash of their contexts, and by classes.
        lock: held while texts are encoded, so that two threads do not encode the same.
    """

    bundle: Bundle
    head: Head
    workers: int | None
    recent: OrderedDict[_Key, FloatArray] = field(default_factory=OrderedDict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @cached_property
    def tokens(self) -> ClassTexts:
        """Tokens of every class."""
        entry = require_text(self.bundle)
        tokenizer = read_tokenizer(self.bundle.file(entry.vocabulary), entry)
        vectors = None if self.head.context is None else len(self.head.context)
        (template,) = self.head.templates
        return tokenize_classes(tokenizer, self.head.class_names, template, entry.context_length, vectors)

    @cached_property
    def context(self) -> FloatArray:
        """The vectors in front of every name: learnt ones, or those of the template's words."""
        if self.head.context is not None:
            return self.head.context
        with TextEncoder.open(self.bundle, workers=self.workers) as encoder:
            return encoder.embed_words(split_template(self.head.templates[0])[0])

    def encode(self, contexts: FloatArray, classes: tuple[int, ...]) -> FloatArray:
        """Return the classifiers of some classes, `[R, K, F]`, from memory if they are recent."""
        key = _hash(contexts), classes
        with self.lock:
            if key not in self.recent:
                self.recent[key] = self._compute(contexts, classes)
            self.recent.move_to_end(key)
            while len(self.recent) > REMEMBERED_CALLS:
                self.recent.popitem(last=False)
            return self.recent[key]

    def _compute(self, contexts: FloatArray, classes: tuple[int, ...]) -> FloatArray:
        texts = [self.tokens.tokens[index] for index in classes]
        with TextEncoder.open(self.bundle, workers=self.workers) as encoder:
            units = encoder.encode(texts, contexts)
        entry = require_text(self.bundle)
        weight = scale_embeddings(units, entry.logit_scale, self.bundle.manifest.feature_width)
        weight.setflags(write=False)
        return weight


class HeadText:
    """The names of a head's classes, or of some, for other contexts; see `engine.model.ClassText`.

    The text tower is in memory only while something is encoded.
    """

    def __init__(self, texts: _Texts, classes: tuple[int, ...]) -> None:
        """Take the classes of a head, by index; see `open_class_text`."""
        self._texts = texts
        self._classes = classes

    @property
    def context(self) -> FloatArray:
        """The vectors in front of every name, float32 `[M, D]`.

        Raises:
            BundleError: the text side cannot be used.
        """
        return self._texts.context

    def encode(self, contexts: FloatArray) -> FloatArray:
        """Return the classifier that each context makes, float32 `[R, K, F]`, read-only.

        The latest results are remembered, also for selections of the classes.

        Args:
            contexts: float32 `[R, M, D]`.

        Raises:
            BundleError: the text side cannot be used.
            InputError: the contexts do not fit.
            ComputeError: ONNX Runtime fails.
        """
        return self._texts.encode(contexts, self._classes)

    def select(self, classes: Sequence[int]) -> HeadText:
        """Return the same text restricted to some of these classes, in the order of `classes`.

        Raises:
            InputError: an index is out of range.
        """
        if not all(0 <= index < len(self._classes) for index in classes):
            raise InputError(
                f"class indices must lie in 0..{len(self._classes) - 1}, found {list(classes)[:9]}"
            )
        return HeadText(self._texts, tuple(self._classes[index] for index in classes))


def open_class_text(bundle: Bundle, head: Head, *, workers: int | None = None) -> HeadText | None:
    """Return what makes other classifiers for the classes of a head; None where it has no single context.

    That is so with several templates, without anything in front of the name, and where the classifier comes
    from images, too.

    Args:
        bundle: its text side encodes the texts, when they are asked for.
        head: the classes.
        workers: threads; default: as many as this process may use.
    """
    if (
        head.images is not None
        or len(head.templates) != 1
        or (head.context is None and not split_template(head.templates[0])[0])
    ):
        return None
    return HeadText(_Texts(bundle, head, workers), tuple(range(len(head.class_names))))


def _hash(contexts: FloatArray) -> str:
    """Return a hash of type, shape and values."""
    content = np.ascontiguousarray(contexts)
    return hashlib.sha256(f"{content.dtype} {content.shape}".encode() + content.tobytes()).hexdigest()
