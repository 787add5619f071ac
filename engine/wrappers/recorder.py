"""A recorder of the requests that a wrapped method makes, and of their outputs."""

from __future__ import annotations

from typing import TypeVar

from ..interface.request import Request, Requests
from ..interface.view_batch import get_plain_images
from ..model import FloatArray, ImageArray, Outputs

ResultT = TypeVar("ResultT")


class RequestRecorder:
    """Passes requests through and remembers some of the outputs for one batch, or for view 0 of its images.

    Attributes:
        embedding: embedding of the batch, which tunables do not change; None before the first outputs, or if
            the graph has none.
        logits: logits of the frozen network, recorded when a method requests a forward without tunables; None
            before. Many methods do; a comparison with the frozen network is then free.
        extra_forwards: forwards that were requested beside those of the method.
    """

    def __init__(self, images: ImageArray) -> None:
        self._images = get_plain_images(images)
        self.embedding: FloatArray | None = None
        self.logits: FloatArray | None = None
        self.extra_forwards = 0

    def record(self, requests: Requests[ResultT]) -> Requests[ResultT]:
        """Pass a method's requests through, recording those about the batch."""
        try:
            request = next(requests)
            while True:
                outputs = yield request
                if request.images is self._images:
                    self._listen(request, outputs)
                request = requests.send(outputs)
                del outputs  # so that the method alone decides how long they live
        except StopIteration as end:
            result: ResultT = end.value
            return result
        finally:
            requests.close()

    def _listen(self, request: Request, answers: list[Outputs]) -> None:
        for tunables, outputs in zip(request.tunables, answers, strict=True):
            self.embedding = outputs.embedding
            if not tunables:
                self.logits = outputs.logits

    def request_frozen(self) -> Requests[FloatArray]:
        """Return the frozen network's logits, `[N, K]`; request them if they were not recorded."""
        if self.logits is None:
            yield from self._request_plain()
        assert self.logits is not None
        return self.logits

    def request_embedding(self) -> Requests[FloatArray | None]:
        """Return the embedding of the batch, or None if the graph has none; request it if not recorded."""
        if self.embedding is None and self.logits is None:
            yield from self._request_plain()
        return self.embedding

    def _request_plain(self) -> Requests[None]:
        self.extra_forwards += 1
        (outputs,) = yield Request(self._images)
        self.logits, self.embedding = outputs.logits, outputs.embedding
