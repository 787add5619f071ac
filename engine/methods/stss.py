"""STSS: views that stay certain under perturbed prompts vote (TLLA, arXiv 2501.18864; FGA, ICLR 2026)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..errors import BundleError
from ..interface.method import State
from ..interface.method_options import option
from ..model import ClassText, FloatArray, ModelInfo
from ..search.spsa import draw_gaussian_direction
from ..statistics.objective import entropy
from ..statistics.voting import TieRule
from .view_voting import Score, ViewVoting, ViewVotingBinding


@dataclass(frozen=True)
class Stss(ViewVoting):
    """STSS, for CLIP: the views vote whose entropy is low, and stays low when the prompt is perturbed.

    The prompt is that of the head in use; its perturbations are drawn once per seed, and encoded once per
    list of classes. Nothing is carried from image to image. No code was published.
    """

    name: ClassVar[str] = "stss"
    ties: ClassVar[TieRule] = "probability"

    kept: float = option(
        0.1, "share of the views that vote, those of the lowest scores; at least one", low=0, high=1
    )
    perturbations: int = option(8, "R, number of perturbed prompts", low=1)
    radius: float = option(
        0.5, "ρ', distance of a perturbed prompt to the prompt, all tokens together", low=0
    )
    flatness: float = option(
        1.0,
        "λ, weight of the largest rise of the entropy under a perturbation; 0 is the entropy alone",
        low=0,
    )

    def bind(self, model: ModelInfo) -> BoundStss:
        """Return the method bound to a model.

        Raises:
            BundleError: the classes are not made from texts with one prompt.
        """
        if model.text is None:
            reason = (
                "those of this head have no single prompt: they are means over several templates, begin "
                "with the name, or come from labelled images too; make a head with one template that ends "
                "with the name (fozo classes), or tune a prompt (fozo tune)"
                if model.takes_classifier
                else "its classes are part of the graph; export a CLIP model (fozo export --clip)"
            )
            raise BundleError(
                f"stss perturbs the prompt that classes are made from, and {model.name} has none: {reason}"
            )
        return BoundStss(self, model, model.text)


@dataclass(frozen=True, eq=False)
class BoundStss(ViewVotingBinding[Stss]):
    """STSS on one model.

    Attributes:
        text: makes the classifiers of perturbed prompts.
    """

    text: ClassText

    def make_score(self, state: State) -> Score:
        """Return the score `H₀ + λ max_r (H_r − H₀)` of a view, with the entropies H_r of its predictions."""
        weight = self.options.flatness
        if not weight:
            return lambda logits, features: entropy(logits)
        contexts = perturb(self.text.context, state.seed, self.options.perturbations, self.options.radius)
        classifiers = self.text.encode(contexts)

        def score(logits: FloatArray, features: FloatArray) -> FloatArray:
            plain = entropy(logits)
            rises = [entropy(features @ classifier.T) - plain for classifier in classifiers]
            result: FloatArray = plain + weight * np.max(rises, axis=0)
            return result

        return score


def perturb(context: FloatArray, seed: int, count: int, radius: float) -> FloatArray:
    """Return prompts at one distance from a prompt in random directions, float32 `[count, M, D]`.

    Fewer prompts are the first of more.

    Args:
        context: the prompt, `[M, D]`.
        seed: of the directions.
        count: number of prompts.
        radius: distance, over all tokens together.
    """
    directions = np.stack(
        [draw_gaussian_direction(seed, 0, index, context.shape) for index in range(count)]
    ).astype(np.float64)
    directions /= np.linalg.norm(directions, axis=(1, 2), keepdims=True)
    return (context + radius * directions).astype(np.float32)
