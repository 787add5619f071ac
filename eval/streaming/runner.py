"""Streams of images through several methods side by side, batch by batch."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...data.lazy_views import open_images
from ...engine.errors import InputError
from ...engine.files import hash_texts
from ...engine.model import ImageArray
from ...engine.registry import Prediction
from ...engine.streams.adapter import Adapter
from ..processes.memory import peak_bytes, reset_peak
from ..results.outcome import DomainResult, MethodResult, Run, Trace
from .stream import Batch, Integers, Segment

TRACE_POINTS = 50  # per segment, at most


def advance(
    run: Run,
    segments: Sequence[Segment],
    adapters: Mapping[str, Adapter],
    batch_size: int,
    columns: Integers | None = None,
    *,
    skip_unreadable: bool = False,
    stop: int | None = None,
    by_class: bool = False,
) -> Iterator[int]:
    """Continue a run to its end; yield the number of images after every batch, skipped ones included.

    Every batch is loaded once and given to each method in turn. Methods that look at views of an image get
    them made while they run, from its file. A method is not affected by the others. After any batch, another
    process can continue with the run and the states of the adapters, and get the same results.

    Args:
        run: the run so far, filled in place. Its last domains are those of the current segment.
        segments: all segments of the stream.
        adapters: one per label, each in its state at this point of the run.
        batch_size: images per batch.
        columns: column in the logits of each label of the data; None if they are the same.
        skip_unreadable: leave out images that cannot be read, and count them.
        stop: number of the segment before which to pause; None: the end.
        by_class: count images by class, too, for macro-F1.

    Raises:
        InputError: an image cannot be read, and is not to be skipped; or no image of a domain can be.
    """
    while run.segment < (len(segments) if stop is None else stop):
        segment = segments[run.segment]
        if not run.batch:
            _begin(run, segment, adapters, by_class)
        current = run.domains[-len(segment.domains) :]
        count = math.ceil(len(segment) / batch_size)
        begin = time.perf_counter()
        for batch in segment.batches(batch_size, run.batch, skip=skip_unreadable):
            labels = batch.labels if columns is None else columns[batch.labels]
            targets = replace(batch, labels=labels)
            _step(run, adapters, targets, current, math.ceil(count / TRACE_POINTS))
            begin, seconds = time.perf_counter(), time.perf_counter() - begin
            for index, domain in enumerate(current):
                domain.seconds += seconds * _compute_share(batch.members, index)
            if run.batch == count:
                _end(run, current, len(segments))
            yield len(batch.images) + len(batch.unreadable)
        if run.batch == count:  # an earlier process ended between the last batch and this
            _end(run, current, len(segments))


def _compute_share(members: Integers, index: int) -> float:
    """Return the share of a batch's images that are of one domain; 0 if there are none."""
    return float(np.mean(members == index)) if len(members) else 0.0


def evaluate(adapters: Mapping[str, Adapter], batches: Iterable[tuple[ImageArray, Integers]]) -> Run:
    """Stream any batches through several methods, without resetting them.

    Args:
        adapters: one per label, all on networks with the same classes.
        batches: images uint8 `[N, H, W, 3]` with their labels `[N]`, columns of the logits. Views are parts
            of these images; an image's name is its number in the stream.

    Returns:
        A run with one domain, named `stream`, and the seed of the first adapter. As its images have no
        identifiers, their hash is of pixels and labels. `results_of_run` makes a file of it.

    Raises:
        InputError: labels are not one integer per image, or no column of the logits; or there is no batch.
    """
    first, begin = next(iter(adapters.values())), time.perf_counter()
    domain = DomainResult("stream", {label: MethodResult() for label in adapters})
    run = Run(first.seed, [domain], {label: Trace() for label in adapters})
    pixels, targets = hashlib.sha256(), hashlib.sha256()
    for images, batch_labels in batches:
        labels = _check_labels(batch_labels, images, first)
        ids = tuple(str(domain.images + row) for row in range(len(labels)))
        _step(run, adapters, Batch(images, labels, np.zeros(len(labels), np.int64), ids), [domain], 1)
        domain.images += len(labels)
        pixels.update(np.ascontiguousarray(images).data)
        targets.update(labels.data)
    if not run.batch:
        raise InputError("expected batches of images and labels, found none")
    domain.ids_sha256 = hash_texts(pixels.hexdigest(), targets.hexdigest())
    domain.available_images, domain.seconds = domain.images, time.perf_counter() - begin
    _end(run, [domain], 1)
    return run


def _check_labels(labels: Any, images: ImageArray, adapter: Adapter) -> Integers:
    """Return labels as `[N]` integers, after checking them before any method adapts."""
    array, classes = np.asarray(labels), adapter.network.info.classes
    if array.dtype.kind not in "iu" or array.shape != images.shape[:1]:
        raise InputError(
            f"expected a label for each image, integers of shape [{len(images)}], found {array.dtype} of "
            f"shape {list(array.shape)}"
        )
    if len(array) and not 0 <= array.min() <= array.max() < classes:
        raise InputError(f"expected labels in 0..{classes - 1}, found {array.min()}..{array.max()}")
    return array.astype(np.int64)


def _begin(run: Run, segment: Segment, adapters: Mapping[str, Adapter], by_class: bool) -> None:
    if segment.forget:
        for adapter in adapters.values():
            adapter.reset()
    for domain in segment.domains:
        run.domains.append(
            DomainResult(
                name=domain.name,
                methods={label: MethodResult.count_nothing(by_class) for label in adapters},
                severity=domain.severity,
                round=segment.round,
                segment=run.segment,
                generated=domain.generated,
                benchmark=domain.benchmark,
                images=len(domain),
                available_images=domain.available_images,
                official_images=domain.official_images,
                ids_sha256=domain.hash_ids(),
                left_out=dict(domain.left_out),
                notes=list(domain.notes),
                learnt_from=domain.learnt_from,
            )
        )


def _end(run: Run, current: Sequence[DomainResult], segments: int) -> None:
    for domain in current:
        if len(domain.unreadable) == domain.images > 0:
            raise InputError(
                f"no image of {domain.name} can be read, the first being {domain.unreadable[0]}; without "
                "--on-error skip, the error says why"
            )
        domain.complete = True
    run.segment, run.batch = run.segment + 1, 0
    run.complete = run.segment == segments


def _step(
    run: Run, adapters: Mapping[str, Adapter], batch: Batch, current: Sequence[DomainResult], stride: int
) -> None:
    """Make every method's step on a batch, whose labels are columns of the logits, and count its outcome.

    A batch of which nothing is readable changes no method.
    """
    stepped = _predict(adapters, batch, run.batch) if len(batch.images) else {}
    run.consistent = False
    for index, identifier, _ in batch.unreadable:
        current[index].unreadable.append(identifier)
    for index, remark in batch.remarks:
        current[index].remarks[remark] = current[index].remarks.get(remark, 0) + 1
    for label, (prediction, seconds, peak) in stepped.items():
        results = [domain.methods[label] for domain in current]
        is_first = not any(result.tally.images for result in results)
        correct = _count(results, batch, prediction, seconds, peak)
        run.traces[label].add(prediction, correct, new=is_first or run.batch % stride == 0)
    run.batch += 1
    run.consistent = True


def _predict(
    adapters: Mapping[str, Adapter], batch: Batch, index: int
) -> dict[str, tuple[Prediction, float, int]]:
    """Make all steps, or none if one is interrupted; return prediction, seconds and peak memory of each."""
    before = {label: adapter.snapshot() for label, adapter in adapters.items()}
    try:
        return {label: _time_step(adapters[label], batch) for label in _rotate_labels(list(adapters), index)}
    except BaseException:
        for label, adapter in adapters.items():
            adapter.restore(before[label])
        raise


def _rotate_labels(labels: list[str], index: int) -> list[str]:
    """Rotate `labels` so that each method is first in turn: threads that load ahead disturb the first."""
    start = index % len(labels)
    return labels[start:] + labels[:start]


def _time_step(adapter: Adapter, batch: Batch) -> tuple[Prediction, float, int]:
    """Make a step; return the prediction, its seconds, views included, and the peak of resident memory."""
    reset_peak()
    begin = time.perf_counter()
    with open_images(adapter.method, batch.images, adapter.seed, batch.ids, batch.open_image) as images:
        prediction = adapter.step(images)
        seconds = time.perf_counter() - begin
    return prediction, seconds, peak_bytes()


def _count(
    results: Sequence[MethodResult], batch: Batch, prediction: Prediction, seconds: float, peak: int
) -> NDArray[np.bool_]:
    """Add a step to the results of the domains of its images; return which images are right."""
    correct = np.zeros(len(batch.labels), bool)
    for index in np.unique(batch.members):
        result, here = results[index], batch.members == index
        correct[here] = result.add(prediction.logits[here], batch.labels[here])
        share = 1 if here.all() else float(here.mean())  # of the step's cost; 1 stays an integer
        result.batches += share
        result.forwards += share * prediction.forwards
        result.pull_backs += share * prediction.pull_backs
        result.guarded += share * prediction.frozen
        result.seconds += share * seconds
        result.peak_bytes = max(result.peak_bytes, peak)
    return correct
