"""An evaluation of one prompt on many data sets: domain generalisation and cross-dataset transfer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from ...engine.bundle.bundle import Bundle
from ...engine.bundle.head import Head
from ...engine.errors import InputError
from ...engine.registry import AnyMethod, count_pull_backs, parse_methods
from ...engine.runtime.class_head import build_head
from ...engine.runtime.class_text import open_class_text
from ...engine.runtime.network import Network
from ...engine.runtime.text_encoder import TextEncoder, require_text
from ..datasets.domain import Domain, describe_deviations
from ..datasets.subset import choose_subset
from ..protocol import OWN_CLASSES, Protocol
from ..streaming.experiment import Experiment
from .transfer_spec import PUBLISHED, TransferSpec
from .transfer_target import TransferTarget, open_target

ZERO_SHOT = "zero-shot"  # label of the texts without a context
PLAIN = "no_adapt"  # the method that is always there


def prepare_transfer(bundle: Bundle, spec: TransferSpec) -> Experiment:
    """Open and check everything, and make the classes of every data set.

    The first method is always the frozen network: with the texts without a context, labelled `zero-shot`,
    where there is a context, and then with the prompt of the other methods.

    Raises:
        FozoError: something cannot be used; the message says what to do about it.
    """
    require_text(bundle)
    tuned_head = load_context(bundle, spec.context)
    methods = list_methods(spec.methods, has_context=tuned_head is not None)
    preferred = () if spec.context is None else (spec.context,)
    targets = [open_target(text, bundle, spec.reading, preferred) for text in spec.targets]
    domains = [domain for target in targets for domain in target.domains]
    if repeated := [name for name, count in Counter(domain.name for domain in domains).items() if count > 1]:
        raise InputError(f"expected different data sets, found {repeated[0]} twice; leave one out")
    network = Network.open(
        bundle,
        spec.precision,
        gradients=any(map(count_pull_backs, methods.values())),
        workers=spec.workers,
        micro_batch=spec.micro_batch,
        provider=spec.provider,
    )
    heads = make_heads(bundle, spec, targets, tuned_head)
    networks = {
        domain.name: _view_network(bundle, network, methods, heads[target.name], spec.workers)
        for target in targets
        for domain in target.domains
    }
    return Experiment(
        bundle,
        spec.precision,
        network,
        methods,
        _make_protocol(spec, targets, domains),
        lambda seed: choose_subset(domains, spec.subset, spec.seed if spec.orders else seed)[0],
        deviations=tuple(describe_deviations(domains)),
        skip_unreadable=spec.on_error == "skip",
        networks=networks,
        facts={"classes": None, "head": None, "transfer": describe_transfer(spec, targets, tuned_head)},
    )


def load_context(bundle: Bundle, name: str | None) -> Head | None:
    """Return the head whose context is transferred; None if none is asked for.

    Raises:
        BundleError: there is no such head.
        InputError: its texts have no learnt context.
    """
    if name is None:
        return None
    head = bundle.load_head(name)
    if head.context is None:
        raise InputError(
            f"the head {name} has no learnt context, only words: {', '.join(map(repr, head.templates[:2]))}; "
            "evaluate these with --template, or name a head of fozo tune"
        )
    return head


def list_methods(texts: Sequence[str], *, has_context: bool) -> dict[str, AnyMethod]:
    """Return the methods by label, frozen networks first.

    Raises:
        InputError: a method or its label cannot be used.
    """
    methods = dict(parse_methods(tuple(texts)))
    if ZERO_SHOT in methods:
        raise InputError(f"the label {ZERO_SHOT} stands for the texts without a context; choose another")
    frozen = parse_methods((PLAIN,))[PLAIN]
    if not any(method.name == PLAIN for method in methods.values()):
        methods = {PLAIN: frozen, **methods}
    return {ZERO_SHOT: frozen, **methods} if has_context else methods


def make_heads(
    bundle: Bundle, spec: TransferSpec, targets: Sequence[TransferTarget], tuned_head: Head | None
) -> dict[str, tuple[Head, Head]]:
    """Return for each data set the head of the texts without a context, and that of the prompt.

    Raises:
        InputError: a name or template cannot be used.
        ComputeError: ONNX Runtime fails.
    """
    width = bundle.manifest.feature_width
    with TextEncoder.open(bundle, workers=spec.workers) as encoder:

        def make(target: TransferTarget, templates: Sequence[str], context: Any = None) -> Head:
            names, ids = target.class_names, target.class_ids
            return build_head(encoder, width, names, templates, class_ids=ids, context=context)

        heads = {}
        for target in targets:
            templates = (target.template,) if spec.templates == (PUBLISHED,) else spec.templates
            plain = make(target, templates)
            prompted = plain if tuned_head is None else make(target, tuned_head.templates, tuned_head.context)
            heads[target.name] = (plain, prompted)
    return heads


def describe_transfer(
    spec: TransferSpec, targets: Sequence[TransferTarget], tuned_head: Head | None
) -> dict[str, Any]:
    """Return prompt and data sets in JSON values, for results."""
    return {
        "context": spec.context,
        "context_vectors": None
        if tuned_head is None or tuned_head.context is None
        else len(tuned_head.context),
        "context_templates": None if tuned_head is None else list(tuned_head.templates),
        "templates": list(spec.templates),
        "targets": {
            target.name: {
                "classes": len(target.class_ids),
                "template": target.template if spec.templates == (PUBLISHED,) else None,
            }
            for target in targets
        },
    }


def _view_network(
    bundle: Bundle,
    network: Network,
    methods: dict[str, AnyMethod],
    heads: tuple[Head, Head],
    workers: int | None,
) -> dict[str, Network]:
    """Return the network of each method with the classes of a data set."""
    plain, prompted = (
        network.with_classifier(head.weight, open_class_text(bundle, head, workers=workers)) for head in heads
    )
    return {label: plain if label == ZERO_SHOT else prompted for label in methods}


def _make_protocol(
    spec: TransferSpec, targets: Sequence[TransferTarget], domains: Sequence[Domain]
) -> Protocol:
    names = ", ".join(target.name for target in targets)
    prompt = f"context {spec.context}" if spec.context else "templates"
    return Protocol(
        dataset=f"transfer of {prompt} to {names}",
        setting="reset",
        severities=(),
        subset=choose_subset(domains, spec.subset, spec.seed)[1],
        seeds=tuple(range(spec.seed, spec.seed + (spec.orders or spec.seeds))),
        batch_size=spec.batch_size,
        classes=OWN_CLASSES,
        exif_orientation=spec.reading.exif_orientation,
        orders=spec.orders is not None,
    )
