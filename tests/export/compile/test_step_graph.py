"""Compiled steps against the engine: the same predictions and states, step by step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from fozo.engine.bundle.bundle import Bundle
from fozo.engine.errors import ExportError
from fozo.engine.model import ImageArray, ImagePrompt
from fozo.engine.registry import list_activation_uses, parse_method
from fozo.engine.runtime.network import Network
from fozo.engine.streams.adapter import Adapter
from fozo.export.compile.step_folder import load_graph, use_graph_generator
from fozo.export.compile.step_graph import NEXT_STATE, STATE, VALID, StepGraph, build_step

SEED, IDENTITY = 7, 123_456_789_012_345_678
# Fields of the engine's states that have the same name in a graph's.
SHARED = (
    "prompts",
    "norms",
    "norms_momentum",
    "norms_gradient",
    "prompts_momentum",
    "center",
    "mean",
    "variance",
)
METHODS = [
    "no_adapt",
    "shift",
    "shift_origin",
    "neo",
    "shift:update=inclusive,average=global,warm_up=20,gain=0.7",
    "moments",
    "moments:update=lagged,decay=0.5,ratio_limit=1,gain=0.5",
    "quar",
    "quar:branches=local,average=exponential,rate=0.3,blocks=1,local_strength=0.8",
    "quar:branches=global,prior=0,limit=1.2,global_strength=0.6,epsilon=0.01",
    "quar:branches=global,average=exponential,rate=1",
    "fozo",
    "fozo:samples=2,output=mean,window=30,loss_scale=per_image,loss_norm=l2_groups,schedule_loss=mean",
    "fozo:output=clean,loss_norm=l2_per_layer,shift=origin,shift_update=inclusive,update_rate=previous",
    "fozo:loss_norm=mean_squared,shift=none,epsilon=0,epsilon_min=0,entropy_on=unshifted",
    "pizo",
    "pizo:tune=both,update_images=8",
    "pizo:tune=prompts,samples=2,update_images=8",
    "pizo:directions=gaussian,diversity_weight=0.5,window=20,tolerance=0,update_images=8,shift=source_mean",
    "pizo:epsilon=0,shift=none,entropy_on=unshifted,update_images=8",
]


class Step:
    """A compiled step in ONNX Runtime, with its state."""

    def __init__(self, step: StepGraph) -> None:
        self.session = onnxruntime.InferenceSession(step.model.SerializeToString())
        init = onnxruntime.InferenceSession(step.init.SerializeToString())
        names = [output.name for output in init.get_outputs()]
        self.state: dict[str, Any] = dict(zip(names, init.run(None, {}), strict=True))

    def run(self, images: ImageArray) -> Mapping[str, Any]:
        """Return the outputs for a batch, and take over the next state."""
        names = [output.name for output in self.session.get_outputs()]
        outputs = dict(zip(names, self.session.run(None, {"images": images, **self.state}), strict=True))
        self.state = {name: outputs[NEXT_STATE + name.removeprefix(STATE)] for name in self.state}
        return outputs


def compile_method(path: Path, spec: str, precision: str = "fp32") -> tuple[StepGraph, Adapter]:
    """Return the step of a method, and an adapter of the engine for the same."""
    bundle = Bundle.open(path)
    method = use_graph_generator(parse_method(spec)[1])
    network = Network.open(bundle, precision, activations=list_activation_uses([method]), workers=1)
    step = build_step(load_graph(bundle, network.info), method.bind(network.info), SEED, IDENTITY)
    onnx.checker.check_model(step.model, full_check=precision == "fp32")
    return step, Adapter(network, method, seed=SEED)


def assert_close(actual: Any, expected: Any, message: str) -> None:
    scale = max(float(np.abs(expected).max(initial=0)), 1e-3)
    assert np.abs(np.asarray(actual) - np.asarray(expected)).max(initial=0) <= 1e-4 * scale, message


@pytest.mark.parametrize("count", [1, 3, 8, 70])
@pytest.mark.parametrize("spec", METHODS)
def test_steps_are_those_of_the_engine(bundle_path: Path, random_images: Any, spec: str, count: int) -> None:
    graph, adapter = compile_method(bundle_path, spec)
    step = Step(graph)
    for index in range(6):
        images = random_images(count, seed=index)
        outputs, prediction = step.run(images), adapter.step(images)
        assert bool(outputs[VALID])
        assert_close(outputs["logits"], prediction.logits, f"logits of step {index}")
        for name, value in prediction.diagnostics.items():
            assert_close(outputs[f"diagnostic.{name}"], value, f"{name} of step {index}")
    for name in SHARED:
        expected = getattr(adapter.state, name, None)
        if expected is not None and STATE + name in step.state:
            assert_close(step.state[STATE + name], expected, name)
    for name in ("local", "last"):  # moments of QuAR
        moments = getattr(adapter.state, name, None)
        if f"{STATE}{name}_mean" in step.state:
            assert_close(step.state[f"{STATE}{name}_mean"], moments.mean, f"mean of {name}")
            assert_close(step.state[f"{STATE}{name}_variance"], moments.variance, f"variance of {name}")
    assert int(step.state[f"{STATE}step"]) == adapter.state.step == 6


@pytest.mark.parametrize("spec", ["fozo", "pizo", "neo", "quar"])
def test_fifty_steps_of_changing_size(bundle_path: Path, random_images: Any, spec: str) -> None:
    graph, adapter = compile_method(bundle_path, spec)
    step, agreeing, total = Step(graph), 0, 0
    for index in range(50):
        images = random_images(1 + index % 7, seed=index)
        logits, expected = step.run(images)["logits"], adapter.step(images).logits
        assert_close(logits, expected, f"step {index}")
        agreeing += int((logits.argmax(1) == expected.argmax(1)).sum())
        total += len(images)
    assert agreeing >= 0.999 * total


@pytest.mark.parametrize("spec", ["fozo", "pizo", "moments", "quar"])
def test_integer_kernels(int8_bundle_path: Path, random_images: Any, spec: str) -> None:
    graph, adapter = compile_method(int8_bundle_path, spec, "int8")
    step = Step(graph)
    assert "com.microsoft" in {entry.domain for entry in graph.model.opset_import}
    for index in range(4):
        images = random_images(8, seed=index)
        assert_close(step.run(images)["logits"], adapter.step(images).logits, f"step {index}")


def test_weights_are_stored_once(bundle_path: Path) -> None:
    graph, _ = compile_method(bundle_path, "pizo")
    network = (bundle_path / "model.onnx").stat().st_size
    assert len(graph.model.SerializeToString()) < network + 250_000


@pytest.mark.parametrize(
    ("spec", "field"),
    [("pizo", "norms"), ("fozo", "prompts"), ("shift", "center"), ("quar", "local_variance")],
)
def test_the_frozen_network_answers_what_is_not_finite(
    bundle_path: Path, random_images: Any, spec: str, field: str
) -> None:
    graph, adapter = compile_method(bundle_path, spec)
    step, images = Step(graph), random_images(4)
    for count in range(2):
        assert bool(step.run(random_images(4, seed=count))[VALID])
    healthy = dict(step.state)
    step.state[STATE + field] = np.full_like(step.state[STATE + field], np.nan)
    outputs = step.run(images)
    assert not bool(outputs[VALID])
    np.testing.assert_array_equal(outputs["logits"], adapter.network(images).logits)
    assert int(outputs[f"{NEXT_STATE}step"]) == 3
    for name in healthy:  # nothing else has changed
        if name not in (STATE + field, f"{STATE}step"):
            np.testing.assert_array_equal(step.state[name], healthy[name])


def test_a_state_of_another_method_is_refused_by_the_runtime(bundle_path: Path, random_images: Any) -> None:
    pizo, fozo = (Step(compile_method(bundle_path, spec)[0]) for spec in ("pizo", "fozo"))
    with pytest.raises(Exception, match=r"Required inputs|Feed Input Name"):
        pizo.session.run(None, {"images": random_images(2), **fozo.state})
    wrong_shape = {**pizo.state, f"{STATE}norms": pizo.state[f"{STATE}norms"][:1]}
    with pytest.raises(Exception, match="norms"):
        pizo.session.run(None, {"images": random_images(2), **wrong_shape})
    with pytest.raises(Exception, match=r"expected: \(tensor\(uint8\)\)"):
        pizo.session.run(None, {"images": random_images(2).astype(np.float32), **pizo.state})


def test_a_state_of_another_step_with_the_same_shapes_is_reported(
    bundle_path: Path, random_images: Any
) -> None:
    graph, adapter = compile_method(bundle_path, "pizo")
    step, images = Step(graph), random_images(4)
    step.run(images)
    step.state[f"{STATE}identity"] = np.asarray(IDENTITY + 1)
    outputs = step.run(images)
    assert not bool(outputs[VALID])
    np.testing.assert_array_equal(outputs["logits"], adapter.network(images).logits)


@pytest.mark.parametrize("spec", ["foa", "zoa", "pizo:guard=reset", "fozo:temperature=2", "neo:domains=3"])
def test_what_cannot_be_compiled_is_refused(bundle_path: Path, spec: str) -> None:
    with pytest.raises(ExportError, match="cannot be compiled as it is; expected no_adapt"):
        compile_method(bundle_path, spec)


@pytest.mark.parametrize("name", ["bca", "elatta", "eva0", "cazo", "pace"])
def test_a_refusal_names_the_method(bundle_path: Path, name: str) -> None:
    with pytest.raises(ExportError, match=f"^{name} cannot be compiled as it is"):
        compile_method(bundle_path, name)


def test_images_with_something_added_are_refused(bundle_path: Path) -> None:
    network = Network.open(Bundle.open(bundle_path), workers=1)
    info = replace(network.info, source=None, image_prompt=ImagePrompt(frame=2))
    bound = parse_method("no_adapt")[1].bind(info)
    with pytest.raises(ExportError, match="add something learnt to the images"):
        build_step(onnx.load(bundle_path / "model.onnx"), bound, SEED, IDENTITY)


def test_steps_without_learning_are_refused(bundle_path: Path) -> None:
    with pytest.raises(ExportError, match="learn_every=2 cannot be compiled"):
        compile_method(bundle_path, "pizo:learn_every=2")
