"""Differences of a run from a recipe, for which its figures cannot be compared, in sentences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from ..protocol import Protocol as StreamProtocol
from .outcome import DomainResult, Run
from .recipe_record import FP32, Recipe

# How bundles begin to describe these weights.
_PRETRAINED, _TIMM_ON_HUB = "timm's pretrained", "hf-hub:timm/"
_COMPARED = ("mean", "std", "image_size")  # options of an export whose effect is compared itself


class DomainFacts(Protocol):
    """Facts about the images of a domain, before and after they are seen."""

    @property
    def name(self) -> str:
        """Name of the corruption."""

    @property
    def generated(self) -> bool:
        """True if fozo computed the corruption."""

    @property
    def available_images(self) -> int:
        """Number of images of the data, before a subset is chosen."""


def describe_obstacles(
    recipe: Recipe, bundle: Mapping[str, Any], protocol: StreamProtocol, domains: Sequence[DomainFacts]
) -> list[str]:
    """Return the obstacles that are known before the first image is seen.

    Args:
        recipe: what was published.
        bundle: facts about the adapted model, as in results.
        protocol: protocol of the stream.
        domains: in the order of the stream.
    """
    return [
        *_compare_model(recipe, bundle),
        *_compare_protocol(recipe, protocol),
        *_compare_data(recipe, protocol, domains),
    ]


def describe_run_obstacles(
    recipe: Recipe, bundle: Mapping[str, Any], protocol: StreamProtocol, runs: Sequence[Run]
) -> list[str]:
    """Return all obstacles, those of `describe_obstacles` and images that were not predicted."""
    domains = [domain for run in runs for domain in run.domains]
    obstacles = [*describe_obstacles(recipe, bundle, protocol, domains), *_list_unseen(recipe, domains)]
    complete = sum(run.complete for run in runs)
    if complete < len(protocol.seeds):
        obstacles.append(f"The run is complete for {complete} of {len(protocol.seeds)} seeds.")
    return obstacles


def _compare_model(recipe: Recipe, bundle: Mapping[str, Any]) -> Iterator[str]:
    model, precision = (str(bundle.get(name)) for name in ("model", "precision"))
    published, tag = recipe.models[0], recipe.models[0].partition(".")[2]
    weights, own_tag = str(bundle.get("weights", "unknown")), bundle.get("timm_tag") or "unknown"
    if model.removeprefix(_TIMM_ON_HUB) not in recipe.models:
        yield f"The model is {model}; the figures were published for {published}."
    elif not weights.startswith((_PRETRAINED, _TIMM_ON_HUB)):
        yield f"The weights are {weights}; fozo cannot tell whether they are timm's for {published}."
    elif own_tag != tag:
        yield f"The tag of timm's weights is {own_tag}; the figures were published for {published}."
    if not recipe.has_figures(precision):
        yield f"The graph is {precision}; the published figures are of {FP32}."
    yield from _compare_preparation(recipe, bundle)


def _compare_preparation(recipe: Recipe, bundle: Mapping[str, Any]) -> Iterator[str]:
    for name in ("mean", "std"):
        own, expected = _read_list(bundle.get(name)), getattr(recipe, name)
        if own != expected:
            yield f"Pixels are normalised with {name} {_join(own) or 'unknown'}; expected {_join(expected)}."
    images = bundle.get("preprocessing")
    size = _read_list(images.get("size") if isinstance(images, Mapping) else None)
    if size != recipe.size:
        yield f"Images have {_join(size, ' × ') or 'unknown'} pixels; expected {_join(recipe.size, ' × ')}."
    changed = [
        f"--{name}".replace("_", "-") for name in _read_list(bundle.get("options")) if name not in _COMPARED
    ]
    if changed:
        yield f"Images are prepared otherwise than timm says for the model, by {', '.join(changed)}."


def _compare_protocol(recipe: Recipe, protocol: StreamProtocol) -> Iterator[str]:
    for name in ("setting", "batch_size", "severities"):
        own, expected = (getattr(owner, name) for owner in (protocol, recipe.options))
        if own != expected:
            label = name.replace("_", " ")
            yield f"This run has {label} {_join(own)}; the protocol has {_join(expected)}."
    if recipe.options.subset == "5k" and not protocol.subset.startswith("5k-list"):
        yield "The images were drawn with the seed; the published ones are a list, which --subset-list takes."


def _compare_data(recipe: Recipe, protocol: StreamProtocol, domains: Sequence[DomainFacts]) -> Iterator[str]:
    names, expected = tuple(dict.fromkeys(domain.name for domain in domains)), recipe.options.corruptions
    if missing := [name for name in expected if name not in names]:
        yield f"Not run: {', '.join(missing)}."
    elif names != expected:
        yield f"The corruptions come in another order than in the protocol: {', '.join(names)}."
    if any(domain.generated for domain in domains):
        yield "The corruptions were generated by fozo; the published figures are of the official data."
    counts = {domain.available_images for domain in domains} - {recipe.drawn_from}
    if counts and "-list" not in protocol.subset:  # from how many a list was chosen makes no difference
        own = " or ".join(f"{count:,}" for count in sorted(counts))
        yield f"A corruption has {own} images; the published data has {recipe.drawn_from:,} of each."


def _list_unseen(recipe: Recipe, domains: Sequence[DomainResult]) -> Iterator[str]:
    unseen = {
        domain.name
        for domain in domains
        if domain.images != recipe.images or domain.unreadable or not domain.complete
    }
    if unseen:
        yield (
            f"The protocol takes {recipe.images:,} images of each corruption, and not all were predicted in: "
            f"{', '.join(sorted(unseen))}."
        )


def _join(values: Any, separator: str = ", ") -> str:
    return separator.join(map(str, values)) if isinstance(values, tuple) else str(values)


def _read_list(value: object) -> tuple[Any, ...]:
    """Return a list of a results file, which may hold anything, as a tuple; empty if it is none."""
    return tuple(value) if isinstance(value, (list, tuple)) else ()
