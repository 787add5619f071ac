"""Residual networks against PyTorch with every parameter random; batch statistics, coupling, refusals."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from fozo.data.loader import count_batches, load_batches
from fozo.data.source import SourceImages
from fozo.engine.bundle.bundle import Bundle
from fozo.engine.errors import BundleError, ExportError, InputError
from fozo.engine.model import FloatArray, ImageArray, ModelInfo, Outputs
from fozo.engine.registry import method as fozo_method
from fozo.engine.runtime.network import Network
from fozo.engine.runtime.source_statistics import plan_source_batches, store_source
from fozo.engine.runtime.tuning import tune
from fozo.engine.statistics.feature_statistics import Moments
from fozo.engine.statistics.objective import compute_discrepancy
from fozo.engine.streams.adapter import Adapter
from fozo.quant.quantizer import Quantizer
from fozo.quant.settings import Options

torch = pytest.importorskip("torch", reason="export needs PyTorch")
timm = pytest.importorskip("timm", reason="export needs timm")

from fozo.export import exporter, resnet  # noqa: E402
from fozo.export.exporter import export_model  # noqa: E402
from fozo.export.image_format import ImageFormat  # noqa: E402
from fozo.export.model_request import Request  # noqa: E402
from fozo.export.resnet_graph import build_resnet_graph, select_resnet_norms  # noqa: E402
from fozo.export.resnet_model import Resnet, read_resnet  # noqa: E402
from timm.layers import BlurPool2d, GroupNorm, SplitAttn  # noqa: E402
from timm.models.resnet import BasicBlock, Bottleneck, ResNet  # noqa: E402

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
FORMAT = ImageFormat((64, 64), MEAN, STD)
CLASSES = 7
TOLERANCE = 1e-4  # of the largest magnitude; normalising four values of a batch amplifies rounding
ONE, HALF = np.ones(1, np.float32), np.full(1, 0.5, np.float32)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Tiny layers on several threads mostly wait for each other, for minutes on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def small(block: Any = Bottleneck, **options: Any) -> Any:
    """A tiny ResNet in which every parameter and running statistic is random, some gains negative or zero."""
    channels = (4, 6, 8, 12) if block is Bottleneck else (8, 12, 16, 24)
    defaults = {"layers": (1, 2, 1, 1), "channels": channels, "num_classes": CLASSES}
    model = ResNet(block, **{**defaults, **options})
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, values in model.state_dict().items():
            if not values.is_floating_point():
                continue
            noise = torch.randn(values.shape, generator=generator)
            if name.endswith("running_var"):
                values.copy_(0.3 + noise.abs())
            elif values.ndim == 1:
                values.copy_(0.5 * noise + (0.8 if name.endswith("weight") else 0.0))
            else:
                values.copy_(noise * values[0].numel() ** -0.5 * 1.5)
        model.bn1.weight[:3] = torch.tensor([0.0, -1.0, -1e-20])
        model.layer2[0].bn1.weight[:3] = torch.tensor([0.0, -1.0, 1e-20])
    model.pretrained_cfg = {"mean": MEAN, "std": STD}
    return model.eval()


FAMILIES: dict[str, Callable[[], Any]] = {
    "bottleneck": small,
    "basic": partial(small, BasicBlock),
    "deep_stem": partial(small, stem_type="deep", stem_width=8),
    "tiered_stem": partial(small, BasicBlock, stem_type="deep_tiered", stem_width=8),
    "resnet_d": partial(small, stem_type="deep", stem_width=8, avg_down=True),
    "resnext": partial(small, cardinality=2, base_width=64),
    "wide": partial(small, base_width=128),
    "large_kernel_down": partial(small, down_kernel_size=3, block_reduce_first=2),
    "stride_16": partial(small, output_stride=16),
    "dropouts": partial(small, drop_rate=0.5, drop_path_rate=0.5, drop_block_rate=0.0),
    "one_class": partial(small, BasicBlock, num_classes=1),
}


def batch_norms(model: Any) -> list[Any]:
    return [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]


def reference(model: Any, images: ImageArray, share: float = 0.0, addends: Any = None) -> Outputs:
    """`model(x)` itself, each norm's running statistics replaced by the mixture just before it is used."""
    model = copy.deepcopy(model)
    names = list(select_resnet_norms(read_resnet(model)))
    for name, (gain, bias) in zip(names, () if addends is None else addends[0], strict=addends is not None):
        norm = model.get_submodule(name)
        norm.weight.data += torch.from_numpy(gain[: norm.num_features])
        norm.bias.data += torch.from_numpy(bias[: norm.num_features])

    def mix(norm: Any, inputs: Any) -> None:
        x = inputs[0].double().numpy()
        for running, own in ((norm.running_mean, x.mean((0, 2, 3))), (norm.running_var, x.var((0, 2, 3)))):
            running.copy_((1 - share) * running + share * torch.from_numpy(own))

    seen: list[FloatArray] = []
    for norm in batch_norms(model):
        norm.register_forward_pre_hook(mix)
    model.bn1.register_forward_pre_hook(lambda _m, inputs: seen.append(inputs[0].double().numpy()))
    for stage in (model.layer1, model.layer2, model.layer3, model.layer4):
        stage.register_forward_hook(lambda _m, _i, output: seen.append(output.numpy().mean((2, 3))))
    pixels = torch.tensor(images).permute(0, 3, 1, 2).double() / 255
    pixels = (pixels - torch.tensor(MEAN).view(1, 3, 1, 1)) / torch.tensor(STD).view(1, 3, 1, 1)
    with torch.no_grad():
        logits = model(pixels.float()).numpy()
    embedded, *features = seen
    width = features[-1].shape[1]
    padded = [np.pad(each, ((0, 0), (0, width - each.shape[1]))) for each in features]
    moments = [embedded.mean((2, 3)), embedded.var((2, 3))]
    return Outputs(logits, np.stack(padded, 1), np.stack(moments, 1))


def described(read: Resnet, **changes: Any) -> ModelInfo:
    facts = {"norms": select_resnet_norms(read), "tunables": ("norms", "batch_statistics"), **changes}
    width = read.widths[-1]
    return ModelInfo("t", "t", 4, width, 4, 0.0, read.head_weight, read.head_bias, **facts)


def network(model: Any, folder: Path, size: tuple[int, int] = (64, 64), **options: Any) -> Network:
    read = read_resnet(model)
    path = folder / "model.onnx"
    onnx.save(build_resnet_graph(read, ImageFormat(size, MEAN, STD), select_resnet_norms(read)), path)
    return Network(path, described(read), **{"workers": 1, **options})


def some_images(count: int, size: tuple[int, int] = (64, 64), seed: int = 0) -> ImageArray:
    """Each with its own colour and contrast, so that the statistics of batches differ."""
    generator = np.random.default_rng([seed, count])
    centre, spread = generator.uniform(60, 190, (count, 1, 1, 3)), generator.uniform(10, 60, (count, 1, 1, 1))
    images = (centre + spread * generator.normal(size=(count, *size, 3))).clip(0, 255).astype(np.uint8)
    images.setflags(write=False)
    return images


def some_addends(info: ModelInfo, seed: int = 0) -> FloatArray:
    """What lies beyond the channels of a norm is noise too, and must have no effect."""
    shape = (1, len(info.norms), 2, max(info.norms.values()))
    return np.random.default_rng(seed).normal(0, 0.3, shape).astype(np.float32)


def assert_close(found: FloatArray | None, expected: FloatArray | None, what: str) -> None:
    assert found is not None and expected is not None
    assert found.shape == expected.shape, what
    assert found.dtype == np.float32, what
    assert np.abs(found - expected).max() <= TOLERANCE * max(1, np.abs(expected).max()), what


def assert_same(found: Outputs, expected: Outputs, what: str) -> None:
    for name in ("logits", "features", "embedding"):
        assert_close(getattr(found, name), getattr(expected, name), f"{name}, {what}")


@pytest.fixture(scope="module")
def model() -> Any:
    return small()


@pytest.fixture(scope="module")
def shared(model: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    """The network of `model`, two workers."""
    with network(model, tmp_path_factory.mktemp("shared"), workers=2, micro_batch=2) as opened:
        yield opened


# --- the graph ---


@pytest.mark.parametrize("family", FAMILIES)
def test_graph_computes_what_pytorch_does(family: str, tmp_path: Path) -> None:
    model = FAMILIES[family]()
    with network(model, tmp_path, micro_batch=32) as net:
        info = net.info
        for n in (1, 2, 3, 17) if family == "bottleneck" else (1, 3):
            images, addends = some_images(n), some_addends(info, n)
            assert_same(net(images), reference(model, images), f"N = {n}")
            for share in (0.0, 0.5, 1.0):
                alpha = np.full(1, share, np.float32)
                case = f"N = {n}, share = {share}"
                plain = reference(model, images, share)
                assert_same(net(images, batch_statistics=alpha), plain, case)
                found = net(images, batch_statistics=alpha, norms=addends)
                assert_same(found, reference(model, images, share, addends), f"{case}, norms")
                assert np.abs(found.logits - plain.logits).max() > 1e-2, case
                head = found.features[:, -1] @ info.head_weight.T + info.head_bias
                assert_close(found.logits, head, case)


@pytest.mark.parametrize("size", [(33, 47), (50, 32), (65, 65)])
def test_sizes_that_do_not_divide(size: tuple[int, int], tmp_path: Path) -> None:
    """The average pooling of ResNet-D then reaches over the edge, and must not count what is there."""
    model, images = small(stem_type="deep", stem_width=8, avg_down=True), some_images(6, size)
    with network(model, tmp_path, size) as net:
        assert_same(net(images), reference(model, images), "plain")
        assert_same(net(images, batch_statistics=HALF), reference(model, images, 0.5), "mixed")


def test_batch_statistics_are_those_of_training_mode(model: Any, shared: Network) -> None:
    images = some_images(5)
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
    model, images = small(BasicBlock), some_images(1, (32, 32))
    with network(model, tmp_path, (32, 32)) as net:
        found = net(images, batch_statistics=ONE)
        assert_same(found, reference(model, images, 1.0), "one position")
        assert np.isfinite(found.logits).all()


def test_each_norm_has_its_own_addends(model: Any, shared: Network) -> None:
    images, read = some_images(2), read_resnet(model)
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
            assert_same(found, reference(model, images, share, addends), f"{name} {part} {share}")


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
        family.compute_reference(some_images(3), tunables, norms)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())


# --- images of a call that depend on each other ---


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("micro_batch", [1, 3, 32])
def test_the_split_decides_nothing(workers: int, micro_batch: int, shared: Network) -> None:
    images, addends = some_images(7), some_addends(shared.info)
    with shared.rearrange(workers, micro_batch) as net:
        for tunables in ({}, {"norms": addends}, {"batch_statistics": ONE}, {"batch_statistics": HALF}):
            found, expected = net(images, **tunables), shared(images, **tunables)
            for name in ("logits", "features", "embedding"):
                np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


def test_plain_images_do_not_touch_each_other_and_batches_do(shared: Network) -> None:
    images = some_images(6)
    for tunables in ({}, {"norms": some_addends(shared.info)}):
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
    shared(some_images(5))
    shared(some_images(5), batch_statistics=HALF)
    shared.candidates(some_images(5), [{"batch_statistics": ONE}, {}])
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
        shared(some_images(2), **{name: array})


def test_addends_that_are_no_numbers_show(shared: Network) -> None:
    addends = np.zeros((1, 10, 2, 12), np.float32)
    addends[0, 0, 0, 0] = np.nan
    assert np.isnan(shared(some_images(2), norms=addends).logits).all()


def test_tuning_such_a_network(shared: Network) -> None:
    measured = tune(shared, some_images(4), rounds=1)
    assert {each.arrangement.workers for each in measured} >= {1}


# --- bundles ---


@pytest.fixture(scope="module")
def bundle(model: Any, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """`model` as an exported bundle for images of 64 pixels, without source statistics."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exporter, "create_model", lambda request: model)
        path = tmp_path_factory.mktemp("resnet") / "bundle"
        return export_model(Request("small", image_size=64), path).bundle


def clean(count: int) -> SourceImages:
    images = some_images(count, seed=9)
    return SourceImages(count, lambda index: images[index], "somewhere")


def test_what_a_bundle_says(bundle: Bundle) -> None:
    manifest = Bundle.open(bundle.path).manifest
    assert manifest == bundle.manifest
    assert (manifest.layers, manifest.feature_width, manifest.classes) == (4, 48, CLASSES)
    assert manifest.feature_widths == (16, 24, 32, 48)
    assert (manifest.width, manifest.tokens) == (48, 4)
    assert manifest.tunables == {"norms": (1, 10, 2, 12), "batch_statistics": (1,)}
    assert manifest.preprocessing.size == (64, 64)
    info = bundle.info("fp32")
    assert info.feature_widths == manifest.feature_widths
    assert info.tunables == ("norms", "batch_statistics")
    with Network.open(bundle, workers=1) as net:
        features = net(some_images(3)).features
    for layer, width in enumerate(manifest.feature_widths):
        assert np.all(features[:, layer, width:] == 0)
        assert features[:, layer, width // 2 : width].any()


@pytest.mark.parametrize(
    "widths", [[16, 24, 32], [16, 24, 32, 49], [0, 24, 32, 48], "no", None, [16, 24, 32, "x"]]
)
def test_widths_that_make_no_sense(widths: Any, bundle: Bundle, tmp_path: Path) -> None:
    raw = json.loads((bundle.path / "bundle.json").read_bytes())
    raw["feature_widths"] = widths
    (tmp_path / "bundle.json").write_text(json.dumps(raw))
    with pytest.raises(BundleError, match=r"bundle\.json: feature_widths.*expected .*, found "):
        Bundle.open(tmp_path)


@pytest.mark.parametrize(("count", "used", "batches"), [(40, 40, [40]), (64, 64, [64]), (135, 128, [64, 64])])
def test_source_statistics_are_those_of_normalised_batches(
    count: int, used: int, batches: list[int], model: Any, bundle: Bundle, tmp_path: Path
) -> None:
    images, sizes = clean(count), list[int]()
    stored = add_source(copied(bundle, tmp_path), "fp32", images, sizes.append)
    assert sizes == batches
    source = stored.info("fp32").source
    assert source is not None and source.images == used
    origin = stored.manifest.source["fp32"].origin
    assert origin.startswith("somewhere; ")
    assert f"{used} of them in batches of {batches[0]}, normalised with the statistics of their" in origin
    order = np.random.default_rng(0).permutation(count)[:used]
    chosen = np.stack([images.load(int(index)) for index in order])
    expected = np.concatenate(
        [reference(model, chosen[start : start + 64], 1.0).features for start in range(0, used, 64)]
    )
    assert_close(source.mean, expected.mean(axis=0), "mean")
    assert_close(source.std, expected.std(axis=0, ddof=1), "std")
    widths = stored.info("fp32").feature_widths
    assert compute_discrepancy(Moments.of(expected), source, "mean_squared", widths) < 1e-6


def add_source(
    bundle: Bundle, precision: str, images: SourceImages, on_batch: Callable[[int], None] = lambda count: None
) -> Bundle:
    plan = plan_source_batches(bundle, images.count)
    with closing(load_batches(images.load, plan.order, plan.batch_size)) as batches:
        return store_source(bundle, precision, count_batches(batches, on_batch), images.origin + plan.remark)


def copied(bundle: Bundle, folder: Path) -> Bundle:
    shutil.copytree(bundle.path, folder / "bundle")
    return Bundle.open(folder / "bundle")


@pytest.mark.parametrize("method", ["fozo", "foa"])
def test_methods_that_tune_prompts_say_what_is_missing(method: str, bundle: Bundle, tmp_path: Path) -> None:
    stored = add_source(copied(bundle, tmp_path), "fp32", clean(40))
    with pytest.raises(
        BundleError, match=f"{method} tunes prompts, and the graph of small has no such input"
    ):
        Adapter.open(stored.path, method=method, workers=1)


@pytest.mark.parametrize("method", ["shift", "shift_origin", "neo", "zoa"])
def test_methods_that_need_no_prompts(method: str, bundle: Bundle, tmp_path: Path) -> None:
    stored = add_source(copied(bundle, tmp_path), "fp32", clean(64))
    adapter = Adapter.open(stored.path, method=method, workers=1)
    for size in (8, 1, 3):
        prediction = adapter.step(some_images(size, seed=size))
        assert np.isfinite(prediction.logits).all() and not prediction.frozen


@pytest.mark.parametrize("method", ["bn_adapt", "zoa"])
def test_a_state_for_each_domain(method: str, bundle: Bundle, tmp_path: Path) -> None:
    """Of which the first one, and so its answer, is as if the others had not been."""
    stored = add_source(copied(bundle, tmp_path), "fp32", clean(64))
    images = some_images(64)
    with Network.open(stored.path, workers=1) as opened:
        adapter = Adapter(opened, fozo_method(method, domains=2))
        plain = Adapter(opened, fozo_method(method))
        found = [adapter.step(each) for each in (images, images // 4, images // 4, images)]
        plain.step(images)
        plain.restore(
            replace(plain.snapshot(), method=replace(plain.state, step=5))
        )  # two steps at each of the two changes
        expected = plain.step(images)
    assert [each.diagnostics["domain_changed"] for each in found] == [0, 1, 0, 1]
    assert [each.forwards / adapter.method.forwards for each in found] == [1, 2, 1, 2]
    assert found[-1].logits.tobytes() == expected.logits.tobytes()


def test_convolutions_are_not_quantised(bundle: Bundle) -> None:
    with pytest.raises(
        InputError, match="small is a convolutional network, and its convolutions stay in float"
    ):
        Quantizer(bundle, Options())


def test_norms_of_blocks_that_are_not_there(
    model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporter, "create_model", lambda request: model)
    with pytest.raises(ExportError, match=r"has blocks 0\.\.4"):
        export_model(Request("small", image_size=64, norms=(5,)), tmp_path / "bundle")


def test_a_wrong_graph_is_not_written(model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error that only batch statistics show: the running ones are right."""

    def perturbed(*arguments: Any) -> onnx.ModelProto:
        graph = build_resnet_graph(*arguments)
        (stages,) = (node for node in graph.graph.node if node.op_type == "If")
        general = next(a.g for a in stages.attribute if a.name == "then_branch")
        norm = next(n for n in general.node if n.name == "stages/general/layer3.0.bn2")
        next(a for a in norm.attribute if a.name == "epsilon").f = 0.05
        return graph

    monkeypatch.setattr(exporter, "create_model", lambda request: model)
    monkeypatch.setattr(resnet, "build_resnet_graph", perturbed)
    with pytest.raises(ExportError, match=r"does not compute what PyTorch does: .*batch_statistics = 0"):
        export_model(Request("small", image_size=64), tmp_path / "bundle")
    assert not list(tmp_path.iterdir())


def test_models_of_timm_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through the whole exporter, with timm's own preprocessing, at another image size."""
    monkeypatch.setattr("fozo.export.verify.BATCHES", (1, 2))
    result = export_model(Request("resnet18", random=True, image_size=64, num_classes=5), tmp_path / "bundle")
    manifest = result.bundle.manifest
    assert manifest.feature_widths == (64, 128, 256, 512)
    assert len(manifest.norms) == 16
    how = manifest.preprocessing
    assert (how.size, how.resize, how.interpolation) == ((64, 64), 67, "bicubic")
    assert "batch" in result.case_summary


# --- what cannot be exported ---


def with_module(model: Any, name: str, module: Any) -> Any:
    model.set_submodule(name, module)
    return model


class Frozen(torch.nn.BatchNorm2d):  # type: ignore[misc, name-defined, unused-ignore]
    """Some other norm."""


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "subclass": (lambda: type("Mine", (ResNet,), {})(BasicBlock, (1, 1, 1, 1)), "is a Mine"),
    "no resnet": (lambda: torch.nn.Linear(2, 2), "is a Linear"),
    "attention": (partial(small, block_args={"attn_layer": "se"}), r"SEModule\) at layer1.0.se"),
    "split attention": (lambda: with_module(small(), "layer1.0.conv2", SplitAttn(4)), "SplitAttn"),
    "anti-aliasing": (partial(small, aa_layer=BlurPool2d), "Sequential after its stem|anti-aliasing"),
    "stem pool": (partial(small, replace_stem_pool=True), "Sequential after its stem"),
    "group norm": (partial(small, norm_layer=partial(GroupNorm, num_groups=2)), "GroupNorm at bn1"),
    "frozen": (lambda: with_module(small(), "layer2.0.bn3", Frozen(24)), "Frozen at layer2.0.bn3"),
    "no running statistics": (
        partial(small, norm_layer=partial(torch.nn.BatchNorm2d, track_running_stats=False)),
        "running statistics",
    ),
    "activation": (partial(small, act_layer=torch.nn.SiLU), "activation SiLU"),
    "max": (partial(small, global_pool="max"), "'max'"),
    "avgmax": (partial(small, global_pool="catavgmax"), "'catavgmax'"),
    "no classifier": (partial(small, num_classes=0), "no classifier"),
    "in_chans": (partial(small, in_chans=1), "1 channels"),
    "narrow last stage": (partial(small, channels=(4, 6, 16, 12)), "widest"),
    "dilated average": (partial(small, avg_down=True, output_stride=16), "AvgPool2dSame"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: str) -> None:
    build, reason = REFUSED[case]
    with pytest.raises(ExportError, match=f"cannot be exported: it .*({reason})"):
        read_resnet(build())


@pytest.mark.parametrize("name", ["test_resnet", "test_byobnet", "test_efficientnet"])
def test_refused_by_name(name: str, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="cannot be exported"):
        export_model(Request(name, random=True), tmp_path / "bundle")
    assert not list(tmp_path.iterdir())
