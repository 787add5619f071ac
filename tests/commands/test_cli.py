"""The command line from outside: help, versions, methods and types of options."""

from __future__ import annotations

import json
import re
from pathlib import Path

import click
import fozo
import pytest
from command_doubles import (
    fails,
    succeeds,
)
from fozo.commands.option_types import Blocks
from fozo.data.demo import DEMO_BUNDLE

LONG = "x" * 300


def test_version() -> None:
    assert succeeds("--version").strip().endswith(fozo.__version__)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ([], ["export", "source", "adapt", "inspect", "methods"]),
        (
            ["export"],
            ["--model", "--weights", "--source", "--classes", "--out", "--overwrite", "--image-size"],
        ),
        (["source"], ["--source-images", "--seed", "BUNDLE", "FOLDER"]),
        (
            ["adapt"],
            [
                "--dataset",
                "--data",
                "--method",
                "--setting",
                "--severities",
                "--corruptions",
                "--subset",
                "--batch-size",
                "--seed",
                "--workers",
                "--micro-batch",
                "--out",
                "--classes",
                "--quiet",
            ],
        ),
        (["inspect"], ["--json"]),
        (["methods"], ["--json"]),
    ],
)
def test_help(command: list[str], words: list[str]) -> None:
    text = succeeds(*command, "--help")
    assert text == succeeds(*command, "-h")
    for word in words:
        assert word in text


def test_methods() -> None:
    text = succeeds("methods")
    for name in fozo.METHODS:
        assert re.search(rf"^{name}\b", text, re.MULTILINE)
    details = succeeds("methods", "fozo")
    for option in ("samples", "epsilon", "shift", "output"):
        assert re.search(rf"^\s+{option} = ", details, re.MULTILINE)
    listed = json.loads(succeeds("methods", "fozo", "--json"))
    assert {option["name"] for option in listed["fozo"]} >= {"samples", "epsilon"}
    assert "nonsense" in fails("methods", "nonsense")


@pytest.mark.parametrize(
    "command",
    [
        ("source", DEMO_BUNDLE, LONG),
        ("corrupt", LONG, "out"),
        ("adapt", DEMO_BUNDLE, "--dataset", "imagefolder", "--data", LONG),
        ("predict", DEMO_BUNDLE, "--watch", LONG),
    ],
)
def test_a_name_that_is_too_long_is_one_line(command: tuple[object, ...], tmp_path: Path) -> None:
    assert "x: File name too long" in fails(*command, cwd=tmp_path)


@pytest.mark.parametrize(
    ("text", "blocks"),
    [("all", None), ("none", ()), ("3", (3,)), ("1-8", tuple(range(1, 9))), ("4,0-2,1", (0, 1, 2, 4))],
)
def test_blocks_are_read(text: str, blocks: tuple[int, ...] | None) -> None:
    assert Blocks().convert(text, None, None) == blocks


@pytest.mark.parametrize("text", ["", "some", "1-", "-1", "3-1", "1-2-3", "1,,2", "1.5"])
def test_blocks_that_cannot_be_read(text: str) -> None:
    with pytest.raises(click.BadParameter, match="blocks like 1-8"):
        Blocks().convert(text, None, None)
