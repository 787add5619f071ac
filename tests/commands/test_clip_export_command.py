"""`fozo export --clip`: what it prints, and options that do not go together."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from clip_export_doubles import make_state, register, write_names
from doubles import child_environment
from export_doubles import save_weights
from fozo.cli import cli
from fozo.engine.bundle.bundle import Bundle


def export(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["export", *map(str, arguments)])


def test_a_clip_model_is_exported(tmp_path: Path) -> None:
    weights, names = save_weights(tmp_path, make_state().state_dict()), write_names(tmp_path)
    options = ("--activation", "gelu", "--classes", names, "--template", "a {}.", "--template", "the {}.")
    out = tmp_path / "bundle"
    result = export(
        "--clip", register(tmp_path), "--weights", weights, *options, "--norms", "0", "--out", out
    )
    assert result.exit_code == 0, result.output
    for text in (
        "Verified against PyTorch at N = 1, 2, 3, 17 and P = 0, 3",
        "Verified against open_clip: embeddings of texts differ by at most",
        "texts have the same tokens",
        "the file does not tell how its images were prepared",
        "image embedding of 24",
        f"fozo quantize {out} CLEAN_IMAGES",
    ):
        assert text in result.output
    manifest = Bundle.open(out).manifest
    assert manifest.heads["animals"].templates == ("a {}.", "the {}.")
    assert tuple(manifest.norms) == ("blocks.0.norm1", "blocks.0.norm2")
    assert str(export("--clip", "ViT-B-16", "--weights", weights, "--out", out).exception).count(
        "--overwrite"
    )


def test_published_templates_can_be_chosen(tmp_path: Path) -> None:
    given = ("--clip", register(tmp_path), "--random-weights", "--classes", write_names(tmp_path))
    result = export(*given, "--templates", "imagenet-7", "--out", tmp_path / "bundle")
    assert result.exit_code == 0, result.output
    templates = Bundle.open(tmp_path / "bundle").manifest.heads["animals"].templates
    assert len(templates) == 7
    assert "itap of a {}." in templates


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--clip", "ViT-B-16", "--model", "vit_base_patch16_224"), "--model is for models of timm"),
        (("--clip", "ViT-B-16", "--num-classes", 3), "--num-classes is for models of timm"),
        (("--clip", "ViT-B-16", "--image-size", 32), "--image-size is for models of timm"),
        (("--activation", "gelu"), "--activation goes with --clip"),
        (("--template", "{}"), "--template goes with --clip"),
        (("--templates", "imagenet-7"), "--templates goes with --clip"),
        (("--clip", "ViT-B-16"), "--clip needs --weights FILE"),
        (("--clip", "ViT-B-17", "--random-weights"), "did you mean"),
    ],
)
def test_options_that_do_not_go_together(arguments: tuple[object, ...], reason: str, tmp_path: Path) -> None:
    result = export(*arguments, "--out", tmp_path / "bundle")
    assert result.exit_code != 0
    assert reason in str(result.exception)
    assert not list(tmp_path.iterdir())


def test_without_open_clip_the_extra_is_named(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['open_clip'] = None; import fozo.export.exporter; "
        "from fozo.cli import main; "
        "sys.argv = ['fozo', 'export', '--clip', 'ViT-B-16', '--random-weights', '--out', 'bundle']; main()"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], env=child_environment(), capture_output=True, text=True, cwd=tmp_path
    )
    assert result.returncode != 0
    assert 'pip install "fozo[clip]"' in result.stderr
    assert "Traceback" not in result.stderr
