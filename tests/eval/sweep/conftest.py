"""Fixtures of the tests of sweeps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from doubles import save_class_folders
from fozo.eval.sweep.cell import Job
from sweep_doubles import OPTIONS, plan_named


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory, random_images: Callable[..., Any]) -> Path:
    """40 clean images in 20 classes, which is what the small bundles predict."""
    return save_class_folders(tmp_path_factory.mktemp("pictures"), random_images(40))


@pytest.fixture
def jobs(bundle_path: Path, pictures: Path) -> Callable[..., list[Job]]:
    """`jobs(methods=…, **options)`: a grid over generated corruptions of the pictures."""

    def make(methods: Sequence[str] = ("no_adapt", "fozo"), **options: Any) -> list[Job]:
        return plan_named([bundle_path], methods, **{**OPTIONS, "generate_from": pictures, **options})

    return make
