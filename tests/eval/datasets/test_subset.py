"""Which images are used: all of them, a published list, or a seeded choice."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from fozo.engine.errors import InputError
from fozo.eval.datasets.domain import Domain
from fozo.eval.datasets.subset import choose_subset
from numpy.typing import NDArray


def domain(count: int = 100, name: str = "fog", classes: int = 10) -> Domain:
    """Image i is two bytes that say i; its class is i modulo 10."""
    ids = tuple(f"n{i % classes:08d}/img_{i:08d}.JPEG" for i in range(count))

    def load(index: int) -> NDArray[np.uint8]:
        return np.array([[[index // 256 % 256, index % 256, 0]]], np.uint8)

    return Domain(name, ids, np.arange(count) % classes, load)


def test_all_is_everything() -> None:
    one = domain()
    chosen, name = choose_subset([one], "all", 0)
    assert name == "all"
    assert chosen[0].ids == one.ids


def test_50k_is_50_000_or_an_error() -> None:
    chosen, name = choose_subset([domain(50_000)], "50k", 0)
    assert (name, len(chosen[0])) == ("50k", 50_000)
    with pytest.raises(InputError, match=r"expected 50,000 images in fog, found 49,999"):
        choose_subset([domain(49_999)], "50k", 0)
    with pytest.raises(InputError, match=r"in snow, found 3"):
        choose_subset([domain(50_000), domain(3, "snow")], "50k", 0)


def test_5k_without_a_list_is_named_seeded() -> None:
    chosen, name = choose_subset([domain(6000)], "5k", 2000)
    assert name == "5k-seeded"
    assert len(chosen[0]) == len(set(chosen[0].ids)) == 5000
    with pytest.raises(InputError, match=r"fog has only 4,999 images"):
        choose_subset([domain(4999)], "5k", 2000)


def test_a_number_is_a_seeded_choice_that_all_domains_share() -> None:
    (fog, snow), name = choose_subset([domain(), domain(name="snow")], "30", 7)
    assert name == "30-seeded"
    assert fog.ids == snow.ids
    assert len(set(fog.ids)) == 30
    assert fog.labels.tolist() == [int(i.split("/")[0][1:]) for i in fog.ids]
    assert [int(fog.load(k)[0, 0, 1]) for k in range(30)] == [int(i[-13:-5]) for i in fog.ids]
    (again,), _ = choose_subset([domain()], "30", 7)
    (other,), _ = choose_subset([domain()], "30", 8)
    assert again.ids == fog.ids != other.ids
    assert again.hash_ids() == fog.hash_ids() != other.hash_ids()


def test_a_number_as_large_as_the_data() -> None:
    (everything,), _ = choose_subset([domain(10)], "10", 0)
    assert set(everything.ids) == set(domain(10).ids)
    with pytest.raises(InputError, match="only 10 images"):
        choose_subset([domain(10)], "11", 0)


@pytest.mark.parametrize("subset", ["", "0", "-5", "5K", "all ", "1.5", "1e3", "half", "500k", "²"])
def test_subsets_that_are_none(subset: str) -> None:
    with pytest.raises(InputError, match="expected a subset"):
        choose_subset([domain()], subset, 0)


def listed(path: Path, lines: Sequence[str]) -> Path:
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize("bare", [False, True])
def test_a_list_of_images(bare: bool, tmp_path: Path) -> None:
    wanted = [domain().ids[i] for i in (42, 7, 99)]
    lines = [identifier.split("/")[1] if bare else identifier for identifier in wanted]
    path = listed(tmp_path / "list.txt", [lines[0], "", *lines[1:]])
    (chosen, snow), name = choose_subset([domain(), domain(name="snow")], "all", 0, path)
    assert set(chosen.ids) == set(wanted)
    assert snow.ids == chosen.ids
    assert "list:" in name
    assert chosen.labels.tolist() == [int(i.split("/")[0][1:]) for i in chosen.ids]
    _, other = choose_subset([domain()], "all", 0, listed(tmp_path / "other.txt", lines[:2]))
    assert other != name


def test_a_full_5k_list_is_named_5k(tmp_path: Path) -> None:
    path = listed(tmp_path / "list.txt", domain(6000).ids[1000:])
    (chosen,), name = choose_subset([domain(6000)], "5k", 0, path)
    assert len(chosen) == 5000
    assert name.startswith("5k-list:")


def test_a_short_list_is_never_named_5k(tmp_path: Path) -> None:
    path = listed(tmp_path / "list.txt", domain().ids[:3])
    try:
        _, name = choose_subset([domain()], "5k", 0, path)
    except InputError:
        return
    assert not name.startswith("5k")


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ([], "distinct"),
        (["", "  "], "distinct"),
        (["img_00000001.JPEG"] * 2, "distinct"),
        (["n00000001/nowhere.JPEG"], "1 of the 1 images"),
        (["n00000002/img_00000001.JPEG"], "1 of the 1 images"),
        (["n00000001/img_00000001.JPEG", "n00000009/x.JPEG"], "1 of the 2 images"),
    ],
)
def test_bad_lists(lines: list[str], reason: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=reason):
        choose_subset([domain()], "all", 0, listed(tmp_path / "list.txt", lines))


def test_lists_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    for path in (tmp_path / "nowhere", tmp_path, tmp_path / "binary"):
        with pytest.raises(InputError, match="cannot read the list"):
            choose_subset([domain()], "all", 0, path)


def test_the_same_image_under_two_names_is_not_counted_twice(tmp_path: Path) -> None:
    identifier = domain().ids[5]
    path = listed(tmp_path / "list.txt", [identifier, identifier.split("/")[1]])
    with pytest.raises(InputError):
        choose_subset([domain()], "all", 0, path)


def test_a_bare_name_that_means_two_images_is_an_error(tmp_path: Path) -> None:
    twice = Domain("fog", ("cat/1.png", "dog/1.png"), np.array([0, 1]), domain().load)
    with pytest.raises(InputError):
        choose_subset([twice], "all", 0, listed(tmp_path / "list.txt", ["1.png"]))
