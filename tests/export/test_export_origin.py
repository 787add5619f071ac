"""Whose classes, normalisation and weights a bundle has, and that it says so."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from export_doubles import RANDOM, SMALL, save_weights
from fozo.engine.bundle.bundle import Bundle
from fozo.engine.bundle.description import describe_bundle
from fozo.engine.errors import ExportError
from fozo.engine.runtime.network import Network
from PIL import Image
from vit_doubles import make_vit, randomise

torch = pytest.importorskip("torch", reason="export needs PyTorch")
timm = pytest.importorskip("timm", reason="export needs timm")

from fozo.data.images import preprocess  # noqa: E402
from fozo.export import exporter, model_request  # noqa: E402
from fozo.export.clip_models import (  # noqa: E402
    check_activation,
    check_classifier,
    describe_activation,
)
from fozo.export.exporter import ExportResult, export_model  # noqa: E402
from fozo.export.image_format import ImageOptions  # noqa: E402
from fozo.export.model_request import Request, create_model  # noqa: E402
from fozo.export.weights import LoadedWeights  # noqa: E402
from timm.data import create_transform, resolve_data_config  # noqa: E402


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compare each graph with PyTorch on a single batch: other tests do the rest."""
    monkeypatch.setattr("fozo.export.verify.BATCHES", (2,))


def make_named(classes: int = 1000) -> Any:
    model = make_vit(num_classes=classes)
    model.pretrained_cfg = {
        "architecture": "vit_small",
        "tag": "in1k",
        "num_classes": classes,
        "input_size": (3, 28, 28),
        "mean": (0.5, 0.5, 0.5),
        "std": (0.5, 0.5, 0.5),
        "crop_pct": 0.9,
        "interpolation": "bicubic",
    }
    return model


@pytest.fixture
def export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., ExportResult]:
    """Return a function that exports a model with an origin of its weights and options of the request."""

    def run(model: Any, origin: LoadedWeights = RANDOM, **options: Any) -> ExportResult:
        monkeypatch.setattr(exporter, "create_model", lambda request: (model, origin))
        return export_model(Request("vit_small", **options), tmp_path / "bundle", overwrite=True)

    return run


# --- names of classes ---


def test_a_thousand_classes_of_ones_own_are_not_imagenets(
    export: Callable[..., ExportResult], tmp_path: Path
) -> None:
    mine = LoadedWeights("products.pt", "ab" * 32)
    result = export(make_named(), mine, weights=tmp_path / "products.pt")
    assert result.bundle.manifest.class_ids is None
    assert result.bundle.manifest.class_names is None
    assert any("--classes imagenet" in note for note in result.notes)


def test_names_are_imagenets_for_timms_own_weights_or_if_asked_for(
    export: Callable[..., ExportResult], tmp_path: Path
) -> None:
    timms = LoadedWeights("timm's pretrained", "cd" * 32, own_classes=False)
    mine = LoadedWeights("w.pt", "ab" * 32)
    for result in (
        export(make_named(), timms),
        export(make_named(), mine, weights=tmp_path / "w.pt", imagenet_classes=True),
    ):
        names = result.bundle.manifest.class_names
        assert names is not None and "tench" in names[0]
        assert result.bundle.manifest.class_ids[0] == "n01440764"  # type: ignore[index]
        assert not any("no names" in note for note in result.notes)
    with pytest.raises(ExportError, match="7 classes, and none of ImageNet's sets"):
        export(make_named(7), mine, imagenet_classes=True)


def test_names_of_a_models_own_configuration(export: Callable[..., ExportResult]) -> None:
    model = make_named(3)
    model.pretrained_cfg |= {
        "label_names": ["cup", "jar", "lid"],
        "label_descriptions": {"jar": "a glass jar"},
    }
    manifest = export(model, LoadedWeights("hf-hub:somebody/cups", "ef" * 32)).bundle.manifest
    assert manifest.class_ids == ("cup", "jar", "lid")
    assert manifest.class_names == ("cup", "a glass jar", "lid")
    model.pretrained_cfg["label_names"] = ["cup", "cup", "lid"]
    assert export(model, LoadedWeights("hf-hub:somebody/cups")).bundle.manifest.class_ids is None


def test_classes_by_file_and_by_name_exclude_each_other(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="choose one"):
        create_model(Request("test_vit", random=True, imagenet_classes=True, classes_file=tmp_path / "c.txt"))


# --- preparation of images ---

CHANGES: dict[str, dict[str, Any]] = {
    "timm's": {},
    "mean and std": {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)},
    "one number": {"mean": (0.0,), "std": (1.0,)},
    "crop": {"crop_pct": 0.875, "interpolation": "bilinear"},
    "squash": {"crop_mode": "squash", "crop_pct": 1.0},
}


@pytest.mark.parametrize("change", CHANGES)
def test_preparation_is_that_of_timms_validation_with_these_options(
    change: str, export: Callable[..., ExportResult]
) -> None:
    model, options = make_named(7), CHANGES[change]
    bundle = export(model, images=ImageOptions(**options)).bundle
    config = resolve_data_config(dict(options), model=model)  # as timm's validate.py does with its arguments
    transform = create_transform(**config, is_training=False)
    pixels = np.random.default_rng(0).integers(0, 256, (50, 40, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    with torch.inference_mode():
        expected = model.eval()(transform(image)[None]).numpy()
    with Network.open(bundle, workers=1) as network:
        found = network(preprocess(image, bundle.manifest.preprocessing)[None]).logits
    np.testing.assert_allclose(found, expected, atol=2e-4 * np.abs(expected).max())
    text = describe_bundle(bundle)
    for name in options:
        assert f"--{name.replace('_', '-')}" in text
    assert ("(by " in text) == bool(options)


def test_what_was_computed_is_in_the_manifest_and_printed(
    export: Callable[..., ExportResult], tmp_path: Path
) -> None:
    weights = LoadedWeights(
        f"w.pt, SHA-256 {'ab' * 32}, model_ema", "ab" * 32, "model_ema", notes=("a choice",)
    )
    images = ImageOptions(mean=(0.25,))
    result = export(make_named(7), weights, weights=tmp_path / "w.pt", images=images)
    provenance = json.loads((result.bundle.path / "bundle.json").read_bytes())["provenance"]
    assert provenance["weights_sha256"] == "ab" * 32
    assert provenance["weights_key"] == "model_ema"
    assert provenance["timm_tag"] == "in1k"
    assert provenance["mean"] == [0.25] * 3
    assert provenance["std"] == [0.5] * 3
    assert provenance["options"] == ["mean"]
    assert provenance["notes"] == ["a choice"]
    text = describe_bundle(Bundle.open(result.bundle.path))
    assert "w.pt, SHA-256 abababababab…, model_ema; timm's configuration in1k" in text
    assert "mean 0.25 0.25 0.25, std 0.5 0.5 0.5 (by --mean)" in text
    assert "a choice" in result.notes
    assert not any("does not tell how its images" in note for note in result.notes)
    result = export(make_named(7), weights, weights=tmp_path / "w.pt")
    assert any("--mean, --std, --crop-pct" in note for note in result.notes)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mean": (123.7, 116.3, 103.5)}, "divide values for 0..255 by 255"),
        ({"mean": (0.5, 0.5)}, "one or three finite numbers for --mean"),
        ({"mean": (float("nan"),)}, "finite"),
        ({"std": (0.0,)}, "above 0 for --std"),
        ({"crop_pct": 1.5}, "--crop-pct"),
        ({"crop_pct": 0.0}, "--crop-pct"),
    ],
)
def test_preparation_that_cannot_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ExportError, match=message):
        ImageOptions(**options)


# --- CLIP ---


def make_clip(tag: str, classes: int, architecture: str = "vit_base_patch32_clip_224", **options: Any) -> Any:
    """Return a small model with timm's configuration of a CLIP model."""
    model = make_vit(num_classes=classes, **options)
    model.pretrained_cfg = timm.models.get_pretrained_cfg(f"{architecture}.{tag}").to_dict()
    return model


def test_image_towers_of_clip_are_no_classifiers() -> None:
    with pytest.raises(ExportError, match=r"image tower of CLIP: its 512 outputs are an embedding"):
        check_classifier("clip", make_clip("openai", 512))
    check_classifier("clip", make_clip("openai_ft_in1k", 1000))
    check_classifier("clip", make_clip("openai", 10))  # a classifier of its own, trained on the tower
    projection = make_clip("openai_ft_in1k", 10)
    with torch.no_grad():
        projection.head.bias.zero_()
    with pytest.raises(ExportError, match="image tower of CLIP"):
        check_classifier("clip", projection)
    check_classifier("vit", make_named(512))


def test_weights_for_quick_gelu_belong_to_another_model() -> None:
    with pytest.raises(ExportError, match=r"--model vit_base_patch32_clip_quickgelu_224\.openai"):
        check_activation("clip", make_clip("openai", 10))
    quick = make_clip("openai", 10, "vit_base_patch32_clip_quickgelu_224", act_layer=timm.layers.QuickGELU)
    check_activation("clip", quick)
    check_activation("clip", make_clip("laion2b", 10))
    assert describe_activation(quick) is None
    assert describe_activation(make_named(10)) is None
    note = describe_activation(make_clip("openai_ft_in1k", 10))
    assert note is not None and "--model vit_base_patch32_clip_quickgelu_224" in note


# --- models from elsewhere ---


def save_local(folder: Path, classes: int = 4) -> tuple[Path, Any]:
    """Save a model as timm's `save_for_hf` does, and return its folder and the model."""
    model = randomise(timm.create_model("test_vit", num_classes=classes, img_size=SMALL))
    config = {
        "architecture": "test_vit",
        "num_classes": classes,
        "model_args": {"img_size": SMALL},
        "label_names": [f"class {number}" for number in range(classes)],
        "pretrained_cfg": {
            **timm.models.get_pretrained_cfg("test_vit").to_dict(),
            "input_size": [3, SMALL, SMALL],
        },
    }
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    save_weights(folder, dict(model.state_dict()), "model.safetensors")
    return folder, model


def test_a_folder_that_timm_has_saved(tmp_path: Path) -> None:
    folder, model = save_local(tmp_path / "cups")
    bundle = export_model(Request(f"local-dir:{folder}"), tmp_path / "bundle").bundle
    manifest = bundle.manifest
    assert manifest.model == "test_vit"
    assert manifest.class_names == ("class 0", "class 1", "class 2", "class 3")
    assert manifest.provenance["weights"] == "local-dir:cups"
    assert len(manifest.provenance["weights_sha256"]) == 64
    with np.load(bundle.file("head.npz")) as head:
        np.testing.assert_array_equal(head["weight"], model.head.weight.detach().numpy())


@pytest.mark.parametrize("name", ["local-dir:nowhere", "somebody/model", "ftp:x", "local-dir:"])
def test_places_without_a_model(name: str, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="hf-hub:OWNER/NAME"):
        export_model(Request(name), tmp_path / "bundle")


@pytest.mark.parametrize(("place", "own"), [("timm/test_vit.r160_in1k", False), ("somebody/cups", True)])
def test_names_of_hub_models_are_imagenets_only_for_timms_own(
    place: str, own: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = randomise(timm.create_model("test_vit", img_size=SMALL))
    monkeypatch.setattr(model_request, "load_model_config_from_hf", lambda place: ({}, "test_vit", {}))
    monkeypatch.setattr(timm, "create_model", lambda name, **options: model)
    _, weights = create_model(Request(f"hf-hub:{place}"))
    assert weights.own_classes == own
    assert weights.description == f"hf-hub:{place}"


def test_the_hash_of_pretrained_weights_is_of_their_values(monkeypatch: pytest.MonkeyPatch) -> None:
    model = randomise(timm.create_model("test_vit", img_size=SMALL))
    monkeypatch.setattr(timm, "create_model", lambda name, **options: model)
    first = create_model(Request("test_vit"))[1]
    assert first == create_model(Request("test_vit"))[1]
    assert first.own_classes is False
    with torch.no_grad():
        model.blocks[1].mlp.fc1.bias[3] += 1e-6
    assert create_model(Request("test_vit"))[1].sha256 != first.sha256


def test_a_resampled_pretrained_model_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    model = randomise(timm.create_model("test_vit", img_size=SMALL))
    monkeypatch.setattr(timm, "create_model", lambda name, **options: model)
    (note,) = create_model(Request("test_vit", image_size=SMALL))[1].notes
    assert "from images of 160 × 160 pixels to 32 × 32" in note
