"""Data sets by name: which options go together, and that each can be opened."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from dataset_doubles import (
    open_named,
    opened,
    put,
    refused,
)
from doubles import WNIDS, vit_manifest
from fozo.eval.datasets.dataset_registry import DATASETS, load_opener
from fozo.eval.datasets.digits import DEMO_CORRUPTIONS


def test_the_demonstration_at_several_severities() -> None:
    digits = vit_manifest(32, 32, classes=10, class_ids=tuple("0123456789"))
    label, domains = open_named(digits, "demo", data=None, severities=(1, 3))
    assert label == "demo (generated corruptions)"
    names = list(DEMO_CORRUPTIONS[:-1])
    assert [d.name for d in domains] == [*names, *names, "clean"]
    assert [d.severity for d in domains] == [1] * len(names) + [3] * len(names) + [None]


def test_a_folder_of_ones_own(tmp_path: Path) -> None:
    put(tmp_path / "mine" / WNIDS[3] / "1.png")
    (domain,) = opened("imagefolder", vit_manifest(), tmp_path / "mine")
    assert (domain.name, domain.labels.tolist(), domain.official_images) == ("imagefolder", [3], None)


@pytest.mark.parametrize(
    ("dataset", "options", "message"),
    [
        ("imagenet-b", {}, "expected a data set out of imagenet-c, .*found 'imagenet-b'"),
        ("imagenet-c", {}, "imagenet-c needs --data"),
        ("cifar10-c", {}, "cifar10-c needs --data"),
        ("demo", {"data": Path()}, "--data would have no effect with --dataset demo"),
        ("demo", {"generate_from": Path()}, "--generate-from would have no effect"),
        ("imagefolder", {"corruptions": ["fog"]}, "--corruptions would have no effect"),
        ("imagenet-r", {"labels": Path(), "clean": Path()}, "--clean, --labels would have no effect"),
        ("imagenet", {"clean": Path()}, "--clean would have no effect"),
        (
            "imagenet-c",
            {"data": Path(), "generate_from": Path()},
            "--generate-from stands in place of --data",
        ),
        ("imagenet-c", {"clean": Path(), "generate_from": Path()}, "in place of --clean"),
        (
            "imagenet-c",
            {"data": Path(), "frost_textures": Path()},
            "--frost-textures goes with --generate-from",
        ),
        ("imagenet-c", {"data": Path(), "labels": Path()}, "--labels goes with --clean"),
    ],
)
def test_options_that_do_not_go_together(dataset: str, options: dict[str, Any], message: str) -> None:
    refused(message, dataset, vit_manifest(), **{"data": None, **options})


def test_every_data_set_can_be_opened() -> None:
    """Without its data each is asked for it, and none is unknown."""
    for dataset in set(DATASETS) - {"demo"}:
        refused(f"{dataset} needs --data", dataset, vit_manifest())
    assert all(callable(load_opener(dataset)) for dataset in DATASETS.values())
