"""`fozo transfer`: its options, and what it prints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from fozo.cli import cli
from fozo.engine.bundle.bundle import Bundle
from fozo.engine.errors import FozoError
from fozo.engine.runtime.class_head import make_head
from fozo.eval.results.results_file import read_results
from tune_doubles import make_colours, make_tuning_bundle


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    make_colours(tmp_path / "data")
    make_colours(tmp_path / "more")
    bundle = make_tuning_bundle(tmp_path)
    bundle.with_head("learnt", make_head(bundle, ["cow"], ["{}."], context=np.ones((2, 4), np.float32)))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def invoke(*arguments: str) -> Any:
    return CliRunner().invoke(cli, ["transfer", "clip", "--workers", "1", *arguments])


def test_a_table_of_two_data_sets(folder: Path) -> None:
    options = ("--data", "data", "--data", "split=more", "-m", "lame", "--batch-size", "5")
    result = invoke("--head-context", "learnt", *options)
    assert result.exit_code == 0, result.output
    assert "transfer of context learnt to data, more" in result.stdout
    assert "zero-shot    no_adapt" in result.stdout
    assert [line.split()[0] for line in result.stdout.splitlines()[2:4]] == ["data", "more"]
    assert (
        "context of the head learnt, 2 learnt vectors and '{}.'; zero-shot is 'a photo of a {}.'"
        in result.stdout
    )
    results = read_results(folder / "results.json")
    assert list(results.methods) == ["zero-shot", "no_adapt", "lame"]
    assert (folder / "results.png").exists()
    again = invoke("--head-context", "learnt", *options, "--resume")
    assert "results.json is complete already" in again.stdout
    other = invoke("--head-context", "learnt", *options, "--template", "a {}", "--resume")
    assert "is not of this run" in str(other.exception)


def test_contexts_of_several_seeds(folder: Path) -> None:
    for seed in (1, 2):
        bundle = Bundle.open(folder / "clip")
        context = np.full((2, 4), seed, np.float32)
        bundle.with_head(f"zip-{seed}", make_head(bundle, ["cow"], ["{}."], context=context))
    options = ("--data", "data", "--data", "split=more")
    result = invoke("--head-context", "zip", "--context-seeds", "1,2", *options)
    assert result.exit_code == 0, result.output
    table = result.stdout.split("mean ± standard deviation over the seeds\n")[1].splitlines()
    assert [line.split()[0] for line in table[:4]] == ["accuracy,", "data", "more", "average"]
    assert table[1].count("±") == 2 and "macro-F1 %" in result.stdout
    assert "contexts of the heads zip-1, zip-2" in result.stdout
    refused = invoke("--head-context", "zip", *options, "--out", "other.json")
    assert "give --context-seeds 1,2 with it" in str(refused.exception)


def test_texts_as_the_prompt(folder: Path) -> None:
    result = invoke("--data", "data", "--published-templates")
    assert result.exit_code == 0, result.output
    assert "transfer of templates to data" in result.stdout
    assert "the template that is published for each data set" in result.stdout


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ([], "Missing option '--data'"),
        (["--data", "clip"], "cannot tell which data set"),
        (["--data", "data", "--head-context", "pets"], "has no head 'pets'"),
        (["--data", "data", "--head-context", "animals"], "has no learnt context"),
        (["--data", "data", "--published-templates", "--template", "a {}"], "choose one"),
        (["--data", "data", "--template", "a"], "with one {}"),
        (["--data", "data", "--data", "data"], "found data twice"),
        (["--data", "data", "--out", "results.txt"], ".json"),
        (["--data", "imagenet-a=data"], "no head with names for ImageNet"),
    ],
)
def test_options_that_cannot_be_used(options: list[str], word: str, folder: Path) -> None:
    result = invoke(*options)
    assert result.exit_code in (1, 2) and isinstance(result.exception, (FozoError, SystemExit))
    assert word in (result.stderr or str(result.exception))
    assert not (folder / "results.json").exists()
