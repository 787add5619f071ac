"""The examples in docstrings: they run, and what they print is what they say."""

from __future__ import annotations

import doctest
import inspect
from collections.abc import Callable
from importlib import import_module
from types import ModuleType

import fozo
import fozo.methods
import pytest

MODULES = [
    "data.views",
    "engine.interface.method_options",
    "engine.interface.request",
    "engine.interface.view_batch",
    "engine.search.gradient_steps",
    "engine.search.norm_selection",
    "engine.search.spsa",
    "engine.state",
    "engine.statistics.activation_shift",
    "engine.statistics.feature_statistics",
    "engine.statistics.objective",
    "engine.statistics.output_slopes",
    "engine.statistics.recentred_activations",
    "engine.statistics.voting",
    "engine.statistics.window",
    "engine.streams.adapter",
]
# These declare a field of a state, or take a bound method: there is no value to show in one line.
WITHOUT_EXAMPLE = {"answer_with", "optional_array", "state_list", "validate", "variable_length_array"}


def find_examples(module: ModuleType) -> list[doctest.DocTest]:
    return [test for test in doctest.DocTestFinder().find(module) if test.examples]


@pytest.mark.parametrize("name", MODULES)
def test_examples_print_what_they_say(name: str) -> None:
    tests = find_examples(import_module(f"fozo.{name}"))
    assert tests
    runner = doctest.DocTestRunner()
    report: list[str] = []
    for test in tests:
        runner.run(test, out=report.append)
    assert not runner.failures, "".join(report)
    assert runner.tries >= len(tests)


def is_pure_function(value: object) -> bool:
    return inspect.isfunction(value) and value.__name__ not in WITHOUT_EXAMPLE


@pytest.mark.parametrize(
    "name", [n for n in fozo.methods.__all__ if is_pure_function(getattr(fozo.methods, n))]
)
def test_public_functions_for_authors_have_an_example(name: str) -> None:
    function: Callable[..., object] = getattr(fozo.methods, name)
    assert function.__module__.removeprefix("fozo.") in MODULES
    assert ">>> " in (function.__doc__ or "")


def test_the_adapter_has_an_example() -> None:
    assert ">>> " in (fozo.Adapter.__doc__ or "")
