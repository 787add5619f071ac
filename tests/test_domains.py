"""Data sets on disk in their official layouts, and everything that can be wrong with a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fozo.data.demo import DEMO_CLASSES, demo_images
from fozo.engine.bundle import Manifest
from fozo.engine.errors import InputError
from fozo.engine.preprocessing import Preprocessing
from fozo.eval.corruptions import NAMES, corrupt
from fozo.eval.domains import IMAGENET_C, Domain, demo, generated, imagefolder, imagenet_c
from numpy.typing import NDArray
from PIL import Image

WNIDS = ("n01440764", "n01443537", "n02007558", "n04254680")


def manifest(size: int = 224, resize: int = 256, **changes: Any) -> Manifest:
    fields = {
        "model": "vit",
        "preprocessing": Preprocessing((size, size), resize, "bilinear"),
        "layers": 12,
        "width": 192,
        "tokens": 197,
        "feature_width": 192,
        "classes": len(WNIDS),
        "prompt_bound": 0.1,
        "class_ids": WNIDS,
    }
    return Manifest(**{**fields, **changes})


def pixels(seed: int, size: tuple[int, int] = (224, 224)) -> NDArray[np.uint8]:
    """Smooth noise, so that JPEG keeps it small and recognisable."""
    coarse = np.random.default_rng(seed).integers(0, 256, (7, 7, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((size[1], size[0]), Image.Resampling.BICUBIC))


def put(path: Path, array: NDArray[np.uint8]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".JPEG":
        Image.fromarray(array).save(path, "JPEG", quality=90)
    else:
        Image.fromarray(array).save(path)
    return path


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A miniature ImageNet-C: two corruptions, two severities, two of the four classes."""
    root = tmp_path / "imagenet-c"
    for c, name in enumerate(("gaussian_noise", "fog")):
        for severity in (3, 5):
            for k, wnid in enumerate((WNIDS[3], WNIDS[1])):
                for i in range(2):
                    seed = c * 100 + severity * 10 + k * 2 + i
                    suffix = "JPEG" if i else "png"
                    put(root / name / str(severity) / wnid / f"ILSVRC2012_val_{i:08d}.{suffix}", pixels(seed))
    return root


# --- ImageNet-C ---


def test_official_layout(tree: Path) -> None:
    noise, fog = imagenet_c(tree, manifest(), 5, ("gaussian_noise", "fog"))
    assert (noise.name, fog.name) == ("gaussian_noise", "fog")
    assert not noise.generated
    assert noise.ids == fog.ids == tuple(sorted(noise.ids))
    assert noise.ids[0] == f"{WNIDS[1]}/ILSVRC2012_val_00000000.png"
    assert noise.labels.tolist() == [1, 1, 3, 3]
    assert noise.labels.dtype == np.int64
    assert len(noise) == 4
    np.testing.assert_array_equal(noise.load(0), pixels(52))  # PNG: to the bit, neither resized nor cropped
    np.testing.assert_array_equal(fog.load(2), pixels(150))
    (other,) = imagenet_c(tree, manifest(), 3, ["fog"])
    np.testing.assert_array_equal(other.load(2), pixels(130))


def test_smaller_models_take_the_middle_and_never_resize(tree: Path) -> None:
    (fog,) = imagenet_c(tree, manifest(160, 182), 5, ["fog"])
    np.testing.assert_array_equal(fog.load(0), pixels(152)[32:192, 32:192])


@pytest.mark.parametrize("size", [225, 256, 384])
def test_larger_models_are_refused(size: int, tree: Path) -> None:
    with pytest.raises(InputError, match=rf"224 pixels.*{size}.*--image-size 224"):
        imagenet_c(tree, manifest(size), 5, ["fog"])


def test_the_order_of_the_corruptions_is_the_callers(tree: Path) -> None:
    found = imagenet_c(tree, manifest(), 5, ("fog", "gaussian_noise"))
    assert [domain.name for domain in found] == ["fog", "gaussian_noise"]
    assert IMAGENET_C[0] == "gaussian_noise"
    assert IMAGENET_C[-1] == "jpeg_compression"
    assert len(IMAGENET_C) == 15


def test_missing_corruptions_and_severities_are_named(tree: Path) -> None:
    with pytest.raises(InputError, match=r"missing: snow/5, frost/5\.") as caught:
        imagenet_c(tree, manifest(), 5, ("fog", "snow", "frost"))
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="missing: fog/1"):
        imagenet_c(tree, manifest(), 1, ["fog"])


def test_the_wrong_folder(tree: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no folder"):
        imagenet_c(tmp_path / "nowhere", manifest(), 5, ["fog"])
    with pytest.raises(InputError, match="missing: fog/5"):
        imagenet_c(tree / "fog", manifest(), 5, ["fog"])
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="no folder"):
        imagenet_c(tmp_path / "file", manifest(), 5, ["fog"])


@pytest.mark.parametrize("names", [["rain"], ["fog", "Fog"], [], [""], ["../fog"], ["clean"]])
def test_unknown_corruptions(names: list[str], tree: Path) -> None:
    with pytest.raises(InputError, match=r"ImageNet-C has no corruption .*gaussian_noise"):
        imagenet_c(tree, manifest(), 5, names)


def test_unknown_class_folder(tree: Path) -> None:
    put(tree / "fog" / "5" / "n99999999" / "x.png", pixels(0))
    with pytest.raises(InputError, match="1 folders that are no class of vit: n99999999"):
        imagenet_c(tree, manifest(), 5, ["fog"])


def test_images_loose_in_the_root(tree: Path) -> None:
    put(tree / "fog" / "5" / "loose.png", pixels(0))
    with pytest.raises(InputError, match=r"<class>/<image>.*loose\.png"):
        imagenet_c(tree, manifest(), 5, ["fog"])


def test_images_too_deep(tree: Path) -> None:
    put(tree / "fog" / "5" / WNIDS[0] / "more" / "deep.png", pixels(0))
    with pytest.raises(InputError, match=r"<class>/<image>.*deep\.png"):
        imagenet_c(tree, manifest(), 5, ["fog"])


def test_a_severity_without_images(tree: Path) -> None:
    (tree / "snow" / "5" / WNIDS[0]).mkdir(parents=True)
    with pytest.raises(InputError, match="no image"):
        imagenet_c(tree, manifest(), 5, ["snow"])


# --- folders of classes ---


def test_labels_are_the_models_and_not_the_folders_order(tmp_path: Path) -> None:
    ids = ("zebra", "ant", "moth")
    for name in ("ant", "zebra"):
        put(tmp_path / "data" / name / "1.png", pixels(1))
    domain = imagefolder(tmp_path / "data", manifest(classes=3, class_ids=ids))
    assert domain.name == "data"
    assert domain.ids == ("ant/1.png", "zebra/1.png")
    assert domain.labels.tolist() == [1, 0]


def test_without_identifiers_sorted_folders_are_the_classes(tmp_path: Path) -> None:
    for name in ("b", "a", "c"):
        put(tmp_path / name / "1.png", pixels(1))
    assert imagefolder(tmp_path, manifest(classes=3, class_ids=None)).labels.tolist() == [0, 1, 2]
    for classes in (2, 4):
        with pytest.raises(InputError, match=rf"one folder for each of its {classes} classes, found 3"):
            imagefolder(tmp_path, manifest(classes=classes, class_ids=None))


def test_images_are_prepared_as_the_bundle_says(tmp_path: Path) -> None:
    put(tmp_path / WNIDS[0] / "1.png", pixels(1, (64, 128)))
    found = imagefolder(tmp_path, manifest(32, 40)).load(0)
    expected = np.asarray(Image.fromarray(pixels(1, (64, 128))).resize((80, 40), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(found, expected[4:36, 24:56])
    assert found.dtype == np.uint8


def test_hidden_and_other_files_are_no_images(tmp_path: Path) -> None:
    put(tmp_path / WNIDS[0] / "1.png", pixels(1))
    (tmp_path / ".DS_Store").write_bytes(b"x")
    (tmp_path / "README.txt").write_text("x")
    put(tmp_path / ".cache" / "2.png", pixels(1))
    (tmp_path / "n99999999").mkdir()
    assert imagefolder(tmp_path, manifest()).ids == (f"{WNIDS[0]}/1.png",)


@pytest.mark.parametrize("kind", ["missing", "empty", "file"])
def test_no_folder_of_images(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "data"
    if kind == "empty":
        path.mkdir()
    elif kind == "file":
        path.write_text("")
    with pytest.raises(InputError, match="folder"):
        imagefolder(path, manifest())


def test_a_damaged_image_is_found_when_it_is_loaded(tmp_path: Path) -> None:
    put(tmp_path / WNIDS[0] / "1.png", pixels(1))
    bad = put(tmp_path / WNIDS[0] / "2.png", pixels(2))
    bad.write_bytes(bad.read_bytes()[:500])
    domain = imagefolder(tmp_path, manifest())
    domain.load(0)
    with pytest.raises(InputError, match=r"2\.png"):
        domain.load(1)


# --- generated ---


def clean() -> Domain:
    images = [pixels(i, (32, 32)) for i in range(5)]
    return Domain("clean", tuple(f"c/{i}.png" for i in range(5)), np.arange(5), lambda i: images[i])


def test_generated_corruptions_are_labelled_and_belong_to_the_image() -> None:
    noise, same, contrast = generated(clean(), 4, ("gaussian_noise", "clean", "contrast"), 11)
    assert noise.generated
    assert contrast.generated
    assert not same.generated
    assert [domain.name for domain in (noise, same, contrast)] == ["gaussian_noise", "clean", "contrast"]
    assert noise.labels.tolist() == clean().labels.tolist()
    assert noise.ids == clean().ids
    for i in (3, 0, 3):
        expected = corrupt(clean().load(i), "gaussian_noise", 4, image_id=f"c/{i}.png", seed=11)
        np.testing.assert_array_equal(noise.load(i), expected)
        np.testing.assert_array_equal(same.load(i), clean().load(i))
    subset = noise.take([4, 1])
    assert subset.generated
    np.testing.assert_array_equal(subset.load(0), noise.load(4))
    np.testing.assert_array_equal(subset.take([1]).load(0), noise.load(1))


def test_corruptions_that_cannot_be_generated() -> None:
    for name in ("sleet", "rain", ""):
        with pytest.raises(InputError, match=r"the generator has no corruption .*clean"):
            generated(clean(), 5, [name], 0)
    assert set(IMAGENET_C) < set(NAMES)


def test_frost_is_generated_with_its_textures_only(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--frost-textures"):
        generated(clean(), 5, ["contrast", "frost"], 0)
    with pytest.raises(InputError, match=r"missing: frost1, frost2"):
        generated(clean(), 5, ["frost"], 0, tmp_path)
    for number in range(1, 6):
        put(tmp_path / f"frost{number}.png", pixels(number, (240, 260)))
    (frost,) = generated(clean(), 5, ["frost"], 0, tmp_path)
    expected = corrupt(clean().load(2), "frost", 5, image_id="c/2.png", seed=0, textures=tmp_path)
    np.testing.assert_array_equal(frost.load(2), expected)


# --- the demonstration ---


def test_demo() -> None:
    bundle = manifest(32, 32, classes=10, class_ids=DEMO_CLASSES)
    domain = demo(bundle)
    images, labels = demo_images("test")
    assert len(domain) == 797
    assert len(set(domain.ids)) == 797
    np.testing.assert_array_equal(domain.labels, labels)
    np.testing.assert_array_equal(domain.load(5), images[5])
    for other in (manifest(), manifest(28, 28, classes=10, class_ids=DEMO_CLASSES)):
        with pytest.raises(InputError, match="needs the demo model"):
            demo(other)
