"""Methods that were made for CLIP, on the bundle of a tiny one that was really exported."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clip_export_doubles import export_tiny, make_state
from fozo.engine.errors import BundleError
from fozo.engine.methods.stss import perturb
from fozo.engine.model import ImageArray
from fozo.engine.registry import AnyMethod, method
from fozo.engine.runtime.network import Network
from fozo.engine.runtime.text_encoder import TextEncoder
from fozo.engine.streams.adapter import Adapter
from fozo.testing import add_views, check_method

VARIANTS: dict[str, AnyMethod] = {
    "stss": method("stss", views=3, perturbations=2),
    "zero": method("zero", views=3),
    "tda": method("tda"),
    "gauss": method("gauss"),
    "bca": method("bca"),
    "bca-network": method("bca", logits="network", embedding_count=2.0),
    "gauss-soft": method("gauss", labels="soft"),
    "t3a": method("t3a"),
}


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    folder = tmp_path_factory.mktemp("clip")
    bundle = export_tiny(folder, make_state().state_dict()).bundle
    with Network.open(bundle, workers=2, micro_batch=3) as opened:
        yield opened


@pytest.mark.parametrize("name", VARIANTS)
def test_the_contract_is_kept(network: Network, random_images: Callable[..., ImageArray], name: str) -> None:
    check_method(VARIANTS[name], network, random_images)


def test_stss_scores_with_the_classifiers_of_perturbed_prompts(
    network: Network, random_images: Callable[..., ImageArray]
) -> None:
    text: Any = network.info.text
    prompts = perturb(text.context, 5, 2, 0.5)
    classifiers = text.encode(prompts)
    assert not np.allclose(classifiers[0], classifiers[1], atol=1e-2)
    images = add_views(random_images(1), 6)
    outputs = [network.with_classifier(weight)(images[0]).logits for weight in classifiers]
    bound: Any = method("stss", perturbations=2).bind(network.info)
    plain = network(images[0])
    scores = bound.make_score(bound.init(5))(plain.logits, plain.features[:, -1])

    def entropies(logits: Any) -> Any:
        p = np.exp(logits - logits.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        return -(p * np.log(p)).sum(axis=1)

    np.testing.assert_allclose(scores, np.max([entropies(logits) for logits in outputs], axis=0), rtol=1e-4)


def test_texts_are_encoded_once_for_a_stream(
    network: Network, random_images: Callable[..., ImageArray], monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded: list[int] = []
    original = TextEncoder.encode

    def count(self: TextEncoder, texts: Any, contexts: Any) -> Any:
        encoded.append(len(contexts))
        return original(self, texts, contexts)

    monkeypatch.setattr(TextEncoder, "encode", count)
    adapter = Adapter(network, method("stss", views=3, perturbations=4), seed=11)
    for seed in range(4):
        adapter.step(add_views(random_images(3, seed=seed), 3))
    adapter.reset()
    adapter.step(add_views(random_images(2), 3))
    assert encoded == [4]
    some = Adapter(network.select([2, 0]), method("stss", views=3, perturbations=4), seed=11)
    some.step(add_views(random_images(2), 3))
    assert encoded == [4, 4]  # another list of classes


def test_heads_of_several_templates_have_no_prompt(tmp_path: Path) -> None:
    templates = ("a photo of a {}.", "a drawing of a {}.")
    result = export_tiny(tmp_path, make_state().state_dict(), templates=templates)
    with Network.open(result.bundle) as opened, pytest.raises(BundleError, match="several templates"):
        Adapter(opened, VARIANTS["stss"])
