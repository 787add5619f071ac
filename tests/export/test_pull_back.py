"""Pull-back graphs against PyTorch's autograd, for every kind of vision transformer that can be exported."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from fozo.engine.errors import BundleError, ExportError, InputError
from fozo.engine.model import NORMS, PROMPTS, FloatArray, Outputs, Slopes
from fozo.engine.runtime.network import Network
from fozo.engine.statistics.output_slopes import derive_entropy
from vit_doubles import MEAN, STD, VITS, describe_model, make_vit

torch = pytest.importorskip("torch", reason="export needs PyTorch")

from fozo.export import verify  # noqa: E402
from fozo.export.exporter import export_model  # noqa: E402
from fozo.export.image_format import ImageFormat  # noqa: E402
from fozo.export.model_request import Request  # noqa: E402
from fozo.export.pull_back import build_pull_back  # noqa: E402
from fozo.export.vit import VitFamily  # noqa: E402
from fozo.export.vit_graph import build_vit_graph, select_vit_norms  # noqa: E402
from fozo.export.vit_model import read_vit  # noqa: E402

TOLERANCE = 5e-5  # of the largest entry of a gradient
TUNABLES = (PROMPTS, NORMS)


def open_network(model: Any, folder: Path, stack: ExitStack) -> Network:
    vit = read_vit(model)
    norms = select_vit_norms(vit)
    graph = build_vit_graph(vit, MEAN, STD, norms)
    pull_back = build_pull_back(graph, TUNABLES)
    onnx.checker.check_model(pull_back, full_check=True)
    assert {opset.domain for opset in pull_back.opset_import} == {""}
    onnx.save(graph, folder / "model.onnx")
    onnx.save(pull_back, folder / "pull-back.onnx")
    info = replace(describe_model(vit), norms=norms, tunables=TUNABLES, gradients=TUNABLES)
    return stack.enter_context(Network(folder / "pull-back.onnx", info))


def open_plain(network: Network, folder: Path, **options: Any) -> Network:
    """Return the network without gradients that was exported beside one with gradients."""
    return Network(folder / "model.onnx", replace(network.info, gradients=()), **options)


def list_bits(outputs: Outputs) -> list[bytes]:
    assert outputs.embedding is not None
    return [array.tobytes() for array in (outputs.logits, outputs.features, outputs.embedding)]


def draw_point(network: Network, generator: np.random.Generator) -> dict[str, FloatArray]:
    info = network.info
    return {
        PROMPTS: generator.normal(0, 0.5, (1, 3, info.width)).astype(np.float32),
        NORMS: generator.normal(0, 0.1, (1, len(info.norms), 2, info.width)).astype(np.float32),
    }


def draw_slopes(network: Network, images: int, generator: np.random.Generator) -> Slopes:
    info = network.info
    return Slopes(
        generator.normal(size=(images, info.classes)).astype(np.float32),
        generator.normal(size=(images, info.layers, info.feature_width)).astype(np.float32),
        generator.normal(size=images).astype(np.float32),
    )


def differentiate(
    model: Any, images: Any, tunables: dict[str, FloatArray], norms: Any, slopes: Slopes
) -> dict[str, FloatArray]:
    """Differentiate by autograd in double precision, with the parameters of the norms as leaves."""
    assert slopes.logits is not None and slopes.features is not None and slopes.entropy_weights is not None
    model = model.double()
    names = {name: model.get_submodule(name) for name in norms}
    addends = torch.from_numpy(tunables[NORMS][0]).double()
    original = {name: (module.weight, module.bias) for name, module in names.items()}
    leaves = []
    for (name, module), (gain, bias) in zip(names.items(), addends, strict=True):
        weight, offset = (0 if value is None else value.detach() for value in original[name])
        one = 1 if original[name][0] is None else 0
        module.weight = torch.nn.Parameter(weight + gain + one)
        module.bias = torch.nn.Parameter(offset + bias)
        leaves += [module.weight, module.bias]
    prompts = torch.from_numpy(tunables[PROMPTS]).double().requires_grad_()
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).double() / 255
    mean, std = (torch.tensor(values, dtype=torch.float64).view(1, 3, 1, 1) for values in (MEAN, STD))
    tokens = model._pos_embed(model.patch_embed((pixels - mean) / std))
    prefix, readout = model.num_prefix_tokens, 2 if hasattr(model, "head_dist") else 1
    inserted = prompts.expand(len(images), -1, -1)
    tokens = model.norm_pre(torch.cat([tokens[:, :prefix], inserted, tokens[:, prefix:]], dim=1))
    features = []
    for block, norm in itertools.zip_longest(model.blocks, [b.norm1 for b in model.blocks[1:]]):
        tokens = block(tokens)
        features.append((norm or model.norm)(tokens)[:, :readout].flatten(1))
    logits = model.forward_head(model.norm(tokens))
    loss = (logits * torch.from_numpy(slopes.logits)).sum()
    loss = loss + (torch.stack(features, 1) * torch.from_numpy(slopes.features)).sum()
    entropies = torch.special.entr(logits.softmax(1)).sum(1)
    loss = loss + (entropies * torch.from_numpy(slopes.entropy_weights)).sum()
    gradients = torch.autograd.grad(loss, [prompts, *leaves])
    for name, module in names.items():
        module.weight, module.bias = original[name]
    model.float()
    stacked = torch.stack(gradients[1:]).view(len(names), 2, -1)
    return {PROMPTS: gradients[0][0].numpy(), NORMS: stacked.numpy()}


@pytest.mark.parametrize("model_name", VITS)
def test_gradients_are_those_of_autograd(model_name: str, tmp_path: Path) -> None:
    model = VITS[model_name]()
    generator = np.random.default_rng(2)
    with ExitStack() as stack:
        network = open_network(model, tmp_path, stack)
        for count in (1, 3):
            images = generator.integers(0, 256, (count, *network.image_size, 3), dtype=np.uint8)
            tunables, slopes = draw_point(network, generator), draw_slopes(network, count, generator)
            outputs = network.pull_back(images, tunables, slopes)
            expected = differentiate(model, images, tunables, network.info.norms, slopes)
            assert outputs.gradients is not None
            for tunable, gradient in expected.items():
                error = np.abs(outputs.gradients[tunable] - gradient).max() / np.abs(gradient).max()
                assert error < TOLERANCE, f"{tunable}, N = {count}"
            with open_plain(network, tmp_path) as plain:
                forward = plain(images, **tunables)
            for same in (network(images, **tunables), outputs):
                assert list_bits(same) == list_bits(forward)


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Network]:
    with ExitStack() as stack:
        yield open_network(make_vit(), tmp_path, stack)


def test_gradients_vanish_without_slopes(network: Network) -> None:
    images = np.zeros((2, *network.image_size, 3), np.uint8)
    gradients = network.pull_back(images, {}, Slopes()).gradients
    assert gradients is not None and not gradients[NORMS].any()


@pytest.mark.parametrize("classes", [None, [5, 0, 2]])
def test_entropies_in_the_graph_are_those_of_their_slopes(
    network: Network, classes: list[int] | None
) -> None:
    generator = np.random.default_rng(5)
    images = generator.integers(0, 256, (2, *network.image_size, 3), dtype=np.uint8)
    selected = network if classes is None else network.select(classes)
    weights = np.array([0.3, -2.0])
    inside = selected.pull_back(images, {}, Slopes(entropy_weights=weights))
    slopes = weights[:, None] * derive_entropy(inside.logits)
    outside = selected.pull_back(images, {}, Slopes(slopes))
    assert inside.gradients is not None and outside.gradients is not None
    largest = np.abs(outside.gradients[NORMS]).max()
    np.testing.assert_allclose(inside.gradients[NORMS], outside.gradients[NORMS], atol=1e-5 * largest)


def test_entropies_of_confident_predictions_are_finite(tmp_path: Path) -> None:
    """A class that is certain, or the only one, has an entropy of zero and no slope."""
    model = make_vit()
    model.head.weight.data *= 1e6
    with ExitStack() as stack:
        network = open_network(model, tmp_path, stack)
        images = np.zeros((1, *network.image_size, 3), np.uint8)
        for view in (network, network.select([1])):
            gradients = view.pull_back(images, {}, Slopes(entropy_weights=np.ones(1))).gradients
            assert gradients is not None and not gradients[NORMS].any()


def test_selected_classes_have_the_gradients_of_their_logits(network: Network) -> None:
    generator = np.random.default_rng(3)
    images = generator.integers(0, 256, (2, *network.image_size, 3), dtype=np.uint8)
    slopes = generator.normal(size=(2, 3)).astype(np.float32)
    every_slope = np.zeros((2, network.info.classes), np.float32)
    every_slope[:, [5, 0, 2]] = slopes
    selected = network.select([5, 0, 2]).pull_back(images, {}, Slopes(slopes))
    plain = network.pull_back(images, {}, Slopes(every_slope))
    assert selected.gradients is not None and plain.gradients is not None
    assert selected.gradients[NORMS].tobytes() == plain.gradients[NORMS].tobytes()
    assert np.array_equal(selected.logits, plain.logits[:, [5, 0, 2]])


def test_slopes_and_tunables_that_do_not_fit_are_refused(network: Network) -> None:
    images, info = np.zeros((2, *network.image_size, 3), np.uint8), network.info
    good = np.zeros((2, info.classes))
    norms = np.zeros((2, len(info.norms), 2, info.width), np.float32)
    with pytest.raises(InputError, match="share"):
        network.pull_back(images, {NORMS: norms}, Slopes(good))
    with pytest.raises(InputError, match="features_slopes"):
        network.pull_back(images, {}, Slopes(good, np.zeros((2, info.layers, info.feature_width + 1))))
    with pytest.raises(InputError, match="logits_slopes"):
        network.pull_back(images, {}, Slopes(np.zeros((3, info.classes))))
    with pytest.raises(InputError, match="entropy_weights"):
        network.pull_back(images, {}, Slopes(entropy_weights=np.ones(3)))


def test_network_without_gradients_says_so(network: Network, tmp_path: Path) -> None:
    images = np.zeros((1, *network.image_size, 3), np.uint8)
    with open_plain(network, tmp_path) as plain, pytest.raises(BundleError, match="gradients=True"):
        plain.pull_back(images, {}, Slopes(np.zeros((1, network.info.classes))))


def test_other_graph_is_refused_as_a_pull_back(network: Network, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"contract of pull-back graphs.*--gradients"):
        Network(tmp_path / "model.onnx", network.info)
    with pytest.raises(BundleError, match="graph contract"):
        Network(tmp_path / "pull-back.onnx", replace(network.info, gradients=()))


def test_pull_back_graph_without_its_condition_is_refused(network: Network, tmp_path: Path) -> None:
    """Graphs of earlier versions always computed gradients."""
    graph = onnx.load(tmp_path / "pull-back.onnx")
    condition = next(value for value in graph.graph.input if value.name == "pull_back")
    graph.graph.input.remove(condition)
    graph.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(True), "pull_back"))
    onnx.save(graph, tmp_path / "old.onnx")
    with pytest.raises(BundleError, match=r"contract of pull-back graphs.*--gradients"):
        Network(tmp_path / "old.onnx", network.info)


def test_bits_do_not_depend_on_threads(network: Network) -> None:
    generator = np.random.default_rng(4)
    images = generator.integers(0, 256, (3, *network.image_size, 3), dtype=np.uint8)
    tunables, slopes = draw_point(network, generator), draw_slopes(network, 3, generator)
    one, two = (network.rearrange(workers, 2) for workers in (1, 2))
    assert list_bits(one(images, **tunables)) == list_bits(two(images, **tunables))
    first, second = (view.pull_back(images, tunables, slopes) for view in (one, two))
    assert list_bits(first) == list_bits(second) and first.gradients and second.gradients
    for name, gradient in first.gradients.items():
        assert gradient.any() and gradient.tobytes() == second.gradients[name].tobytes()


def test_forward_computes_nothing_of_the_reverse_pass(network: Network, tmp_path: Path) -> None:
    """Only weights are transposed and shapes are read in front of the branch."""
    nodes = onnx.load(tmp_path / "pull-back.onnx").graph.node
    constants = {tensor.name for tensor in onnx.load(tmp_path / "pull-back.onnx").graph.initializer}
    reverse = [node for node in nodes if node.name.startswith("pull_back/")]
    assert {node.op_type for node in reverse} == {"Transpose", "Shape"}
    assert all(node.op_type == "Shape" or constants.issuperset(node.input) for node in reverse)
    assert nodes[-1].op_type == "If" and sum(node.op_type == "If" for node in nodes) == 1
    (branch,) = [item.g for item in nodes[-1].attribute if item.name == "then_branch"]
    assert len(branch.node) > 100 and not any(node.op_type == "Shape" for node in branch.node)


def test_operator_without_a_rule_is_named(tmp_path: Path) -> None:
    vit = read_vit(make_vit())
    graph = build_vit_graph(vit, MEAN, STD, select_vit_norms(vit))
    next(node for node in graph.graph.node if node.op_type == "Gelu").op_type = "Mish"
    with pytest.raises(ExportError, match="Mish"):
        build_pull_back(graph, TUNABLES)


def test_wrong_rule_is_found_at_export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_vit()
    with ExitStack() as stack:
        network = open_network(model, tmp_path, stack)
        family = VitFamily(model, ImageFormat(network.image_size, MEAN, STD))
        path = tmp_path / "pull-back.onnx"
        assert verify.verify_gradients(family, path, network.info) < TOLERANCE
        graph = onnx.load(path)
        (branch,) = [item.g for item in graph.graph.node[-1].attribute if item.name == "then_branch"]
        next(node for node in branch.node if node.op_type == "Erf").op_type = "Tanh"
        onnx.save(graph, path)
        with pytest.raises(ExportError, match="autograd"):
            verify.verify_gradients(family, path, network.info)


def test_export_adds_gradients_on_request(tmp_path: Path) -> None:
    result = export_model(Request("fozo_demo_vit", gradients=True), tmp_path / "bundle")
    assert result.gradient_difference is not None and result.gradient_difference < TOLERANCE
    assert result.bundle.info("fp32", gradients=True).gradients == TUNABLES
    assert result.bundle.info("fp32").gradients == ()
    assert result.bundle.pull_back("fp32") == tmp_path / "bundle" / "pull-back.onnx"
    plain = export_model(Request("fozo_demo_vit"), tmp_path / "plain")
    assert plain.gradient_difference is None
    with pytest.raises(BundleError, match="none for fp32; export it again with --gradients"):
        Network.open(plain.bundle, gradients=True)


def test_residual_networks_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="without gradients"):
        export_model(Request("resnet18", random=True, image_size=32, gradients=True), tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()
