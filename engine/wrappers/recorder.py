"""What the network answers to a batch, overheard by whoever wraps a method."""

from __future__ import annotations

from collections.abc import Sequence

from ..model import FloatArray, Forward, ImageArray, ModelInfo, Outputs, Tunables


class Overheard:
    """A network that remembers what it answers to one batch.

    Attributes:
        embedding: of the batch, which tunables do not change; None before an answer, or if the graph has
            none.
        logits: the answer without tunables, the frozen network's; None before it. Many methods ask for that
            themselves; a comparison with it is then free.
        asked: forwards that `frozen` needed, where no method had asked.
    """

    def __init__(self, network: Forward, images: ImageArray) -> None:
        self._network, self._images = network, images
        self.embedding: FloatArray | None = None
        self.logits: FloatArray | None = None
        self.asked = 0

    @property
    def info(self) -> ModelInfo:
        """The model behind the network."""
        return self._network.info

    def __call__(self, images: ImageArray, **tunables: FloatArray) -> Outputs:
        """One forward."""
        outputs = self._network(images, **tunables)
        self._listen(images, [tunables], [outputs])
        return outputs

    def candidates(self, images: ImageArray, tunables: Sequence[Tunables]) -> list[Outputs]:
        """One forward for each of several sets of tunables."""
        answers = self._network.candidates(images, tunables)
        self._listen(images, tunables, answers)
        return answers

    def frozen(self) -> FloatArray:
        """The frozen network's logits, `[N, K]`."""
        if self.logits is None:
            self.asked = 1
            self.logits = self._network(self._images).logits
        return self.logits

    def _listen(self, images: ImageArray, tunables: Sequence[Tunables], answers: Sequence[Outputs]) -> None:
        if images is not self._images:
            return
        for given, outputs in zip(tunables, answers, strict=True):
            self.embedding = outputs.embedding
            if not given:
                self.logits = outputs.logits
