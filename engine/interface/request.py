"""Requests for forwards and gradients: a method does no input or output, it yields what it needs.

Whoever drives it sends the outputs.

Whoever drives the generator decides how the forwards run: one network, many streams stacked on one network, a
remote server, or a list of prepared answers in a test.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from ..model import Forward, ImageArray, Outputs, Slopes, Tunables

ResultT = TypeVar("ResultT")
PLAIN: Tunables = {}


@dataclass(frozen=True, eq=False)
class Request:
    """The forwards of one image batch under several sets of tunables.

    Attributes:
        images: uint8 `[N, H, W, 3]`.
        tunables: one mapping per forward; the plain network by default.
        slopes: of a loss, to be pulled back to the tunables: the outputs then come with gradients. Such a
            request has one mapping of tunables, none of them per image.
    """

    images: ImageArray
    tunables: Sequence[Tunables] = (PLAIN,)
    slopes: Slopes | None = None


Answer = Callable[[Request], list[Outputs]]
# A computation that yields requests, is sent their outputs, one per set of tunables, and returns a result.
Requests = Generator[Request, list[Outputs], ResultT]


def drive(requests: Requests[ResultT], answer: Answer) -> ResultT:
    """Run a generator of requests to its end.

    Args:
        requests: what a method's `step` or `predict` returns.
        answer: computes the outputs of a request, one per set of tunables.

    >>> from fozo.testing import StandInNetwork, draw_images
    >>> def predict_twice(images):
    ...     (first,) = yield Request(images)
    ...     (second,) = yield Request(images)
    ...     return (first.logits == second.logits).all()
    >>> bool(drive(predict_twice(draw_images(2)), answer_with(StandInNetwork())))
    True
    """
    request = None
    with np.errstate(over="ignore", invalid="ignore"):  # non-finite values are looked for afterwards
        while True:
            outputs = None if request is None else answer(request)
            try:
                request = requests.send(outputs)  # type: ignore[arg-type]  # None starts a generator
            except StopIteration as end:
                result: ResultT = end.value
                return result
            del outputs  # so that the generator alone decides how long they live


def answer_with(network: Forward) -> Answer:
    """Return a function that answers requests by running them on a network."""

    def answer(request: Request) -> list[Outputs]:
        if request.slopes is None:
            return network.candidates(request.images, request.tunables)
        (tunables,) = request.tunables
        return [network.pull_back(request.images, tunables, request.slopes)]

    return answer
