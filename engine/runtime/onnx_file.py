"""Checks of an ONNX file before a runtime opens it, without the onnx package and without copying weights.

ONNX Runtime would read any file that a tensor names as its external data, run the operators of any domain
that is registered, and a loop for as long as its graph says. fozo's graphs are one file with known operators
and without loops, and anything else is refused here. What ONNX may nest (subgraphs, functions, sparse
tensors) is looked into; everything else is skipped by its length.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path

from ..errors import BundleError, reason
from ..ordinary_files import check_ordinary
from .onnx_wire import BYTES, VARINT, Field, iterate_fields, read_varint

DOMAINS = ("", "ai.onnx", "com.microsoft")
# Its content is a program for one device, which may lie in another file.
REFUSED_OPERATORS = ("EPContext",)
# The one operator with graphs of its own: the choice in residual networks and pull-back graphs. All others
# that have them are loops, and may run without end.
CHOICE = "If"
_TOP_DEPTH = 2  # of the operators of the main graph: model, graph, operator
MAX_DEPTH = 100  # messages within messages, as in Google's own parsers
MAX_FIELDS = 2_000_000  # ViT-B has 4,000; gigabytes of tiny fields would keep us busy for minutes
MAX_NAME = 200  # bytes of a name that a message shows; every known domain is shorter

# Which messages are in which, by field number, and where they say what we want to know (onnx.proto).
_CHILDREN: dict[str, dict[int, str]] = {
    "model": {7: "graph", 8: "opset", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "operator", 9: "opset", 11: "attribute"},
    "graph": {1: "operator", 5: "tensor", 15: "sparse tensor"},
    "operator": {5: "attribute"},
    "attribute": {
        5: "tensor",
        6: "graph",
        10: "tensor",
        11: "graph",
        22: "sparse tensor",
        23: "sparse tensor",
    },
    "sparse tensor": {1: "tensor", 2: "tensor"},
}
_NAME = {"tensor": 8, "operator": 4, "function": 1}
_DOMAIN = {"operator": 7, "function": 10, "opset": 1}
_EXTERNAL_DATA, _DATA_LOCATION = 13, 14  # of a tensor
_AGAIN = "export the model again with fozo export"


def check_graph_file(path: Path) -> None:
    """Refuse a file with anything that no graph of fozo has.

    Raises:
        BundleError: the file cannot be read or is no ONNX model, keeps values in other files, or has
            operators that are neither ONNX's nor ONNX Runtime's own, functions, or loops.
    """
    try:
        check_ordinary(path)
        with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
            _Checker(path, content).check()
    except OSError as error:
        raise BundleError(f"cannot read {path} ({reason(error)}); {_AGAIN}") from error
    except ValueError as error:  # of an empty file, too
        raise BundleError(f"{path} is no ONNX model ({reason(error)}); {_AGAIN}") from error


class _Checker:
    """One pass over one file."""

    def __init__(self, path: Path, content: mmap.mmap) -> None:
        self.path = path
        self.content = content
        self.fields = 0
        self.inner_graphs = 0

    def check(self) -> None:
        model = Field(0, BYTES, 0, len(self.content))
        if not any(field.number == 7 for field in self._iterate_fields(model)):
            raise ValueError("it has no graph")
        self._check_message("model", model, 0)

    def _check_message(self, kind: str, message: Field, depth: int) -> None:
        """Check one message and everything in it.

        Raises:
            BundleError: something is refused.
            ValueError: it is malformed.
        """
        if depth > MAX_DEPTH:
            raise ValueError(f"nested deeper than {MAX_DEPTH} messages")
        children, name, domains, external = _CHILDREN.get(kind, {}), "", {""}, False
        inner_graphs = self.inner_graphs
        for field in self._iterate_fields(message):
            if field.number in children:
                self.inner_graphs += kind == "attribute" and children[field.number] == "graph"
                self._check_message(children[field.number], field, depth + 1)
            elif field.number == _NAME.get(kind):
                name = self._read_text(field)
            elif field.number == _DOMAIN.get(kind):
                domains.add(self._read_text(field))
            elif kind == "tensor" and field.number in (_EXTERNAL_DATA, _DATA_LOCATION):
                external |= field.number == _EXTERNAL_DATA or self._read_number(field) != 0
        self._refuse_foreign(kind, name, domains, external)
        if kind == "function":
            raise BundleError(
                f"{self.path}: expected a graph without functions, found {name!r}: functions that call each "
                f"other may become any number of operators; {_AGAIN}"
            )
        if self.inner_graphs > inner_graphs and kind == "operator" and (name, depth) != (CHOICE, _TOP_DEPTH):
            raise BundleError(
                f"{self.path}: the operator {name!r} has a graph of its own, as loops have, which may run "
                f"without end; expected no operator with one but {CHOICE!r} in the main graph; {_AGAIN}"
            )

    def _refuse_foreign(self, kind: str, name: str, domains: set[str], external: bool) -> None:
        if external:
            raise BundleError(
                f"{self.path}: the tensor {name!r} keeps its values in another file; expected a graph "
                f"that is one file; {_AGAIN}"
            )
        foreign = sorted(domains.difference(DOMAINS))
        if foreign:
            subject = "it imports operators" if kind == "opset" else f"the {kind} {name!r} is"
            raise BundleError(
                f"{self.path}: {subject} of the domain {foreign[0]!r}; expected ONNX's own operators or ONNX "
                f"Runtime's ({DOMAINS[-1]}); {_AGAIN}"
            )
        if kind == "operator" and name in REFUSED_OPERATORS:
            raise BundleError(
                f"{self.path}: the operator {name!r} holds a program for one device; expected plain "
                f"operators; {_AGAIN}"
            )

    def _iterate_fields(self, message: Field) -> Iterator[Field]:
        """Yield the fields of a message in order, and count them."""
        for field in iterate_fields(self.content, message):
            self.fields += 1
            if self.fields > MAX_FIELDS:
                raise ValueError(f"more than {MAX_FIELDS} fields")
            yield field

    def _read_number(self, field: Field) -> int:
        if field.wire != VARINT:
            raise ValueError(f"field {field.number} is no number")
        return read_varint(self.content, field.start, field.end)[0]

    def _read_text(self, field: Field) -> str:
        if field.wire != BYTES:
            raise ValueError(f"field {field.number} is no text")
        return self.content[field.start : min(field.end, field.start + MAX_NAME)].decode("utf-8", "replace")
