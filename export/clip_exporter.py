"""Export of a CLIP model to a bundle: text graph, image graph, vocabulary and first classes."""

from __future__ import annotations

import hashlib
import math
import shutil
import warnings
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import open_clip
from open_clip.tokenizer import SimpleTokenizer

from ..data.demo import DEMO_CLIP
from ..engine.bundle.bundle import TEXT_FILE, VOCABULARY_FILE
from ..engine.bundle.create import check_writable, create, folder_beside
from ..engine.bundle.head import Head
from ..engine.bundle.manifest import Manifest
from ..engine.bundle.text_entries import TextEntry
from ..engine.files import hash_file, hash_texts
from ..engine.runtime.class_head import build_head
from ..engine.runtime.text_encoder import TextEncoder
from ..engine.text.templates import DEFAULT_TEMPLATE, check_templates
from ..engine.text.tokenizer import Tokenizer
from .clip_family import ClipFamily
from .clip_head import ClassList, list_imagenet, read_class_list
from .clip_source import ClipRequest, ClipSource, prepare_clip
from .demo_clip_source import list_demo_classes, prepare_demo_clip
from .exporter import ExportResult, TextParity
from .half_storage import store_as_half
from .image_format import read_image_format, read_preprocessing
from .image_graphs import Writers, choose_norms, list_versions, save_graph, write_image_graphs
from .open_clip_blocks import require
from .text_graph import build_text_graph
from .text_model import TextTower, read_text_tower
from .text_verification import verify_text, verify_tokenizer
from .verify import Parity
from .weights_files import OPEN_CLIP_NAMES, locate_weights


def export_clip(request: ClipRequest, out: Path, *, overwrite: bool = False) -> ExportResult:
    """Export a CLIP model to a new bundle at `out`; nothing is written unless both graphs are verified.

    Raises:
        ExportError: the model is unknown or cannot be exported, its weights do not fit or nothing tells their
            activation, or graphs or tokenizer do not what open_clip does.
        InputError: classes or templates cannot be used.
        OutputError: `out` cannot be written, or something is in the way.
    """
    check_writable(out, overwrite=overwrite)
    if request.weights is not None:
        request = replace(request, weights=locate_weights(request.weights, OPEN_CLIP_NAMES))
    is_demo = request.model == DEMO_CLIP
    classes = list_demo_classes() if is_demo else list_imagenet()
    return write_clip_bundle(
        prepare_demo_clip(request) if is_demo else prepare_clip(request),
        classes if request.classes_file is None else read_class_list(request.classes_file),
        request.templates or (DEFAULT_TEMPLATE,),
        out,
        norms=request.norms,
        gradients=request.gradients,
        pixels=request.pixels,
        overwrite=overwrite,
    )


def write_clip_bundle(
    source: ClipSource,
    classes: ClassList,
    templates: Sequence[str],
    out: Path,
    *,
    norms: Sequence[int] | None = None,
    gradients: bool = False,
    pixels: bool = False,
    overwrite: bool = False,
) -> ExportResult:
    """Write a bundle of a CLIP model.

    Args:
        source: the model.
        classes: its first classes.
        templates: texts with `{}` for the name of a class.
        out: where the bundle shall be.
        norms: blocks whose norms become tunable; None is all of them.
        gradients: whether to add a pull-back graph.
        pixels: whether an addend to the images becomes tunable.
        overwrite: replace a bundle that is already there.

    Raises:
        ExportError: graphs or tokenizer do not what open_clip does.
        InputError: classes or templates cannot be used.
        OutputError: `out` cannot be written, or something is in the way.
    """
    tokenizer = Tokenizer.read(source.vocabulary, source.start)
    texts = list_texts(classes, check_templates(tuple(templates)))
    verify_tokenizer(tokenizer, SimpleTokenizer(bpe_path=str(source.vocabulary)).encode, texts)
    tower = read_text_tower(source.model, source.start, tokenizer.vocabulary.end)
    with folder_beside(out) as folder:
        text = _write_text_graph(source, tower, folder / TEXT_FILE)
        head = _make_head(source, folder / TEXT_FILE, text, classes, templates)
        classifier = head.weight[:, : text.embedding_width]
        image_format = read_image_format(dict(source.images), None, pixels=pixels)
        family = ClipFamily(source.model, image_format, classifier)
        manifest, head_file = _describe(source, family, text, (classes.label, head), folder, norms)
        graphs = write_image_graphs(family, manifest, folder, gradients=gradients)
        files: Writers = {
            **graphs.files,
            TEXT_FILE: (folder / TEXT_FILE).rename,
            VOCABULARY_FILE: lambda path: shutil.copyfile(source.vocabulary, path),
            head_file: lambda path: path.write_bytes(head.to_npz()),
        }
        manifest = replace(graphs.manifest, provenance=_record_provenance(source, graphs.parity))
        bundle = create(out, manifest, files, overwrite=overwrite)
    return ExportResult(
        bundle,
        graphs.parity,
        graphs.case_summary,
        graphs.gradient_difference,
        (*source.notes, *filter(None, [head.record.get("warning")])),
        TextParity(text.max_abs_difference, len(texts)),
    )


def _write_text_graph(source: ClipSource, tower: TextTower, path: Path) -> TextEntry:
    """Write and verify the text graph, and return its entry."""
    save_graph(store_as_half(build_text_graph(tower)), path)
    return TextEntry(
        file=TEXT_FILE,
        vocabulary=VOCABULARY_FILE,
        width=tower.width,
        context_length=len(tower.positions),
        embedding_width=len(tower.projection.weight),
        logit_scale=_read_logit_scale(source.model),
        start_token=tower.start,
        end_token=tower.end,
        max_abs_difference=verify_text(source.model, tower, path),
        record={"activation": source.activation.name, "activation_by": source.activation.reason},
    )


def _read_logit_scale(model: Any) -> float:
    """Return τ, of which a model stores the logarithm.

    Raises:
        ExportError: it is no positive number, or the model adds a bias to its logits.
    """
    require(model.logit_bias is None, "adds a bias to its logits, as SigLIP does")
    scale = float(model.logit_scale.detach().double().exp())
    require(0 < scale < math.inf, f"multiplies its cosines by {scale}")
    return scale


def _make_head(
    source: ClipSource, graph: Path, text: TextEntry, classes: ClassList, templates: Sequence[str]
) -> Head:
    """Return the first classes with their classifier `[K, F]`."""
    width = max(int(source.model.visual.conv1.out_channels), text.embedding_width)
    with TextEncoder(graph, source.vocabulary, text) as encoder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the record of the head has them too
        names, ids = classes.class_names, classes.class_ids
        head = build_head(encoder, width, names, templates, class_ids=ids)
    return replace(head, record={**head.record, "origin": classes.origin})


def _describe(
    source: ClipSource,
    family: ClipFamily,
    text: TextEntry,
    named_head: tuple[str, Head],
    folder: Path,
    norms: Sequence[int] | None,
) -> tuple[Manifest, str]:
    """Return the manifest without the graphs of images, and the name of the head's file."""
    label, head = named_head
    file = f"head-{label}-{hashlib.sha256(head.to_npz()).hexdigest()[:8]}.npz"
    entry = head.describe(file, hash_texts(hash_file(folder / text.file), hash_file(source.vocabulary)))
    tunable = choose_norms(family, norms, source.name)
    manifest = Manifest(
        model=source.name,
        preprocessing=read_preprocessing(dict(source.images), family.image_size),
        classes=len(head.weight),
        norms=tunable,
        text=text,
        heads={label: entry},
        **family.describe(tunable),
    )
    return manifest.use_head(entry), file


def list_texts(classes: ClassList, templates: Sequence[str]) -> list[str]:
    """Return texts that show whether two tokenizers agree.

    They are all names in the first template, the first name in all templates, and ImageNet's names.
    """
    names, imagenet = classes.class_names, list_imagenet().class_names
    texts = [templates[0].replace("{}", name) for name in (*names, *imagenet)]
    texts += [template.replace("{}", names[0]) for template in templates]
    return list(dict.fromkeys(texts))


def _record_provenance(source: ClipSource, parity: Parity) -> dict[str, Any]:
    """Return all that is needed to make the bundle again."""
    return {
        "weights": source.weights.description,
        "weights_sha256": source.weights.sha256,
        "weights_key": source.weights.key,
        "timm_tag": "",
        "mean": list(source.images["mean"]),
        "std": list(source.images["std"]),
        "crop_pct": source.images["crop_pct"],
        "options": list(source.options),
        "image_settings": source.settings_file,
        "image_settings_sha256": source.settings_sha256,
        "notes": list(source.notes),
        "max_abs_difference": asdict(parity),
        "versions": {**list_versions(), "open_clip": open_clip.__version__},
    }
