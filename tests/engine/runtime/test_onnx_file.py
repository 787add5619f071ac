"""What is refused before ONNX Runtime sees a graph, wherever in the file it is."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from fozo.engine.bundle.bundle import Bundle
from fozo.engine.errors import BundleError
from fozo.engine.model import ModelInfo
from fozo.engine.runtime import onnx_file
from fozo.engine.runtime.network import Network
from fozo.engine.runtime.onnx_file import check_graph_file
from onnx import TensorProto, helper, numpy_helper

OPSET = helper.make_opsetid("", 20)


def tensor(name: str = "weights") -> TensorProto:
    return numpy_helper.from_array(np.arange(3, dtype=np.float32), name)


def external(name: str = "weights") -> TensorProto:
    """As `onnx.save(save_as_external_data=True)` writes it."""
    made = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[3])
    made.data_location = TensorProto.EXTERNAL
    made.external_data.add(key="location", value="/etc/passwd")
    return made


def entry_only(name: str = "weights") -> TensorProto:
    made = tensor(name)
    made.external_data.add(key="location", value="/etc/passwd")
    return made


def location_only(name: str = "weights") -> TensorProto:
    made = tensor(name)
    made.data_location = TensorProto.EXTERNAL
    return made


def sparse(values: TensorProto, indices: TensorProto | None = None) -> Any:
    made = indices or numpy_helper.from_array(np.arange(3), "indices")
    return helper.make_sparse_tensor(values, made, [10])


def graph(*nodes: Any, **options: Any) -> Any:
    """`y = x + weights`, and whatever a test puts into it."""
    value = helper.make_tensor_value_info
    made = helper.make_graph(
        [*nodes, helper.make_node("Add", ["x", "weights"], ["y"])],
        "test",
        [value("x", TensorProto.FLOAT, [3])],
        [value("y", TensorProto.FLOAT, [3])],
        options.pop("initializer", [tensor()]),
    )
    for name, values in options.items():
        getattr(made, name).extend(values)
    return made


def model(made: Any = None, **options: Any) -> Any:
    return helper.make_model(made or graph(), opset_imports=options.pop("opsets", [OPSET]), **options)


def branch(node: Any) -> Any:
    """Return an `If` that has a node in one of its branches."""
    inner = helper.make_graph(
        [node], "then", [], [helper.make_tensor_value_info("a", TensorProto.FLOAT, [3])]
    )
    return helper.make_node("If", ["x"], ["b"], then_branch=inner, else_branch=inner)


def constant(value: TensorProto) -> Any:
    return helper.make_node("Constant", [], ["a"], value=value)


def several(*values: TensorProto) -> Any:
    node = helper.make_node("Constant", [], ["a"])
    node.attribute.append(helper.make_attribute("many", list(values)))
    return node


def function(node: Any, domain: str = "", opsets: Any = (OPSET,)) -> Any:
    return helper.make_function(domain, "Twice", ["x"], ["a"], [node], list(opsets))


def function_default(value: TensorProto) -> Any:
    made = function(constant(tensor()))
    made.attribute_proto.append(helper.make_attribute("value", value))
    return made


def training(made: Any) -> Any:
    whole = model()
    whole.training_info.add().algorithm.CopyFrom(made)
    return whole


def save(content: Any, path: Path) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.SerializeToString())
    return path


PLACES: dict[str, Callable[[TensorProto], Any]] = {
    "initializer": lambda t: model(graph(initializer=[tensor("other"), t])),
    "sparse values": lambda t: model(graph(sparse_initializer=[sparse(t)])),
    "sparse indices": lambda t: model(graph(sparse_initializer=[sparse(tensor(), t)])),
    "attribute": lambda t: model(graph(constant(t))),
    "attribute of several": lambda t: model(graph(several(tensor(), t))),
    "sparse attribute": lambda t: model(
        graph(helper.make_node("Constant", [], ["a"], sparse_value=sparse(t)))
    ),
    "branch": lambda t: model(graph(branch(constant(t)))),
    "training": lambda t: training(graph(constant(t))),
}
# Refused whatever is in them.
REFUSED_PLACES: dict[str, Callable[[TensorProto], Any]] = {
    "branch in a branch": lambda t: model(graph(branch(branch(constant(t))))),
    "function": lambda t: model(functions=[function(constant(t))]),
    "default of a function": lambda t: model(functions=[function_default(t)]),
    "branch in a function": lambda t: model(functions=[function(branch(constant(t)))]),
}


@pytest.mark.parametrize("kind", [external, entry_only, location_only])
@pytest.mark.parametrize("place", [*PLACES, *REFUSED_PLACES])
def test_values_in_other_files(place: str, kind: Callable[..., TensorProto], tmp_path: Path) -> None:
    make = {**PLACES, **REFUSED_PLACES}[place]
    if place in PLACES:
        check_graph_file(save(make(tensor("elsewhere")), tmp_path / "fine.onnx"))
    with pytest.raises(BundleError, match=r"m\.onnx: the tensor 'elsewhere' keeps .* another file.*export"):
        check_graph_file(save(make(kind("elsewhere")), tmp_path / "m.onnx"))


@pytest.mark.parametrize("place", REFUSED_PLACES)
def test_functions_and_nested_choices(place: str, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"without functions, found 'Twice'|'If' has a graph of its own"):
        check_graph_file(save(REFUSED_PLACES[place](tensor()), tmp_path / "m.onnx"))


def loop(steps: int) -> Any:
    """Return a loop that does nothing so many times."""
    value = helper.make_tensor_value_info
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"])],
        "body",
        [value("step", TensorProto.INT64, []), value("go", TensorProto.BOOL, [])],
        [value("on", TensorProto.BOOL, [])],
    )
    count = helper.make_node("Constant", [], ["steps"], value_int=steps)
    return [count, helper.make_node("Loop", ["steps", ""], [], body=body)]


def test_a_loop_of_2_to_the_62_steps_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"operator 'Loop' has a graph of its own.*may run without end"):
        check_graph_file(save(model(graph(*loop(2**62))), tmp_path / "m.onnx"))


@pytest.mark.parametrize("name", ["Scan", "SequenceMap", "BeamSearch", "Sampling", ""])
def test_other_operators_that_repeat_a_graph(name: str, tmp_path: Path) -> None:
    node = branch(constant(tensor()))
    node.op_type = name
    with pytest.raises(BundleError, match="has a graph of its own"):
        check_graph_file(save(model(graph(node)), tmp_path / "m.onnx"))


def test_two_choices_in_the_main_graph_are_those_of_residual_networks(tmp_path: Path) -> None:
    node = branch(constant(tensor()))
    check_graph_file(save(model(graph(node, node)), tmp_path / "m.onnx"))


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "m.onnx")
    with pytest.raises(BundleError, match="a pipe or a device, expected a file"):
        check_graph_file(tmp_path / "m.onnx")


def foreign(domain: str) -> Any:
    return helper.make_node("Strange", ["x"], ["a"], domain=domain)


DOMAINS: dict[str, Callable[[str], Any]] = {
    "operator": lambda d: model(graph(foreign(d))),
    "operator in a branch": lambda d: model(graph(branch(foreign(d)))),
    "operator in a function": lambda d: model(functions=[function(foreign(d))]),
    "import": lambda d: model(opsets=[OPSET, helper.make_opsetid(d, 1)]),
    "import of a function": lambda d: model(
        functions=[function(constant(tensor()), opsets=[OPSET, helper.make_opsetid(d, 1)])]
    ),
    "function": lambda d: model(functions=[function(constant(tensor()), domain=d)]),
}


@pytest.mark.parametrize("domain", ["my.ops", "ai.onnx.ml", "com.microsoft.extensions", "x" * 5000, "é"])
@pytest.mark.parametrize("place", DOMAINS)
def test_foreign_operators(place: str, domain: str, tmp_path: Path) -> None:
    with pytest.raises(
        BundleError, match=r"of the domain .*expected ONNX's own .*export the model again"
    ) as caught:
        check_graph_file(save(DOMAINS[place](domain), tmp_path / "m.onnx"))
    assert len(str(caught.value)) < 1000
    if place.startswith("operator"):
        assert "'Strange'" in str(caught.value)


@pytest.mark.parametrize("domain", ["", "ai.onnx", "com.microsoft"])
@pytest.mark.parametrize("place", [place for place in DOMAINS if "function" not in place])
def test_known_operators(place: str, domain: str, tmp_path: Path) -> None:
    check_graph_file(save(DOMAINS[place](domain), tmp_path / "m.onnx"))


def test_programs_for_one_device(tmp_path: Path) -> None:
    node = helper.make_node("EPContext", ["x"], ["a"], domain="com.microsoft", ep_cache_context="/etc/passwd")
    with pytest.raises(BundleError, match="'EPContext'"):
        check_graph_file(save(model(graph(node)), tmp_path / "m.onnx"))


def test_what_is_exported_is_accepted(bundle_paths: dict[int, Path]) -> None:
    for path in bundle_paths.values():
        check_graph_file(path / "model.onnx")


def test_every_attribute_of_onnx_is_accepted(tmp_path: Path) -> None:
    node = helper.make_node(
        "Add", ["x"], ["a"], f=1.5, i=-1, s="s", fs=[1.5, 2.0], ints=[-1, 2**62], strings=["a", "b"]
    )
    made = model(graph(node), doc_string="two\nlines", producer_name="é")
    made.metadata_props.add(key="k", value="v")
    check_graph_file(save(made, tmp_path / "m.onnx"))


def test_network_asks_first(bundle_path: Path, tmp_path: Path) -> None:
    made = onnx.load(bundle_path / "model.onnx")
    made.graph.initializer.append(entry_only("elsewhere"))
    info = ModelInfo("m", "m", 3, 64, 17, 0.1, np.zeros((20, 64), np.float32), np.zeros(20, np.float32))
    with pytest.raises(BundleError, match="'elsewhere'"):
        Network(save(made, tmp_path / "m.onnx"), info, workers=1)


def test_the_name_of_the_file_decides_nothing(bundle_path: Path, tmp_path: Path) -> None:
    """ONNX Runtime would read a file of this name in a format of its own, which nobody has checked."""
    graph_file = save((bundle_path / "model.onnx").read_bytes(), tmp_path / "m.ort")
    with Network(graph_file, Bundle.open(bundle_path).info("fp32"), workers=1) as network:
        assert network.image_size == (32, 32)


# --- files that are no ONNX


BROKEN: dict[str, bytes] = {
    "empty": b"",
    "text": b"this is no ONNX file",
    "no graph": helper.make_model(graph(), opset_imports=[OPSET]).SerializeToString()[:2],
    "zeros": bytes(100),
    "a group": b"\x0b\x0c",
    "a number without end": b"\x08" + b"\xff" * 40,
    "a length beyond the file": b"\x3a\xff\xff\xff\xff\x7f",
    "the graph is a number": b"\x38\x01",
    "field number of 32 bits": b"\xba\x80\x80\x80\x80\x01\x00",
}


@pytest.mark.parametrize("kind", BROKEN)
def test_no_onnx(kind: str, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"m\.onnx is no ONNX model .*export the model again"):
        check_graph_file(save(BROKEN[kind], tmp_path / "m.onnx"))


@pytest.mark.parametrize("name", ["missing.onnx", "."])
def test_no_file(name: str, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="cannot read"):
        check_graph_file(tmp_path / name)


def test_data_location_of_the_wrong_kind(tmp_path: Path) -> None:
    """Bytes where a number belongs: another parser may see something else in them."""
    made = model(graph(initializer=[]))
    weights = tensor().SerializeToString() + b"\x72\x01\x01"
    whole = made.SerializeToString() + _message(7, _message(5, weights))
    with pytest.raises(BundleError, match="is no number"):
        check_graph_file(save(whole, tmp_path / "m.onnx"))


def test_fields_given_twice(tmp_path: Path) -> None:
    """Parsers merge what is given twice; whatever they make of it, the first one counts here, too."""
    node = helper.make_node("Strange", ["x"], ["a"], domain="my.ops").SerializeToString()
    again = node + _message(7, b"")
    whole = model().SerializeToString() + _message(7, _message(1, again))
    with pytest.raises(BundleError, match=r"'my\.ops'"):
        check_graph_file(save(whole, tmp_path / "m.onnx"))


def _message(number: int, content: bytes) -> bytes:
    return bytes([number << 3 | 2]) + _varint(len(content)) + content


def nested(depth: int) -> bytes:
    """Graphs in attributes of operators of graphs."""
    content = b""
    for _ in range(depth):
        content = _message(1, _message(5, _message(6, content)))
    return _message(7, content)


def test_depth_is_bounded(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="graph of its own"):
        check_graph_file(save(nested(30), tmp_path / "m.onnx"))
    with pytest.raises(BundleError, match="nested deeper"):
        check_graph_file(save(nested(2000), tmp_path / "m.onnx"))


def test_number_of_fields_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_file, "MAX_FIELDS", 1000)
    with pytest.raises(BundleError, match="more than 1000 fields"):
        check_graph_file(save(_message(7, b"\x10\x01" * 1001), tmp_path / "m.onnx"))


def test_truncated_files(bundle_path: Path, tmp_path: Path) -> None:
    whole = (bundle_path / "model.onnx").read_bytes()
    generator = random.Random(0)
    accepted = 0
    for cut in [*range(60), *generator.sample(range(len(whole)), 300), len(whole) - 1]:
        try:
            check_graph_file(save(whole[:cut], tmp_path / "m.onnx"))
            accepted += 1
        except BundleError:
            pass
    assert accepted <= 2  # cut exactly behind the graph: still a whole message


def test_changed_and_random_bytes_raise_nothing_else(tmp_path: Path) -> None:
    generator = random.Random(1)
    whole = REFUSED_PLACES["branch in a function"](tensor()).SerializeToString()
    for _ in range(500):
        if generator.random() < 0.3:
            content = generator.randbytes(generator.randrange(200))
        else:
            changed = bytearray(whole)
            for _ in range(generator.randint(1, 4)):
                changed[generator.randrange(len(changed))] = generator.randrange(256)
            content = bytes(changed)
        try:
            check_graph_file(save(content, tmp_path / "m.onnx"))
        except BundleError as error:
            assert str(error).isprintable()


def test_large_weights_are_skipped(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    size = 300_000_000
    inner = b"\x4a" + _varint(size)  # raw_data
    outer = b"\x2a" + _varint(len(inner) + size)
    header = b"\x3a" + _varint(len(outer) + len(inner) + size) + outer + inner
    with path.open("wb") as stream:
        stream.write(header)
        stream.truncate(len(header) + size)  # a hole, where the system can
    start = time.perf_counter()
    check_graph_file(path)
    assert time.perf_counter() - start < 0.5


def _varint(value: int) -> bytes:
    return bytes([value & 0x7F | 0x80]) + _varint(value >> 7) if value >= 0x80 else bytes([value])
