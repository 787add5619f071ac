"""Text side of the CLIP-like model: a small causal tower, trained to hit the rows of a classifier.

No image is needed. Its texts are names of classes in templates, and it knows no others: a name that it was
not trained with has no meaning for it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import torch
from fozo.engine.model import FloatArray
from fozo.export.text_training import encode_texts, pad_texts
from fozo.export.train_demo import scale_learning_rate
from open_clip.model import CLIP
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

LEARNING_RATE = 2e-3
WEIGHT_DECAY = 0.01
TEMPERATURE_SCALE = 30.0  # cosines are multiplied by it in the cross-entropy
Texts = list[list[int]]  # identifiers of each text, start and end included


def train_text_tower(
    model: CLIP, texts: Sequence[Texts], rows: FloatArray, steps: int, batch: int, seed: int
) -> list[float]:
    """Train the text tower of a model in place; return the loss of every step.

    The loss of a text is 1 - cosine to the row of its class, plus the cross-entropy over all rows. AdamW with
    linear warm-up and a cosine decay to zero. Embeddings of tokens that no text has stay random.

    Args:
        model: the whole model; its image tower is not used.
        texts: tokens of every template for each class, start and end included.
        rows: what the texts shall hit, unit length, `[K, E]`.
        steps: number of steps.
        batch: texts in a step, each of another class.
        seed: of classes, templates and their order.
    """
    rng = np.random.default_rng(seed)
    targets = torch.from_numpy(rows).float()
    used, texts = _renumber(texts)
    table = model.token_embedding.weight.detach()[used].clone().requires_grad_()
    tower = [model.positional_embedding, model.text_projection, *model.ln_final.parameters()]
    parameters = [table, *tower, *model.transformer.parameters()]
    optimiser = torch.optim.AdamW(parameters, LEARNING_RATE, weight_decay=WEIGHT_DECAY, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: scale_learning_rate(step, steps))
    losses: list[float] = []
    order: list[int] = []
    begin = time.monotonic()
    for step in range(steps):
        if len(order) < batch:
            order = rng.permutation(len(texts)).tolist()
        classes, order = order[:batch], order[batch:]
        tokens, ends = pad_texts([texts[c][rng.integers(len(texts[c]))] for c in classes])
        embeddings = encode_texts(model, table[tokens], ends)
        cosines = embeddings @ targets.T
        labels = torch.tensor(classes)
        loss = (1 - cosines[torch.arange(len(labels)), labels]).mean() + F.cross_entropy(
            TEMPERATURE_SCALE * cosines, labels
        )
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        schedule.step()
        losses.append(loss.item())
        if (step + 1) % 50 == 0:
            seconds = time.monotonic() - begin
            print(f"step {step + 1}: loss {np.mean(losses[-50:]):.4f}, {seconds:.0f} s", flush=True)
    with torch.no_grad():
        model.token_embedding.weight[used] = table
    return losses


def _renumber(texts: Sequence[Texts]) -> tuple[Tensor, list[Texts]]:
    """Return the tokens that occur, and the texts with places in that list instead of tokens."""
    used = sorted({0, *(token for group in texts for text in group for token in text)})
    places = {token: index for index, token in enumerate(used)}
    renumbered = [[[places[token] for token in text] for text in group] for group in texts]
    return torch.tensor(used), renumbered
