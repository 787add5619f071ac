"""Time and memory of CLIP: an image with 64 views, and the texts of a thousand classes, beside open_clip.

    fozo export --clip ViT-B-16 --random-weights --source IMAGES --out clip-base
    python bench/clip_speed.py clip-base PHOTO --out clip-speed.json

All arms take turns in one run, and medians are written. `open_clip` computes the same views in PyTorch with
as many threads, in fp32, and in bf16 where the processor has it; it encodes each text whole, padded to the
model's 77 tokens, as its own zero-shot classifiers are made. Its texts are a sample, and the time is scaled
to all of them. Memory is the peak of a process that does one thing.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable
from pathlib import Path

import fozo
import numpy as np
from fozo.engine.bundle.bundle import Bundle
from fozo.engine.model import ImageArray
from fozo.engine.runtime.cpu import count_cpus
from fozo.engine.runtime.text_encoder import TextEncoder
from fozo.eval.processes.memory import peak_bytes
from measuring import describe_machine, now, run_alone, take_turns

VIEWS = 64
CONTEXTS = 9  # of STSS: the words, and 8 perturbations
WORDS = "a photo of a"
NAIVE_TEXTS = 128
TEXTS_PER_CALL = 32


def main() -> None:
    """Write times and memory as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle", type=Path, help="CLIP with random weights, fp32 and int8")
    parser.add_argument("photo", type=Path)
    parser.add_argument("--samples", type=int, default=3)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    bundle = Bundle.open(options.bundle)
    views = fozo.views(options.photo, VIEWS, bundle.manifest.preprocessing)[None]
    load = os.getloadavg()[0]
    environment = describe_machine()
    document = {
        "created": now(),
        **environment,
        "machine": {**environment["machine"], "load_before": load},
        "model": bundle.manifest.model,
        "workers": count_cpus(),
        "views": time_views(bundle, views, options.samples),
        "texts": time_texts(bundle, options.samples),
        "peak_mb": {
            f"{method} {precision}": run_alone(measure_memory, str(options.bundle), precision, method, views)
            for method in ("zero", "stss")
            for precision in bundle.manifest.graphs
        },
    }
    options.out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def time_views(bundle: Bundle, views: ImageArray, samples: int) -> dict[str, float]:
    """Return the median seconds of one image's prediction by STSS, by arm."""
    arms: dict[str, Callable[[], object]] = {}
    for precision in bundle.manifest.graphs:
        adapter = fozo.Adapter(fozo.Network.open(bundle, precision), fozo.method("stss", views=VIEWS))
        arms[f"fozo {precision}"] = lambda adapter=adapter: adapter.step(views)
    arms |= make_eager_arms(bundle, views)
    return take_turns(arms, samples)


def make_eager_arms(bundle: Bundle, views: ImageArray) -> dict[str, Callable[[], object]]:
    """Return what computes views and scores of STSS in PyTorch, in fp32 and perhaps in bf16."""
    import open_clip
    import torch

    torch.set_num_threads(count_cpus())
    model = open_clip.create_model(bundle.manifest.model, pretrained=None).eval()
    pixels = torch.from_numpy(views[0]).permute(0, 3, 1, 2).float() / 255
    classifiers = torch.randn(CONTEXTS, bundle.manifest.classes, model.text_projection.shape[1])

    @torch.inference_mode()
    def predict(dtype: torch.dtype) -> object:
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            features = torch.nn.functional.normalize(model.encode_image(pixels), dim=-1)
            logits = torch.einsum("vf,rkf->rvk", features.float(), classifiers)
        entropies = torch.special.entr(logits.softmax(-1)).sum(-1)
        kept = entropies[1:].max(0).values.argsort()[: round(0.1 * VIEWS)]
        return logits[0, kept].argmax(-1).bincount().argmax()

    arms: dict[str, Callable[[], object]] = {"open_clip fp32": lambda: predict(torch.float32)}
    if torch.backends.cpu.get_cpu_capability() and has_bfloat16():
        arms["open_clip bf16"] = lambda: predict(torch.bfloat16)
    return arms


def has_bfloat16() -> bool:
    """Return whether the processor multiplies in bfloat16."""
    return any(name in Path("/proc/cpuinfo").read_text() for name in ("avx512_bf16", "amx_bf16"))


def time_texts(bundle: Bundle, samples: int) -> dict[str, float]:
    """Return the median seconds of encoding all classes behind nine contexts, by arm."""
    import open_clip
    import torch

    model = open_clip.create_model(bundle.manifest.model, pretrained=None).eval()
    names = bundle.manifest.class_names or ()
    sentences = [f"{WORDS} {name}." for name in names][:NAIVE_TEXTS]
    tokens = open_clip.get_tokenizer(bundle.manifest.model)(sentences)

    def encode_shared() -> None:
        with TextEncoder.open(bundle) as encoder:
            context = encoder.embed_words(WORDS)
            ends = [(*encoder.tokenizer.encode(f"{name}."), encoder.entry.end_token) for name in names]
            encoder.encode(ends, np.repeat(context[None], CONTEXTS, axis=0))

    @torch.inference_mode()
    def encode_whole() -> None:
        for start in range(0, len(tokens), TEXTS_PER_CALL):
            model.encode_text(tokens[start : start + TEXTS_PER_CALL])

    seconds = take_turns({"fozo": encode_shared, "open_clip": encode_whole}, samples)
    scale = CONTEXTS * len(names) / len(tokens)
    return {"fozo": seconds["fozo"], "open_clip, 77 tokens": seconds["open_clip"] * scale}


def measure_memory(bundle: str, precision: str, method: str, views: ImageArray) -> float:
    """Return the peak memory in MB of a process that opens a bundle and predicts an image.

    `zero` needs the image graph alone; `stss` encodes texts as well.
    """
    with fozo.Network.open(bundle, precision) as network:
        fozo.Adapter(network, fozo.method(method, views=VIEWS)).step(views)
    return peak_bytes() / 1e6


if __name__ == "__main__":
    main()
