"""Graphs of residual networks against PyTorch with random parameters; images coupled by batch statistics."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from fozo.engine.errors import InputError
from fozo.engine.runtime.network import Network
from fozo.engine.runtime.tuning import tune
from resnet_doubles import (
    FORMAT,
    HALF,
    MEAN,
    ONE,
    RESNETS,
    STD,
    assert_close,
    assert_same,
    batch_norms,
    compute_reference,
    draw_addends,
    draw_images,
    make_resnet,
    open_network,
)

torch = pytest.importorskip("torch", reason="export needs PyTorch")
timm = pytest.importorskip("timm", reason="export needs timm")

from fozo.export import resnet  # noqa: E402
from fozo.export.resnet_graph import build_resnet_graph, select_resnet_norms  # noqa: E402
from fozo.export.resnet_model import read_resnet  # noqa: E402
from timm.models.resnet import BasicBlock  # noqa: E402


@pytest.mark.parametrize("family", RESNETS)
def test_graph_computes_what_pytorch_does(family: str, tmp_path: Path) -> None:
    model = RESNETS[family]()
    with open_network(model, tmp_path, micro_batch=32) as net:
        info = net.info
        for n in (1, 2, 3, 17) if family == "bottleneck" else (1, 3):
            images, addends = draw_images(n), draw_addends(info, n)
            assert_same(net(images), compute_reference(model, images), f"N = {n}")
            for share in (0.0, 0.5, 1.0):
                alpha = np.full(1, share, np.float32)
                case = f"N = {n}, share = {share}"
                plain = compute_reference(model, images, share)
                assert_same(net(images, batch_statistics=alpha), plain, case)
                found = net(images, batch_statistics=alpha, norms=addends)
                assert_same(found, compute_reference(model, images, share, addends), f"{case}, norms")
                assert np.abs(found.logits - plain.logits).max() > 1e-2, case
                head = found.features[:, -1] @ info.head_weight.T + info.head_bias
                assert_close(found.logits, head, case)


@pytest.mark.parametrize("size", [(33, 47), (50, 32), (65, 65)])
def test_sizes_that_do_not_divide(size: tuple[int, int], tmp_path: Path) -> None:
    """The average pooling of ResNet-D then reaches over the edge, and must not count what is there."""
    model, images = make_resnet(stem_type="deep", stem_width=8, avg_down=True), draw_images(6, size)
    with open_network(model, tmp_path, size) as net:
        assert_same(net(images), compute_reference(model, images), "plain")
        assert_same(net(images, batch_statistics=HALF), compute_reference(model, images, 0.5), "mixed")


def test_batch_statistics_are_those_of_training_mode(model: Any, shared: Network) -> None:
    images = draw_images(5)
    training = copy.deepcopy(model)
    for norm in batch_norms(training):
        norm.train()
    pixels = (torch.tensor(images).permute(0, 3, 1, 2).float() / 255 - torch.tensor(MEAN)[:, None, None]) / (
        torch.tensor(STD)[:, None, None]
    )
    with torch.no_grad():
        expected = training(pixels).numpy()
    assert_close(shared(images, batch_statistics=ONE).logits, expected, "training mode")
    assert np.abs(shared(images).logits - expected).max() > 0.1


def test_a_single_position_is_its_own_mean(tmp_path: Path) -> None:
    """One image of 32 pixels: the last stage has one position, whose deviation is zero."""
    model, images = make_resnet(BasicBlock), draw_images(1, (32, 32))
    with open_network(model, tmp_path, (32, 32)) as net:
        found = net(images, batch_statistics=ONE)
        assert_same(found, compute_reference(model, images, 1.0), "one position")
        assert np.isfinite(found.logits).all()


def test_each_norm_has_its_own_addends(model: Any, shared: Network) -> None:
    images, read = draw_images(2), read_resnet(model)
    names = [
        f"layer{s}.{i}.bn{k}" for s, n in ((1, 1), (2, 2), (3, 1), (4, 1)) for i in range(n) for k in (1, 2)
    ]
    assert list(select_resnet_norms(read)) == names == list(shared.info.norms)
    for index, (name, channels) in enumerate(shared.info.norms.items()):
        norm = model.get_submodule(name)
        assert norm.num_features == channels
        for part in range(2):
            addends = np.zeros((1, len(names), 2, max(shared.info.norms.values())), np.float32)
            addends[0, index, part, channels - 1] = 0.7
            share = (index + part) % 2
            found = shared(images, norms=addends, batch_statistics=np.full(1, share, np.float32))
            assert_same(found, compute_reference(model, images, share, addends), f"{name} {part} {share}")


def test_norms_of_chosen_blocks(model: Any) -> None:
    read = read_resnet(model)
    assert list(select_resnet_norms(read, [3, 1])) == [
        "layer2.0.bn1",
        "layer2.0.bn2",
        "layer3.0.bn1",
        "layer3.0.bn2",
    ]
    graph = build_resnet_graph(read, FORMAT)
    assert [value.name for value in graph.graph.input] == ["images", "batch_statistics"]


def test_graph_is_plain_onnx_and_holds_weights_once(model: Any) -> None:
    read = read_resnet(model)
    graph = build_resnet_graph(read, FORMAT, select_resnet_norms(read))
    onnx.checker.check_model(graph, full_check=True)
    assert [entry.domain for entry in graph.opset_import] == [""]
    branches = [a.g for node in graph.graph.node if node.op_type == "If" for a in node.attribute]
    assert len(branches) == 2
    assert not any(branch.initializer for branch in branches)
    nodes = [*graph.graph.node, *(node for branch in branches for node in branch.node)]
    assert {node.domain for node in nodes} == {""}
    assert len({node.name for node in nodes}) == len(nodes)
    floats = sum(np.prod(t.dims) for t in graph.graph.initializer if t.data_type == onnx.TensorProto.FLOAT)
    stored = sum(v.numel() for k, v in model.state_dict().items() if "num_batches" not in k)
    zeros = sum({norm.num_features for norm in batch_norms(model) if norm is not model.bn1})
    assert floats == stored + zeros + 64 + 3 + 2  # signs of the stem, mean of the pixels, zero and one


def test_reading_a_model_leaves_it_as_it_was(model: Any) -> None:
    before = {key: value.clone() for key, value in model.state_dict().items()}
    family = resnet.ResnetFamily(model, FORMAT)
    norms = family.select_norms(None)
    family.build_graph(norms)
    for _, tunables in family.draw_cases(3, norms, np.random.default_rng(0)):
        family.compute_reference(draw_images(3), tunables, norms)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("micro_batch", [1, 3, 32])
def test_the_split_decides_nothing(workers: int, micro_batch: int, shared: Network) -> None:
    images, addends = draw_images(7), draw_addends(shared.info)
    with shared.rearrange(workers, micro_batch) as net:
        for tunables in ({}, {"norms": addends}, {"batch_statistics": ONE}, {"batch_statistics": HALF}):
            found, expected = net(images, **tunables), shared(images, **tunables)
            for name in ("logits", "features", "embedding"):
                np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


def test_plain_images_do_not_touch_each_other_and_batches_do(shared: Network) -> None:
    images = draw_images(6)
    for tunables in ({}, {"norms": draw_addends(shared.info)}):
        whole = shared(images, **tunables).logits
        parts = [shared(images[i : i + 1], **tunables).logits for i in range(6)]
        np.testing.assert_allclose(np.concatenate(parts), whole, atol=1e-5)
    whole = shared(images, batch_statistics=ONE)
    half = shared(images[:3], batch_statistics=ONE)
    assert np.abs(whole.logits[:3] - half.logits).max() > 0.1
    np.testing.assert_allclose(whole.embedding[:3], half.embedding, atol=1e-6)  # type: ignore[index]


def test_one_call_where_images_depend_on_each_other(shared: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    run = Network._run

    def counting(self: Network, feed: Any) -> Any:
        calls.append(len(feed["images"]))
        return run(self, feed)

    monkeypatch.setattr(Network, "_run", counting)
    shared(draw_images(5))
    shared(draw_images(5), batch_statistics=HALF)
    shared.candidates(draw_images(5), [{"batch_statistics": ONE}, {}])
    assert calls == [2, 2, 1, 5, 5, 2, 2, 1]


@pytest.mark.parametrize(
    ("name", "array", "found"),
    [
        ("batch_statistics", np.ones(2, np.float32), r"shape \[1\], found float32 of shape \[2\]"),
        ("batch_statistics", np.ones(1), "float32"),
        ("batch_statistics", np.full(1, 1.5, np.float32), r"in 0\.\.1, found 1\.5"),
        ("batch_statistics", np.full(1, np.nan, np.float32), "found nan"),
        ("norms", np.zeros((2, 10, 2, 12), np.float32), r"\[1, 10, 2, 12\]"),
        ("prompts", np.zeros((1, 0, 48), np.float32), "no tunable prompts"),
    ],
)
def test_tunables_that_do_not_fit(name: str, array: Any, found: str, shared: Network) -> None:
    with pytest.raises(InputError, match=found):
        shared(draw_images(2), **{name: array})


def test_addends_that_are_no_numbers_show(shared: Network) -> None:
    addends = np.zeros((1, 10, 2, 12), np.float32)
    addends[0, 0, 0, 0] = np.nan
    assert np.isnan(shared(draw_images(2), norms=addends).logits).all()


def test_tuning_such_a_network(shared: Network) -> None:
    measured = tune(shared, draw_images(4), rounds=1)
    assert {each.arrangement.workers for each in measured} >= {1}
