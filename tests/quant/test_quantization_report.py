"""Reports of quantisations, and the reasons to refuse a graph."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from typing import Any

import pytest

onnx = pytest.importorskip("onnx", reason="quantisation reads and writes graphs with onnx")

from fozo.quant.graph_comparison import Comparison  # noqa: E402
from fozo.quant.quantization_report import Report, describe_report, list_refusals  # noqa: E402
from fozo.quant.settings import Bits, parse_bits  # noqa: E402


def make_report(**changes: Any) -> Report:
    found = Comparison(400, 99.0, None, None, 0.999, 0.999, 30.0, 0.1, 1000)
    fields = {name: changes.pop(name) for name in list(changes) if hasattr(found, name)}
    good = Report(replace(found, **fields), 22, 22, (), {}, (1.0, 4.0), 5.0, 1.5, 8, "Some CPU")
    return replace(good, **changes)


LABELLED = {"accuracy": 75.0, "reference_accuracy": 76.0}
# Labels of other classes than the model's: 2 of 400 images are right by accident.
MISLABELLED = {"accuracy": 0.5, "reference_accuracy": 0.5}


@pytest.mark.parametrize(
    ("changes", "reasons"),
    [
        ({}, []),
        (LABELLED, []),  # one point is allowed
        ({**LABELLED, "agreement": 80.0}, []),  # labels count more
        ({**LABELLED, "accuracy": 80.0}, []),
        (
            {**LABELLED, "accuracy": 74.9},
            [r"loses 1\.10 points .* 400 held-out .*76\.00 % in fp32, 74\.90 %"],
        ),
        (MISLABELLED, []),
        (
            {**MISLABELLED, "agreement": 89.0},
            [r"agrees .* 89\.0 % .*not the model's .*0\.50 %.* guessing 0\.10 %"],
        ),
        ({"accuracy": 47.0, "reference_accuracy": 50.0, "classes": 2}, []),  # the loss is noise
        ({"accuracy": 47.0, "reference_accuracy": 50.0, "classes": 10}, ["loses 3"]),
        ({"agreement": 95.0}, []),
        ({"agreement": 94.9}, [r"agrees with fp32 on 94\.9 % of 400.*95 %"]),
        ({"integer": 21}, ["computes 21 of its 22"]),
        ({"speedup": 1.0}, []),
        ({"speedup": 0.93}, [r"slower than fp32 .*0\.93 times"]),
        ({"accuracy": 53.0, "reference_accuracy": 54.0, "classes": 2}, []),  # one point, though near guessing
        ({"speedup": 0.5, "integer": 0, "agreement": 10.0}, ["agrees", "computes 0", "slower"]),
        ({"cosine_features": math.nan, "cosine_logits": math.nan}, ["finite|nan"]),
    ],
)
def test_reasons_to_refuse(changes: dict[str, Any], reasons: list[str]) -> None:
    report = make_report(**changes)
    found = tuple(list_refusals(report))
    assert len(found) == len(reasons)
    for pattern, reason in zip(reasons, found, strict=True):
        assert re.search(pattern, reason), reason
    text = describe_report(replace(report, refusals=found))
    assert all(reason in text for reason in found)


ALL_BITS = [Bits(), Bits(7, 8), Bits(8, 6), Bits(5, 5), Bits(4, 8), Bits(4, 4), Bits(3, 3), parse_bits("w4")]


@pytest.mark.parametrize("bits", ALL_BITS, ids=lambda bits: bits.name)
@pytest.mark.parametrize("classes", [2, 10, 1000])
@pytest.mark.parametrize("reference", [None, 60.0, 72.0, 95.0])
def test_broken_graphs_are_refused_at_any_bits(bits: Bits, classes: int, reference: float | None) -> None:
    """A graph that predicts at random: with labels, without, and with those of other classes."""
    guessing = 100 / classes
    broken = make_report(
        **{"accuracy": None if reference is None else guessing, "reference_accuracy": reference},
        **{"agreement": guessing, "classes": classes, "bits": bits},
    )
    reasons = list_refusals(broken)
    assert any("it agrees with fp32 on" in reason for reason in reasons)
    assert any("points of top-1 accuracy" in reason for reason in reasons) == (reference is not None)
    mislabelled = make_report(
        accuracy=guessing, reference_accuracy=guessing, agreement=guessing, classes=classes, bits=bits
    )
    assert any("whose labels are probably not" in reason for reason in list_refusals(mislabelled))


@pytest.mark.parametrize("bits", ALL_BITS, ids=lambda bits: bits.name)
def test_one_sign_of_a_broken_graph_is_enough(bits: Bits) -> None:
    """Accuracy and agreement are looked at separately, since one alone may look good by accident."""
    (reason,) = list_refusals(make_report(accuracy=0.1, reference_accuracy=40.0, bits=bits))
    assert reason.startswith("it loses 39.90 points")
    (reason,) = list_refusals(make_report(**LABELLED, agreement=4.0, bits=bits))
    assert reason.startswith("it agrees with fp32 on 4.0 % of 400 held-out images; ")


@pytest.mark.parametrize(
    ("bits", "reference", "accuracy", "agreement"),
    [
        ("w4a4", 82.81, 51.95, 54.3),
        ("w4a8", 82.81, 80.27, 87.7),
        ("w6a6", 82.81, 82.03, 91.41),
        ("w4", 83.0, 82.5, 94),
    ],
)
def test_graphs_of_a_real_network_pass(
    bits: str, reference: float, accuracy: float, agreement: float
) -> None:
    """Figures of ViT-Tiny on clean images."""
    fields = {"agreement": agreement, "bits": parse_bits(bits)}
    report = make_report(accuracy=accuracy, reference_accuracy=reference, **fields)
    assert list_refusals(report) == list_refusals(make_report(**fields)) == ()
    assert f"{reference:.2f} % → {accuracy:.2f} % ({accuracy - reference:.2f})" in describe_report(report)


def test_weights_of_4_bits_alone_may_lose_little() -> None:
    w4 = parse_bits("w4")
    assert list_refusals(make_report(accuracy=77.1, reference_accuracy=80.0, bits=w4)) == ()
    (reason,) = list_refusals(make_report(accuracy=76.0, reference_accuracy=80.0, bits=w4))
    assert "76.00 % in w4); 3.0 is allowed" in reason
    assert len(list_refusals(make_report(agreement=80.0, bits=w4))) == 1


@pytest.mark.parametrize(
    ("bits", "reference", "lowest"),
    [
        (Bits(), 80.0, 79.0),
        (Bits(8, 6), 80.0, 75.0),
        (Bits(5, 5), 80.0, 65.0),
        (Bits(5, 5), 20.0, 10.05),  # half of what 0.1 % by guessing leaves
        (Bits(4, 4), 80.0, 40.05),
        (Bits(3, 3), 80.0, 8.09),
        (Bits(3, 3), 10.0, 2.82),  # as much may be guessed of 400 images among 1000 classes
    ],
)
def test_lowest_accuracy(bits: Bits, reference: float, lowest: float) -> None:
    for accuracy, refused in ((lowest + 0.01, False), (lowest - 0.01, True)):
        report = make_report(accuracy=accuracy, reference_accuracy=reference, bits=bits)
        assert bool(list_refusals(report)) == refused, accuracy


def test_fewer_bits_may_differ_more() -> None:
    lowest = []
    for count in range(8, 2, -1):
        bits = Bits(count, 8)
        passing = [n for n in range(101) if not list_refusals(make_report(agreement=float(n), bits=bits))]
        lowest.append(passing[0])
        assert passing == list(range(passing[0], 101))
    assert lowest == sorted(lowest, reverse=True) and lowest[0] == 95 and lowest[-1] == 10


def test_what_few_bits_leave_in_float() -> None:
    assert "attention mix and classifier, as in int8" in describe_report(make_report(bits=Bits(6, 6)))
    assert "attention mix" not in describe_report(make_report())
    residual = make_report(bits=Bits(6, 6), always_float="batch norms, sums and classifier")
    assert "float     batch norms, sums and classifier" in describe_report(residual)
    assert "registers of 8 bits" in describe_report(residual)


def test_a_report_for_people() -> None:
    text = describe_report(
        make_report(**LABELLED, float_layers=("blocks.7.mlp.fc2",), outlier_layers={"a": 2, "b": 5})
    )
    for part in ("76.00 % → 75.00 %", "4.0 MB → 1.0 MB", "1.50 times", "22 of 22", "8-bit", "Some CPU"):
        assert part in text
    assert "up to 5 channels of 2 layers" in text
    assert "blocks.7.mlp.fc2" in text
    assert "top-1" not in describe_report(make_report())


def test_labels_no_better_than_guessing_are_said() -> None:
    assert "  labels    probably not the model's" in describe_report(make_report(**MISLABELLED))
    assert "  labels" not in describe_report(make_report(**LABELLED))
    assert "  labels" not in describe_report(make_report())
