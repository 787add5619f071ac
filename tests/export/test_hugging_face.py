"""Weights and settings as Hugging Face's transformers writes them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from export_doubles import SMALL, save_weights
from fozo.engine.bundle.description import describe_bundle
from fozo.engine.bundle.origin import list_origin
from fozo.engine.errors import ExportError
from vit_doubles import randomise
from weights_doubles import CLASSES, DEPTH, HEADS, LAYER, PATCH, VIT, WIDTH, State, make_state

torch = pytest.importorskip("torch", reason="export needs PyTorch")
timm = pytest.importorskip("timm", reason="export needs timm")

from fozo.export.exporter import ExportResult, export_model  # noqa: E402
from fozo.export.hugging_face_images import read_preparation  # noqa: E402
from fozo.export.image_format import ImageOptions  # noqa: E402
from fozo.export.model_request import Request  # noqa: E402
from fozo.export.weights import LoadedWeights, load_weights  # noqa: E402
from timm.models.deit import VisionTransformerDistilled  # noqa: E402
from timm.models.vision_transformer import VisionTransformer  # noqa: E402
from torch.nn import functional as F  # noqa: E402, N812


def classify(state: State, pixels: Any, kind: str, names: str, epsilon: float) -> Any:
    """Compute the logits from tensors with transformers' names, without any library of models."""
    state = {name: tensor.double() for name, tensor in state.items()}

    def project(name: str, values: Any) -> Any:
        return values @ state[f"{name}.weight"].T + state[f"{name}.bias"]

    def normalise(name: str, values: Any) -> Any:
        centred = values - values.mean(-1, keepdim=True)
        scaled = centred / (centred.square().mean(-1, keepdim=True) + epsilon).sqrt()
        return scaled * state[f"{name}.weight"] + state[f"{name}.bias"]

    own = f"{kind}.embeddings."
    projection = f"{own}patch_embeddings.projection"
    patches = F.unfold(pixels.double(), PATCH, stride=PATCH).transpose(1, 2)
    patches = patches @ state[f"{projection}.weight"].flatten(1).T + state[f"{projection}.bias"]
    tokens = [state[name] for name in (f"{own}cls_token", f"{own}distillation_token") if name in state]
    x = torch.cat([*(token.expand(len(pixels), -1, -1) for token in tokens), patches], 1)
    x = x + state[f"{own}position_embeddings"]
    start, projections, output, mlp = LAYER[names]
    for layer in range(DEPTH):
        block = f"{kind}.{start.format(layer)}"
        y = normalise(f"{block}layernorm_before", x)
        mixed = []
        query, key, value = (project(block + name, y).chunk(HEADS, -1) for name in projections)
        for q, k, v in zip(query, key, value, strict=True):
            mixed.append((q @ k.transpose(1, 2) / math.sqrt(WIDTH // HEADS)).softmax(-1) @ v)
        x = x + project(block + output, torch.cat(mixed, -1))
        y = project(block + mlp[0], normalise(f"{block}layernorm_after", x))
        y = y * 0.5 * (1 + torch.erf(y / math.sqrt(2)))
        x = x + project(block + mlp[1], y)
    x = normalise(f"{kind}.layernorm", x)
    if kind == "vit":
        return project("classifier", x[:, 0])
    return (project("cls_classifier", x[:, 0]) + project("distillation_classifier", x[:, 1])) / 2


def make_model(kind: str = "vit", **options: Any) -> Any:
    defaults = {
        "img_size": SMALL,
        "patch_size": PATCH,
        "embed_dim": WIDTH,
        "depth": DEPTH,
        "num_heads": HEADS,
        "num_classes": CLASSES,
    }
    model = {"vit": VisionTransformer, "deit": VisionTransformerDistilled}[kind]
    return randomise(model(**{**defaults, **options}), seed=9).eval()


def load(folder: Path, state: Any, kind: str = "vit", **options: Any) -> tuple[Any, LoadedWeights]:
    model = make_model(kind)
    return model, load_weights(model, save_weights(folder, state, "pytorch_model.bin"), **options)


def refuse(folder: Path, state: Any, kind: str = "vit", **options: Any) -> str:
    with pytest.raises(ExportError) as caught:
        load(folder, state, kind, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def draw_pixels() -> Any:
    return torch.randn(3, 3, SMALL, SMALL, generator=torch.Generator().manual_seed(1))


def assert_computes(model: Any, state: State, kind: str, names: str, epsilon: float) -> None:
    expected = classify(state, draw_pixels(), kind, names, epsilon)
    with torch.inference_mode():
        np.testing.assert_allclose(model.double()(draw_pixels().double()), expected, rtol=1e-9, atol=1e-9)


# --- names ---


@pytest.mark.parametrize("names", LAYER)
@pytest.mark.parametrize("kind", ["vit", "deit"])
def test_a_model_with_mapped_names_computes_what_the_file_means(
    kind: str, names: str, tmp_path: Path
) -> None:
    state = make_state(kind, names)
    model, origin = load(tmp_path, state, kind)
    assert_computes(model, state, kind, names, 1e-6)
    mapped, assumed = origin.notes
    assert "Hugging Face's transformers were mapped to timm's" in mapped
    assert "heads (3), activation (GELU) and the norms' epsilon (1e-06)" in assumed


@pytest.mark.parametrize("prefix", ["module.", "model.", "_orig_mod.module."])
def test_prefixes_and_dictionaries_around_the_names(prefix: str, tmp_path: Path) -> None:
    state = make_state()
    content = {"state_dict": {prefix + name: tensor for name, tensor in state.items()}, "epoch": 3}
    model, origin = load(tmp_path, content)
    assert_computes(model, state, "vit", "files", 1e-6)
    assert origin.key == f"state_dict.{prefix.rstrip('.')}"


def test_one_of_two_models_with_these_names_is_chosen(tmp_path: Path) -> None:
    teacher = make_state(seed=2)
    state = {f"student.{name}": tensor for name, tensor in make_state().items()}
    state |= {f"teacher.{name}": tensor for name, tensor in teacher.items()}
    assert "unexpected" in refuse(tmp_path, state)
    model, _ = load(tmp_path, state, key="teacher")
    assert_computes(model, teacher, "vit", "files", 1e-6)


def test_position_embeddings_of_another_size(tmp_path: Path) -> None:
    state = make_state(side=48)
    assert "give --image-size 48 for such images, or --image-size 32" in refuse(tmp_path, state)
    notes = load(tmp_path, state, resample=True)[1].notes
    assert any("resampled from images of 48 × 48 pixels to 32 × 32" in note for note in notes)


QUERY = "vit.encoder.layer.1.attention.attention.query"


def test_tensors_without_a_place_and_places_without_a_tensor_are_named(tmp_path: Path) -> None:
    extra = {"vit.pooler.dense.weight": torch.zeros(WIDTH, WIDTH)}
    message = refuse(tmp_path, {**make_state(), **extra})
    assert "1 unexpected (vit.pooler.dense.weight)" in message
    assert "with the names of Hugging Face's transformers mapped to timm's" in message
    without_norm = make_state()
    del without_norm["vit.layernorm.bias"]
    assert "1 missing (norm.bias)" in refuse(tmp_path, without_norm)
    headless = {name: tensor for name, tensor in make_state().items() if "classifier" not in name}
    assert "2 missing (head.bias, head.weight)" in refuse(tmp_path, headless)
    other = {**make_state(), "classifier.weight": torch.zeros(7, WIDTH)}
    assert "head.weight [7, 24] instead of [5, 24]" in refuse(tmp_path, other)


@pytest.mark.parametrize(
    "value",
    [
        None,
        torch.zeros(WIDTH, WIDTH + 1),
        torch.zeros(WIDTH, WIDTH, dtype=torch.int8),
        torch.zeros(WIDTH, WIDTH, dtype=torch.float16),
        torch.zeros(1).expand(WIDTH, WIDTH),
        torch.zeros(WIDTH, WIDTH).to_sparse(),
    ],
    ids=["missing", "shape", "integers", "half", "expanded", "sparse"],
)
def test_projections_that_are_not_alike_are_not_joined(value: Any, tmp_path: Path) -> None:
    state = make_state()
    del state[f"{QUERY}.weight"]
    if value is not None:
        state[f"{QUERY}.weight"] = value
    message = refuse(tmp_path, state)
    assert "missing (blocks.1.attn.qkv.weight)" in message
    assert f"{QUERY.replace('query', 'key')}.weight" in message
    assert (f"{QUERY}.weight" in message) == (value is not None)


def test_projections_that_are_numbers_are_not_joined(tmp_path: Path) -> None:
    names = [f"{QUERY.replace('query', part)}.bias" for part in ("query", "key", "value")]
    state = {**make_state(), **dict.fromkeys(names, torch.tensor(1.0))}
    assert "missing (blocks.1.attn.qkv.bias)" in refuse(tmp_path, state)


def test_quantised_weights_are_refused(tmp_path: Path) -> None:
    names = [f"{QUERY.replace('query', part)}.weight" for part in ("query", "key", "value")]
    state = {**make_state(), **dict.fromkeys(names, torch.zeros(WIDTH, WIDTH, dtype=torch.int8))}
    assert "found blocks.1.attn.qkv.weight of torch.int8" in refuse(tmp_path, state)


def test_names_that_stand_for_one_tensor_are_refused(tmp_path: Path) -> None:
    extra = {"vit.layers.0.mlp.fc1.bias": torch.zeros(4 * WIDTH)}
    assert "Hugging Face" in refuse(tmp_path, {**make_state(), **extra})
    extra = {"cls_classifier.bias": torch.zeros(CLASSES)}
    assert "Hugging Face" in refuse(tmp_path, {**make_state(), **extra})


@pytest.mark.parametrize("kind", ["vit", "deit"])
def test_a_distillation_token_without_its_classifier_is_explained(kind: str, tmp_path: Path) -> None:
    """Its one classifier reads the class token alone, and timm's distilled models have two."""
    state = make_state("deit")
    for end in ("weight", "bias"):
        del state[f"distillation_classifier.{end}"]
        state[f"classifier.{end}"] = state.pop(f"cls_classifier.{end}")
    assert "reads the class token alone, and timm has no such model" in refuse(tmp_path, state, kind)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ["embeddings.cls_token", "embeddings.patch_embeddings.projection.weight"],
            "only those of ViTForImage",
        ),
        (
            ["dinov2.embeddings.cls_token", "classifier.weight"],
            "DINOv2 classifier .* the mean of the patches",
        ),
        (
            ["embeddings.cls_token", "encoder.layer.0.layer_scale1.lambda1", "layernorm.weight"],
            "DINOv2 model .* without a classifier",
        ),
        (["beit.encoder.layer.0.layernorm_before.weight"], "only those of ViTForImage"),
        (["layers.0.layernorm_before.weight"], "only those of ViTForImage"),
    ],
)
def test_names_that_are_not_mapped(names: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=message):
        load(tmp_path, {name: torch.zeros(1) for name in names})


# --- config.json ---

CONFIG = {"model_type": "vit", "num_attention_heads": HEADS, "hidden_act": "gelu", "layer_norm_eps": 0.125}


def test_the_epsilon_of_the_norms_is_that_of_the_file_beside(tmp_path: Path) -> None:
    state = make_state()
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    model, origin = load(tmp_path, state)
    assert_computes(model, state, "vit", "files", 0.125)
    assert "epsilon, 0.125, was taken from it" in origin.notes[-1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_attention_heads": 2}, "2 attention heads .* has 3"),
        ({"hidden_act": "quick_gelu"}, "activation 'quick_gelu', and this model has 3 and 'gelu'"),
        ({"num_attention_heads": None}, "None attention heads"),
        ({"layer_norm_eps": 0.0}, "above 0 for layer_norm_eps"),
        ({"layer_norm_eps": math.nan}, "above 0 for layer_norm_eps"),
        ({"layer_norm_eps": "1e-12"}, "above 0 for layer_norm_eps"),
    ],
)
def test_a_model_that_computes_something_else_is_refused(
    change: dict[str, Any], message: str, tmp_path: Path
) -> None:
    """Shapes do not tell the number of heads: without this, the answers would be wrong without a word."""
    (tmp_path / "config.json").write_text(json.dumps({**CONFIG, **change}))
    with pytest.raises(ExportError, match=message):
        load(tmp_path, make_state())


def test_a_configuration_of_timm_is_not_one_of_transformers(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"architecture": "vit"}')
    assert "are those of timm's model" in load(tmp_path, make_state())[1].notes[-1]


@pytest.mark.parametrize(
    "content", ["", "[1]", "{", "[" * 10**5, " " * (1 << 20) + "{}", '{"a": "\ud800"', "\0"]
)
def test_damaged_settings(content: str, tmp_path: Path) -> None:
    for name in ("config.json", "preprocessor_config.json"):
        (tmp_path / name).write_bytes(content.encode(errors="surrogatepass"))
    assert "config.json, which lies beside the weights" in refuse(tmp_path, make_state())
    with pytest.raises(ExportError, match="mend it, or move it away"):
        read_preparation(tmp_path / "w.bin", ImageOptions())


# --- preprocessor_config.json ---

DEIT = {
    **VIT,
    "image_processor_type": "DeiTImageProcessor",
    "do_center_crop": True,
    "resample": 3,
    "size": {"height": 256, "width": 256},
    "crop_size": {"height": 224, "width": 224},
}
SHORTER = {**DEIT, "image_processor_type": "BitImageProcessor", "size": {"shortest_edge": 256}}
OLD_DEIT = {**DEIT, "feature_extractor_type": "DeiTFeatureExtractor", "size": 256, "crop_size": 224}
del OLD_DEIT["image_processor_type"], OLD_DEIT["do_rescale"], OLD_DEIT["rescale_factor"]


def write_images(folder: Path, settings: Any) -> Path:
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return folder / "model.safetensors"


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (VIT, (224, 224, "squash", "bilinear")),
        (
            {**VIT, "size": 224, "image_processor_type": "ViTFeatureExtractor"},
            (224, 224, "squash", "bilinear"),
        ),
        (DEIT, (224, 256, "squash", "bicubic")),
        (OLD_DEIT, (224, 256, "squash", "bicubic")),
        (SHORTER, (224, 256, "center", "bicubic")),
        ({**SHORTER, "size": 256, "resample": 1}, (224, 256, "center", "lanczos")),
        ({**SHORTER, "image_processor_type": "CLIPImageProcessorFast"}, (224, 256, "center", "bicubic")),
    ],
)
def test_preparation_of_the_file_beside_the_weights(
    settings: Any, expected: tuple[Any, ...], tmp_path: Path
) -> None:
    prepared = read_preparation(write_images(tmp_path, settings), ImageOptions())
    assert prepared is not None
    options = prepared.options
    assert options.crop_pct is not None
    resized = math.floor(prepared.side / options.crop_pct)
    assert (prepared.side, resized, options.crop_mode, options.interpolation) == expected
    assert (options.mean, options.std) == ((0.5, 0.25, 0.125), (0.5, 0.5, 0.25))


def test_every_length_of_resizing_is_kept(tmp_path: Path) -> None:
    """The bundle divides the side by a part and rounds down, which must not lose a pixel."""
    for side, resized in [(224, 232), (224, 257), (384, 439), (98, 113), (518, 592), (107, 333)]:
        sizes = {"size": {"shortest_edge": resized}, "crop_size": side}
        prepared = read_preparation(write_images(tmp_path, {**SHORTER, **sizes}), ImageOptions())
        assert prepared is not None and prepared.options.crop_pct is not None
        assert math.floor(side / prepared.options.crop_pct) == resized


def test_images_that_are_not_normalised(tmp_path: Path) -> None:
    prepared = read_preparation(write_images(tmp_path, {**VIT, "do_normalize": False}), ImageOptions())
    assert prepared is not None
    assert (prepared.options.mean, prepared.options.std) == ((0.0,), (1.0,))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_processor_type": "ConvNextImageProcessor"}, "whose steps fozo knows, found 'ConvNext"),
        ({"image_processor_type": None}, "whose steps fozo knows"),
        ({"do_pad": True}, "does not do the step do_pad"),
        ({"do_resize": False}, "do_resize is false"),
        ({"do_rescale": False}, "do_rescale is false"),
        ({"do_normalize": "yes"}, "true or false for do_normalize"),
        ({"rescale_factor": 0.0078}, "1/255"),
        ({"size": {"height": 224, "width": 192}}, "equal height and width for size"),
        ({"size": {"shortest_edge": 224}}, "images keep their form"),
        ({"size": {"longest_edge": 224}}, "equal height and width"),
        ({"size": None}, "number of pixels for size"),
        ({"size": 10**400}, "number of pixels"),
        ({"do_center_crop": True}, "number of pixels for crop_size"),
        ({"do_center_crop": True, "crop_size": 225}, "crop_size 225 is above size 224"),
        ({"resample": 6}, "filter of Pillow"),
        ({"resample": "bicubic"}, "filter of Pillow"),
        ({"image_mean": None}, "numbers for image_mean"),
        ({"image_mean": [0.5, 0.5]}, "one or three"),
        ({"image_mean": [10**400] * 3}, "preprocessor_config"),
        ({"image_std": [0.5, 0, 0.5]}, "above 0"),
        ({"image_std": [0.5, True, 0.5]}, "numbers for image_std"),
        ({"image_mean": [123.0, 116.0, 103.0]}, "scaled to 0..1"),
    ],
)
def test_what_the_file_says_and_fozo_does_not_do_is_refused(
    change: dict[str, Any], message: str, tmp_path: Path
) -> None:
    path = write_images(tmp_path, {**VIT, **change})
    with pytest.raises(ExportError, match=message) as caught:
        read_preparation(path, ImageOptions(mean=(0.5,)))
    assert "which all together replace it" in str(caught.value)
    replaced = ImageOptions((0.5,), (0.5,), 0.9, "center", "bilinear")
    assert read_preparation(path, replaced) is None


def test_without_such_a_file_there_is_none(tmp_path: Path) -> None:
    assert read_preparation(tmp_path / "w.pt", ImageOptions()) is None
    assert read_preparation(None, ImageOptions()) is None


# --- exports ---


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compare each graph with PyTorch on a single batch: other tests do the rest."""
    monkeypatch.setattr("fozo.export.verify.BATCHES", (2,))


def export(folder: Path, side: int = SMALL, **options: Any) -> ExportResult:
    model = randomise(timm.create_model("test_vit", img_size=SMALL, num_classes=3))
    path = save_weights(folder, dict(model.state_dict()), "model.safetensors")
    sizes = {"size": {"shortest_edge": side + 4}, "crop_size": side}
    write_images(folder, {**SHORTER, **sizes})
    request = Request("test_vit", path, num_classes=3, **{"image_size": SMALL, **options})
    return export_model(request, folder / "bundle", overwrite=True)


def test_an_export_says_and_records_where_its_preparation_is_from(tmp_path: Path) -> None:
    result = export(tmp_path)
    manifest = result.bundle.manifest
    assert (manifest.preprocessing.resize, manifest.preprocessing.crop_mode) == (SMALL + 4, "center")
    assert manifest.provenance["mean"] == [0.5, 0.25, 0.125]
    assert manifest.provenance["options"] == []
    assert manifest.provenance["image_settings"] == "preprocessor_config.json"
    assert len(manifest.provenance["image_settings_sha256"]) == 64
    assert list_origin(manifest)["image_settings"] == "preprocessor_config.json"
    assert "std 0.5 0.5 0.25 (by preprocessor_config.json)" in describe_bundle(result.bundle)
    assert any("are those of preprocessor_config.json" in note for note in result.notes)
    assert not any("does not tell how its images" in note for note in result.notes)


def test_options_of_the_user_come_first(tmp_path: Path) -> None:
    result = export(tmp_path, images=ImageOptions(mean=(0.75,)))
    provenance = result.bundle.manifest.provenance
    assert (provenance["mean"], provenance["std"]) == ([0.75] * 3, [0.5, 0.5, 0.25])
    assert "(by --mean, preprocessor_config.json)" in describe_bundle(result.bundle)
    assert any("where it differs, --mean was taken" in note for note in result.notes)


def test_another_size_of_images_needs_a_word(tmp_path: Path) -> None:
    assert export(tmp_path, side=64).bundle.manifest.preprocessing.resize == SMALL * 68 // 64
    model = randomise(timm.create_model("test_vit", num_classes=3))
    path = save_weights(tmp_path, dict(model.state_dict()), "model.safetensors")
    with pytest.raises(ExportError, match=r"images of 64 × 64 pixels, and this model reads 160 × 160"):
        export_model(Request("test_vit", path, num_classes=3), tmp_path / "b")
