"""What an evaluation is asked for, on its way to another process and back."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fozo.engine.errors import InputError
from fozo.eval.datasets.dataset_request import DatasetRequest
from fozo.eval.streaming.spec import EvaluationSpec

SPEC = EvaluationSpec(
    bundle=Path("vit"),
    methods=("no_adapt", "fozo:samples=2"),
    dataset=DatasetRequest("imagenet-c", data=Path("data"), severities=(1, 5), corruptions=("fog",)),
    setting="label_shift",
    subset_list=Path("list.txt"),
    concentration=0.1,
)


@pytest.mark.parametrize("spec", [SPEC, EvaluationSpec(Path("b"), ("fozo",), DatasetRequest("demo"))])
def test_it_survives_json(spec: EvaluationSpec) -> None:
    assert EvaluationSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec


@pytest.mark.parametrize("content", [{}, {"dataset": 3}, {**SPEC.to_dict(), "more": 1}])
def test_something_else_is_refused(content: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="expected an evaluation"):
        EvaluationSpec.from_dict(content)


@pytest.mark.parametrize(
    ("name", "value"), [("batch_size", "64"), ("seed", 1.5), ("setting", "never"), ("bundle", None)]
)
def test_values_of_another_type_are_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(InputError, match=f"expected an evaluation.*{name}: expected "):
        EvaluationSpec.from_dict({**SPEC.to_dict(), name: value})


def test_options_of_the_data_set_lie_beside_the_others() -> None:
    options = {"data": Path("data"), "severities": [1, 5], "corruptions": ["fog"], "clean": None}
    spec = EvaluationSpec.from_options(
        Path("vit"),
        ["no_adapt", "fozo:samples=2"],
        "imagenet-c",
        **options,
        setting="label_shift",
        subset_list=Path("list.txt"),
        concentration=0.1,
    )
    assert spec == SPEC


def test_paths() -> None:
    assert SPEC.input_paths == (Path("data"), Path("list.txt"))
    absolute = SPEC.with_absolute_paths()
    assert absolute.input_paths == (Path("data").absolute(), Path("list.txt").absolute())
    assert absolute.bundle == Path("vit").absolute()
    assert replace(absolute, bundle=SPEC.bundle, dataset=SPEC.dataset, subset_list=SPEC.subset_list) == SPEC


@pytest.mark.parametrize("changes", [{"rounds": 2}, {"setting": "rounds"}])
def test_options_that_do_nothing_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="goes with --setting"):
        replace(SPEC, **changes)


def test_seeds_and_orders_exclude_each_other() -> None:
    assert replace(SPEC, orders=5).orders == 5
    with pytest.raises(InputError, match="--seeds or --orders, found both"):
        replace(SPEC, orders=5, seeds=2)
