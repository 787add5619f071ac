"""Readers that are fuzzed, with valid files of each; those of an export, which load PyTorch, are apart."""

from __future__ import annotations

import gzip
import io
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from fozo.data.class_names import read_class_names, read_names
from fozo.data.context_file import read_context
from fozo.data.demo import DEMO_BUNDLE
from fozo.data.image_file import decode_file
from fozo.data.images import preprocess
from fozo.data.reading import Reading
from fozo.engine.bundle.bundle import MANIFEST, Bundle
from fozo.engine.bundle.description import describe_bundle
from fozo.engine.bundle.manifest import Manifest
from fozo.engine.bundle.preprocessing import Preprocessing
from fozo.engine.errors import FozoError, escape_controls
from fozo.engine.files import from_npz, to_npz
from fozo.engine.model import ModelInfo, SourceStatistics
from fozo.engine.records import to_dict
from fozo.engine.registry import method, parse_methods
from fozo.engine.runtime.arrangement import CACHE_FILE, SCHEMA, load_arrangement
from fozo.engine.runtime.onnx_file import check_graph_file
from fozo.engine.streams import checkpoint
from fozo.engine.text.class_texts import tokenize_classes
from fozo.engine.text.tokenizer import Tokenizer
from fozo.engine.text.vocabulary import WORD_END, Vocabulary, list_byte_symbols, read_vocabulary
from fozo.eval.datasets.aircraft import read_aircraft
from fozo.eval.datasets.cifar import load_cifar_c
from fozo.eval.datasets.corrupted_folder import RECORD, read_record
from fozo.eval.datasets.domain import make_array_domain
from fozo.eval.datasets.split_file import read_split_file
from fozo.eval.datasets.subset import choose_subset
from fozo.eval.datasets.validation_labels import read_labels
from fozo.eval.predict.class_list import read_class_list
from fozo.eval.predict.seen_images import SeenImages
from fozo.eval.protocol import Protocol
from fozo.eval.report import csv_file, markdown
from fozo.eval.report.digest.report_digest import digest_results
from fozo.eval.report.digest.sources import collect_results
from fozo.eval.results import partial_results
from fozo.eval.results.bits import Bits
from fozo.eval.results.metrics import Tally
from fozo.eval.results.outcome import DomainResult, MethodResult, Run, Trace
from fozo.eval.results.results_file import MethodEntry, Results
from fozo.eval.sweep.cell import Cell
from fozo.eval.sweep.cell_results import CellResults, read_cell_results
from fozo.eval.sweep.folder import GRID_FILE, Grid, read_grid
from fozo.eval.tuning.tuning_record import TuningRecord
from fuzz_changes import Form
from PIL import Image
from tuning_report_doubles import PLAIN, TUNED, make_evaluation, make_tuning, predict, save_tuning

_SYMBOLS = [symbol + end for symbol in list_byte_symbols().values() for end in ("", WORD_END)]


@dataclass(frozen=True)
class Target:
    """A reader and what it reads.

    Attributes:
        seeds: valid contents.
        read: reads a file.
        form: of the contents; changes can keep it intact.
        name: of the file.
        errors: exceptions that the reader may raise.
        prepare: puts other files into the folder, once.
    """

    seeds: list[bytes]
    read: Callable[[Path], object]
    form: Form = "bytes"
    name: str = "input"
    errors: tuple[type[Exception], ...] = (FozoError,)
    prepare: Callable[[Path], object] = lambda folder: None


# --- bundles


def make_manifest_target() -> Target:
    """Open a bundle of which the manifest is changed, and describe it."""

    def copy_files(folder: Path) -> None:
        shutil.copytree(DEMO_BUNDLE, folder, dirs_exist_ok=True)

    return Target([(DEMO_BUNDLE / MANIFEST).read_bytes()], _describe, "json", MANIFEST, prepare=copy_files)


def _describe(path: Path) -> None:
    bundle = Bundle.open(path.parent)
    for precision in bundle.manifest.graphs:
        bundle.info(precision)
    for line in describe_bundle(bundle).splitlines():
        if line != escape_controls(line):
            raise AssertionError(f"the description commands a terminal: {line!r}")


def make_graph_target() -> Target:
    """Look through ONNX files."""
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
    return Target([parser.parse_model(text).SerializeToString() for text in texts], check_graph_file)


def make_npz_target() -> Target:
    """Read arrays."""
    arrays: dict[str, Any] = {
        "mean": np.zeros((2, 3), np.float32),
        "count": np.int64(3),
        "none": np.zeros((0, 2)),
    }
    packed = io.BytesIO()
    np.savez_compressed(packed, **arrays)
    return Target([to_npz(**arrays), packed.getvalue()], from_npz, "zip", errors=(ValueError,))


# --- states and results


def make_checkpoint_target() -> Target:
    """Continue a stream."""
    source = SourceStatistics(np.zeros((2, 3), np.float32), np.ones((2, 3), np.float32), 10)
    head = np.ones((4, 3), np.float32), np.zeros(4, np.float32)
    model = ModelInfo("m", "id", 2, 3, 5, 0.1, *head, source)
    state = method("fozo").bind(model).init(0)
    header = {"identity": "id", "precision": "fp32", "method": "fozo", "options": {"samples": 2}, "seed": 0}
    content = _write(lambda path: checkpoint.save(path, header, state))
    return Target([content], lambda path: checkpoint.load(path, header, state, model), "zip")


def make_progress_target() -> Target:
    """Continue an evaluation."""
    key = {"bundle": "0", "methods": {"fozo": ["fozo", {"samples": 2}]}}
    content = _write(lambda path: partial_results.save(path, key, [_make_run()], {}))
    return Target([content], lambda path: partial_results.load(path, key), "zip")


def make_results_target() -> Target:
    """Report results, in the two formats that need no picture."""

    def report(path: Path) -> None:
        digest = digest_results(collect_results([path])[0])
        csv_file.render(digest)
        markdown.render(digest)

    return Target([json.dumps(_make_results().to_dict()).encode()], report, "json", "results.json")


def make_tuning_target() -> Target:
    """Report a tuning."""
    return replace(
        make_results_target(), seeds=[json.dumps(to_dict(_make_tuning())).encode()], name="tuning.json"
    )


def make_seeds_target() -> Target:
    """Report what sums up the seeds of a tuning, whose files lie beside it."""
    content = {"schema": 1, "kind": "tuning-seeds", "runs": [{"seed": 1, "head": "a", "file": "1.json"}]}

    def save_seed(folder: Path) -> None:
        save_tuning(folder / "1.json", _make_tuning())

    target = make_results_target()
    return replace(target, seeds=[json.dumps(content).encode()], name="tuning.json", prepare=save_seed)


def _make_tuning() -> TuningRecord:
    prompts = {PLAIN: predict(0.5, 0, 8), TUNED: predict(0.9, 0, 8)}
    return make_tuning(1, make_evaluation(prompts, "base"), make_evaluation(prompts, "new"), classes="base")


def make_cell_target() -> Target:
    """Continue a sweep with a cell."""
    results = _make_results()
    digest = results.runs[0].domains[0].ids_sha256
    cell = Cell(
        *("0", "m", "fp32", "cpu", "fozo", "fozo", {"samples": 2}, "x", "fog", 5, 0, "all", 4, digest),
        *("all", 4, "0"),
    )
    content = json.dumps(CellResults(**vars(results), cell=cell).to_dict()).encode()
    return Target([content], lambda path: read_cell_results(path, cell), "json")


def make_grid_target() -> Target:
    """Continue a sweep."""
    content = json.dumps(to_dict(Grid(1, "0", {"seeds": [0]}, ("a", "b")))).encode()
    return Target([content], read_grid, "json", GRID_FILE)


def _write(save: Callable[[Path], object]) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        save(Path(folder, "x.npz"))
        return Path(folder, "x.npz").read_bytes()


def _make_run() -> Run:
    result = MethodResult(
        Tally(4, 2, 3, bin_images=_fill_bins(4), bin_confidence=_fill_bins(2), bin_correct=_fill_bins(2)),
        Bits([True, False, True, False]),
        batches=1,
        forwards=1,
        seconds=1.0,
    )
    domain = DomainResult(
        "fog", {"fozo": result}, 5, images=4, available_images=4, ids_sha256="0", complete=True
    )
    return Run(0, [domain], {"fozo": Trace([4], [2], {"loss": [0.5]})}, segment=1, complete=True)


def _fill_bins(first: float) -> Any:
    return np.eye(1, len(Tally().bin_images))[0] * first


def _make_results() -> Results:
    return Results(
        Protocol("x", "reset", (5,), "all", (0,), 4, "all"),
        bundle={"model": "m", "classes": 3},
        engine={"workers": 1},
        methods={"fozo": MethodEntry("fozo", 2, {"samples": 2})},
        versions={"fozo": "0", "onnxruntime": "1"},
        machine={"model": "x"},
        runs=[_make_run()],
    )


# --- lists, specifications, images


def make_labels_target() -> Target:
    """Read the labels of validation images."""
    names = [f"ILSVRC2012_val_{index:08d}" for index in range(1, 4)]
    seeds = [
        "".join(f"{name}.JPEG {index}\n" for index, name in enumerate(names)).encode(),
        ("ImageId,PredictionString\n" + "".join(f"{name},n01751748 1 2 3 4\n" for name in names)).encode(),
    ]
    return Target(seeds, read_labels)


def make_classes_target() -> Target:
    """Read classes to predict among."""
    return Target([b"3\n7\n", b"\xef\xbb\xbf0\r\n# none\r\n9"], lambda path: read_class_list(path, _demo()))


def make_names_target() -> Target:
    """Read names of all classes."""
    return Target([b"a\tA b\nb\tB\nc c\tC", b"n01 cat\nn02 dog\n\nn03"], partial(read_class_names, classes=3))


def make_class_texts_target() -> Target:
    """Read names and templates of classes, and split their texts into tokens."""
    seeds = [b"n01440764 tench\nn01443537 a {}\n", b"a\tcr\xc3\xa8me br\xc3\xbbl\xc3\xa9e\nb\tA&amp;B {}.\n"]
    tokenizer = Tokenizer(Vocabulary(dict.fromkeys(_SYMBOLS, 0), {}, 512, 513))

    def read(path: Path) -> None:
        _, names = read_names(path)
        tokenize_classes(tokenizer, names, names[-1], 77)

    return Target(seeds, read)


def make_vocabulary_target() -> Target:
    """Read a vocabulary, compressed after it was changed."""

    def read(path: Path) -> None:
        packed = path.with_name("packed.gz")
        packed.write_bytes(gzip.compress(path.read_bytes()))
        read_vocabulary(packed, start=514)

    return Target([b"#version: 0.2\na b\nab c</w>\n"], read)


def make_context_target() -> Target:
    """Read a context that was learnt elsewhere."""
    return Target([to_npz(ctx=np.ones((2, 3), np.float16), other=np.zeros(3))], read_context, "zip")


def make_split_target() -> Target:
    """Read a split file of few-shot data."""
    rows = [["a/1.png", 0, "sea_lake"], ["b/1.png", "1", "Forest"]]
    content = {"train": rows, "val": [], "test": [["a/2.png", 0, "sea_lake"]]}

    def add_images(folder: Path) -> None:
        (folder / "a").mkdir(exist_ok=True)
        (folder / "a" / "1.png").touch()

    def read(path: Path) -> None:
        data = read_split_file(path, path.parent)
        data.check_files(data.train[:1])

    return Target([json.dumps(content).encode()], read, "json", "split_mine.json", prepare=add_images)


def make_aircraft_target() -> Target:
    """Read a list of FGVC Aircraft."""

    def add_lists(folder: Path) -> None:
        (folder / "variants.txt").write_text("707-320\nF/A-18\n")
        for name in ("train", "val"):
            (folder / f"images_variant_{name}.txt").write_text("1 F/A-18\n2 707-320\n")

    seeds = [b"0034309 F/A-18\n0034958 707-320\n"]
    return Target(
        seeds, lambda path: read_aircraft(path.parent), name="images_variant_test.txt", prepare=add_lists
    )


def make_images_list_target() -> Target:
    """Choose the images of a list."""
    images = np.zeros((3, 2, 2, 3), np.uint8)
    domain = make_array_domain("x", images, [0, 1, 2], ["a/1.png", "b/2 3.png", "c/4.png"])
    return Target(
        [b"a/1.png\nb/2 3.png\n", b"4.png 7\n"], lambda path: choose_subset([domain], "all", 0, path)
    )


def make_methods_target() -> Target:
    """Parse a method with its options."""
    texts = [
        "fozo:samples=2,shift=origin",
        "calm=pizo:guard=rollback,interval=10",
        "no_adapt",
        "zoa:domains=4",
    ]

    def parse(path: Path) -> None:
        parse_methods([path.read_bytes().decode("utf-8", "surrogateescape")])

    return Target([text.encode() for text in texts], parse)


def make_images_target() -> Target:
    """Decode and prepare an image."""
    seeds = []
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = np.random.default_rng(0).integers(0, 256, (12, 9, 3), dtype=np.uint8)
    for kind in ("JPEG", "PNG", "WEBP", "BMP", "PPM"):
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, kind, exif=exif)
        seeds.append(stream.getvalue())
    grey = Image.fromarray(pixels[..., 0].astype(np.uint16) << 8)
    for image in (Image.fromarray(pixels).quantize(7), grey):
        stream = io.BytesIO()
        image.save(stream, "PNG")
        seeds.append(stream.getvalue())

    def read(path: Path) -> None:
        for reading in (Reading(), Reading(100, "apply", "reduce")):
            preprocess(decode_file(path, reading).image, Preprocessing((8, 8), 10))

    return Target(seeds, read)


def make_cifar_target() -> Target:
    """Open an array of CIFAR-C."""
    stream = io.BytesIO()
    np.save(stream, np.zeros((4, 32, 32, 3), np.uint8))

    def add_labels(folder: Path) -> None:
        np.save(folder / "labels.npy", np.arange(4))

    def load(path: Path) -> None:
        (domain,) = load_cifar_c(10, path.parent, replace(_demo(), class_ids=None), [1], ["fog"])
        domain.load(3)

    return Target([stream.getvalue()], load, name="fog.npy", prepare=add_labels)


def make_generated_target() -> Target:
    """Read the record of generated images."""
    record = {"corruptions": ["fog"], "severities": [1, 5], "size": 224, "images": 3}
    return Target([json.dumps(record).encode()], lambda path: read_record(path.parent), "json", RECORD)


def make_seen_target() -> Target:
    """Remember images of a watched folder."""
    content = json.dumps({"schema": 1, "seen": ["a.jpg", "b/c.jpg"]}).encode()
    return Target([content], lambda path: SeenImages(path, path.parent), "json")


def make_arrangements_target() -> Target:
    """Take a tuned arrangement from the cache."""
    entries = {"arrangements": {"machine": {"workers": 2, "micro_batch": 4}}}

    def use_folder(folder: Path) -> None:
        os.environ["FOZO_CACHE_DIR"] = str(folder)

    def load(path: Path) -> None:
        load_arrangement("0" * 64, "cpu")

    return Target(
        [json.dumps({"schema": SCHEMA, **entries}).encode()], load, "json", CACHE_FILE, (), use_folder
    )


def _demo() -> Manifest:
    return Bundle.open(DEMO_BUNDLE).manifest


def _make_export_target(name: str) -> Target:
    import fuzz_export_targets

    target: Target = getattr(fuzz_export_targets, f"make_{name}_target")()
    return target


def _make_clip_target(name: str) -> Target:
    import fuzz_clip_targets

    target: Target = getattr(fuzz_clip_targets, f"make_{name}_target")()
    return target


TARGETS: dict[str, Callable[[], Target]] = {
    "manifest": make_manifest_target,
    "onnx": make_graph_target,
    "npz": make_npz_target,
    "checkpoint": make_checkpoint_target,
    "progress": make_progress_target,
    "results": make_results_target,
    "tuning": make_tuning_target,
    "tuning-seeds": make_seeds_target,
    "cell": make_cell_target,
    "grid": make_grid_target,
    "labels": make_labels_target,
    "classes": make_classes_target,
    "names": make_names_target,
    "class-texts": make_class_texts_target,
    "vocabulary": make_vocabulary_target,
    "context": make_context_target,
    "images-list": make_images_list_target,
    "split": make_split_target,
    "aircraft": make_aircraft_target,
    "methods": make_methods_target,
    "images": make_images_target,
    "cifar": make_cifar_target,
    "generated": make_generated_target,
    "seen": make_seen_target,
    "arrangements": make_arrangements_target,
    "pytorch": partial(_make_export_target, "pytorch"),
    "safetensors": partial(_make_export_target, "safetensors"),
    "google": partial(_make_export_target, "google"),
    "index": partial(_make_export_target, "index"),
    "config": partial(_make_export_target, "config"),
    "preprocessor": partial(_make_export_target, "preprocessor"),
    "clip-weights": partial(_make_clip_target, "clip_weights"),
    "clip-settings": partial(_make_clip_target, "clip_settings"),
}
