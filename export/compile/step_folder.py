"""The folder of a compiled step: graphs, a description for programs, and vectors."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import onnx

from ...engine.bundle.bundle import Bundle
from ...engine.bundle.create import folder_beside
from ...engine.errors import ExportError, OutputError, reason
from ...engine.files import hash_texts, to_npz, write_atomic
from ...engine.interface.method import AnyMethod
from ...engine.interface.method_options import get_options
from ...engine.model import ModelInfo
from ...engine.names import DEFAULT_SEED
from ...engine.registry import list_activation_uses
from ...engine.runtime.graph_contract import IMAGES as IMAGES_INPUT
from ...engine.runtime.network import Network
from ...engine.runtime.recentring_graph import add_recentring
from ..output_folder import check_output_folder, swap_content
from .embedded_network import LOGITS
from .integer_weights import find_weight_bits, warn_of_overflow
from .step_graph import DIAGNOSTIC, NEXT_STATE, STATE, VALID, StepGraph, build_step
from .step_vectors import (
    IMAGES,
    LARGEST_DIFFERENCE,
    STEPS,
    StepVectors,
    check_difference,
    compare_logits,
    compute_vectors,
    count_steps,
    count_steps_to_effect,
)

SCHEMA = 1
DESCRIPTION, STEP_FILE, INIT_FILE, VECTORS = "step.json", "step.onnx", "init.onnx", "vectors"
ARCHIVE, INDEX = f"{VECTORS}.npz", f"{VECTORS}.json"
OWN_NAMES = (DESCRIPTION, STEP_FILE, INIT_FILE, VECTORS, ARCHIVE, INDEX)
EXACT = "fp32"
METADATA = "fozo.step"  # key of the description in the graphs


@dataclass(frozen=True)
class StepRequest:
    """A step to compile.

    Attributes:
        bundle: the bundle.
        method: the method.
        precision: graph of the bundle.
        batch: images of every step; None: any number.
        seed: of the first state.
        vector_steps: steps of the vectors at least; there are more where the method's updates need them.
    """

    bundle: Bundle
    method: AnyMethod
    precision: str = "fp32"
    batch: int | None = None
    seed: int = DEFAULT_SEED
    vector_steps: int = STEPS

    @property
    def vector_images(self) -> int:
        """Images of every step of the vectors."""
        return self.batch or IMAGES


@dataclass(frozen=True)
class CompiledStep:
    """A step that was written.

    Attributes:
        description: the content of step.json.
        steps: of the vectors.
        difference: largest difference of a logit to the engine, relative to the largest one.
        exact_difference: that of the same step in fp32, if this one is in integers.
        rounding: how far the engine's own steps in integers are from those in fp32; None in fp32.
        steps_to_update: steps that would show an update, if these have none; None if they have.
    """

    description: Mapping[str, Any]
    steps: int
    difference: float
    exact_difference: float | None = None
    rounding: float | None = None
    steps_to_update: int | None = None


def compile_step(request: StepRequest, folder: Path, *, overwrite: bool = False) -> CompiledStep:
    """Build a step, compare it with the engine, and write its folder; the description comes last.

    Args:
        request: what to compile.
        folder: new or empty, or with another step and `overwrite`.
        overwrite: replace another step.

    Raises:
        ExportError: the method or an option cannot be compiled, or the graph differs from the engine.
        OutputError: the folder has other content, or cannot be written.
    """
    check_output_folder(folder, OWN_NAMES, "step", overwrite, "name a new folder with --out")
    method = use_graph_generator(request.method)
    uses = list_activation_uses([method])
    with Network.open(request.bundle, request.precision, activations=uses) as network:
        step = build_request(request, method, network)
        description = describe_step(request, method, step)
        warn_of_overflow(description["weight_bits"], request.precision)
        for model in (step.model, step.init):
            onnx.helper.set_model_props(model, {METADATA: json.dumps(description, ensure_ascii=False)})
        files = {STEP_FILE: serialize(step.model), INIT_FILE: step.init.SerializeToString()}
        images = request.vector_images
        steps = count_steps(method, images, request.vector_steps)
        vectors = compute_vectors(files[STEP_FILE], step.state, network, method, images, steps)
        exact_difference = rounding = None
        if request.precision != EXACT:
            twin = verify_exact_twin(request, method, network, steps)
            exact_difference, rounding = twin.difference, compare_logits(vectors.expected, twin.expected)
        check_difference(vectors, method.name, max(LARGEST_DIFFERENCE, rounding or 0))
    write_step(folder, files, description, vectors)
    missing = None if vectors.updates != 0 else count_steps_to_effect(method, images)
    return CompiledStep(description, steps, vectors.difference, exact_difference, rounding, missing)


def build_request(request: StepRequest, method: AnyMethod, network: Network) -> StepGraph:
    """Return the graphs of a request.

    Raises:
        ExportError: the method or an option cannot be compiled.
    """
    model = load_graph(request.bundle, network.info)
    identity = compute_identity(method, network.info)
    return build_step(model, method.bind(network.info), request.seed, identity, request.batch)


def load_graph(bundle: Bundle, info: ModelInfo) -> onnx.ModelProto:
    """Return the graph of a model, with the nodes that its activations need."""
    graph = bundle.graph(info.precision)
    if info.activations:
        return onnx.load_model_from_string(add_recentring(graph, info.activations))
    return onnx.load(graph)


def verify_exact_twin(request: StepRequest, method: AnyMethod, network: Network, steps: int) -> StepVectors:
    """Return the same steps of the fp32 graph, after comparing them with the engine.

    In integers, a difference in the last bit of a sum can become one of an integer, which every block
    magnifies. So only fp32 tells rounding from a fault. Two results in integers are as near as they can be
    where they are nearer to each other than integers are to fp32.

    Args:
        request: of a graph in integers.
        method: with the generator of graphs.
        network: of this graph.
        steps: of the vectors.

    Raises:
        ExportError: the step differs from the engine.
    """
    twin = replace(request, precision=EXACT)
    with Network.open(twin.bundle, EXACT, activations=list_activation_uses([method])) as exact:
        if exact.info.source is None and network.info.source is not None:
            exact = exact.with_source(network.info.source)
        step = build_request(twin, method, exact)
        vectors = compute_vectors(
            serialize(step.model), step.state, exact, method, request.vector_images, steps
        )
    check_difference(vectors, method.name)
    return vectors


def use_graph_generator(method: AnyMethod) -> AnyMethod:
    """Return a method whose random directions come from the generator that a graph has."""
    if not hasattr(method, "generator"):
        return method
    changed: AnyMethod = replace(method, generator="philox")  # type: ignore[type-var]
    return changed


def compute_identity(method: AnyMethod, info: ModelInfo) -> int:
    """Return a number that states of this step have, and those of other steps have not.

    It covers all constants of the graph: weights, classes, source statistics and options.
    """
    options = json.dumps(get_options(method), sort_keys=True)
    return int(hash_texts(info.identity, method.name, options)[:15], 16)


def serialize(model: onnx.ModelProto) -> bytes:
    """Return the bytes of a model.

    Raises:
        ExportError: it is larger than one ONNX file can be.
    """
    try:
        return bytes(model.SerializeToString())
    except ValueError as error:
        raise ExportError("the step is larger than 2 GB, which one ONNX file cannot be") from error


def describe_step(request: StepRequest, method: AnyMethod, step: StepGraph) -> dict[str, Any]:
    """Return everything that a program needs to know to run a step, as JSON values."""
    manifest = request.bundle.manifest
    names = manifest.class_names or manifest.class_ids
    shape = [
        axis.dim_param or axis.dim_value for axis in step.model.graph.input[0].type.tensor_type.shape.dim
    ]
    return {
        "schema": SCHEMA,
        "model": manifest.model,
        "precision": request.precision,
        "weight_bits": find_weight_bits(step.model),
        "operators": sorted({entry.domain or "ai.onnx" for entry in step.model.opset_import}),
        "method": method.name,
        "options": get_options(method),
        "bundle_sha256": request.bundle.sha256,
        "graph_sha256": request.bundle.graph_sha256(request.precision),
        "images": {"input": IMAGES_INPUT, "type": "uint8", "shape": shape, "colours": "RGB"},
        "preprocessing": asdict(manifest.preprocessing),
        "classes": None if names is None else list(names),
        "logits": LOGITS,
        "valid": VALID,
        "diagnostics": {name: f"{DIAGNOSTIC}{name}" for name in step.diagnostics},
        "state": [
            {
                "name": name,
                "input": f"{STATE}{name}",
                "output": f"{NEXT_STATE}{name}",
                "type": array.dtype.name,
                "shape": list(array.shape),
            }
            for name, array in step.state.items()
        ],
    }


def write_step(
    folder: Path, files: Mapping[str, bytes], description: Mapping[str, Any], vectors: StepVectors
) -> None:
    """Write all files of a step to a folder of their own, which then takes the place of an older step.

    Raises:
        OutputError: a file cannot be written. An older step stays as it was.
    """
    contents = list_contents(files, vectors)
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    contents[DESCRIPTION] = to_json({**description, "files": hashes})
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder} cannot be written ({reason(error)}); choose another --out") from error
    with folder_beside(folder) as new:
        (new / VECTORS).mkdir()
        for name, content in contents.items():
            write_atomic(new / name, content)
        swap_content(new, folder, OWN_NAMES)


def list_contents(files: Mapping[str, bytes], vectors: StepVectors) -> dict[str, bytes]:
    """Return the contents of all files but the description by name: graphs, and vectors in both forms."""
    contents = {**files, ARCHIVE: to_npz(**vectors.arrays)}
    index = {}
    for name, array in vectors.arrays.items():
        file = f"{VECTORS}/{name}.bin"
        little = array.astype(array.dtype.newbyteorder("<"))
        contents[file] = little.tobytes()
        index[name] = {"file": file, "type": array.dtype.name, "shape": list(array.shape)}
    contents[INDEX] = to_json(index)
    return contents


def to_json(content: Mapping[str, Any]) -> bytes:
    """Return JSON text in UTF-8."""
    return (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode()
