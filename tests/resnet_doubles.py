"""Small residual networks with random parameters, their PyTorch reference and their exported networks."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from fozo.engine.model import FloatArray, ImageArray, ModelInfo, Outputs
from fozo.engine.runtime.network import Network

torch = pytest.importorskip("torch", reason="export needs PyTorch")
timm = pytest.importorskip("timm", reason="export needs timm")

from fozo.export.image_format import ImageFormat  # noqa: E402
from fozo.export.resnet_graph import build_resnet_graph, select_resnet_norms  # noqa: E402
from fozo.export.resnet_model import Resnet, read_resnet  # noqa: E402
from timm.models.resnet import BasicBlock, Bottleneck, ResNet  # noqa: E402

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


FORMAT = ImageFormat((64, 64), MEAN, STD)


CLASSES = 7


TOLERANCE = 1e-4  # of the largest magnitude; normalising four values of a batch amplifies rounding


ONE, HALF = np.ones(1, np.float32), np.full(1, 0.5, np.float32)


def make_resnet(block: Any = Bottleneck, **options: Any) -> Any:
    """Make a tiny ResNet with random parameters and running statistics, some gains negative or zero."""
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


RESNETS: dict[str, Callable[[], Any]] = {
    "bottleneck": make_resnet,
    "basic": partial(make_resnet, BasicBlock),
    "deep_stem": partial(make_resnet, stem_type="deep", stem_width=8),
    "tiered_stem": partial(make_resnet, BasicBlock, stem_type="deep_tiered", stem_width=8),
    "resnet_d": partial(make_resnet, stem_type="deep", stem_width=8, avg_down=True),
    "resnext": partial(make_resnet, cardinality=2, base_width=64),
    "wide": partial(make_resnet, base_width=128),
    "large_kernel_down": partial(make_resnet, down_kernel_size=3, block_reduce_first=2),
    "stride_16": partial(make_resnet, output_stride=16),
    "dropouts": partial(make_resnet, drop_rate=0.5, drop_path_rate=0.5, drop_block_rate=0.0),
    "one_class": partial(make_resnet, BasicBlock, num_classes=1),
}


def batch_norms(model: Any) -> list[Any]:
    return [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]


def compute_reference(model: Any, images: ImageArray, share: float = 0.0, addends: Any = None) -> Outputs:
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


def describe_model(read: Resnet, **changes: Any) -> ModelInfo:
    facts = {"norms": select_resnet_norms(read), "tunables": ("norms", "batch_statistics"), **changes}
    width = read.widths[-1]
    return ModelInfo("t", "t", 4, width, 4, 0.0, read.head_weight, read.head_bias, **facts)


def open_network(model: Any, folder: Path, size: tuple[int, int] = (64, 64), **options: Any) -> Network:
    read = read_resnet(model)
    path = folder / "model.onnx"
    onnx.save(build_resnet_graph(read, ImageFormat(size, MEAN, STD), select_resnet_norms(read)), path)
    return Network(path, describe_model(read), **{"workers": 1, **options})


def draw_images(count: int, size: tuple[int, int] = (64, 64), seed: int = 0) -> ImageArray:
    """Draw images that differ in colour and contrast, so that the statistics of batches differ."""
    generator = np.random.default_rng([seed, count])
    centre, spread = generator.uniform(60, 190, (count, 1, 1, 3)), generator.uniform(10, 60, (count, 1, 1, 1))
    images = (centre + spread * generator.normal(size=(count, *size, 3))).clip(0, 255).astype(np.uint8)
    images.setflags(write=False)
    return images


def draw_addends(info: ModelInfo, seed: int = 0) -> FloatArray:
    """Draw addends to all norms; the padding is noise too, and must have no effect."""
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
