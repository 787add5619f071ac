"""A network whose images say what domain they are from, and a method that counts what it learns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from fozo.engine.interface.method import Prediction, Step
from fozo.engine.interface.request import Request, Requests
from fozo.engine.model import FloatArray, ImageArray, ModelInfo, Outputs, Tunables
from fozo.engine.state import State, variable_length_array

LETTERS = "ABCD"


def batch(letters: str) -> ImageArray:
    """One image for each letter, which says what domain it is from."""
    made = np.zeros((len(letters), 2, 2, 3), np.uint8)
    made[:, 0, 0, 0] = [LETTERS.index(letter) for letter in letters]
    return made


class Scripted:
    """A network whose embedding says which letters a batch has, and which may fall ill; it counts images.

    Any two domains are far apart, and so is a mixture of two from either.
    """

    def __init__(self, embeds: bool = True) -> None:
        weight = np.zeros((4, 3), np.float32)
        self.info = ModelInfo("scripted", "scripted", 1, 3, 5, 0.1, weight, np.zeros(4, np.float32))
        self.embeds, self.ill = embeds, False
        self.images = 0

    def __call__(self, images: ImageArray, **tunables: FloatArray) -> Outputs:
        self.images += len(images)
        shares = np.eye(4, dtype=np.float32)[images[:, 0, 0, 0]]
        embedding = np.stack([shares, np.full_like(shares, 0.1)], axis=1) * (np.nan if self.ill else 1)
        features = np.zeros((len(images), 1, 3), np.float32)
        return Outputs(shares, features, embedding if self.embeds else None)

    def candidates(self, images: ImageArray, tunables: Sequence[Tunables]) -> list[Outputs]:
        return [self(images, **each) for each in tunables]


@dataclass(frozen=True)
class TallyState(State):
    """Images learnt from, by letter, and the step numbers of the steps that made the state."""

    learnt: FloatArray
    drawn: FloatArray = variable_length_array()


@dataclass(frozen=True)
class Tally:
    """Answers with what it had learnt before; on images of the domain `breaks` with NaN instead."""

    name: ClassVar[str] = "tally"
    breaks: int = -1

    @property
    def forwards(self) -> int:
        return 1

    def bind(self, model: ModelInfo) -> Tally:
        return self

    def init(self, seed: int) -> TallyState:
        return TallyState(0, seed, np.zeros(4), np.zeros(0))

    def step(self, state: TallyState, images: ImageArray) -> Step[TallyState]:
        learnt = state.learnt + np.bincount(images[:, 0, 0, 0], minlength=4)
        drawn = np.append(state.drawn, float(state.step))
        following = replace(state, step=state.step + 1, learnt=learnt, drawn=drawn)
        prediction = yield from self.predict(state, images)
        return prediction, following

    def predict(self, state: TallyState, images: ImageArray) -> Requests[Prediction]:
        yield Request(images, [{"prompts": np.zeros((1, 0, 3), np.float32)}])
        logits = np.tile(state.learnt.astype(np.float32), (len(images), 1))
        logits[images[:, 0, 0, 0] == self.breaks] = np.nan
        return Prediction(logits, 1, loss=1.0)


def tally(state: State) -> dict[str, int]:
    """Return how many images a state has learnt from, by letter."""
    learnt: FloatArray = state.learnt  # type: ignore[attr-defined]
    return {letter: int(count) for letter, count in zip(LETTERS, learnt, strict=True) if count}
