"""Compiled steps of residual networks and of models whose classes are made from texts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from clip_doubles import make_clip, make_family, open_clip_network
from fozo.engine.registry import parse_method
from fozo.engine.runtime.network import Network
from fozo.engine.statistics.feature_statistics import compute_source_statistics
from fozo.engine.streams.adapter import Adapter
from fozo.export.compile.step_folder import use_graph_generator
from fozo.export.compile.step_graph import NEXT_STATE, STATE, VALID, build_step
from resnet_doubles import draw_images, make_resnet, open_network

torch = pytest.importorskip("torch")


def assert_steps_agree(network: Network, graph: Path, spec: str, images: list[Any]) -> None:
    """Compare some steps of a compiled graph with those of the engine."""
    method = use_graph_generator(parse_method(spec)[1])
    step = build_step(onnx.load(graph), method.bind(network.info), 3, 11)
    session = onnxruntime.InferenceSession(step.model.SerializeToString())
    names = [output.name for output in session.get_outputs()]
    state = {f"{STATE}{name}": array for name, array in step.state.items()}
    adapter = Adapter(network, method, seed=3)
    for batch in images:
        outputs = dict(zip(names, session.run(None, {"images": batch, **state}), strict=True))
        expected = adapter.step(batch).logits
        assert bool(outputs[VALID])
        assert np.abs(outputs["logits"] - expected).max() <= 1e-4 * np.abs(expected).max()
        state = {name: outputs[NEXT_STATE + name.removeprefix(STATE)] for name in state}
    broken = {name: np.full_like(array, np.nan) for name, array in state.items() if array.dtype.kind == "f"}
    if broken:
        outputs = dict(zip(names, session.run(None, {"images": images[0], **state, **broken}), strict=True))
        assert not bool(outputs[VALID])
        frozen = network(images[0]).logits
        assert np.abs(outputs["logits"] - frozen).max() <= 1e-4 * np.abs(frozen).max()


@pytest.mark.parametrize("spec", ["no_adapt", "shift_origin", "neo"])
def test_residual_networks(tmp_path: Path, spec: str) -> None:
    network = open_network(make_resnet(), tmp_path)
    images = [draw_images(count, seed=count) for count in (3, 1, 5)]
    assert_steps_agree(network, tmp_path / "model.onnx", spec, images)


@pytest.mark.parametrize("spec", ["no_adapt", "neo", "pizo:update_images=4", "fozo"])
def test_classes_made_from_texts(tmp_path: Path, spec: str) -> None:
    family = make_family(make_clip(), classes=7)
    network = open_clip_network(family, tmp_path, tunable_norms=True, workers=1)
    images = [draw_images(count, network.image_size, count) for count in (3, 1, 5)]
    statistics = compute_source_statistics(network, [draw_images(40, network.image_size, 9)])
    assert_steps_agree(network.with_source(statistics), tmp_path / "model.onnx", spec, images)
