"""An evaluation of one prompt on many data sets: domain generalisation and cross-dataset transfer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from ...engine.bundle.bundle import Bundle
from ...engine.bundle.head import Head
from ...engine.errors import InputError
from ...engine.registry import AnyMethod, parse_methods
from ...engine.runtime.class_head import build_head
from ...engine.runtime.class_text import open_class_text
from ...engine.runtime.network import Network
from ...engine.runtime.text_encoder import TextEncoder, require_text
from ..datasets.domain import Domain, describe_deviations
from ..datasets.subset import choose_subset
from ..protocol import OWN_CLASSES, Protocol
from ..streaming.experiment import Experiment
from ..streaming.method_networks import MethodNetworks
from .transfer_spec import PUBLISHED, TransferSpec
from .transfer_target import TransferTarget, mark_source, open_target
from .transferred_contexts import load_contexts

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
    contexts = load_contexts(bundle, spec.context, spec.context_seeds)
    methods = list_methods(spec.methods, has_context=bool(contexts))
    opened = [open_target(text, bundle, spec.reading, tuple(contexts)) for text in spec.targets]
    targets = [mark_source(target, list(contexts.values())) for target in opened]
    domains = [domain for target in targets for domain in target.domains]
    if repeated := [name for name, count in Counter(domain.name for domain in domains).items() if count > 1]:
        raise InputError(f"expected different data sets, found {repeated[0]} twice; leave one out")
    networks = MethodNetworks.open(
        bundle,
        spec.precision,
        methods.values(),
        workers=spec.workers,
        micro_batch=spec.micro_batch,
        provider=spec.provider,
    )
    plain, prompted = make_heads(bundle, spec, targets, contexts)
    view = partial(_view_networks_of_head, bundle, networks, workers=spec.workers)
    views = view_networks(targets, methods, view, plain, prompted)
    same_images = spec.orders is not None or bool(spec.context_seeds)
    return Experiment(
        bundle,
        spec.precision,
        networks,
        methods,
        _make_protocol(spec, targets, domains),
        lambda seed: choose_subset(domains, spec.subset, spec.seed if same_images else seed)[0],
        deviations=tuple(describe_deviations(domains)),
        skip_unreadable=spec.on_error == "skip",
        networks={seed: views[index % len(views)] for index, seed in enumerate(spec.run_seeds)},
        facts={"classes": None, "head": None, "transfer": describe_transfer(bundle, spec, targets, contexts)},
    )


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
    bundle: Bundle, spec: TransferSpec, targets: Sequence[TransferTarget], contexts: Mapping[str, Head]
) -> tuple[dict[str, Head], list[dict[str, Head]]]:
    """Return by data set the head of the texts without a context, and for every context the head behind it.

    Without a context, the texts are the only prompt.

    Raises:
        InputError: a name or template cannot be used.
        ComputeError: ONNX Runtime fails.
    """
    width = bundle.manifest.feature_width
    with TextEncoder.open(bundle, workers=spec.workers) as encoder:

        def make(target: TransferTarget, templates: Sequence[str], context: Any = None) -> Head:
            names, ids = target.class_names, target.class_ids
            return build_head(encoder, width, names, templates, class_ids=ids, context=context)

        plain = {
            target.name: make(
                target, (target.template,) if spec.templates == (PUBLISHED,) else spec.templates
            )
            for target in targets
        }
        prompted = [
            {target.name: make(target, head.templates, head.context) for target in targets}
            for head in contexts.values()
        ]
    return plain, prompted or [plain]


def view_networks(
    targets: Sequence[TransferTarget],
    methods: Mapping[str, AnyMethod],
    view: Callable[[Head], MethodNetworks],
    plain: Mapping[str, Head],
    prompted: Sequence[Mapping[str, Head]],
) -> list[dict[str, dict[str, Network]]]:
    """Return for every context the network of each method, by name of the domain and label of the method.

    Args:
        targets: the data sets.
        methods: the methods by label.
        view: returns the networks with the classes of a head.
        plain, prompted: heads, as `make_heads` returns them.
    """
    zero_shot = {target.name: view(plain[target.name]) for target in targets} if ZERO_SHOT in methods else {}
    networks = []
    for heads in prompted:
        networks_of_domains = {}
        for target in targets:
            prompt = view(heads[target.name])
            by_label = {
                label: (zero_shot[target.name] if label == ZERO_SHOT else prompt).find(method)
                for label, method in methods.items()
            }
            networks_of_domains.update({domain.name: by_label for domain in target.domains})
        networks.append(networks_of_domains)
    return networks


def describe_transfer(
    bundle: Bundle,
    spec: TransferSpec,
    targets: Sequence[TransferTarget],
    contexts: Mapping[str, Head],
) -> dict[str, Any]:
    """Return prompt and data sets in JSON values, for results."""
    manifest = bundle.manifest
    first = next(iter(contexts.values()), None)
    vectors = None if first is None or first.context is None else len(first.context)
    return {
        "context": spec.context,
        "context_seeds": list(spec.context_seeds),
        "context_heads": {name: manifest.files[manifest.heads[name].file].sha256 for name in contexts},
        "context_vectors": vectors,
        "context_templates": None if first is None else list(first.templates),
        "templates": list(spec.templates),
        "targets": {
            target.name: {
                "classes": len(target.class_ids),
                "template": target.template if spec.templates == (PUBLISHED,) else None,
                "learnt_from": any(domain.learnt_from for domain in target.domains),
            }
            for target in targets
        },
    }


def _view_networks_of_head(
    bundle: Bundle, networks: MethodNetworks, head: Head, workers: int | None
) -> MethodNetworks:
    """Return the networks with the classes of a head."""
    text = open_class_text(bundle, head, workers=workers)
    return networks.view(lambda network: network.with_classifier(head.weight, text))


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
        seeds=spec.run_seeds,
        batch_size=spec.batch_size,
        classes=OWN_CLASSES,
        exif_orientation=spec.reading.exif_orientation,
        orders=spec.orders is not None,
    )
