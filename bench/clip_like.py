"""Make a CLIP-like model from a classifying ViT, and write it as a bundle. It is not CLIP.

Its image tower is a ViT that was trained to classify ImageNet. A small text tower is trained to answer the
name of a class, in any of OpenAI's 80 templates, with that class's row of the ViT's classifier; no image is
needed for that. So images, number of classes, views, templates and contexts are as with CLIP, and so is the
way through fozo. What is not: it knows no other classes, its image tower has seen labels, and its accuracy is
that of the ViT.

    python bench/clip_like.py --weights model.safetensors --images DATA/imagenet --out clip-like \\
        --results bench/results/clip-like.json

`--images` has `source/`, by which the scale of the logits is fitted and the int8 graph is calibrated, and
`val/`, on which the accuracies of the results are measured.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from clip_like_image import (
    EqualRows,
    convert_image_tower,
    describe_image_tower,
    equalise_rows,
    load_classifier,
)
from clip_like_text import train_text_tower
from fozo.data.images import preprocess, read_image
from fozo.engine.bundle.bundle import Bundle
from fozo.engine.files import hash_file
from fozo.engine.model import FloatArray
from fozo.engine.runtime.class_head import make_head
from fozo.engine.runtime.network import Network
from fozo.engine.text.imagenet_templates import PRESETS
from fozo.engine.text.templates import DEFAULT_TEMPLATE
from fozo.engine.text.tokenizer import Tokenizer
from fozo.evaluation import Domain, load_image_folder
from fozo.export.clip_activation import Activation
from fozo.export.clip_exporter import write_clip_bundle
from fozo.export.clip_head import list_imagenet
from fozo.export.clip_source import ClipSource
from fozo.export.image_format import read_preprocessing
from fozo.export.text_training import tokenise
from fozo.export.weights import LoadedWeights
from measuring import describe_machine, now
from open_clip.model import CLIP
from open_clip.tokenizer import default_bpe

NAME = "clip_like_vit_tiny"
VIT = "vit_tiny_patch16_224.augreg_in21k_ft_in1k"
START = 49_406  # start token of CLIP's vocabulary
TEXT_TOWER = {"width": 192, "heads": 3, "layers": 4}
IMAGE_BATCH = 50


def main() -> None:
    """Train the text tower, write the bundle, and measure the accuracy of exact and written classes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--weights", type=Path, required=True, help=f"of timm's {VIT}")
    parser.add_argument("--images", type=Path, required=True, help="folder with source/ and val/")
    parser.add_argument("--out", type=Path, required=True, help="the bundle")
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--batch", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    vit = load_classifier(VIT, options.weights)
    exact = equalise_rows(vit.head.weight.detach().numpy())
    model = make_model(vit, exact, options.seed)
    begin = time.monotonic()
    losses = train(model, exact, options.steps, options.batch, options.seed)
    seconds = time.monotonic() - begin
    source = make_source(vit, model, options.weights)
    scale = fit_logit_scale(source, exact, options.images / "source")
    with torch.no_grad():
        model.logit_scale.fill_(math.log(scale))
    bundle = write_bundle(source, options.out)
    document = {
        "created": now(),
        **describe_machine(),
        "model": NAME,
        "training": {"steps": options.steps, "batch": options.batch, "seconds": seconds, "losses": losses},
        "logit_scale": scale,
        **measure(bundle, exact, options.images / "val"),
    }
    options.results.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def make_model(vit: Any, exact: EqualRows, seed: int) -> CLIP:
    """Return open_clip's model with timm's image tower and a fresh text tower."""
    torch.manual_seed(seed)
    model = CLIP(exact.rows.shape[1], describe_image_tower(vit), TEXT_TOWER)
    model.visual.load_state_dict(convert_image_tower(vit, exact.projection))
    return model


def train(model: CLIP, exact: EqualRows, steps: int, batch: int, seed: int) -> list[float]:
    """Train the text tower with all names in all templates; return the loss of every step."""
    tokenizer = Tokenizer.read(Path(default_bpe()), START)
    texts = [
        [tokenise(tokenizer, template.replace("{}", name)) for template in PRESETS["imagenet-80"]]
        for name in list_imagenet().class_names
    ]
    losses = train_text_tower(model.train(), texts, exact.rows, steps, batch, seed)
    model.eval()
    return losses


def write_bundle(source: ClipSource, out: Path) -> Bundle:
    """Write the bundle with two heads: `imagenet` of one template, and `ensemble` of all 80."""
    classes = list_imagenet()
    bundle = write_clip_bundle(source, classes, [DEFAULT_TEMPLATE], out, overwrite=True).bundle
    templates = PRESETS["imagenet-80"]
    head = make_head(bundle, classes.class_names, templates, class_ids=classes.class_ids)
    return bundle.with_head("ensemble", head)


def make_source(vit: Any, model: CLIP, weights: Path) -> ClipSource:
    """Return the model as an export takes it."""
    return ClipSource(
        name=NAME,
        model=model,
        vocabulary=Path(default_bpe()),
        start=START,
        activation=Activation("gelu", "timm's model"),
        images=timm.data.resolve_model_data_config(vit),
        weights=LoadedWeights(f"timm's {VIT} and a text tower of bench/clip_like.py", hash_file(weights)),
        notes=("it is not CLIP: a classifying ViT, and a text tower that was trained to hit its classes",),
    )


def fit_logit_scale(source: ClipSource, exact: EqualRows, folder: Path) -> float:
    """Return τ by which the exact rows have the smallest cross-entropy on images of `folder/<class>/`."""
    places = {name: index for index, name in enumerate(list_imagenet().class_ids)}
    files = sorted(folder.glob("*/*"))
    labels = torch.tensor([places[file.parent.name] for file in files])
    cosines = torch.from_numpy(encode_images(source, files) @ exact.rows.T.astype(np.float32))
    candidates = torch.exp(torch.linspace(1.0, 5.0, 401))
    losses = [torch.nn.functional.cross_entropy(scale * cosines, labels) for scale in candidates]
    return float(candidates[torch.stack(losses).argmin()])


def encode_images(source: ClipSource, files: Sequence[Path]) -> FloatArray:
    """Return unit-length embeddings of images, float32 `[N, E]`."""
    images = dict(source.images)
    preparation = read_preprocessing(images, source.model.visual.image_size)
    mean, std = (np.array(images[name], np.float32) for name in ("mean", "std"))
    rows = []
    for start in range(0, len(files), IMAGE_BATCH):
        batch = [preprocess(read_image(file), preparation) for file in files[start : start + IMAGE_BATCH]]
        pixels = torch.from_numpy((np.stack(batch).astype(np.float32) / 255 - mean) / std)
        with torch.inference_mode():
            rows.append(source.model.encode_image(pixels.permute(0, 3, 1, 2), normalize=True).numpy())
    return np.concatenate(rows)


def measure(bundle: Bundle, exact: EqualRows, folder: Path) -> dict[str, Any]:
    """Return what the classes of the bundle are worth on clean images, beside the ViT's own rows.

    `accuracy` has the share of right images by name of the classifier, `cosine` the mean cosine between the
    rows of a head and the ViT's.
    """
    domain = load_image_folder(folder, bundle.manifest)
    scale = bundle.manifest.text.logit_scale if bundle.manifest.text is not None else 1.0
    weights = {"exact": (scale * exact.rows).astype(np.float32)}
    for name in sorted(bundle.manifest.heads):
        weights[name] = bundle.select_head(name).info("fp32").head_weight
    with Network.open(bundle) as network:
        embeddings = embed(network, domain)
    accuracy = {
        name: float(((embeddings @ weight.T).argmax(1) == domain.labels).mean())
        for name, weight in weights.items()
    }
    cosine = {name: float((weight * exact.rows).sum(1).mean() / scale) for name, weight in weights.items()}
    return {"images": len(domain), "accuracy": accuracy, "cosine": cosine}


def embed(network: Network, domain: Domain) -> FloatArray:
    """Return the unit-length embeddings of a domain's images, float32 `[N, F]`."""
    rows = []
    for start in range(0, len(domain), IMAGE_BATCH):
        indices = range(start, min(start + IMAGE_BATCH, len(domain)))
        rows.append(network(np.stack([domain.load(index) for index in indices])).features[:, -1])
    return np.concatenate(rows)


if __name__ == "__main__":
    main()
