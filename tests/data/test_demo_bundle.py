"""The bundle that ships with fozo fits the code. If one of these fails, run `make demo-files`."""

from __future__ import annotations

import fnmatch
import json
import shutil
import sys
from pathlib import Path

import fozo
import numpy as np
import pytest
from fozo.data.demo import DEMO_BUNDLE, DEMO_CLASSES, DEMO_DIGITS, DEMO_MODEL, copy_demo_bundle, demo_images
from fozo.engine.bundle.bundle import MANIFEST, Bundle
from fozo.engine.bundle.manifest import SCHEMA
from fozo.engine.errors import BundleError, OutputError
from fozo.engine.files import hash_file
from fozo.engine.runtime.network import Network
from kill_doubles import iterate_kills

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(str(fozo.__file__)).parent


def test_the_shipped_bundle_is_whole_small_and_of_this_schema() -> None:
    bundle = Bundle.open(DEMO_BUNDLE)
    assert json.loads((DEMO_BUNDLE / MANIFEST).read_bytes())["schema"] == SCHEMA
    assert {path.name for path in DEMO_BUNDLE.iterdir()} == set(bundle.list_files())
    for name in bundle.manifest.files:
        bundle.file(name)  # checks the hash
    assert sum(path.stat().st_size for path in DEMO_BUNDLE.iterdir()) <= 2_000_000


def test_the_shipped_bundle_is_of_the_shipped_weights() -> None:
    manifest = Bundle.open(DEMO_BUNDLE).manifest
    assert manifest.provenance["weights_sha256"] == hash_file(ROOT / "export" / "demo_vit.safetensors")
    assert (manifest.model, manifest.class_ids) == (DEMO_MODEL, DEMO_CLASSES)
    assert set(manifest.graphs) == set(manifest.source) == {"fp32", "int8"}


@pytest.mark.parametrize(("precision", "correct"), [("fp32", 779), ("int8", 780)])
def test_the_shipped_bundle_has_its_recorded_accuracy(precision: str, correct: int) -> None:
    """Of 797 clean test images; two more or fewer may come from another processor."""
    images, labels = demo_images("test")
    with Network.open(Bundle.open(DEMO_BUNDLE), precision) as network:
        classes = network(images).logits.argmax(1)
    assert abs(int((classes == labels).sum()) - correct) <= 2


def test_the_shipped_bundle_is_what_the_export_makes_now(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="export needs PyTorch")
    pytest.importorskip("timm", reason="export needs timm")
    from fozo.export.exporter import export_model
    from fozo.export.model_request import Request

    shipped = Bundle.open(DEMO_BUNDLE)
    exported = export_model(Request(DEMO_MODEL), tmp_path / "bundle").bundle
    for name in ("preprocessing", "tunables", "norms", "prompt_bound", "feature_widths", "tokens"):
        assert getattr(shipped.manifest, name) == getattr(exported.manifest, name), name
    images = demo_images("test")[0][:64]
    with Network.open(shipped) as network, Network.open(exported) as other:
        for name in ("logits", "features"):
            ours, theirs = getattr(network(images), name), getattr(other(images), name)
            np.testing.assert_allclose(ours, theirs, atol=1e-4, err_msg=name)


def test_every_shipped_file_is_installed() -> None:
    """What `package-data` forgets works in a checkout and is missing from the wheel."""
    configuration = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    patterns = configuration["tool"]["setuptools"]["package-data"]["fozo.data"]
    files = [DEMO_DIGITS, DEMO_DIGITS.with_name("demo_digits_license.txt"), *DEMO_BUNDLE.iterdir()]
    names = [path.relative_to(DEMO_DIGITS.parent).as_posix() for path in files]
    assert len(names) >= 8
    for name in names:
        assert any(fnmatch.fnmatch(name, pattern) for pattern in patterns), name
    assert "data/demo_digits_license.txt" in configuration["project"]["license-files"]


def test_a_copy_is_the_shipped_bundle_and_stays(tmp_path: Path) -> None:
    copy = copy_demo_bundle(tmp_path / "bundle")
    assert copy.manifest == Bundle.open(DEMO_BUNDLE).manifest
    graph = copy.graph("int8")
    before = graph.stat().st_mtime_ns
    assert copy_demo_bundle(tmp_path / "bundle") == copy
    assert graph.stat().st_mtime_ns == before


def test_a_copy_that_was_killed_is_made_again(tmp_path: Path) -> None:
    path = tmp_path / "demo" / "bundle"

    def prepare() -> None:
        shutil.rmtree(path.parent, ignore_errors=True)
        path.parent.mkdir()

    for _ in iterate_kills(prepare, lambda: copy_demo_bundle(path)):
        bundle = copy_demo_bundle(path)
        for name in bundle.manifest.files:
            bundle.file(name)


def test_a_copy_never_replaces_something_else_unasked(tmp_path: Path) -> None:
    copy = copy_demo_bundle(tmp_path / "bundle")
    path = copy.path / MANIFEST
    path.write_bytes(path.read_bytes().replace(b'"timm_tag": ""', b'"timm_tag": "own"'))
    own = Bundle.open(copy.path).sha256
    with pytest.raises(OutputError, match="--overwrite"):
        copy_demo_bundle(copy.path)
    assert Bundle.open(copy.path).sha256 == own
    assert copy_demo_bundle(copy.path, overwrite=True).sha256 != own


def test_a_damaged_installation_is_not_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    damaged = copy_demo_bundle(tmp_path / "installed")
    damaged.graph("fp32").write_bytes(b"x")
    monkeypatch.setattr("fozo.data.demo.DEMO_BUNDLE", damaged.path)
    with pytest.raises(BundleError, match="not the file that was exported"):
        copy_demo_bundle(tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()
