"""Records from JSON data: what is accepted, and errors that name file, field, expectation and value."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
from fozo.engine.records import RecordError, load_record, to_dict


@dataclass(frozen=True)
class Point:
    x: float
    y: float = 0.0

    def __post_init__(self) -> None:
        if self.x < 0:
            raise ValueError(f"x must be at least 0, found {self.x}")


@dataclass(frozen=True)
class Shape:
    name: str
    corners: tuple[Point, ...]
    size: tuple[int, int]
    color: Literal["red", "blue", 3]
    closed: bool = True
    center: Point | None = None
    labels: Mapping[str, Point] = field(default_factory=dict)
    weights: list[float] = field(default_factory=list)
    axes: Sequence[str | int] = ()
    notes: Any = None


PLAIN: dict[str, Any] = {"name": "line", "corners": [], "size": [3, 4], "color": "red"}


def load(**changes: Any) -> Shape:
    return load_record(Shape, {**PLAIN, **changes}, Path("shapes.json"))


def test_defaults_and_types() -> None:
    assert load() == Shape("line", (), (3, 4), "red")
    shape = load(corners=[{"x": 1}], weights=[1, 2.5], axes=["N", 3], labels={"a": {"x": 0.5, "y": 2}})
    assert shape.corners == (Point(1.0),)
    assert type(shape.corners[0].x) is float
    assert shape.weights == [1.0, 2.5] and all(type(weight) is float for weight in shape.weights)
    assert shape.axes == ("N", 3)
    assert shape.labels == {"a": Point(0.5, 2.0)}
    assert load(center=None).center is None
    assert load(center={"x": 2}).center == Point(2.0)


def test_integers_that_no_float_can_hold_are_refused() -> None:
    """They would fail later, where a rate or a size is computed from them."""
    assert load(size=[3, 2**63]).size == (3, 2**63)
    with pytest.raises(RecordError, match=r"size\[1\]: expected an integer, found 1000"):
        load(size=[3, 10**400])


@pytest.mark.parametrize("notes", [None, 3, "text", [1, {"a": None}], {"nested": {"ü": True}}])
def test_round_trip(notes: object) -> None:
    shape = load(
        corners=[{"x": 1.5}], center={"x": 2}, labels={"a": {"x": 0}}, notes=notes, axes=["R", 1], color=3
    )
    data = to_dict(shape)
    assert json.loads(json.dumps(data)) == data
    assert load_record(Shape, data, "again") == shape
    assert list(data) == [
        "name",
        "corners",
        "size",
        "color",
        "closed",
        "center",
        "labels",
        "weights",
        "axes",
        "notes",
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": 3}, "name: expected a text, found 3"),
        ({"name": None}, "name: expected a text, found None"),
        ({"size": [3, 4, 5]}, "size: expected a list of 2, found [3, 4, 5]"),
        ({"size": [3, "4"]}, "size[1]: expected an integer, found '4'"),
        ({"size": [3, 4.0]}, "size[1]: expected an integer, found 4.0"),
        ({"size": [3, True]}, "size[1]: expected an integer, found True"),
        ({"size": "34"}, "size: expected a list, found '34'"),
        ({"color": "green"}, "color: expected 'red' or 'blue' or 3, found 'green'"),
        ({"color": 3.0}, "color: expected 'red' or 'blue' or 3, found 3.0"),
        ({"closed": 1}, "closed: expected true or false, found 1"),
        ({"center": 5}, "center: expected an object, found 5"),
        ({"center": {"y": 1}}, "center.x: expected a finite number, found nothing"),
        ({"corners": [{"x": 1}, {"x": "1"}]}, "corners[1].x: expected a finite number, found '1'"),
        ({"corners": [{"x": True}]}, "corners[0].x: expected a finite number, found True"),
        ({"corners": {"x": 1}}, "corners: expected a list, found {'x': 1}"),
        ({"labels": {"a": {"x": 1, "z": 2}}}, "labels.a.z: expected no such field, found 2"),
        ({"labels": []}, "labels: expected an object, found []"),
        ({"labels": {3: {"x": 1}}}, "labels: expected a text, found 3"),
        ({"weights": [1, math.nan]}, "weights[1]: expected a finite number, found nan"),
        ({"weights": [-math.inf]}, "weights[0]: expected a finite number, found -inf"),
        ({"weights": None}, "weights: expected a list, found None"),
        ({"axes": ["N", None]}, "axes[1]: expected a text or an integer, found None"),
        ({"axes": ["N", True]}, "axes[1]: expected a text or an integer, found True"),
        ({"surprise": 1}, "surprise: expected no such field, found 1"),
        ({"center": {"x": -1}}, "center: x must be at least 0, found -1.0"),
    ],
)
def test_refusals_name_the_field(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(RecordError) as caught:
        load(**changes)
    assert str(caught.value) == f"shapes.json: {message}"


@pytest.mark.parametrize("name", PLAIN)
def test_missing_fields(name: str) -> None:
    data = {key: value for key, value in PLAIN.items() if key != name}
    with pytest.raises(RecordError, match=rf"^shapes\.json: {name}: expected .*, found nothing$"):
        load_record(Shape, data, "shapes.json")


@pytest.mark.parametrize("value", [None, [], "text", 3, True])
def test_data_that_are_no_object(value: object) -> None:
    with pytest.raises(RecordError, match=r"^shapes\.json: expected an object, found"):
        load_record(Shape, value, "shapes.json")


def test_an_integer_beyond_any_float_and_a_long_value() -> None:
    with pytest.raises(RecordError, match="expected a finite number"):
        load(weights=[10**400])
    with pytest.raises(RecordError) as caught:
        load(name=["x" * 1000] * 1000)
    assert len(str(caught.value)) < 400


def test_other_errors_of_a_record_pass_through() -> None:
    class OtherError(Exception):
        pass

    @dataclass(frozen=True)
    class Strict:
        value: int

        def __post_init__(self) -> None:
            raise OtherError("no")

    with pytest.raises(OtherError):
        load_record(Strict, {"value": 1}, "here")


def test_only_records_are_written() -> None:
    for value in (Point, 3, {"x": 1}):
        with pytest.raises(TypeError, match="instance of a dataclass"):
            to_dict(value)


@dataclass(frozen=True)
class Inputs:
    folder: Path
    labels: Path | None = None


def test_paths_are_texts_in_the_data() -> None:
    inputs = Inputs(Path("data") / "clean")
    assert to_dict(inputs) == {"folder": str(Path("data") / "clean"), "labels": None}
    assert load_record(Inputs, to_dict(inputs), "job") == inputs
    assert load_record(Inputs, {"folder": "a", "labels": "b"}, "job") == Inputs(Path("a"), Path("b"))
    with pytest.raises(RecordError, match=r"job: folder: expected a path, found 3"):
        load_record(Inputs, {"folder": 3}, "job")


@dataclass(frozen=True)
class Celsius:
    degrees: float


@dataclass
class Temperature:
    """A value that is stored in another form than it has in memory."""

    kelvin: float

    def to_dict(self) -> dict[str, Any]:
        return to_dict(Celsius(self.kelvin - 273))

    @classmethod
    def from_record(cls, record: Celsius) -> Temperature:
        if record.degrees < -273:
            raise ValueError(f"expected at least -273 degrees, found {record.degrees}")
        return cls(record.degrees + 273)


@dataclass(frozen=True)
class Weather:
    days: list[Temperature]


def test_a_class_may_have_another_form_in_data() -> None:
    weather = Weather([Temperature(273.0), Temperature(300.0)])
    data = {"days": [{"degrees": 0.0}, {"degrees": 27.0}]}
    assert to_dict(weather) == data
    assert load_record(Weather, data, "here") == weather
    assert load_record(Temperature, data["days"][1], "here") == Temperature(300.0)
    for value, message in (
        ({"kelvin": 1.0}, r"here: days\[1\]\.kelvin: expected no such field, found 1\.0"),
        ({"degrees": -300}, r"here: days\[1\]: expected at least -273 degrees, found -300\.0"),
    ):
        with pytest.raises(RecordError, match=message):
            load_record(Weather, {"days": [{"degrees": 0}, value]}, "here")
