"""Which images arrive, in which order, in which batches, and what is forgotten when."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from fozo.engine.adapter import Adapter
from fozo.engine.errors import InputError
from fozo.engine.methods import Prediction
from fozo.engine.model import ImageArray
from fozo.eval import results, table
from fozo.eval.domains import Domain
from fozo.eval.protocol import Protocol, Setting, choose_subset, shuffled
from fozo.eval.runner import DomainResult, run
from numpy.typing import NDArray

PINNED = [5, 8, 7, 1, 0, 6, 3, 9, 4, 2]


def domain(count: int = 100, name: str = "fog", classes: int = 10) -> Domain:
    """Image i is two bytes that say i; its class is i modulo 10."""
    ids = tuple(f"n{i % classes:08d}/img_{i:08d}.JPEG" for i in range(count))

    def load(index: int) -> NDArray[np.uint8]:
        return np.array([[[index // 256 % 256, index % 256, 0]]], np.uint8)

    return Domain(name, ids, np.arange(count) % classes, load)


def protocol(setting: Setting = "reset", batch_size: int = 64, seed: int = 2000) -> Protocol:
    return Protocol("imagenet-c", setting, 5, "all", seed, batch_size, "all")


# --- order ---


@pytest.mark.parametrize("count", [1, 2, 17, 5000])
def test_order_is_a_fixed_permutation(count: int) -> None:
    order = shuffled(domain(count), 2000)
    assert sorted(order.tolist()) == list(range(count))
    np.testing.assert_array_equal(order, shuffled(domain(count), 2000))


def test_order_depends_on_seed_and_name_only() -> None:
    base = shuffled(domain(), 2000).tolist()
    assert base != shuffled(domain(), 2001).tolist()
    assert base != shuffled(domain(name="snow"), 2000).tolist()
    assert base == shuffled(domain(classes=3), 2000).tolist()
    assert base != list(range(100))


def test_order_is_pinned() -> None:
    """Published results must stay repeatable: this must not change between versions."""
    assert shuffled(domain(10), 2000).tolist() == PINNED
    assert len({tuple(shuffled(domain(10), seed)) for seed in range(50)}) == 50


def test_the_callers_random_state_is_left_alone() -> None:
    np.random.seed(3)
    expected = np.random.random(4)
    np.random.seed(3)
    shuffled(domain(), 1)
    choose_subset([domain()], "10", 1)
    assert np.random.random(4).tolist() == expected.tolist()


# --- subsets ---


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
    assert again.ids_sha256() == fog.ids_sha256() != other.ids_sha256()


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


# --- the runner ---


@dataclass
class Counting:
    """Stands in for an adapter: always predicts what the image says, and notes what it was shown."""

    forwards: int = 2
    wrong: bool = False
    batches: list[list[int]] = field(default_factory=list)
    events: list[str] = field(default_factory=list)
    fail_at: int | None = None

    def step(self, images: ImageArray) -> Prediction:
        index = images[:, 0, 0, 0].astype(int) * 256 + images[:, 0, 0, 1]
        self.batches.append(index.tolist())
        self.events.append(str(len(index)))
        if self.fail_at == len(self.batches):
            raise InputError("a broken image")
        logits = np.zeros((len(index), 10), np.float32)
        logits[np.arange(len(index)), (index + self.wrong) % 10] = 20
        return Prediction(logits, self.forwards, 0.0, {})

    def reset(self) -> None:
        self.events.append("reset")


def adapters(**named: Counting) -> dict[str, Adapter]:
    return cast("dict[str, Adapter]", named)


def finished(domains: list[Domain], how: Protocol, **named: Counting) -> list[DomainResult]:
    return [result for result in run(domains, adapters(**named), how) if result.complete]


@pytest.mark.parametrize(
    ("images", "batches", "last"), [(5000, 79, 8), (50_000, 782, 16), (64, 1, 64), (65, 2, 1), (3, 1, 3)]
)
def test_number_of_batches(images: int, batches: int, last: int) -> None:
    counting = Counting()
    (result,) = finished([domain(images)], protocol(), one=counting)
    assert [len(batch) for batch in counting.batches] == [64] * (batches - 1) + [last]
    part = result.methods["one"]
    assert (part.batches, part.forwards) == (batches, 2 * batches)
    assert (part.tally.images, part.tally.top1) == (images, images)


def test_order_and_labels_belong_together() -> None:
    counting, wrong = Counting(), Counting(wrong=True)
    (result,) = finished([domain()], protocol(batch_size=7), right=counting, wrong=wrong)
    seen = [index for batch in counting.batches for index in batch]
    assert seen == shuffled(domain(), 2000).tolist()
    assert counting.batches == wrong.batches
    assert result.methods["right"].tally.accuracy == 1
    assert result.methods["wrong"].tally.accuracy == 0


@pytest.mark.parametrize(("setting", "resets"), [("reset", 3), ("continual", 0)])
def test_what_is_forgotten_when(setting: Setting, resets: int) -> None:
    counting = Counting()
    finished([domain(70, name) for name in ("fog", "snow", "frost")], protocol(setting), one=counting)
    assert counting.events.count("reset") == resets
    expected = (["reset"] if setting == "reset" else []) + ["64", "6"]
    assert counting.events == expected * 3


def test_results_come_at_the_beginning_and_at_the_end() -> None:
    counting, seen = Counting(), []
    for result in run([domain(130), domain(5, "snow")], adapters(one=counting), protocol()):
        seen.append((result.domain.name, result.complete, result.methods["one"].tally.images))
    assert seen == [("fog", False, 0), ("fog", True, 130), ("snow", False, 0), ("snow", True, 5)]


def test_a_failure_keeps_what_was_seen() -> None:
    counting, kept = Counting(fail_at=3), []
    advanced: list[int] = []
    with pytest.raises(InputError, match="broken image"):
        for result in run(
            [domain(640)], adapters(one=counting), protocol(), on_batch=lambda n: advanced.append(n)
        ):
            kept.append(result)
    (result,) = kept
    assert not result.complete
    assert result.methods["one"].tally.images == 128
    assert advanced == [64, 64]


def test_classes_of_the_data_find_their_columns() -> None:
    odd = domain().take([i for i in range(100) if i % 2])
    columns = np.full(10, -1, np.int64)
    columns[[1, 3, 5, 7, 9]] = np.arange(5)

    class Narrow(Counting):
        def step(self, images: ImageArray) -> Prediction:
            prediction = super().step(images)
            return Prediction(prediction.logits[:, 1::2], 1, 0.0, {})

    (result,) = [
        r for r in run([odd], adapters(one=Narrow()), protocol(batch_size=7), columns=columns) if r.complete
    ]
    assert result.methods["one"].tally.accuracy == 1


# --- averages and tables ---


def test_averages_are_unweighted_over_domains() -> None:
    big, small = domain(640), domain(10, "snow")
    right = Counting()
    parts = finished([big], protocol(), a=right) + finished([small], protocol(), a=Counting(wrong=True))
    found = results.average(parts)["a"]
    assert found["accuracy"] == 0.5
    assert found["forwards_per_batch"] == 2
    assert found["top5_accuracy"] == pytest.approx((1 + parts[1].methods["a"].tally.top5_accuracy) / 2)
    assert results.average([]) == {}


def test_table() -> None:
    parts = finished([domain()], protocol(), right=Counting(), wrong=Counting(wrong=True, forwards=3))
    assert "100.0*" in table.row(parts[0])
    assert "0.0" in table.row(parts[0])
    assert "first" not in table.row(parts[0])
    summary = table.summary(parts)
    assert len(summary.splitlines()) == 3
    assert "100.00" in summary
    assert table.header(["right", "wrong"]).split()[-2:] == ["right", "wrong"]


def test_protocol_describes_itself() -> None:
    text = protocol("continual").describe()
    for word in ("imagenet-c", "severity 5", "continual", "all", "64", "2000"):
        assert word in text
    unnamed: Any = Protocol("imagefolder", "reset", None, "30-seeded", 1, 2, "present").describe()
    assert "severity" not in unnamed
    assert "30-seeded" in unnamed


def test_each_method_is_first_in_its_turn() -> None:
    order: list[str] = []

    class Noting(Counting):
        def __init__(self, name: str) -> None:
            super().__init__()
            self.name = name

        def step(self, images: Any) -> Any:
            order.append(self.name)
            return super().step(images)

    named = {name: Noting(name) for name in ("a", "b", "c")}
    finished([domain(5)], protocol(batch_size=1), **named)
    assert "".join(order) == "abc" + "bca" + "cab" + "abc" + "bca"
