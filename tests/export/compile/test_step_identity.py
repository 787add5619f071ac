"""The number in a state that says which step it belongs to."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from bundle_doubles import classes_of, make_clip
from fozo.engine.bundle.bundle import Bundle
from fozo.engine.files import from_npz
from fozo.engine.model import ImageArray
from fozo.engine.registry import method
from fozo.engine.runtime.source_statistics import store_source
from fozo.export.compile.step_folder import StepRequest, compile_step, compute_identity


def read_identity(bundle: Bundle, name: str, folder: Path) -> int:
    compile_step(StepRequest(bundle, method(name)), folder)
    return int(from_npz(folder / "vectors.npz")["state.identity"][0])


def test_states_belong_to_source_statistics(
    bundle_path: Path, tmp_path: Path, random_images: Callable[..., ImageArray]
) -> None:
    shutil.copytree(bundle_path, tmp_path / "bundle")
    bundle = Bundle.open(tmp_path / "bundle")
    first = read_identity(bundle, "neo", tmp_path / "first")
    assert read_identity(bundle, "neo", tmp_path / "again") == first
    changed = store_source(bundle, "fp32", [random_images(40, seed=77)], "other images")
    assert read_identity(changed, "neo", tmp_path / "second") != first


def test_states_belong_to_classes_not_to_their_name(tmp_path: Path) -> None:
    bundle = make_clip(tmp_path).with_head("pets", classes_of("pug", "beagle", seed=1))
    info = bundle.select_head("pets").info("fp32")
    other = bundle.with_head("pets", classes_of("pug", "poodle", seed=3)).select_head("pets").info("fp32")
    assert compute_identity(method("neo"), info) != compute_identity(method("neo"), other)
