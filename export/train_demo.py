"""Training of the demonstration's model: `python -m fozo.export.train_demo`, a few minutes on two cores.

Images are augmented by small shifts and rotations only. A model trained with noise, blur or low contrast
would leave nothing for test-time adaptation to improve.
"""

from __future__ import annotations

import math
from pathlib import Path

import click
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save
from torch.nn import functional

from ..data.demo import demo_images
from ..engine.errors import FozoError
from ..engine.files import write_atomic
from .demo_model import DEMO_WEIGHTS, create_demo_model

BATCH_SIZE = 50
LEARNING_RATE = 1.5e-3
WEIGHT_DECAY = 0.05
LABEL_SMOOTHING = 0.1
WARMUP_FRACTION = 0.1
LARGEST_SHIFT = 2 / 32
LARGEST_ROTATION = math.radians(10)
THREADS = 2


def train(epochs: int, seed: int) -> torch.nn.Module:
    """Return the model after `epochs` passes over the 1,000 training images.

    AdamW with a linear warm-up and a cosine decay to zero, label smoothing 0.1, gradients clipped at 1. The
    same seed gives the same weights to the bit on the same machine with the same version of torch.
    """
    rng = np.random.default_rng(seed)
    images, labels = demo_images("train")
    inputs, targets = normalise(images), torch.from_numpy(labels)
    model = create_demo_model(seed).train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    steps = epochs * math.ceil(len(inputs) / BATCH_SIZE)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: scale_learning_rate(step, steps))
    for _ in range(epochs):
        for indices in torch.from_numpy(rng.permutation(len(inputs))).split(BATCH_SIZE):
            optimiser.zero_grad()
            compute_loss(model, augment(inputs[indices], rng), targets[indices]).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            schedule.step()
    return model.eval()


def compute_loss(model: torch.nn.Module, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return the cross-entropy with label smoothing, a scalar."""
    return functional.cross_entropy(model(inputs), targets, label_smoothing=LABEL_SMOOTHING)


def scale_learning_rate(step: int, steps: int) -> float:
    """Return the factor of the learning rate: linear warm-up in the first tenth, then a cosine to zero."""
    warmup = WARMUP_FRACTION * steps
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup)))


def normalise(images: NDArray[np.uint8]) -> torch.Tensor:
    """Convert uint8 [N, H, W, 3] to float32 [N, 3, H, W] in -1..1: mean and std are 0.5."""
    return torch.from_numpy(images.transpose(0, 3, 1, 2).astype(np.float32) / 127.5 - 1.0)


def augment(inputs: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Shift each image by up to 2 of 32 pixels and rotate it by up to 10 degrees."""
    angle = rng.uniform(-LARGEST_ROTATION, LARGEST_ROTATION, len(inputs))
    shift = rng.uniform(-2 * LARGEST_SHIFT, 2 * LARGEST_SHIFT, (len(inputs), 2))  # the grid is 2 wide
    rows = [[np.cos(angle), -np.sin(angle), shift[:, 0]], [np.sin(angle), np.cos(angle), shift[:, 1]]]
    theta = torch.from_numpy(np.array(rows, dtype=np.float32)).permute(2, 0, 1)
    grid = functional.affine_grid(theta, list(inputs.shape), align_corners=False)
    return functional.grid_sample(inputs, grid, padding_mode="border", align_corners=False)


def measure_accuracy(model: torch.nn.Module, images: NDArray[np.uint8], labels: NDArray[np.int64]) -> float:
    """Return the share of uint8 [N, H, W, 3] images that `model` classifies as labelled, 0..1."""
    with torch.inference_mode():
        chunks = [model(chunk).argmax(1) for chunk in normalise(images).split(100)]
    return float((torch.cat(chunks).numpy() == labels).mean())


@click.command()
@click.option("--out", type=click.Path(path_type=Path), default=DEMO_WEIGHTS, show_default=True)
@click.option("--epochs", type=click.IntRange(min=1), default=60, show_default=True)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
def main(out: Path, epochs: int, seed: int) -> None:
    """Train the demonstration's model and write its weights as safetensors."""
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(THREADS)
    try:
        model = train(epochs, seed)
        write_atomic(out, save({name: value.contiguous() for name, value in model.state_dict().items()}))
        train_accuracy, test_accuracy = (measure_accuracy(model, *demo_images(s)) for s in ("train", "test"))
    except FozoError as error:
        raise click.ClickException(str(error)) from error
    click.echo(
        f"accuracy: {train_accuracy:.2%} on the training images, {test_accuracy:.2%} on the test images"
    )
    click.echo(f"wrote {out}")


if __name__ == "__main__":
    main()
