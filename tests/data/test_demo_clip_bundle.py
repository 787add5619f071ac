"""The CLIP bundle that ships with fozo fits the code. If one of these fails, run `make demo-files`."""

from __future__ import annotations

import fnmatch
import sys
from pathlib import Path

import fozo
import numpy as np
import pytest
from fozo.data.demo import DEMO_CLASSES, DEMO_CLIP, DEMO_CLIP_BUNDLE, copy_demo_bundle, demo_images
from fozo.engine.bundle.bundle import Bundle
from fozo.engine.files import hash_file
from fozo.engine.model import FloatArray
from fozo.engine.runtime.class_head import make_head
from fozo.engine.runtime.network import Network

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(str(fozo.__file__)).parent
NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return Bundle.open(DEMO_CLIP_BUNDLE)


@pytest.fixture(scope="module")
def network(bundle: Bundle) -> Network:
    return Network.open(bundle)


def measure(network: Network, weight: FloatArray, inverted: bool = False) -> float:
    """Return the accuracy on the test digits with a classifier."""
    images, labels = demo_images("test")
    logits = network.with_classifier(weight)(255 - images if inverted else images).logits
    return float((logits.argmax(1) == labels).mean())


def test_the_shipped_bundle_is_whole_and_small(bundle: Bundle) -> None:
    assert {path.name for path in DEMO_CLIP_BUNDLE.iterdir()} == set(bundle.list_files())
    for name in bundle.manifest.files:
        bundle.file(name)  # checks the hash
    assert sum(path.stat().st_size for path in DEMO_CLIP_BUNDLE.iterdir()) <= 1_500_000
    assert set(bundle.manifest.graphs) == set(bundle.manifest.source) == {"fp32", "int8"}


def test_the_shipped_bundle_is_of_the_shipped_weights_and_vocabulary(bundle: Bundle) -> None:
    manifest = bundle.manifest
    assert manifest.provenance["weights_sha256"] == hash_file(ROOT / "export" / "demo_clip.safetensors")
    assert (manifest.model, manifest.class_ids, manifest.class_names) == (DEMO_CLIP, DEMO_CLASSES, NAMES)
    assert manifest.text is not None
    vocabulary = ROOT / "export" / "demo_clip_vocabulary.txt.gz"
    assert hash_file(bundle.file(manifest.text.vocabulary)) == hash_file(vocabulary)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_the_shipped_bundle_has_its_recorded_accuracy(bundle: Bundle, precision: str) -> None:
    """Of 797 clean test images; two more or fewer may come from another processor."""
    images, labels = demo_images("test")
    with Network.open(bundle, precision) as network:
        classes = network(images).logits.argmax(1)
    assert abs(int((classes == labels).sum()) - 787) <= 2


def test_heads_made_now_are_the_shipped_one(bundle: Bundle, network: Network) -> None:
    head = make_head(bundle, NAMES, class_ids=DEMO_CLASSES)
    np.testing.assert_allclose(head.weight, network.info.head_weight, rtol=1e-5, atol=1e-5)


def test_words_in_front_of_the_name_matter(bundle: Bundle, network: Network) -> None:
    """Inverted digits need the word, random vectors are worse than words, relations name other classes."""
    heads = {
        words: make_head(bundle, NAMES, (f"{words} {{}}.",)).weight
        for words in ("a photo of a", "an inverted photo of a", "the number after")
    }
    plain, inverted = heads["a photo of a"], heads["an inverted photo of a"]
    assert measure(network, plain) > 0.98
    assert measure(network, plain, inverted=True) < 0.5
    assert measure(network, inverted, inverted=True) > 0.85
    # "the number after two" is a three.
    assert np.array_equal((heads["the number after"] @ plain.T).argmax(1)[:9], np.arange(1, 10))
    rng = np.random.default_rng(0)
    random = [
        measure(network, make_head(bundle, NAMES, ("{}.",), context=context).weight)
        for context in (0.02 * rng.normal(size=(8, 4, 64))).astype(np.float32)
    ]
    assert np.mean(random) < 0.85


def test_base_and_new_classes_differ(network: Network) -> None:
    """Inverted digits, each among five classes: the first five are easier."""
    images, labels = demo_images("test")
    logits = network(255 - images).logits
    base = labels < 5
    rates = [
        float((logits[members][:, classes].argmax(1) == labels[members] - classes.start).mean())
        for members, classes in ((base, slice(0, 5)), (~base, slice(5, 10)))
    ]
    assert rates[0] > rates[1] + 0.1


def test_the_shipped_bundle_is_what_the_export_makes_now(
    bundle: Bundle, network: Network, tmp_path: Path
) -> None:
    pytest.importorskip("torch", reason="export needs PyTorch")
    pytest.importorskip("open_clip", reason="export of CLIP needs open_clip")
    from fozo.export.clip_exporter import export_clip
    from fozo.export.clip_source import ClipRequest

    exported = export_clip(ClipRequest(DEMO_CLIP), tmp_path / "bundle").bundle
    for name in ("preprocessing", "tunables", "norms", "prompt_bound", "feature_widths", "tokens"):
        assert getattr(bundle.manifest, name) == getattr(exported.manifest, name), name
    images = demo_images("test")[0][:64]
    with Network.open(exported) as other:
        for name in ("logits", "features"):
            ours, theirs = getattr(network(images), name), getattr(other(images), name)
            np.testing.assert_allclose(ours, theirs, atol=1e-4, err_msg=name)


def test_a_copy_is_the_shipped_bundle(bundle: Bundle, tmp_path: Path) -> None:
    assert copy_demo_bundle(tmp_path / "bundle", DEMO_CLIP_BUNDLE).sha256 == bundle.sha256


def test_every_shipped_file_is_installed() -> None:
    """What `package-data` forgets works in a checkout and is missing from the wheel."""
    configuration = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    patterns = configuration["tool"]["setuptools"]["package-data"]
    for package, files in {
        "data": [f"demo_clip_bundle/{path.name}" for path in DEMO_CLIP_BUNDLE.iterdir()],
        "export": ["demo_clip.safetensors", "demo_clip_vocabulary.txt.gz"],
    }.items():
        for name in files:
            assert any(fnmatch.fnmatch(name, pattern) for pattern in patterns[f"fozo.{package}"]), name
