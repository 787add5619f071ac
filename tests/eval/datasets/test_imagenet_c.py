"""ImageNet-C in miniature, official and generated, and everything that can be missing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dataset_doubles import (
    EXTRA,
    GENERATED,
    marked,
    open_named,
    opened,
    put,
    refused,
)
from doubles import WNIDS, draw_picture, vit_manifest
from fozo.engine.errors import InputError
from fozo.eval.corruptions.corruption_registry import corrupt
from fozo.eval.datasets.corruption_names import IMAGENET_C
from PIL import Image

# --- ImageNet-C ---


def test_official_layout(tree: Path) -> None:
    names = ("gaussian_noise", "fog")
    noise, fog = opened("imagenet-c", vit_manifest(), tree, corruptions=names)
    assert (noise.name, fog.name) == names
    assert (noise.severity, noise.official_images, noise.classes, noise.generated) == (5, 50_000, None, False)
    assert noise.ids[:2] == tuple(f"{WNIDS[1]}/ILSVRC2012_val_{i:08d}.png" for i in range(2))
    assert noise.labels.tolist() == [1, 1, 3, 3]
    np.testing.assert_array_equal(
        noise.load(0), draw_picture(52)
    )  # PNG: to the bit, neither resized nor cropped
    np.testing.assert_array_equal(fog.load(2), draw_picture(150))


def test_the_official_order() -> None:
    order = (
        "gaussian_noise shot_noise impulse_noise defocus_blur glass_blur motion_blur zoom_blur snow frost "
        "fog brightness contrast elastic_transform pixelate jpeg_compression"
    )
    assert list(IMAGENET_C) == order.split()


def test_all_fifteen_are_the_default_and_the_extra_ones_go_by_name(tmp_path: Path) -> None:
    for name in (*IMAGENET_C, *EXTRA):
        put(tmp_path / name / "5" / WNIDS[0] / "1.png", draw_picture(1))
    assert [d.name for d in opened("imagenet-c", vit_manifest(), tmp_path)] == list(IMAGENET_C)
    domains = opened("imagenet-c", vit_manifest(), tmp_path, corruptions=("spatter", "fog", "saturate"))
    assert [d.name for d in domains] == ["spatter", "fog", "saturate"]


def test_every_corruption_at_each_severity_in_turn(tree: Path) -> None:
    domains = opened(
        "imagenet-c", vit_manifest(), tree, severities=(5, 3), corruptions=("fog", "gaussian_noise")
    )
    found = [(d.name, d.severity) for d in domains]
    assert found == [("fog", 5), ("gaussian_noise", 5), ("fog", 3), ("gaussian_noise", 3)]
    np.testing.assert_array_equal(domains[0].load(2), draw_picture(150))
    np.testing.assert_array_equal(domains[2].load(2), draw_picture(130))


def test_domains_share_their_ids_and_labels(tree: Path) -> None:
    """ImageNet-C's 750,000 names would take 100 MB; a domain with other images keeps its own."""
    put(tree / "fog" / "5" / WNIDS[0] / "more.png", draw_picture(0))
    names = ("gaussian_noise", "fog")
    noise5, fog5, noise3, fog3 = opened(
        "imagenet-c", vit_manifest(), tree, severities=(5, 3), corruptions=names
    )
    assert noise5.ids is noise3.ids is fog3.ids
    assert noise5.labels is noise3.labels is fog3.labels
    assert len(fog5) == 5
    assert fog5.ids[0] == f"{WNIDS[0]}/more.png"
    np.testing.assert_array_equal(fog3.load(2), draw_picture(130))


def test_smaller_models_take_the_middle_and_never_resize(tree: Path) -> None:
    (fog,) = opened("imagenet-c", vit_manifest(160, 182), tree, corruptions=["fog"])
    np.testing.assert_array_equal(fog.load(0), draw_picture(152)[32:192, 32:192])


@pytest.mark.parametrize("size", [225, 384])
def test_larger_models_are_refused(size: int, tree: Path) -> None:
    refused(rf"224 pixels.*{size}.*--image-size 224", "imagenet-c", vit_manifest(size, size), tree)


def test_missing_folders_are_named_with_their_archives(tree: Path) -> None:
    names = ("fog", "snow", "spatter")
    message = refused(r"missing: snow/5, spatter/5\.", "imagenet-c", vit_manifest(), tree, corruptions=names)
    assert "Unpack weather.tar, extra.tar of ImageNet-C" in message
    refused(
        "missing: fog/1, fog/2", "imagenet-c", vit_manifest(), tree, corruptions=["fog"], severities=(1, 2, 3)
    )
    refused("missing: gaussian_noise/5", "imagenet-c", vit_manifest(), tree / "fog")
    refused("no folder", "imagenet-c", vit_manifest(), tree / "nowhere")


@pytest.mark.parametrize("names", [["rain"], ["fog", "Fog"], [], [""], ["../fog"], ["clean"]])
def test_unknown_corruptions(names: list[str], tree: Path) -> None:
    refused(
        "ImageNet-C has no corruption .*gaussian_noise", "imagenet-c", vit_manifest(), tree, corruptions=names
    )


@pytest.mark.parametrize("severities", [(), (0,), (6,), (5, 5)])
def test_unknown_severities(severities: tuple[int, ...], tree: Path) -> None:
    refused("severities out of 1, 2, 3, 4, 5", "imagenet-c", vit_manifest(), tree, severities=severities)


def test_clean_images_come_last(tree: Path, tmp_path: Path) -> None:
    put(tmp_path / "val" / WNIDS[2] / "1.png", draw_picture(9, (300, 512)))
    options: dict[str, Any] = {"severities": (3, 5), "corruptions": ["fog"], "clean": tmp_path / "val"}
    *fog, clean = opened("imagenet-c", vit_manifest(), tree, **options)
    assert [domain.name for domain in fog] == ["fog", "fog"]
    assert (clean.name, clean.severity, clean.official_images, clean.generated) == (
        "clean",
        None,
        50_000,
        False,
    )
    assert clean.labels.tolist() == [2]
    shorter = Image.fromarray(draw_picture(9, (300, 512))).resize((436, 256), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(clean.load(0), np.asarray(shorter)[16:240, 106:330])  # as the bundle says


def test_what_is_no_folder_of_clean_images_is_told_what_is_expected(tree: Path, tmp_path: Path) -> None:
    def said(message: str, clean: Path, **options: Any) -> str:
        return refused(
            message, "imagenet-c", vit_manifest(), tree, corruptions=["fog"], clean=clean, **options
        )

    hint = "--clean names the folder of ImageNet's validation images"
    assert hint in said("found nothing", tmp_path / "nowhere")
    assert hint in said(r"<class>/<image>, found .*\.png", tree)  # ImageNet-C itself
    flat = put(tmp_path / "flat" / "ILSVRC2012_val_00000001.png").parent
    assert "side by side, with --labels FILE" in said("found .*ILSVRC2012_val_00000001", flat)
    put(tmp_path / "other" / "cats" / "1.png")
    assert hint in said("no class of vit: cats", tmp_path / "other")
    (tmp_path / "labels.txt").write_text("ILSVRC2012_val_00000002 n01440764\n")
    message = said("have no label", flat, labels=tmp_path / "labels.txt")
    assert hint in message
    assert "--labels FILE" not in message
    marked(tree)
    assert hint not in said("found nothing", tmp_path / "nowhere")  # they are of any origin


def test_a_damaged_image_of_imagenet_c_is_named(tree: Path) -> None:
    bad = tree / "fog" / "5" / WNIDS[1] / "ILSVRC2012_val_00000001.png"
    bad.write_bytes(bad.read_bytes()[:500])
    (fog,) = opened("imagenet-c", vit_manifest(), tree, corruptions=["fog"])
    fog.load(0)
    with pytest.raises(InputError, match=r"damaged .*fog/5/n01443537/ILSVRC2012_val_00000001\.png"):
        fog.load(1)


# --- generated.json ---


def test_generated_folders_are_labelled(tree: Path) -> None:
    label, domains = open_named(vit_manifest(), "imagenet-c", data=marked(tree), severities=(3, 5))
    assert label == GENERATED
    found = [(d.name, d.severity, d.generated, d.official_images) for d in domains]
    names = ("gaussian_noise", "fog")
    assert found == [(name, severity, True, None) for severity in (3, 5) for name in names]
    np.testing.assert_array_equal(domains[1].load(2), draw_picture(130))


def test_clean_images_beside_generated_ones_have_no_official_number(tree: Path, tmp_path: Path) -> None:
    put(tmp_path / "val" / WNIDS[2] / "1.png")
    _, domains = open_named(vit_manifest(), "imagenet-c", data=marked(tree), clean=tmp_path / "val")
    assert (domains[-1].name, domains[-1].generated, domains[-1].official_images) == ("clean", False, None)


def test_frost_that_was_left_out_is_said(tmp_path: Path) -> None:
    names = [name for name in IMAGENET_C if name != "frost"]
    for name in names:
        put(tmp_path / name / "5" / WNIDS[0] / "1.png")
    marked(tmp_path, corruptions=names, severities=[5], size=20, images=1)
    label, _ = open_named(vit_manifest(16, 16), "imagenet-c", data=tmp_path)
    assert label == "generated corruptions without frost (not the official ImageNet-C)"


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        (
            {},
            {"corruptions": ["snow"]},
            r"generated data in .* has no corruption snow; it has: gaussian_noise, fog",
        ),
        ({}, {"severities": (1, 3)}, r"generated at severity 3, 5, not at 1;"),
        ({"images": 5}, {}, r"expected 5 images of each .*found 4 in one .*fozo corrupt"),
        ({"corruptions": ["fog", "snow"]}, {}, r"expected 4 images of each .*found none .*fozo corrupt"),
        ({"size": 200}, {}, r"200 pixels a side .*224"),
    ],
)
def test_generated_folders_that_do_not_fit(
    changes: dict[str, Any], options: dict[str, Any], message: str, tree: Path
) -> None:
    refused(message, "imagenet-c", vit_manifest(), marked(tree, **changes), **options)


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "{}", "7", "[" * 100_000]
    + [
        json.dumps({"corruptions": ["fog"], "severities": [5], "size": 224, "images": 4, **change})
        for change in (
            {"corruptions": ["rain"]},
            {"corruptions": 3},
            {"corruptions": [["fog"]]},
            {"corruptions": []},
            {"severities": ["5"]},
            {"severities": [6]},
            {"size": 224.5},
            {"images": -1},
            {"images": True},
        )
    ],
)
def test_a_damaged_record_is_refused(content: str, tree: Path) -> None:
    (tree / "generated.json").write_text(content)
    refused(r"record of generated images in .*generated\.json", "imagenet-c", vit_manifest(), tree)


# --- generated while streaming ---


def test_generating_at_several_severities(tmp_path: Path) -> None:
    put(tmp_path / WNIDS[1] / "a.png", draw_picture(3))
    options: dict[str, Any] = {"generate_from": tmp_path, "severities": (4, 2), "seed": 7}
    label, domains = open_named(
        vit_manifest(), "imagenet-c", data=None, corruptions=["contrast", "clean", "fog"], **options
    )
    assert label == GENERATED
    found = [(d.name, d.severity, d.generated) for d in domains]
    corrupted = [("contrast", 4, True), ("fog", 4, True), ("contrast", 2, True)]
    assert found == [*corrupted, ("clean", None, False), ("fog", 2, True)]
    original = domains[3].load(0)
    expected = corrupt(original, "fog", 2, image_id=f"{WNIDS[1]}/a.png", seed=7)
    np.testing.assert_array_equal(domains[4].load(0), expected)
    assert all(domain.official_images is None for domain in domains)


def test_generating_everything(tmp_path: Path) -> None:
    put(tmp_path / WNIDS[1] / "a.png")
    label, domains = open_named(
        vit_manifest(), "imagenet-c", data=None, generate_from=tmp_path, severities=(1, 5)
    )
    names = [name for name in IMAGENET_C if name != "frost"]
    assert label == "generated corruptions without frost (not the official ImageNet-C)"
    assert [d.name for d in domains] == [*names, *names, "clean"]
