"""Fisher information in bundles: which images it is of, and the graphs it belongs to."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_doubles import save_noise_images, succeeds
from fozo.engine.bundle.bundle import Bundle
from fozo.engine.errors import BundleError, InputError
from fozo.engine.model import ImageArray
from fozo.engine.runtime.network import Network
from fozo.engine.runtime.source_statistics import plan_fisher_batches, store_source
from fozo.engine.statistics.fisher_information import compute_fisher


@pytest.fixture
def bundle(bundle_path: Path, tmp_path: Path) -> Bundle:
    return Bundle.open(shutil.copytree(bundle_path, tmp_path / "bundle"))


def edit(bundle: Bundle, change: Callable[[dict[str, Any]], object]) -> Bundle:
    path = bundle.path / "bundle.json"
    raw = json.loads(path.read_bytes())
    change(raw)
    path.write_text(json.dumps(raw))
    return Bundle.open(bundle.path)


@pytest.mark.parametrize(("images", "used"), [(40, 40), (2000, 2000), (5000, 2000)])
def test_at_most_2000_images_in_random_order(bundle: Bundle, images: int, used: int) -> None:
    plan = plan_fisher_batches(bundle, "fp32", images)
    assert plan is not None and plan.batch_size == 64
    assert len(set(plan.order.tolist())) == len(plan.order) == used
    assert plan.order.min() >= 0 and plan.order.max() < images
    assert plan.order.tolist() != sorted(plan.order.tolist())  # images of a folder are sorted by class
    assert f"{used} of them" in plan.remark


def test_no_fisher_information_without_gradients_or_norms(bundle: Bundle) -> None:
    for changes in ({"pull_backs": {}}, {"norms": {}}):
        manifest: Any = replace(bundle.manifest, **changes)
        assert plan_fisher_batches(replace(bundle, manifest=manifest), "fp32", 40) is None
    assert plan_fisher_batches(bundle, "int8-qdq", 40) is None  # only fp32 has gradients here


def test_command_computes_it_where_the_bundle_has_gradients(bundle: Bundle, tmp_path: Path) -> None:
    images, before = save_noise_images(tmp_path / "images", 40), bundle.source("fp32")
    text = succeeds("source", bundle.path, images)
    assert "Fisher information of fp32: 40 gradients" in text
    assert "Fisher information of 40 of them in batches of 64" in succeeds("inspect", bundle.path)
    after = Bundle.open(bundle.path).source("fp32")
    assert before is not None and before.fisher is not None
    assert after is not None and after.fisher is not None
    assert after.fisher.shape == before.fisher.shape and after.fisher.min() >= 0
    assert not np.array_equal(after.fisher, before.fisher)  # that of other images


def test_stored_is_what_was_computed(bundle: Bundle, random_images: Callable[..., ImageArray]) -> None:
    images, before = random_images(40, seed=1), bundle.info("fp32").identity
    stored = store_source(bundle, "fp32", [images], "noise", [images[:10], images[10:]]).info("fp32")
    with Network.open(bundle.path, gradients=True, workers=2) as network:
        expected = compute_fisher(network, [images[:10], images[10:]])
        apart = [compute_fisher(network, [batch]) for batch in (images[:10], images[10:])]
    assert stored.source is not None and stored.source.fisher is not None
    assert stored.source.fisher.dtype == np.float32
    np.testing.assert_array_equal(stored.source.fisher, expected)
    np.testing.assert_allclose(expected, (apart[0] + apart[1]) / 2, rtol=1e-5)
    assert stored.identity != before


def test_that_of_another_pull_back_graph_is_never_used(bundle: Bundle) -> None:
    changed = edit(bundle, lambda raw: raw["source"]["fp32"].update(pull_back_sha256="0" * 64))
    with pytest.raises(BundleError, match=r"another pull-back graph \(0{12}….*fozo source"):
        changed.info("fp32")
    removed = edit(bundle, lambda raw: raw.update(pull_backs={}))
    with pytest.raises(BundleError, match=r"another pull-back graph.*missing.*fozo source"):
        removed.info("fp32")


def test_statistics_without_it_are_read_as_before(bundle: Bundle) -> None:
    before = bundle.source("fp32")
    older = edit(bundle, lambda raw: raw["source"]["fp32"].pop("pull_back_sha256")).source("fp32")
    assert before is not None and older is not None and older.fisher is None
    np.testing.assert_array_equal(older.mean, before.mean)


def test_fisher_information_needs_images_and_finite_gradients(
    bundle: Bundle, random_images: Callable[..., ImageArray], monkeypatch: pytest.MonkeyPatch
) -> None:
    with Network.open(bundle, gradients=True, workers=1) as network:
        with pytest.raises(InputError, match="clean images, found none"):
            compute_fisher(network, [])
        pull_back = network.pull_back

        def diverge(*arguments: Any) -> Any:
            outputs = pull_back(*arguments)
            return replace(outputs, gradients={"norms": np.inf * np.ones(2)})

        monkeypatch.setattr(network, "pull_back", diverge)
        with pytest.raises(InputError, match="non-finite gradients"):
            compute_fisher(network, [random_images(2)])
