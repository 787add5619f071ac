"""Vision transformers that cannot be exported."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from export_doubles import RANDOM
from fozo.engine.errors import ExportError
from vit_doubles import make_vit

torch = pytest.importorskip("torch", reason="export needs PyTorch")
timm = pytest.importorskip("timm", reason="export needs timm")

from fozo.export import exporter  # noqa: E402
from fozo.export.exporter import export_model  # noqa: E402
from fozo.export.model_request import Request  # noqa: E402
from fozo.export.vit_model import read_vit  # noqa: E402
from timm.layers import RmsNorm, SwiGLU  # noqa: E402
from timm.models.vision_transformer import (  # noqa: E402
    ParallelScalingBlock,
    ResPostBlock,
    VisionTransformer,
)


def unknown_activation() -> Any:
    class Cube(torch.nn.Module):  # type: ignore[misc, name-defined, unused-ignore]
        def __init__(self, inplace: bool = False) -> None:
            super().__init__()

        def forward(self, x: Any) -> Any:
            return x**3

    return make_vit(act_layer=Cube)


def without_class_token() -> Any:
    return make_vit(class_token=False, global_pool="avg")


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "no class token": (without_class_token, "class token"),
    "avg": (partial(make_vit, global_pool="avg"), "'avg'"),
    "max": (partial(make_vit, global_pool="max"), "'max'"),
    "map": (partial(make_vit, global_pool="map"), "'map'"),
    "prr": (partial(make_vit, global_pool="prr"), "'prr'"),
    "no pool": (partial(make_vit, global_pool=""), "pooling"),
    "fc_norm": (partial(make_vit, fc_norm=True), "fc_norm|norm"),
    "fc_norm after final norm": (
        lambda: with_attribute(make_vit(), "fc_norm", torch.nn.LayerNorm(32)),
        "fc_norm",
    ),
    "no final norm": (partial(make_vit, final_norm=False), "norm"),
    "num_classes=0": (partial(make_vit, num_classes=0), "no classifier"),
    "in_chans=1": (partial(make_vit, in_chans=1), "1 channels"),
    "in_chans=4": (partial(make_vit, in_chans=4), "4 channels"),
    "parallel block": (partial(make_vit, block_fn=ParallelScalingBlock), "ParallelScalingBlock"),
    "post norm block": (partial(make_vit, block_fn=ResPostBlock, init_values=0.1), "ResPostBlock"),
    "activation": (unknown_activation, "Cube"),
    "rms norm": (partial(make_vit, norm_layer=RmsNorm), "RmsNorm"),
    "SwiGLU": (partial(make_vit, mlp_layer=SwiGLU), "SwiGLU"),
    "subclass": (lambda: type("Mine", (VisionTransformer,), {})(img_size=28, patch_size=7), "Mine"),
    "resnet": (lambda: timm.create_model("test_resnet"), "ResNet"),
    "swin": (
        lambda: timm.create_model(
            "swin_tiny_patch4_window7_224", img_size=56, embed_dim=24, depths=(1, 1, 1, 1)
        ),
        "SwinTransformer",
    ),
    "no network of vision": (lambda: torch.nn.Linear(2, 2), "Linear"),
}


def with_attribute(model: Any, name: str, value: Any) -> Any:
    setattr(model, name, value)
    return model


@pytest.mark.parametrize("case", REFUSED)
def test_refused_with_the_reason(case: str) -> None:
    make, reason = REFUSED[case]
    with pytest.raises(ExportError, match=reason) as caught:
        read_vit(make())
    assert "cannot be exported" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_padding_of_images_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_vit(img_size=30, dynamic_img_size=True, dynamic_img_pad=True)
    model.pretrained_cfg = {}
    monkeypatch.setattr(exporter, "create_model", lambda request: (model, RANDOM))
    with pytest.raises(ExportError):
        export_model(Request("padded"), tmp_path / "bundle")
    assert not list(tmp_path.iterdir())
