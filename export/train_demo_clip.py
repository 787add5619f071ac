"""Training of the CLIP demonstration's model: `python -m fozo.export.train_demo_clip`, minutes on one core.

Images and captions of them are brought together, as CLIP does it (Radford et al., 2021), on the digits that
ship with fozo. Captions name the class and perhaps how the image was changed, or they name a neighbour of the
class ("the number after two"), so that words in front of the name matter.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save

from ..data.demo import demo_images
from ..engine.errors import FozoError
from ..engine.files import write_atomic
from ..engine.text.tokenizer import Tokenizer
from .demo_augmentation import Adjectives, change_images, draw_adjectives
from .demo_captions import DEMO_NAMES, Caption, draw_caption
from .demo_clip_model import DEMO_CLIP_WEIGHTS, create_demo_clip
from .demo_vocabulary import read_demo_tokenizer
from .text_training import encode_texts, pad_texts, tokenise
from .train_demo import normalise, scale_learning_rate

BATCH_SIZE = 64
LEARNING_RATE = 2e-3
WEIGHT_DECAY = 0.05
LARGEST_SCALE = 100.0  # of cosines, as in CLIP
THREADS = 1  # more make sums in another order


def train(steps: int, seed: int) -> Any:
    """Return the model after `steps` batches of the 1,000 training images, each with a caption.

    AdamW with a linear warm-up and a cosine decay to zero, gradients clipped at 1. The same seed gives the
    same weights to the bit on the same machine with the same version of torch.
    """
    rng = np.random.default_rng(seed)
    images, labels = demo_images("train")
    inputs, tokenizer = normalise(images), read_demo_tokenizer()
    model = create_demo_clip(seed).train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: scale_learning_rate(step, steps))
    for _ in range(steps):
        indices = rng.choice(len(inputs), BATCH_SIZE, replace=False)
        adjectives = [draw_adjectives(rng) for _ in indices]
        captions = [
            draw_caption(int(labels[index]), words, rng)
            for index, words in zip(indices, adjectives, strict=True)
        ]
        changed = change_images(inputs[indices], adjectives, rng)
        matches = match(labels[indices], adjectives, captions)
        optimiser.zero_grad()
        compute_loss(model, changed, embed_captions(model, tokenizer, captions), matches).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        with torch.no_grad():
            model.logit_scale.clamp_(max=math.log(LARGEST_SCALE))
    return model.eval()


def match(
    labels: NDArray[np.int64], adjectives: Sequence[Adjectives], captions: Sequence[Caption]
) -> torch.Tensor:
    """Return float32 `[N, N]`: 1 where a caption (column) is true of an image (row), else 0."""
    rows = [
        [caption.describes(int(label), words) for caption in captions]
        for label, words in zip(labels, adjectives, strict=True)
    ]
    return torch.tensor(rows, dtype=torch.float32)


def embed_captions(model: Any, tokenizer: Tokenizer, captions: Sequence[Caption]) -> torch.Tensor:
    """Return unit-length embeddings of captions, `[N, E]`."""
    tokens, ends = pad_texts([tokenise(tokenizer, caption.text) for caption in captions])
    return encode_texts(model, model.token_embedding(tokens), ends)


def compute_loss(
    model: Any, images: torch.Tensor, texts: torch.Tensor, matches: torch.Tensor
) -> torch.Tensor:
    """Return the contrastive loss, a scalar: from images to texts and from texts to images, halved.

    Every true caption of an image is as right as its own, so the target of an image is uniform over them.

    Args:
        model: open_clip's `CLIP`.
        images: float32 `[N, 3, H, W]` in -1..1.
        texts: unit-length embeddings, `[N, E]`.
        matches: 1 where a text (column) is true of an image (row), `[N, N]`.
    """
    logits = model.logit_scale.exp() * model.encode_image(images, normalize=True) @ texts.T
    losses = [
        -(pairs / pairs.sum(1, keepdim=True) * scores.log_softmax(1)).sum(1).mean()
        for pairs, scores in ((matches, logits), (matches.T, logits.T))
    ]
    return torch.stack(losses).mean()


def measure_accuracy(
    model: Any, images: NDArray[np.uint8], labels: NDArray[np.int64], template: str
) -> float:
    """Return the share of uint8 `[N, H, W, 3]` images that are nearest to the text of their class, 0..1."""
    tokenizer = read_demo_tokenizer()
    tokens, ends = pad_texts([tokenise(tokenizer, template.format(name)) for name in DEMO_NAMES])
    with torch.inference_mode():
        texts = encode_texts(model, model.token_embedding(tokens), ends)
        chunks = [model.encode_image(chunk, normalize=True) for chunk in normalise(images).split(100)]
        predicted = (torch.cat(chunks) @ texts.T).argmax(1).numpy()
    return float((predicted == labels).mean())


def round_weights(model: Any) -> dict[str, torch.Tensor]:
    """Round every parameter to float16, in place, and return them by name in that type."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.half())
    return {name: value.half().contiguous() for name, value in model.state_dict().items()}


@click.command()
@click.option("--out", type=click.Path(path_type=Path), default=DEMO_CLIP_WEIGHTS, show_default=True)
@click.option("--steps", type=click.IntRange(min=1), default=1000, show_default=True)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
def main(out: Path, steps: int, seed: int) -> None:
    """Train the model of the CLIP demonstration and write its weights as safetensors of float16."""
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(THREADS)
    try:
        model = train(steps, seed)
        write_atomic(out, save(round_weights(model)))
        images, labels = demo_images("test")
    except FozoError as error:
        raise click.ClickException(str(error)) from error
    for template in ("a photo of a {}.", "an inverted photo of a {}."):
        plain, inverted = (
            measure_accuracy(model, pixels, labels, template) for pixels in (images, 255 - images)
        )
        click.echo(f"{template} accuracy on the test images: {plain:.2%}, inverted: {inverted:.2%}")
    click.echo(f"wrote {out}")


if __name__ == "__main__":
    main()
