"""Choice between GELU and QuickGELU for a CLIP model, which weights do not tell and which is never guessed.

Weights that were trained with one compute something else with the other, without an error. OpenAI's are
reported to lose about four points of accuracy on ImageNet.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..engine.errors import ExportError

SETTINGS_FILE = "open_clip_config.json"  # which open_clip writes beside weights


@dataclass(frozen=True)
class Activation:
    """Activation of a model.

    Attributes:
        name: one of `engine.names.ACTIVATIONS`.
        reason: what decided it, in words.
    """

    name: str
    reason: str


def decide_activation(
    model: str,
    configuration: Mapping[str, Any],
    *,
    asked: str | None,
    openai_layout: bool,
    settings: Mapping[str, Any] | None,
    random: bool,
) -> Activation:
    """Return the activation that everything known of a model agrees on.

    Args:
        model: its name in open_clip.
        configuration: open_clip's configuration of it.
        asked: the user's choice, or None.
        openai_layout: whether the file of weights has the entries that only OpenAI's releases have.
        settings: open_clip's file of settings beside the weights, or None.
        random: whether the weights are random.

    Raises:
        ExportError: nothing is known, or two sources disagree.
    """
    sources = list(_list_sources(model, configuration, asked, openai_layout, settings))
    if not sources and random:
        return Activation("gelu", "open_clip's default, for random weights")
    if not sources:
        raise ExportError(
            "the file does not tell whether its weights were trained with GELU or QuickGELU, and the wrong "
            "one costs accuracy without any error; give --activation quick_gelu (OpenAI's, MetaCLIP's and "
            "DFN's weights) or --activation gelu (LAION's and DataComp's), or put open_clip's "
            f"{SETTINGS_FILE} beside the weights"
        )
    for source in sources[1:]:
        if source.name != sources[0].name:
            raise ExportError(
                f"{sources[0].reason} says {sources[0].name}, and {source.reason} says {source.name}; the "
                "wrong one costs accuracy without any error, so find out which the weights were trained with"
            )
    return Activation(sources[0].name, ", ".join(source.reason for source in sources))


def _list_sources(
    model: str,
    configuration: Mapping[str, Any],
    asked: str | None,
    openai_layout: bool,
    settings: Mapping[str, Any] | None,
) -> Iterator[Activation]:
    if asked is not None:
        yield Activation(asked, "--activation")
    if configuration.get("quick_gelu"):
        yield Activation("quick_gelu", f"open_clip's configuration {model}")
    if openai_layout:
        yield Activation("quick_gelu", "the layout of the file, which is that of OpenAI's releases,")
    if settings is not None:
        quick = bool(settings["model_cfg"].get("quick_gelu", False))
        yield Activation("quick_gelu" if quick else "gelu", f"{SETTINGS_FILE} beside the weights")
