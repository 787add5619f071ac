"""Feed damaged files to every reader: `python tools/fuzz.py [TARGET …] [--inputs N] [--seed S]`.

A reader may answer with its declared errors only, within two seconds, and without taking much memory.
Anything else is a finding: it is printed with its input, and the exit code is 1. A short version is in
tests/test_fuzz.py.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import resource
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from fozo.data.images import preprocess, read_image
from fozo.engine.bundle.bundle import Bundle
from fozo.engine.bundle.manifest import FileEntry, GraphEntry, Manifest
from fozo.engine.bundle.preprocessing import Preprocessing
from fozo.engine.errors import FozoError, has_controls
from fozo.engine.files import from_npz, to_npz
from fozo.engine.model import ModelInfo, SourceStatistics
from fozo.engine.registry import method, parse_methods
from fozo.engine.runtime.onnx_file import check_graph_file
from fozo.engine.streams import checkpoint
from fozo.eval.datasets.validation_labels import read_labels
from fozo.eval.predict.class_list import read_class_list
from fozo.eval.protocol import Protocol
from fozo.eval.results import partial_results
from fozo.eval.results.bits import Bits
from fozo.eval.results.metrics import Tally
from fozo.eval.results.outcome import DomainResult, MethodResult, Run, Trace
from fozo.eval.results.results_file import MethodEntry, Results, read_results
from PIL import Image

SECONDS = 2.0
MEGABYTES = 500  # that a whole session may grow by

_BYTES = [
    b"",
    b"\0",
    b"\xff",
    b"\x80",
    b"\n",
    b"\x1b",
    b"=",
    b",",
    b":",
    b'"',
    b"[" * 300,
    b"{" * 300,
    b"9" * 5000,
]
_VALUES: list[Any] = [
    None, True, -1, 0, 1, 2**31, 2**63, 10**400, 0.5, 1e308, [], [[]], [1], {}, {"a": 1}, [0] * 10_000,
    "", "\0", "\x1b[2J", "\ud800", "fp32", "../../etc/passwd", "x" * 10_000,
]  # fmt: skip
_METHODS = [
    "fozo:samples=2,shift=origin",
    "calm=pizo:guard=rollback,interval=10",
    "no_adapt",
    "zoa:domains=4",
]


@dataclass(frozen=True)
class Target:
    """A reader and what it reads.

    Attributes:
        seeds: valid contents.
        read: reads a file.
        errors: exceptions that it may raise.
        is_json: whether contents are JSON, of which single values are changed too.
    """

    seeds: list[bytes]
    read: Callable[[Path], object]
    errors: tuple[type[Exception], ...] = (FozoError,)
    is_json: bool = False


@dataclass(frozen=True)
class Finding:
    """An input to which a reader does not answer as it should."""

    content: bytes
    report: str


class TooSlow(BaseException):
    """An input takes longer than allowed; no reader catches this."""


def fuzz(target: Target, inputs: int, seed: int, folder: Path) -> Iterator[Finding]:
    """Yield the findings of so many inputs; equal seeds give equal inputs."""
    generator = random.Random(seed)
    path = folder / "input"
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(inputs):
        content = change(generator.choice(target.seeds), generator, is_json=target.is_json)
        path.write_bytes(content)
        if report := _try_read(target, path):
            yield Finding(content, report)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory) / 1024
    if grown > MEGABYTES:
        yield Finding(b"", f"memory grew by {grown:.0f} MB, expected at most {MEGABYTES}")


def _try_read(target: Target, path: Path) -> str | None:
    """Return a report if a reader does not answer as it should."""
    try:
        with _time_limit():
            target.read(path)
    except target.errors as error:
        message = str(error)
        return (
            None if not has_controls(message) else f"the message is not one line of plain text: {message!r}"
        )
    except (Exception, TooSlow):
        return traceback.format_exc()
    return None


@contextmanager
def _time_limit() -> Iterator[None]:
    def stop(number: int, frame: object) -> None:
        raise TooSlow(f"longer than {SECONDS} s")

    signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def change(content: bytes, generator: random.Random, *, is_json: bool) -> bytes:
    """Return a content with a few random changes."""
    if is_json and generator.random() < 0.6:
        document = json.loads(content)
        for _ in range(generator.choice([1, 1, 1, 2, 4])):
            document = _change_value(document, generator)
        return json.dumps(document).encode()
    changed = bytearray(content)
    for _ in range(generator.choice([1, 1, 2, 4, 16])):
        start = generator.randrange(len(changed) + 1)
        stop = min(len(changed), start + generator.choice([0, 1, 1, 2, 4, 8, 64, 1000]))
        kind = generator.randrange(4)
        if kind == 0:  # other bytes
            changed[start:stop] = generator.randbytes(stop - start)
        elif kind == 1:  # remove, or truncate
            del changed[start : stop if generator.random() < 0.9 else None]
        elif kind == 2:  # insert
            changed[start:start] = generator.choice(_BYTES)
        else:  # copy
            position = generator.randrange(len(changed) + 1)
            changed[position:position] = changed[start:stop]
    return bytes(changed)


def _change_value(value: Any, generator: random.Random) -> Any:
    """Return JSON data with one value, somewhere inside, replaced, removed or added."""
    if not value or not isinstance(value, (dict, list)) or generator.random() < 0.15:
        return generator.choice(_VALUES)
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    key, copy = generator.choice(keys), value.copy()
    kind = generator.random()
    if kind < 0.1:
        del copy[key]
    elif kind < 0.2 and isinstance(copy, dict):
        copy[generator.choice(["", "surprise", "\x1b", key + "x"])] = generator.choice(_VALUES)
    else:
        copy[key] = _change_value(value[key], generator)
    return copy


# --- the readers


def make_targets() -> dict[str, Target]:
    """Return all targets by name."""
    manifest = _make_manifest()
    return {
        "manifest": Target([manifest.to_json()], _read_manifest, is_json=True),
        "onnx": Target(_make_graphs(), check_graph_file),
        "npz": Target(_make_arrays(), from_npz, (ValueError,)),
        "checkpoint": _make_checkpoint_target(),
        "progress": _make_progress_target(),
        "results": Target([_make_results()], read_results, is_json=True),
        "labels": Target(_make_labels(), read_labels),
        "classes": Target([b"a\nb\nc\n", b"0\n2\n"], lambda path: read_class_list(path, manifest)),
        "methods": Target([method.encode() for method in _METHODS], _read_method),
        "images": Target(_make_images(), _read_pixels),
    }  # fmt: skip


def _read_method(path: Path) -> None:
    parse_methods([path.read_bytes().decode("utf-8", "surrogateescape")])


def _make_manifest() -> Manifest:
    return Manifest(
        model="colours",
        preprocessing=Preprocessing((4, 4), 5, "bilinear"),
        layers=2,
        width=3,
        tokens=17,
        feature_width=3,
        classes=3,
        prompt_bound=0.1,
        tunables={"prompts": ("R", "P", 3)},
        class_ids=("a", "b", "c"),
        class_names=("A", "B", "C"),
        graphs={"fp32": GraphEntry("model.onnx", 20, 1e-6)},
        files={"model.onnx": FileEntry("0" * 64, 1)},
    )


def _read_manifest(path: Path) -> None:
    """Open a manifest as a bundle's, and use what it says."""
    path.replace(path.with_name("bundle.json"))
    bundle = Bundle.open(path.parent)
    for name in bundle.list_files()[1:]:
        bundle.file(name)
    bundle.info("fp32")


def _make_graphs() -> list[bytes]:
    from onnx import parser

    texts = [
        """<ir_version: 9, opset_import: ["" : 20]>
        g (uint8[N,4,4,3] images) => (float[N,3] m) <int64[2] axes = {1,2}>
        { x = Cast<to=1>(images)
          m = ReduceMean<keepdims=0>(x, axes) }""",
        """<ir_version: 9, opset_import: ["" : 20]>
        g (bool c, float[3] x) => (float[3] y)
        { y = If (c) <then_branch = t () => (float[3] a) { a = Neg(x) },
                      else_branch = e () => (float[3] b) { b = Abs(x) }> }""",
    ]
    return [parser.parse_model(text).SerializeToString() for text in texts]


def _make_arrays() -> list[bytes]:
    arrays: dict[str, Any] = {
        "mean": np.zeros((2, 3), np.float32),
        "count": np.int64(3),
        "none": np.zeros((0, 2)),
    }
    packed = io.BytesIO()
    np.savez_compressed(packed, **arrays)
    return [to_npz(**arrays), packed.getvalue()]


def _make_model() -> ModelInfo:
    source = SourceStatistics(np.zeros((2, 3), np.float32), np.ones((2, 3), np.float32), 10)
    return ModelInfo("m", "id", 2, 3, 5, 0.1, np.ones((4, 3), np.float32), np.zeros(4, np.float32), source)


def _make_checkpoint_target() -> Target:
    model = _make_model()
    state = method("fozo").bind(model).init(0)
    header = {"identity": "id", "precision": "fp32", "method": "fozo", "options": {"samples": 2}, "seed": 0}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "state.npz")
        checkpoint.save(path, header, state)
        content = path.read_bytes()
    return Target([content], lambda path: checkpoint.load(path, header, state, model))


def _make_run() -> Run:
    result = MethodResult(
        Tally(4, 2, 3), Bits([True, False, True, False]), batches=1, forwards=1, seconds=1.0
    )
    return Run(0, [DomainResult("fog", {"fozo": result}, 5, images=4)], {"fozo": Trace([4], [2])})


def _make_progress_target() -> Target:
    key = {"bundle": "0", "methods": {"fozo": ["fozo", {"samples": 2}]}}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "progress.npz")
        partial_results.save(path, key, [_make_run()], {})
        content = path.read_bytes()
    return Target([content], lambda path: partial_results.load(path, key))


def _make_results() -> bytes:
    results = Results(
        Protocol("x", "reset", (5,), "all", (0,), 4, "all"),
        bundle={"model": "m"},
        engine={"workers": 1},
        methods={"fozo": MethodEntry("fozo", 2, {"samples": 2})},
        versions={"fozo": "0"},
        machine={"model": "x"},
        runs=[_make_run()],
    )
    return json.dumps(results.to_dict()).encode()


def _make_labels() -> list[bytes]:
    names = [f"ILSVRC2012_val_{index:08d}" for index in range(1, 4)]
    return [
        "".join(f"{name}.JPEG {index}\n" for index, name in enumerate(names)).encode(),
        ("ImageId,PredictionString\n" + "".join(f"{name},n01751748 1 2 3 4\n" for name in names)).encode(),
    ]


def _make_images() -> list[bytes]:
    contents = []
    for kind in ("JPEG", "PNG", "WEBP", "BMP", "PPM"):
        stream = io.BytesIO()
        pixels = np.random.default_rng(0).integers(0, 256, (12, 9, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(stream, kind)
        contents.append(stream.getvalue())
    return contents


def _read_pixels(path: Path) -> None:
    preprocess(read_image(path), Preprocessing((8, 8), 10))


def main() -> None:
    """Fuzz the named targets, or all."""
    targets = make_targets()
    parser = argparse.ArgumentParser(description="Feed damaged files to every reader.")
    parser.add_argument(
        "targets", nargs="*", metavar="TARGET", help=f"one of: {', '.join(targets)}; default: all"
    )
    parser.add_argument(
        "--inputs", type=int, default=100_000, help="inputs per target (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the changes (default: %(default)s)")
    arguments = parser.parse_args()
    count = 0
    for name in arguments.targets or targets:
        with tempfile.TemporaryDirectory() as folder:
            for finding in fuzz(targets[name], arguments.inputs, arguments.seed, Path(folder)):
                count += 1
                print(f"{name}: {finding.content[:2000]!r}\n{finding.report}")
        print(f"{name}: {arguments.inputs:,} inputs, {count} findings so far", flush=True)
    sys.exit(count > 0)


if __name__ == "__main__":
    main()
