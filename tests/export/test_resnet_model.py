"""Residual networks that cannot be exported."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from fozo.engine.errors import ExportError
from resnet_doubles import make_resnet

torch = pytest.importorskip("torch", reason="export needs PyTorch")
timm = pytest.importorskip("timm", reason="export needs timm")

from fozo.export.exporter import export_model  # noqa: E402
from fozo.export.model_request import Request  # noqa: E402
from fozo.export.resnet_model import read_resnet  # noqa: E402
from timm.layers import BlurPool2d, GroupNorm, SplitAttn  # noqa: E402
from timm.models.resnet import BasicBlock, ResNet  # noqa: E402


def with_module(model: Any, name: str, module: Any) -> Any:
    model.set_submodule(name, module)
    return model


class Frozen(torch.nn.BatchNorm2d):  # type: ignore[misc, name-defined, unused-ignore]
    """Some other norm."""


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "subclass": (lambda: type("Mine", (ResNet,), {})(BasicBlock, (1, 1, 1, 1)), "is a Mine"),
    "no resnet": (lambda: torch.nn.Linear(2, 2), "is a Linear"),
    "attention": (partial(make_resnet, block_args={"attn_layer": "se"}), r"SEModule\) at layer1.0.se"),
    "split attention": (lambda: with_module(make_resnet(), "layer1.0.conv2", SplitAttn(4)), "SplitAttn"),
    "anti-aliasing": (partial(make_resnet, aa_layer=BlurPool2d), "Sequential after its stem|anti-aliasing"),
    "stem pool": (partial(make_resnet, replace_stem_pool=True), "Sequential after its stem"),
    "group norm": (partial(make_resnet, norm_layer=partial(GroupNorm, num_groups=2)), "GroupNorm at bn1"),
    "frozen": (lambda: with_module(make_resnet(), "layer2.0.bn3", Frozen(24)), "Frozen at layer2.0.bn3"),
    "no running statistics": (
        partial(make_resnet, norm_layer=partial(torch.nn.BatchNorm2d, track_running_stats=False)),
        "running statistics",
    ),
    "activation": (partial(make_resnet, act_layer=torch.nn.SiLU), "activation SiLU"),
    "max": (partial(make_resnet, global_pool="max"), "'max'"),
    "avgmax": (partial(make_resnet, global_pool="catavgmax"), "'catavgmax'"),
    "no classifier": (partial(make_resnet, num_classes=0), "no classifier"),
    "in_chans": (partial(make_resnet, in_chans=1), "1 channels"),
    "narrow last stage": (partial(make_resnet, channels=(4, 6, 16, 12)), "widest"),
    "dilated average": (partial(make_resnet, avg_down=True, output_stride=16), "AvgPool2dSame"),
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
