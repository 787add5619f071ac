"""Cells of a sweep, and the grid that they form."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import fozo
import pytest
from doubles import save_class_folders
from fozo.engine.errors import InputError
from fozo.engine.records import load_record, to_dict
from fozo.eval.sweep.cell import Cell, Job, compute
from sweep_doubles import (
    CELL,
    OPTIONS,
    plan_named,
)


def test_a_key_is_the_hash_of_all_that_decides() -> None:
    content = {f.name: getattr(CELL, f.name) for f in fields(CELL)}
    expected = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    assert CELL.key == expected
    assert CELL.name == f"a_model_-fp32-calm=fozo_rate=0.1-fog5-1-{expected[:12]}"
    assert load_record(Cell, json.loads(json.dumps(to_dict(CELL))), "cell") == CELL


@pytest.mark.parametrize("name", [f.name for f in fields(Cell)])
def test_anything_else_is_another_cell(name: str) -> None:
    other_values: dict[type, Any] = {
        str: "other",
        type(None): "other",
        int: 99,
        dict: {"rate": 0.2, "shift": "origin"},
    }
    other = replace(CELL, **{name: other_values[type(getattr(CELL, name))]})
    assert other.key != CELL.key
    assert other.name != CELL.name


def test_a_long_name_is_cut_and_still_unique() -> None:
    long = replace(CELL, label="fozo:" + "rate=1," * 100)
    assert len(long.name) < 200
    assert long.name != replace(long, severity=1).name


def test_the_grid_is_the_product(
    int8_bundle_path: Path, bundle_paths: dict[int, Path], pictures: Path
) -> None:
    options = {
        **OPTIONS,
        "generate_from": pictures,
        "corruptions": ("fog", "clean"),
        "severities": (1, 4),
        "seeds": 2,
    }
    planned = plan_named(
        [int8_bundle_path], ["no_adapt", "x=shift"], **{**options, "precisions": ("fp32", "int8")}
    )
    cells = [(c.seed, c.domain, c.severity, c.precision, c.label) for c in (job.cell for job in planned)]
    domains = [("fog", 1), ("fog", 4), ("clean", None)]
    assert cells == [
        (seed, domain, severity, precision, label)
        for seed in (7, 8)
        for domain, severity in domains
        for precision in ("fp32", "int8")
        for label in ("no_adapt", "x")
    ]
    assert len({job.cell.key for job in planned}) == len(planned) == 24
    assert {job.cell.method for job in planned} == {"no_adapt", "shift"}
    assert {job.cell.dataset for job in planned} == {"generated corruptions (not the official ImageNet-C)"}

    both = plan_named([bundle_paths[64], bundle_paths[192]], ["no_adapt"], **options)
    assert [job.cell.model for job in both[:2]] == ["random-64-3-64", "random-192-2-192"]
    assert len(both) == 12


def test_a_subset_is_chosen_anew_for_each_seed(jobs: Callable[..., list[Job]]) -> None:
    first, second = jobs(["no_adapt"], corruptions=("fog",), seeds=2, subset="10")
    assert first.cell.images == second.cell.images == 10
    assert first.cell.images_sha256 != second.cell.images_sha256
    assert first.cell == jobs(["no_adapt"], corruptions=("fog", "clean"), subset="10")[0].cell


def test_a_plain_folder_is_one_domain_whatever_the_severities(bundle_path: Path, pictures: Path) -> None:
    options = {**OPTIONS, "dataset": "imagefolder", "data": pictures, "corruptions": None}
    (job,) = plan_named([bundle_path], ["no_adapt"], **{**options, "severities": (1, 2, 3)})
    assert (job.cell.domain, job.cell.severity, job.cell.images) == ("imagefolder", None, 40)
    assert compute(job, 1)["runs"][0]["domains"][0]["methods"]["no_adapt"]["images"] == 40


def test_clean_images_of_another_folder_are_a_domain_too(
    bundle_path: Path, pictures: Path, tmp_path: Path, random_images: Callable[..., Any]
) -> None:
    for severity in (1, 5):
        save_class_folders(tmp_path / "fog" / str(severity), random_images(20, severity))
    options = {**OPTIONS, "data": tmp_path, "clean": pictures, "corruptions": ("fog",)}
    planned = plan_named([bundle_path], ["no_adapt"], **{**options, "severities": (1, 5)})
    assert [(job.cell.domain, job.cell.severity, job.cell.images) for job in planned] == [
        ("fog", 1, 20),
        ("fog", 5, 20),
        ("clean", None, 40),
    ]
    for job in planned:
        (run,) = compute(job, 1)["runs"]
        assert [(domain["name"], domain["images"]) for domain in run["domains"]] == [
            (job.cell.domain, job.cell.images)
        ]


def test_a_bundle_given_twice_is_refused(bundle_path: Path, pictures: Path) -> None:
    with pytest.raises(InputError, match="expected every cell of the sweep once, found 2 of them again"):
        plan_named([bundle_path, bundle_path], ["no_adapt"], **{**OPTIONS, "generate_from": pictures})


def test_what_cannot_be_used_fails_before_the_work(jobs: Callable[..., list[Job]]) -> None:
    with pytest.raises(InputError, match="no method 'nonsense'"):
        jobs(["nonsense"])
    with pytest.raises(InputError, match="has only 40 images"):
        jobs(subset="41")
    with pytest.raises(fozo.FozoError, match="no int8 graph"):
        jobs(precisions=("fp32", "int8"))


def test_a_cell_whose_images_have_changed_is_not_computed(jobs: Callable[..., list[Job]]) -> None:
    job = jobs()[0]
    with pytest.raises(InputError, match="expected 40 images of gaussian_noise as they were"):
        compute(replace(job, cell=replace(job.cell, images_sha256="0" * 64)), 1)
    with pytest.raises(fozo.FozoError, match="has changed since the sweep began"):
        compute(replace(job, cell=replace(job.cell, bundle="0" * 64)), 1)
