"""`fozo classes`: heads made, listed and replaced on the command line."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from bundle_doubles import make
from click.testing import CliRunner
from command_doubles import fails, run_command, succeeds
from fozo.cli import cli
from fozo.engine.bundle.bundle import Bundle
from fozo.engine.runtime.class_head import make_head
from text_doubles import WIDTH, make_text_bundle


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return make_text_bundle(tmp_path)


@pytest.fixture
def names(tmp_path: Path) -> Path:
    path = tmp_path / "pets.txt"
    path.write_text("cat\n# no pet\ngreat_white shark\ndog\n", encoding="utf-8")
    return path


def run(*arguments: object) -> str:
    """Run a command in this process and return what it printed."""
    result = CliRunner().invoke(cli, ["classes", *map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_a_head_from_a_list_of_names(bundle: Bundle, names: Path) -> None:
    output = succeeds("classes", bundle.path, names, "--template", "a photo of a {}, a pet.", "--as", "pets")
    assert output.splitlines() == [
        "pets   3 classes (cat, great white shark, dog) from 'a photo of a {}, a pet.'",
        "The longest text has 31 of at most 77 tokens.",
        "Use it with --head pets.",
    ]
    head = Bundle.open(bundle.path).load_head("pets")
    expected = make_head(bundle, ["cat", "great white shark", "dog"], ["a photo of a {}, a pet."])
    np.testing.assert_array_equal(head.weight, expected.weight)
    assert head.class_ids == ("cat", "great_white shark", "dog")
    assert head.record == {"longest_text": 31, "names": "pets.txt"}
    assert succeeds("classes", bundle.path).splitlines() == [
        "animals * 2 classes (cat, dog) from 'a photo of a {}.'",
        "pets      3 classes (cat, great white shark, dog) from 'a photo of a {}, a pet.'",
    ]


def test_identifiers_templates_and_the_default(bundle: Bundle, tmp_path: Path) -> None:
    path, templates = tmp_path / "wnids.txt", tmp_path / "templates.txt"
    path.write_text("n01440764 tench\nn01443537\tgold fish\nn02007558 flamingo\n", encoding="utf-8")
    templates.write_text("a photo of a {}.\n\nart of the {}.\n", encoding="utf-8")
    output = run(bundle.path, path, "--templates", templates, "--as", "some", "--default")
    assert "3 classes (tench, gold fish, flamingo) from 2 templates like 'a photo of a {}.'" in output
    assert "It is the bundle's default." in output
    manifest = Bundle.open(bundle.path).manifest
    assert (manifest.head_name, manifest.class_ids) == ("some", ("n01440764", "n01443537", "n02007558"))
    assert run(bundle.path, path, "--templates", "imagenet-7", "--as", "seven").startswith("seven")
    assert len(Bundle.open(bundle.path).manifest.heads["seven"].templates) == 7


@pytest.mark.parametrize("name", ["ctx", "context", "prompt_learner.ctx"])
@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_contexts_that_were_learnt_elsewhere(
    bundle: Bundle, names: Path, tmp_path: Path, name: str, suffix: str
) -> None:
    context = np.random.default_rng(0).normal(size=(4, WIDTH)).astype(np.float16)
    path = tmp_path / f"coop{suffix}"
    if suffix == ".npz":
        np.savez(path, **{name: context})
    else:
        safetensors = pytest.importorskip("safetensors.numpy", reason="safetensors is an extra")
        safetensors.save_file({name: context, "token_prefix": np.zeros(3)}, path)
    output = run(bundle.path, names, "--context", path, "--as", "coop")
    assert "from 4 learnt vectors and '{}.'" in output
    stored = Bundle.open(bundle.path).load_head("coop")
    expected = make_head(bundle, stored.class_names, ["{}."], context=context.astype(np.float32))
    np.testing.assert_array_equal(stored.weight, expected.weight)
    np.testing.assert_array_equal(stored.context, expected.context)
    assert stored.record["context"] == path.name


def test_heads_as_json(bundle: Bundle, names: Path) -> None:
    document = json.loads(run(bundle.path, names, "--as", "pets", "--json"))
    assert list(document["heads"]) == ["pets"]
    assert document["heads"]["pets"]["class_names"] == ["cat", "great white shark", "dog"]
    listed = json.loads(run(bundle.path, "--json"))
    assert (listed["default"], list(listed["heads"])) == ("animals", ["animals", "pets"])


def test_classes_with_the_same_text_are_one_warning(bundle: Bundle, tmp_path: Path) -> None:
    path = tmp_path / "names.txt"
    path.write_text("a\tmissile\nb\tdog\nc\tmissile\nd\tMissile\n", encoding="utf-8")
    result = run_command("classes", bundle.path, path, "--as", "twice", "--templates", "imagenet-7")
    assert result.returncode == 0
    (line,) = result.stderr.splitlines()
    assert line.startswith("Warning: 2 of 4 classes have the text of an earlier class: 'missile' (0 and 2)")


def test_what_is_refused(bundle: Bundle, names: Path, tmp_path: Path) -> None:
    files = {
        "empty": "",
        "twice": "cat\ndog\ncat\n",
        "numbers": "0 cat\n1 dog\n",
        "mixed": "n01440764 tench\ngoldfish\n",
        "long": f"cat\n{'x' * 3000}\n",
        "escape": "cat\nd\x1b[2Jog\n",
    }
    for name, content in files.items():
        (tmp_path / name).write_text(content, encoding="utf-8")
    np.savez(tmp_path / "csc.npz", ctx=np.zeros((3, 4, WIDTH)))
    np.savez(tmp_path / "wide.npz", ctx=np.zeros((4, WIDTH + 1)))
    np.savez(tmp_path / "none.npz", other=np.zeros((4, WIDTH)))
    np.savez_compressed(tmp_path / "small.npz", ctx=np.zeros((40, WIDTH)))
    before = sorted(path.name for path in bundle.path.iterdir())
    for arguments, reason in (
        ([names], "expected a name for the classes"),
        (["--as", "pets"], "expected NAMES, a file with the names of classes, with --as"),
        ([tmp_path / "missing", "--as", "x"], "cannot read the list of class names"),
        ([tmp_path / "empty", "--as", "x"], "found none"),
        ([tmp_path / "twice", "--as", "x"], "expected different names in .* found 'cat' 2 times"),
        ([tmp_path / "numbers", "--as", "x"], "--ids or --no-ids"),
        ([tmp_path / "mixed", "--as", "x"], "'goldfish' in line 2"),
        ([tmp_path / "long", "--as", "x"], "at most 2,000 characters"),
        ([tmp_path / "escape", "--as", "x"], "control characters"),
        ([names, "--as", "../x"], "lower case letters, digits and hyphens"),
        ([names, "--as", "x", "--template", "a photo"], r"with one \{\}"),
        ([names, "--as", "x", "--template", "{}", "--templates", "imagenet-7"], "found both"),
        ([names, "--as", "x", "--templates", "none.txt"], "cannot read the list of templates"),
        ([names, "--as", "x", "--context", tmp_path / "csc.npz"], "one for each class"),
        (
            [names, "--as", "x", "--context", tmp_path / "wide.npz"],
            r"context \[M, 4\] .* found shape \[4, 5\]; it was learnt for another model",
        ),
        ([names, "--as", "x", "--context", tmp_path / "none.npz"], "found other"),
        ([names, "--as", "x", "--context", tmp_path / "small.npz"], "compressed"),
        ([names, "--as", "x", "--context", names], "cannot read the context"),
        ([names, "--as", "x", "--context", tmp_path / "csc.npz", "--template", "a {}"], "one for each class"),
    ):
        result = CliRunner().invoke(cli, ["classes", str(bundle.path), *map(str, arguments)])
        assert result.exit_code != 0
        assert re.search(reason, str(result.exception)), (arguments, result.exception)
    assert sorted(path.name for path in bundle.path.iterdir()) == before


def test_numbers_as_identifiers_or_names(bundle: Bundle, tmp_path: Path) -> None:
    path = tmp_path / "numbers"
    path.write_text("0 zero\n1 one\n", encoding="utf-8")
    run(bundle.path, path, "--as", "digits", "--ids")
    run(bundle.path, path, "--as", "names", "--no-ids")
    heads = Bundle.open(bundle.path).manifest.heads
    assert (heads["digits"].class_ids, heads["digits"].class_names) == (("0", "1"), ("zero", "one"))
    assert heads["names"].class_names == ("0 zero", "1 one")


def test_bundles_without_texts(tmp_path: Path, names: Path) -> None:
    assert "its classes are part of its graphs" in fails(
        "classes", make(tmp_path).path, names, "--as", "pets"
    )
