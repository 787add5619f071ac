"""Numbers of class folders where the bundle does not name its classes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from dataset_doubles import open_named, put, refused
from doubles import vit_manifest
from fozo.engine.bundle.manifest import Manifest
from fozo.engine.errors import InputError
from fozo.eval.datasets.class_order import sort_folders
from fozo.eval.streaming.spec import EvaluationSpec
from fozo.eval.sweep.plan import plan

NUMBERED = [f"class{number}" for number in range(12)]
WNIDS = ["n01440764", "n02123045_tabby", "n07714990"]
ANIMALS = ["zebra", "ant", "moth"]
MIXED_CASE = ["Zebra", "ant", "Moth"]


def nameless(classes: int) -> Manifest:
    return vit_manifest(classes=classes, class_ids=None)


def save_folders(folder: Path, names: Sequence[str]) -> Path:
    for name in names:
        put(folder / name / "1.png")
    return folder


def read_labels(folder: Path, manifest: Manifest, **options: object) -> dict[str, int]:
    _, (domain,) = open_named(manifest, "imagefolder", data=folder, **options)
    names = [identifier.partition("/")[0] for identifier in domain.ids]
    return dict(zip(names, domain.labels.tolist(), strict=True))


@pytest.mark.parametrize(
    "names", [NUMBERED, WNIDS, ANIMALS, MIXED_CASE, ["9", "10", "0"], ["a2b10", "a2b9", "a10"]]
)
def test_orders_are_those_of_timm_and_torchvision(names: list[str], tmp_path: Path) -> None:
    readers = pytest.importorskip("timm.data.readers.reader_image_folder", reason="compared with timm")
    _, of_timm = readers.find_images_and_targets(str(save_folders(tmp_path, names)))
    of_torchvision = {name: index for index, name in enumerate(sorted(names))}  # `DatasetFolder.find_classes`
    manifest = nameless(len(names))
    assert read_labels(tmp_path, manifest, class_order="timm") == of_timm
    assert read_labels(tmp_path, manifest, class_order="torchvision") == of_torchvision
    if of_timm == of_torchvision:
        assert read_labels(tmp_path, manifest) == of_timm
    else:
        refused("different orders", "imagefolder", manifest, tmp_path)


def test_twelve_numbered_classes_are_asked_for_their_order(tmp_path: Path) -> None:
    message = refused("different orders", "imagefolder", nameless(12), save_folders(tmp_path, NUMBERED))
    assert (
        "timm class0, class1, class2, class3, …; torchvision class0, class1, class10, class11, …" in message
    )
    for advice in ("--class-order timm", "--class-order torchvision", "--class-ids FILE"):
        assert advice in message


def test_orders_that_agree_need_no_option(tmp_path: Path) -> None:
    assert read_labels(save_folders(tmp_path, WNIDS), nameless(3)) == {
        name: i for i, name in enumerate(WNIDS)
    }


@pytest.mark.parametrize("names", [["a1", "A1"], ["01", "1", "2"]])
def test_names_that_timm_cannot_tell_apart_are_asked_for(names: list[str]) -> None:
    for order in (None, "timm"):
        with pytest.raises(InputError, match="--class-ids FILE"):
            sort_folders(names, Path("data"), order)  # type: ignore[arg-type]
    assert sort_folders(names, Path("data"), "torchvision") == sorted(names)


def test_a_list_of_class_folders_decides(tmp_path: Path) -> None:
    folder, listed = save_folders(tmp_path / "data", ANIMALS), tmp_path / "classes.txt"
    listed.write_text("moth\nzebra striped horse\nant\n")
    for manifest in (nameless(3), vit_manifest(classes=3, class_ids=("x", "y", "z"))):
        assert read_labels(folder, manifest, class_ids=listed) == {"ant": 2, "moth": 0, "zebra": 1}
    refused(
        "list.*|names them|does", "imagefolder", nameless(3), folder, class_ids=listed, class_order="timm"
    )
    refused("expected 4 distinct classes", "imagefolder", nameless(4), folder, class_ids=listed)


def test_an_order_is_refused_where_the_bundle_names_its_classes(tmp_path: Path) -> None:
    manifest = vit_manifest(classes=3, class_ids=tuple(ANIMALS))
    refused(
        "leave --class-order out",
        "imagefolder",
        manifest,
        save_folders(tmp_path, ANIMALS),
        class_order="timm",
    )


def test_corrupted_folders_of_numbered_classes_are_asked_too(tmp_path: Path) -> None:
    clean = save_folders(tmp_path, NUMBERED)
    options = {"generate_from": clean, "corruptions": ("fog",)}
    with pytest.raises(InputError, match="different orders"):
        open_named(nameless(12), "imagenet-c", **options)
    _, (domain,) = open_named(nameless(12), "imagenet-c", class_order="timm", **options)
    expected = [NUMBERED.index(identifier.partition("/")[0]) for identifier in domain.ids]
    assert np.array_equal(domain.labels, expected)


def test_the_order_is_part_of_the_protocol_and_of_cells(tmp_path: Path, bundle_path: Path) -> None:
    folder = save_folders(tmp_path / "data", [f"class{number}" for number in range(20)])
    cells = set()
    for order in ("timm", "torchvision"):
        spec = EvaluationSpec.from_options(
            bundle_path, ["no_adapt"], "imagefolder", data=folder, class_order=order
        )
        (job,) = plan(spec, [bundle_path], ["fp32"])
        assert job.cell.classes == f"auto, class order {order}"
        cells.add(job.cell.key)
    assert len(cells) == 2
