"""What a run counts, per domain and along the stream; interruption, traces, and the way through JSON."""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from fozo.engine.errors import InputError
from fozo.engine.model import ImageArray
from fozo.engine.records import load_record, to_dict
from fozo.engine.registry import Prediction
from fozo.engine.streams.adapter import Adapter
from fozo.eval.datasets.corruption_names import CLEAN
from fozo.eval.datasets.domain import Domain
from fozo.eval.protocol import Protocol, Setting
from fozo.eval.results import table
from fozo.eval.results.bits import Bits
from fozo.eval.results.outcome import DomainResult, MethodResult, Run, Trace
from fozo.eval.streaming.runner import TRACE_POINTS, advance, evaluate
from fozo.eval.streaming.stream import plan_segments, shuffle_order
from numpy.typing import NDArray


def domain(count: int = 100, name: str = "fog", **changes: Any) -> Domain:
    """Image i is two bytes that say i; its class is i modulo 10."""

    def load(index: int) -> NDArray[np.uint8]:
        return np.array([[[index // 256 % 256, index % 256, 0]]], np.uint8)

    return replace(Domain(name, tuple(map(str, range(count))), np.arange(count) % 10, load), **changes)


def protocol(setting: Setting = "reset", **changes: Any) -> Protocol:
    return replace(Protocol("imagenet-c", setting, (5,), "all", (2000,), 64, "all"), **changes)


@dataclass
class Counting:
    """Stands in for an adapter: predicts what the image says, wrong for some, and notes what it was shown."""

    forwards: int = 2
    wrong: Any = frozenset[int]()
    batches: list[list[int]] = field(default_factory=list)
    events: list[str] = field(default_factory=list)
    fail_at: int | None = None
    state: int = 0
    seed: int = 7
    frozen_batches: int = 0
    method: Any = None  # it looks at one view
    network: Any = field(default_factory=lambda: SimpleNamespace(info=SimpleNamespace(classes=10)))

    def step(self, images: ImageArray) -> Prediction:
        self.state += 1
        if self.fail_at == self.state:
            raise InputError("a broken image")
        index = images[:, 0, 0, 0].astype(int) * 256 + images[:, 0, 0, 1]
        self.batches.append(index.tolist())
        self.events.append(str(len(index)))
        off = np.array([i in self.wrong for i in index], int)
        logits = np.zeros((len(index), 10), np.float32)
        logits[np.arange(len(index)), (index + off) % 10] = 20
        return Prediction(logits, self.forwards, float(self.state), {"epsilon": 0.5 / self.state})

    def reset(self) -> None:
        self.events.append("reset")

    def snapshot(self) -> int:
        return self.state

    def restore(self, state: int) -> None:
        self.state = state


EVERYTHING = range(70_000)


def adapters(**named: Counting) -> dict[str, Adapter]:
    return cast("dict[str, Adapter]", named)


def new(**named: Counting) -> Run:
    return Run(2000, [], {label: Trace() for label in named})


def finished(domains: Sequence[Domain], how: Protocol, columns: Any = None, **named: Counting) -> Run:
    run = new(**named)
    stream = plan_segments(domains, how, 2000)
    images = sum(advance(run, stream, adapters(**named), how.batch_size, columns))
    assert images == run.images == sum(map(len, stream))
    assert run.complete and all(each.complete for each in run.domains)
    return run


# --- counting ---


def test_order_and_labels_belong_together() -> None:
    right, wrong = Counting(), Counting(wrong=EVERYTHING)
    (result,) = finished([domain()], protocol(batch_size=7), right=right, wrong=wrong).domains
    assert [index for batch in right.batches for index in batch] == shuffle_order(100, "fog", 2000).tolist()
    assert right.batches == wrong.batches
    assert result.methods["right"].tally.accuracy == 1
    assert result.methods["wrong"].tally.accuracy == 0
    assert (result.methods["right"].batches, result.methods["right"].forwards) == (15, 30)


@pytest.mark.parametrize(
    ("setting", "resets"), [("reset", 3), ("continual", 0), ("label_shift", 3), ("mixed", 1)]
)
def test_what_is_forgotten_when(setting: Setting, resets: int) -> None:
    counting = Counting()
    finished([domain(70, name) for name in ("fog", "snow", "frost")], protocol(setting), one=counting)
    assert counting.events.count("reset") == resets
    if setting == "reset":
        assert counting.events == ["reset", "64", "6"] * 3


def test_mixed_domains_are_counted_apart_and_share_the_cost() -> None:
    one = Counting(wrong=range(0, 1000, 2))
    parts = [domain(90, "fog"), domain(30, "snow"), domain(10, CLEAN)]
    fog, snow, clean = finished(parts, protocol("mixed"), one=one).domains
    assert [each.name for each in (fog, snow, clean)] == ["fog", "snow", "clean"]
    assert [each.methods["one"].tally.images for each in (fog, snow, clean)] == [90, 30, 10]
    assert [each.methods["one"].tally.top1 for each in (fog, snow, clean)] == [45, 15, 5]
    assert [each.segment for each in (fog, snow, clean)] == [0, 0, 1]
    batches = [each.methods["one"].batches for each in (fog, snow)]
    assert sum(batches) == pytest.approx(2)
    assert all(0 < each < 2 for each in batches)
    assert clean.methods["one"].batches == 1
    assert fog.methods["one"].forwards == pytest.approx(2 * batches[0])


def test_gained_and_lost_are_against_the_first_method() -> None:
    base, other = Counting(wrong=range(30)), Counting(wrong=range(20, 35))
    (result,) = finished([domain()], protocol(batch_size=7), base=base, other=other).domains
    assert result.count_gained_and_lost("other") == (20, 5)
    assert result.count_gained_and_lost("base") == (0, 0)
    written = result.to_dict()["methods"]
    assert [(written[label]["gained"], written[label]["lost"]) for label in written] == [(0, 0), (20, 5)]


def test_which_images_were_right_is_kept_in_the_order_of_the_stream() -> None:
    run = finished([domain()], protocol(batch_size=7), base=Counting(wrong=range(30)))
    order = shuffle_order(100, "fog", 2000)
    assert run.domains[0].methods["base"].right.array().tolist() == (order >= 30).tolist()
    text = to_dict(run)["domains"][0]["methods"]["base"]["right"]
    assert len(text) == 20  # 13 bytes hold 100 bits, and base64 takes four letters for three bytes
    assert base64.b64decode(text)[0] == sum((order[i] >= 30) << (7 - i) for i in range(8))


def test_mixed_domains_keep_apart_which_images_were_right() -> None:
    one, parts = Counting(wrong=range(0, 1000, 2)), [domain(90, "fog"), domain(30, "snow")]
    results = finished(parts, protocol("mixed"), one=one).domains
    order = shuffle_order(120, "mixed", 2000)
    for result, begin, end in zip(results, (0, 90), (90, 120), strict=True):
        here = order[(order >= begin) & (order < end)] - begin
        assert result.methods["one"].right.array().tolist() == (here % 2 == 1).tolist()


def test_a_method_that_is_a_batch_ahead_is_compared_on_what_both_have_seen() -> None:
    both = DomainResult("fog", {"base": MethodResult(), "other": MethodResult()})
    both.methods["base"].right = Bits([True, False, False])
    both.methods["other"].right = Bits([True, True, False, True, True])
    assert both.count_gained_and_lost("other") == (1, 0)
    both.methods["base"].right, both.methods["other"].right = (
        both.methods["other"].right,
        both.methods["base"].right,
    )
    assert both.count_gained_and_lost("other") == (0, 1)


@pytest.mark.parametrize("sizes", [[], [0], [1], [8], [3, 5, 8, 1], [7, 1, 0, 9, 64, 2], [1] * 20])
def test_bits_are_what_was_appended(sizes: list[int]) -> None:
    generator = np.random.default_rng(0)
    flags = [generator.random(size) < 0.5 for size in sizes]
    bits = Bits()
    for each in flags:
        bits.append(each)
    expected = [bool(flag) for each in flags for flag in each]
    assert bits.array().tolist() == expected
    assert len(bits) == sum(sizes)
    assert bits == Bits(expected) == Bits.from_json(bits.to_json(), len(expected))
    assert bits != Bits([*expected, False])


@pytest.mark.parametrize(("text", "count"), [("", 1), ("gA==", 0), ("gA==", 9), ("wA==", 1), ("*A==", 8)])
def test_bits_of_another_number_of_images_are_refused(text: str, count: int) -> None:
    assert Bits.from_json("gA==", 1) == Bits([True])
    with pytest.raises(ValueError):
        Bits.from_json(text, count)


def test_classes_of_the_data_find_their_columns() -> None:
    columns = np.full(10, -1, np.int64)
    columns[[1, 3, 5, 7, 9]] = np.arange(5)

    class Narrow(Counting):
        def step(self, images: ImageArray) -> Prediction:
            prediction = super().step(images)
            return Prediction(prediction.logits[:, 1::2], 1, 0.0, {})

    odd = domain().take([i for i in range(100) if i % 2])
    (result,) = finished([odd], protocol(batch_size=7), columns, one=Narrow()).domains
    assert result.methods["one"].tally.accuracy == 1


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


def test_any_iterable_can_be_evaluated() -> None:
    data = domain(10)
    batches = ((np.stack([data.load(i)] * 2), np.array([i % 10, (i + 1) % 10])) for i in range(10))
    run = evaluate(adapters(one=Counting()), batches)
    (result,) = run.domains
    assert (result.name, result.images, result.complete, run.complete) == ("stream", 20, True, True)
    assert result.methods["one"].tally.top1 == 10
    assert (run.seed, run.segment, run.batch, result.available_images) == (7, 1, 0, 20)
    assert result.seconds > 0


def test_a_stream_without_identifiers_is_known_by_its_images_and_labels() -> None:
    def digest(images: NDArray[np.uint8], labels: NDArray[np.int64], size: int) -> str:
        batches = [(images[i : i + size], labels[i : i + size]) for i in range(0, len(images), size)]
        return evaluate(adapters(one=Counting()), batches).domains[0].ids_sha256

    images, labels = np.arange(30, dtype=np.uint8).reshape(10, 1, 1, 3), np.arange(10)
    parts = (hashlib.sha256(each.tobytes()).hexdigest() for each in (images, labels))
    assert digest(images, labels, 3) == hashlib.sha256("\n".join(parts).encode()).hexdigest()
    assert digest(images, labels, 3) == digest(images, labels, 4)
    assert digest(images, labels, 3) == digest(images[::-1].copy()[::-1], labels.astype(np.int32), 3)
    assert digest(images, labels, 3) != digest(images, labels[::-1], 3)
    assert digest(images, labels, 3) != digest(images[::-1], labels, 3)


@pytest.mark.parametrize("labels", [[0.0, 1.0], [[0], [1]], [0], [0, 10], [0, -1], ["a", "b"], None])
def test_labels_are_checked_before_anything_is_learnt(labels: Any) -> None:
    one = Counting()
    with pytest.raises(InputError, match=r"expected (a label|labels)"):
        evaluate(adapters(one=one), [(np.zeros((2, 1, 1, 3), np.uint8), labels)])
    assert one.state == 0


def test_nothing_to_evaluate() -> None:
    with pytest.raises(InputError, match="found none"):
        evaluate(adapters(one=Counting()), [])


# --- interruption ---


def test_a_failure_keeps_what_was_seen_and_no_half_of_a_batch() -> None:
    first, second = Counting(), Counting(fail_at=3)
    run = new(first=first, second=second)
    with pytest.raises(InputError, match="broken image"):
        for _ in advance(
            run, plan_segments([domain(640)], protocol(), 0), adapters(first=first, second=second), 64
        ):
            pass
    (result,) = run.domains
    assert (run.batch, run.consistent, run.complete, result.complete) == (2, True, False, False)
    assert [part.tally.images for part in result.methods.values()] == [128, 128]
    assert (first.state, second.state) == (2, 2), "one method is a batch ahead"


@pytest.mark.parametrize("setting", ["reset", "continual", "mixed"])
@pytest.mark.parametrize("stop", [1, 2, 3, 4])
def test_a_run_continues_from_any_batch(setting: Setting, stop: int) -> None:
    parts = [domain(90, "fog"), domain(70, "snow"), domain(10, CLEAN)]
    stream = plan_segments(parts, protocol(setting), 2000)
    whole = finished(parts, protocol(setting), one=Counting(wrong=range(33)))
    one = Counting(wrong=range(33))
    run = new(one=one)
    steps = advance(run, stream, adapters(one=one), 64)
    for _ in range(stop):
        next(steps)
    again = load_record(Run, json.loads(json.dumps(to_dict(run))), "run")
    for _ in advance(again, stream, adapters(one=one), 64):
        pass
    assert timeless(again) == timeless(whole)


def timeless(run: Run) -> dict[str, Any]:
    """Return a run without what depends on the clock and the memory of the machine."""
    content = json.loads(json.dumps(to_dict(run)))
    for each in content["domains"]:
        del each["seconds"]
        for part in each["methods"].values():
            for name in ("seconds", "peak_bytes", "images_per_second"):
                del part[name]
    return cast("dict[str, Any]", content)


# --- traces ---


@pytest.mark.parametrize(
    ("images", "points"), [(64, 1), (640, 10), (64 * TRACE_POINTS, TRACE_POINTS), (6500, 34)]
)
def test_traces_have_few_points(images: int, points: int) -> None:
    run = finished([domain(images)], protocol(), one=Counting(wrong=range(100)))
    trace = run.traces["one"]
    assert len(trace.images) == len(trace.correct) == points <= TRACE_POINTS
    assert sum(trace.images) == images
    assert sum(trace.correct) == run.domains[0].methods["one"].tally.top1
    assert set(trace.values) == {"loss", "epsilon"}
    assert trace.values["loss"][-1] == math.ceil(images / 64)  # its last batch


def test_a_trace_has_gaps_where_nothing_was_said() -> None:
    trace = Trace()
    for index, said in enumerate(({}, {"agreement": 0.5}, {})):
        trace.add(Prediction(np.zeros((2, 3), np.float32), 1, None, said), np.array([True, False]), new=True)
        assert len(trace.images) == index + 1
    assert trace.values == {"agreement": [None, 0.5, None]}


# --- tables ---


def test_rows() -> None:
    run = finished(
        [domain(name="fog")],
        protocol(),
        base=Counting(wrong=range(50)),
        same=Counting(wrong=range(51)),
        worse=Counting(wrong=EVERYTHING),
    )
    row = table.format_row(run.domains[0], protocol())
    assert row.split() == ["fog", "50.0*", "49.0", "~", "0.0"]
    assert table.format_header(["base", "same"]).split()[-2:] == ["base", "same"]
    assert "(first 100 images)" in table.format_row(replace(run.domains[0], complete=False), protocol())
    assert "(100 of 50,000 official images)" in table.format_row(
        replace(run.domains[0], official_images=50_000), protocol()
    )
    assert "official" not in table.format_row(
        replace(run.domains[0], official_images=100, available_images=100), protocol()
    )


# --- unreadable images ---


def damaged(bad: Any, count: int = 100, name: str = "fog") -> Domain:
    """Return a domain of which some images cannot be read."""
    good = domain(count, name)

    def load(index: int) -> NDArray[np.uint8]:
        if index in bad:
            raise InputError(f"image {index} is damaged")
        return good.load(index)

    return replace(good, load=load)


def skipping(domains: Sequence[Domain], how: Protocol, **named: Counting) -> tuple[Run, list[int]]:
    run = new(**named)
    stream = plan_segments(domains, how, 2000)
    counts = list(advance(run, stream, adapters(**named), how.batch_size, skip_unreadable=True))
    return run, counts


def test_an_unreadable_image_stops_a_run_that_says_what_else_to_do() -> None:
    with pytest.raises(InputError, match="image 3 is damaged; --on-error skip goes on"):
        finished([damaged({3})], protocol(), one=Counting())


@pytest.mark.parametrize("setting", ["reset", "continual", "label_shift", "mixed"])
def test_a_skipped_image_moves_no_other_between_batches(setting: Setting) -> None:
    bad, how = {3, 41, 98}, protocol(setting, batch_size=7)
    whole, first, second = Counting(), Counting(), Counting(wrong=EVERYTHING)
    finished([domain(), domain(20, "snow")], how, whole=whole)
    run, counts = skipping([damaged(bad), domain(20, "snow")], how, first=first, second=second)
    assert sum(counts) == 120
    fog, snow = run.domains
    assert sorted(fog.unreadable) == ["3", "41", "98"] and snow.unreadable == []
    assert (run.images, run.skipped, run.complete) == (117, 3, True)
    for result in (fog.methods["first"], fog.methods["second"]):
        assert (result.tally.images, len(result.right)) == (97, 97)
    assert fog.methods["first"].tally.accuracy == 1
    assert first.batches == second.batches
    if setting != "mixed":  # where numbers of images of two domains would be confused
        expected = [[i for i in batch if i not in bad] for batch in whole.batches[:15]]
        assert first.batches[:15] == expected


def test_a_batch_of_unreadable_images_changes_no_method() -> None:
    order = shuffle_order(100, "fog", 2000)
    one = Counting()
    run, _ = skipping([damaged(set(order[:14].tolist()))], protocol(batch_size=7), one=one)
    (fog,) = run.domains
    assert len(one.batches) == fog.methods["one"].batches == 13
    assert fog.unreadable == [str(index) for index in order[:14]]
    assert sum(run.traces["one"].images) == 86


@pytest.mark.parametrize("again", [False, True])
def test_a_domain_of_unreadable_images_is_an_error_and_not_an_accuracy_of_0(again: bool) -> None:
    one, how = Counting(), protocol(batch_size=7)
    run, stream = new(one=one), plan_segments([damaged(EVERYTHING, 10)], how, 2000)
    for _ in range(1 + again):  # continued, it fails again instead of going on for ever
        with pytest.raises(InputError, match="no image of fog can be read, the first being"):
            list(advance(run, stream, adapters(one=one), 7, skip_unreadable=True))


def test_a_run_that_skips_continues_from_any_batch() -> None:
    bad, how = {3, 41, 98}, protocol(batch_size=7)
    expected, _ = skipping([damaged(bad)], how, one=Counting())
    for stop in range(1, 15):
        one = Counting()
        run, stream = new(one=one), plan_segments([damaged(bad)], how, 2000)
        for _, _ in zip(
            range(stop), advance(run, stream, adapters(one=one), 7, skip_unreadable=True), strict=False
        ):
            pass
        saved = load_record(Run, json.loads(json.dumps(to_dict(run))), "run")
        list(advance(saved, stream, adapters(one=one), 7, skip_unreadable=True))
        assert saved.domains[0].unreadable == expected.domains[0].unreadable
        assert saved.domains[0].methods["one"].right == expected.domains[0].methods["one"].right


def test_rows_count_skipped_images() -> None:
    run, _ = skipping([damaged({3, 41})], protocol(), one=Counting())
    assert table.format_row(run.domains[0], protocol()).endswith("  (2 unreadable)")
