"""Data sets as people have them: under other names, one level deeper or higher, with other files between."""

from __future__ import annotations

from pathlib import Path

import pytest
from dataset_doubles import opened, put, refused, thousand
from doubles import WNIDS, draw_picture, vit_manifest
from fozo.engine.errors import InputError
from fozo.eval.datasets.class_folders import list_class_folders
from fozo.eval.datasets.subset import choose_subset

SOME = ("n00001000", "n00001003", "n00001999")  # numbers 0, 3 and 999


def test_imagenet_v2_in_folders_by_wnid(tmp_path: Path) -> None:
    for wnid in SOME:
        put(tmp_path / wnid / "x.jpeg")
    (domain,) = opened("imagenet-v2", thousand(), tmp_path)
    assert domain.labels.tolist() == [999, 996, 0]
    assert len(domain.missing_folders) == 997
    put(tmp_path / "7" / "x.jpeg")
    refused("expected folders from 0 to 999, or named by WNID", "imagenet-v2", thousand(), tmp_path)


def test_validation_images_named_as_hugging_face_ships_them(tmp_path: Path) -> None:
    for number, wnid in enumerate(SOME, 1):
        put(tmp_path / "val" / f"ILSVRC2012_val_{number:08d}_{wnid}.JPEG", draw_picture(number, (20, 20)))
        put(tmp_path / "sorted" / wnid / f"ILSVRC2012_val_{number:08d}.JPEG", draw_picture(number, (20, 20)))
    (flat,) = opened("imagenet", thousand(), tmp_path / "val")
    (by_class,) = opened("imagenet", thousand(), tmp_path / "sorted")
    assert flat.ids == by_class.ids
    assert flat.labels.tolist() == by_class.labels.tolist() == [999, 996, 0]
    assert all((flat.load(index) == by_class.load(index)).all() for index in range(3))


def test_some_names_without_their_class_are_refused(tmp_path: Path) -> None:
    put(tmp_path / f"ILSVRC2012_val_00000001_{SOME[0]}.JPEG")
    put(tmp_path / "ILSVRC2012_val_00000002.JPEG")
    refused("put every image into the folder of its class", "imagenet", thousand(), tmp_path)


def test_tensorflows_list_has_labels_in_the_order_of_numbers(tmp_path: Path) -> None:
    wnids = [f"n{1000 + number * 7 % 1000:08d}" for number in range(50_000)]
    (tmp_path / "labels.txt").write_text("\n".join(wnids))
    for number in (2, 49_999):
        put(tmp_path / "val" / f"ILSVRC2012_val_{number:08d}.JPEG")
    (domain,) = opened("imagenet", thousand(), tmp_path / "val", labels=tmp_path / "labels.txt")
    assert domain.ids == (
        f"{wnids[1]}/ILSVRC2012_val_00000002.JPEG",
        f"{wnids[49_998]}/ILSVRC2012_val_00049999.JPEG",
    )
    (tmp_path / "labels.txt").write_text("\n".join(wnids[:-1]))
    refused(
        "WNIDs of all 50,000.*found 49,999",
        "imagenet",
        thousand(),
        tmp_path / "val",
        labels=tmp_path / "labels.txt",
    )


def test_a_data_set_one_level_deeper_is_named(tmp_path: Path) -> None:
    for part in ("train", "val"):
        put(tmp_path / "data" / part / WNIDS[0] / "x.png")
    message = refused("found .*x.png", "imagefolder", vit_manifest(), tmp_path / "data")
    assert f"{tmp_path}/data/train and in {tmp_path}/data/val: name that folder" in message


def test_a_data_set_one_level_higher_is_named(tmp_path: Path) -> None:
    put(tmp_path / WNIDS[0] / "x.png")
    refused(
        f"or name the folder above, if {WNIDS[0]} is a class",
        "imagefolder",
        vit_manifest(),
        tmp_path / WNIDS[0],
    )


def test_imagenet_c_in_the_folders_of_its_archives(tree: Path) -> None:
    options = {"corruptions": ("gaussian_noise", "fog"), "severities": (3,)}
    plain = opened("imagenet-c", vit_manifest(), tree, **options)
    for archive, name in (("noise", "gaussian_noise"), ("weather", "fog")):
        (tree / archive).mkdir()
        (tree / name).rename(tree / archive / name)
    nested = opened("imagenet-c", vit_manifest(), tree, **options)
    assert [domain.hash_ids() for domain in nested] == [domain.hash_ids() for domain in plain]
    message = refused("missing: gaussian_noise/3", "imagenet-c", vit_manifest(), tree.parent, **options)
    assert f"lies in {tree}/noise: name that folder" in message
    message = refused(
        "missing: fog/3",
        "imagenet-c",
        vit_manifest(),
        tree / "weather" / "fog",
        corruptions=("fog",),
        severities=(3,),
    )
    assert f"lies in {tree.resolve()}/weather: name that folder" in message


def test_folders_of_file_servers_are_no_classes(tmp_path: Path) -> None:
    put(tmp_path / WNIDS[0] / "x.png")
    put(tmp_path / "@eaDir" / "x.png")
    put(tmp_path / WNIDS[0] / "@eaDir" / "x.png" / "SYNOPHOTO_THUMB_M.png")
    assert list_class_folders(tmp_path).ids == (f"{WNIDS[0]}/x.png",)


def test_images_that_are_left_out_are_counted(tmp_path: Path) -> None:
    put(tmp_path / WNIDS[0] / "x.png")
    (tmp_path / WNIDS[0] / "y.tif").write_bytes(b"")
    (tmp_path / WNIDS[0] / "notes.txt").write_bytes(b"")
    (domain,) = opened("imagefolder", vit_manifest(), tmp_path)
    assert domain.left_out == {".tif": 1}
    put(tmp_path / WNIDS[1] / "x.png").rename(tmp_path / WNIDS[1] / "x.gif")
    refused(r"no image in the class folder .*1 with \.gif", "imagefolder", vit_manifest(), tmp_path)


@pytest.mark.parametrize("name", ["golden retriever/my dog.png", "golden retriever/my dog.png 7"])
def test_lists_of_images_may_have_spaces_in_names(name: str, tmp_path: Path) -> None:
    put(tmp_path / "data" / "golden retriever" / "my dog.png")
    put(tmp_path / "data" / "cat" / "x.png")
    (tmp_path / "list.txt").write_text(f"\ufeff# mine\r\n{name}\r\n", encoding="utf-8")
    manifest = vit_manifest(classes=2, class_ids=("cat", "golden retriever"))
    domains = opened("imagefolder", manifest, tmp_path / "data")
    if name.endswith("7"):
        with pytest.raises(InputError, match=r"'golden retriever/my dog.png 7' \(line 2\)"):
            choose_subset(domains, "all", 0, tmp_path / "list.txt")
    else:
        (chosen,), _ = choose_subset(domains, "all", 0, tmp_path / "list.txt")
        assert chosen.ids == ("golden retriever/my dog.png",)
