"""Work in several processes."""

from __future__ import annotations

import os

import pytest
from fozo.engine.errors import ComputeError
from fozo.eval.processes.workers import run_in_processes


@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_in_the_order_of_the_tasks(workers: int) -> None:
    tasks = [(10**9 if number % 3 == 0 else 10, number + 2) for number in range(30)]
    assert list(run_in_processes(pow, [(*task, 97) for task in tasks], workers)) == [
        base**exponent % 97 for base, exponent in tasks
    ]


def test_a_process_that_ends_is_an_error_of_ours() -> None:
    with pytest.raises(ComputeError, match=r"a process ended .*fewer --processes"):
        list(run_in_processes(os._exit, [(1,)], 2))
