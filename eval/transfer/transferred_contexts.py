"""The contexts that are transferred: heads of `fozo tune`, one for each seed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...engine.bundle.bundle import Bundle
from ...engine.bundle.head import Head
from ...engine.errors import InputError


def name_head(context: str, seed: int | None) -> str:
    """Return the name that `fozo tune --as CONTEXT --seeds …` gives to the head of a seed.

    >>> name_head("imagenet-zip", 2), name_head("imagenet-zip", None)
    ('imagenet-zip-2', 'imagenet-zip')
    """
    return context if seed is None else f"{context}-{seed}"


def load_contexts(bundle: Bundle, context: str | None, seeds: Sequence[int]) -> dict[str, Head]:
    """Return the head of every seed, by name; without seeds one head; and without a context none.

    Args:
        bundle: the bundle.
        context: name of the head, or what the names of the heads of all seeds begin with.
        seeds: of `fozo tune`; empty: `context` is the name of a head.

    Raises:
        BundleError: there is no such head.
        InputError: the texts of a head have no learnt context, or the contexts are not of one tuning.
    """
    if context is None:
        return {}
    if not seeds:
        _check_name(bundle, context)
    names = [name_head(context, seed) for seed in seeds or (None,)]
    heads = {name: _load_context(bundle, name) for name in names}
    kinds = {(head.templates, np.asarray(head.context).shape) for head in heads.values()}
    if len(kinds) > 1:
        raise InputError(
            f"expected {', '.join(names)} to be of one tuning, with equally many vectors and equal templates,"
            " found several kinds; transfer each by itself"
        )
    return heads


def _check_name(bundle: Bundle, context: str) -> None:
    """Say how to name the heads of several seeds where somebody names what they have in common."""
    heads = bundle.manifest.heads
    seeds = [
        name.removeprefix(f"{context}-")
        for name in heads
        if name.startswith(f"{context}-") and name.removeprefix(f"{context}-").isdecimal()
    ]
    if context not in heads and seeds:
        raise InputError(
            f"{bundle.path} has no head {context}, but one for each of several seeds; give "
            f"--context-seeds {','.join(seeds)} with it, or name one of them, such as {context}-{seeds[0]}"
        )


def _load_context(bundle: Bundle, name: str) -> Head:
    head = bundle.load_head(name)
    if head.context is None:
        raise InputError(
            f"the head {name} has no learnt context, only words: {', '.join(map(repr, head.templates[:2]))}; "
            "evaluate these with --template, or name a head of fozo tune"
        )
    if head.image_prompt is not None:
        raise InputError(
            f"the context of the head {name} was learnt together with prompts of the image tower, which a "
            "transfer leaves out; learn a context alone, without --visual"
        )
    return head
