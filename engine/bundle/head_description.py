"""Classes made from texts, described for results and for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .manifest import Manifest
from .text_entries import HeadEntry

_SHOWN_NAMES = 3


def list_head_facts(manifest: Manifest) -> dict[str, Any] | None:
    """Return the facts about the head in use that decide its classes, as JSON data; None without texts."""
    name = manifest.head_name
    if name is None:
        return None
    head = manifest.heads[name]
    prompt = {} if head.image_prompt is None else {"image_prompt": head.image_prompt.describe()}
    return {
        "name": name,
        "classes": len(head.class_names),
        "templates": list(head.templates),
        "context_vectors": head.context_vectors,
        "images": head.images,
        "sha256": manifest.files[head.file].sha256,
        **prompt,
    }


def describe_head_facts(facts: Mapping[str, Any]) -> str:
    """Return facts of `list_head_facts` in one line."""
    prompts = describe_prompts(facts["templates"], facts["context_vectors"], facts.get("images"))
    addition = f", {facts['image_prompt']}" if facts.get("image_prompt") else ""
    return f"{facts['classes']:,} of the head {facts['name']}, from {prompts}{addition}"


def describe_transfer_facts(facts: Mapping[str, Any]) -> str:
    """Return in one line the prompt that many data sets got, each with its own class names.

    Args:
        facts: `context`, name of the head whose context it is, or None; `context_vectors` and
            `context_templates` of it; `context_seeds`, if there is a head for each of several seeds;
            `templates` of the texts without it.
    """
    plain = "the template that is published for each data set"
    if list(facts["templates"]) != ["published"]:
        plain = describe_prompts(facts["templates"], None)
    if facts["context"] is None:
        return f"{plain} for every data set" if plain.startswith(("'", '"')) else plain
    prompts = describe_prompts(facts["context_templates"], facts["context_vectors"])
    heads = f"context of the head {facts['context']}"
    if seeds := facts.get("context_seeds"):
        names = ", ".join(f"{facts['context']}-{seed}" for seed in seeds)
        heads = f"context of the head {names}" if len(seeds) == 1 else f"contexts of the heads {names}"
    return f"{heads}, {prompts}; zero-shot is {plain}"


def count_classes(count: int) -> str:
    """Return a number of classes in words."""
    return "1 class" if count == 1 else f"{count:,} classes"


def describe_prompts(templates: Sequence[str], context_vectors: int | None, images: int | None = None) -> str:
    """Return in a few words what stands around the names.

    >>> describe_prompts(["a photo of a {}."], None)
    "'a photo of a {}.'"
    >>> describe_prompts(["{}."], 16)
    "16 learnt vectors and '{}.'"
    """
    text = repr(templates[0])
    if len(templates) > 1:
        text = f"{len(templates)} templates like {text}"
    text = text if context_vectors is None else f"{context_vectors} learnt vectors and {text}"
    return text if images is None else f"{text} and {images:,} labelled images"


def describe_names(names: Sequence[str]) -> str:
    """Return the first names of classes.

    >>> describe_names(["cat", "dog", "eel", "fox"])
    'cat, dog, eel, …'
    """
    more = ["…"] if len(names) > _SHOWN_NAMES else []
    return ", ".join([*names[:_SHOWN_NAMES], *more])


def describe_heads(manifest: Manifest, names: Sequence[str] | None = None) -> list[str]:
    """Return a line for each head, or for those of some names; the one in use is marked."""
    selected = list(manifest.heads) if names is None else names
    width = max(map(len, selected), default=0)
    return [
        f"{name:{width}s} {'*' if name == manifest.head_name else ' '} {_describe_head(manifest.heads[name])}"
        for name in selected
    ]


def _describe_head(head: HeadEntry) -> str:
    classes = f"{count_classes(len(head.class_names))} ({describe_names(head.class_names)})"
    addition = "" if head.image_prompt is None else f", {head.image_prompt.describe()}"
    return f"{classes} from {describe_prompts(head.templates, head.context_vectors, head.images)}{addition}"
