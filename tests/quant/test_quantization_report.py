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
from fozo.quant.settings import Bits  # noqa: E402


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


@pytest.mark.parametrize(
    ("bits", "loss", "agreement"),
    [((8, 8), 1, 95), ((7, 8), 2, 90), ((8, 6), 5, 80), ((5, 5), 15, 60), ((4, 8), 50, 25), ((3, 3), 75, 5)],
)
def test_fewer_bits_may_lose_more(bits: tuple[int, int], loss: float, agreement: float) -> None:
    few = Bits(*bits)
    good = make_report(accuracy=80.0 - loss, reference_accuracy=80.0, bits=few)
    assert list_refusals(good) == ()
    (reason,) = list_refusals(make_report(accuracy=79.5 - loss, reference_accuracy=80.0, bits=few))
    assert f"{79.5 - loss:.2f} % in {few.name}); {loss:.1f} is allowed" in reason
    assert list_refusals(make_report(agreement=agreement, bits=few)) == ()
    (reason,) = list_refusals(make_report(agreement=agreement - 0.5, bits=few))
    assert f"{agreement} % is asked for" in reason
    text = describe_report(good)
    assert text.startswith(f"{few.name} against fp32")
    assert ("registers of 8 bits" in text) == (bits != (8, 8))


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
