"""What PIZO could gain if it knew the gradient: the same loss and steps, with PyTorch's autograd.

Prints accuracy on the first images of each domain for the shift alone; for PIZO, through ONNX Runtime; for
descent along the exact gradient of each batch; and for descent along what the network does to *clean* images,
`J_Sᵀ (µ − µ_S)`, which needs neither gradients nor a second forward in the field, but a Jacobian from where
the model was made.

    python bench/frontier.py BUNDLE IMAGES --weights model.safetensors --source CLEAN --frost-textures FROST
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from fozo.engine.bundle.bundle import Bundle
from fozo.engine.model import SourceStatistics
from fozo.engine.registry import method
from fozo.engine.runtime.network import Network
from fozo.engine.streams.adapter import Adapter
from fozo.eval.datasets.corruption_names import CLEAN
from fozo.eval.datasets.domain import Domain
from fozo.eval.datasets.image_folder import load_image_folder
from fozo.eval.streaming.stream import shuffle_order
from gradients import BLOCKS, features, loss, parser, pixels, read, shifted_logits
from numpy.typing import NDArray

ANCHOR, MOMENTUM = 0.02, 0.9


def descend(
    model: torch.nn.Module,
    source: SourceStatistics,
    batches: list[tuple[torch.Tensor, torch.Tensor]],
    clean: list[torch.Tensor] | None,
    rate: float,
) -> float:
    """Accuracy in % over a stream whose batches are predicted and then learnt from.

    Args:
        model: a timm VisionTransformer.
        source: statistics of its features.
        batches: images and labels.
        clean: images for the Jacobian, a batch for each; None takes the exact gradient.
        rate: how far a step moves a value at most, on the average; 0 leaves the shift alone.
    """
    values = torch.zeros(1, 2 * len(BLOCKS), 2, model.embed_dim)
    momentum, right, seen = torch.zeros_like(values), 0, 0
    for step, (images, labels) in enumerate(batches, 1):
        values.requires_grad_()
        found = features(model, images, values)
        right += int((shifted_logits(model, found).argmax(1) == labels).sum())
        seen += len(labels)
        if not rate:
            continue
        if clean is None:
            goal = loss(model, found, source)
        else:
            slope = (found.mean(0) - torch.from_numpy(source.mean)).detach()
            goal = (slope * features(model, clean[step - 1], values).mean(0)).sum()
        (gradient,) = torch.autograd.grad(goal, values)
        momentum = MOMENTUM * momentum + (1 - MOMENTUM) * gradient
        average = momentum / (1 - MOMENTUM**step)
        size = torch.maximum(gradient.square().mean(), average.square().mean()).sqrt()
        values = ((1 - ANCHOR) * values - rate * average / size).detach()
    return 100 * right / seen


def main() -> None:
    """Prints the table as Markdown."""
    line = parser(__doc__, ["gaussian_noise", "snow", "contrast"])
    line.add_argument("--source", type=Path, required=True, help="clean training images")
    line.add_argument("--rate", type=float, default=0.005)
    line.add_argument("--batches", type=int, default=5, help="of 64 images, per domain")
    options = line.parse_args()
    model, source, domains = read(options)
    training = load_image_folder(options.source, Bundle.open(options.bundle).manifest, CLEAN)
    clean = [images for images, _ in _batches(model, training, options.batches)]
    print("| domain | shift | pizo | exact gradient | clean Jacobian |\n|---|---:|---:|---:|---:|")
    with Network.open(options.bundle) as network:
        for domain in domains:
            stream = _batches(model, domain, options.batches)
            shift, exact, approximate = (
                descend(model, source, stream, jacobian, rate)
                for jacobian, rate in ((None, 0.0), (None, options.rate), (clean, options.rate))
            )
            found = (shift, pizo(network, domain, options.batches), exact, approximate)
            print(f"| {domain.name} | {' | '.join(f'{each:.1f}' for each in found)} |", flush=True)


def pizo(network: Network, domain: Domain, count: int) -> float:
    """Accuracy of PIZO in % on the same images."""
    adapter, right = Adapter(network, method("pizo")), []
    for chosen in _orders(domain, count):
        prediction = adapter.step(np.stack([domain.load(int(index)) for index in chosen]))
        right.append(prediction.logits.argmax(axis=1) == domain.labels[chosen])
    return float(100 * np.mean(right))


def _batches(model: torch.nn.Module, domain: Domain, count: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return [
        (pixels(model, domain, chosen), torch.from_numpy(np.asarray(domain.labels[chosen])))
        for chosen in _orders(domain, count)
    ]


def _orders(domain: Domain, count: int) -> NDArray[np.int64]:
    """So many batches of 64 indices, or as many as there are."""
    order = shuffle_order(len(domain), domain.name, 0)
    return order[: 64 * min(count, len(order) // 64)].reshape(-1, 64)


if __name__ == "__main__":
    main()
