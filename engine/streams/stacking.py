"""Stacking the requests of several streams: images one after the other, tunables as those of each image."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import fields
from typing import Any

import numpy as np

from ..interface.request import Request, answer_with
from ..model import BATCH_STATISTICS, FloatArray, Outputs
from ..runtime.network import Network

# More images at once save no time, only cost memory, unless there are many workers to keep busy.
IMAGES_PER_STACK = 64
CALLS_PER_WORKER = 4


def group_requests(network: Network, requests: Sequence[Request]) -> list[list[int]]:
    """Return the indices of the requests that run together: of one kind, up to a number of images."""
    limit = max(IMAGES_PER_STACK, CALLS_PER_WORKER * network.workers * network.micro_batch)
    coupled = BATCH_STATISTICS in network.info.tunables  # streams would influence each other
    stacks: list[list[int]] = []
    latest: dict[Hashable, tuple[list[int], int]] = {}  # per kind: the last stack and its images
    for index, request in enumerate(requests):
        kind = _describe_kind(request)
        stack, images = latest.get(kind, ([], limit))
        images += len(request.images)
        if coupled or images > limit:
            stack, images = [], len(request.images)
            stacks.append(stack)
        stack.append(index)
        latest[kind] = stack, images
    return stacks


def run_stacked(network: Network, requests: Sequence[Request]) -> list[list[Outputs]]:
    """Return the outputs of requests of one kind, from one call of the network."""
    if len(requests) == 1:
        return [answer_with(network)(requests[0])]
    images = np.concatenate([request.images for request in requests])
    tunables = [_stack_tunables(requests, i) for i in range(len(requests[0].tunables))]
    answers = network.candidates(images, tunables)
    ends = np.cumsum([len(request.images) for request in requests])
    rows = [slice(end - len(request.images), end) for end, request in zip(ends, requests, strict=True)]
    return [[_copy_rows(outputs, row) for outputs in answers] for row in rows]


def _describe_kind(request: Request) -> Hashable:
    """Return a key of the requests that can be stacked: as many forwards, tunables of the same shapes."""
    if request.slopes is not None:  # computed image by image anyway
        return id(request)
    return tuple(
        tuple(sorted((name, array.dtype.str, array.shape[1:]) for name, array in tunables.items()))
        for tunables in request.tunables
    )


def _stack_tunables(requests: Sequence[Request], candidate: int) -> dict[str, FloatArray]:
    """Return the tunables of one candidate of all requests, per image: `[ΣN, …]` of `[1 or N, …]` each."""
    return {
        name: np.concatenate(
            [
                np.broadcast_to(array, (len(request.images), *array.shape[1:]))
                for request in requests
                for array in [request.tunables[candidate][name]]
            ]
        )
        for name in requests[0].tunables[candidate]
    }


def _copy_rows(outputs: Outputs, rows: slice) -> Outputs:
    """Return some images' outputs, copied: a stream that stores them must not store those of all streams."""
    arrays = {f.name: getattr(outputs, f.name) for f in fields(outputs)}
    copies: dict[str, Any] = {
        name: None if array is None else array[rows].copy() for name, array in arrays.items()
    }
    return Outputs(**copies)
