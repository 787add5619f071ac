"""Exports of CLIP models to bundles: what they hold, and where weights and activation come from."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from clip_export_doubles import (
    ANIMALS,
    CONFIGURATION,
    NAME,
    OPENAI_MEAN,
    OPENAI_STD,
    export_tiny,
    make_state,
    register,
    save_openai_archive,
    write_names,
)
from export_doubles import save_weights
from fozo import ExportError, InputError
from fozo.engine.bundle.bundle import Bundle
from fozo.engine.model import FloatArray
from fozo.engine.runtime.network import Network
from vit_doubles import assert_close

torch = pytest.importorskip("torch", reason="export needs PyTorch")
open_clip = pytest.importorskip("open_clip", reason="export of CLIP needs open_clip")

from fozo.export.clip_exporter import export_clip  # noqa: E402
from fozo.export.clip_source import ClipRequest  # noqa: E402
from fozo.export.text_graph import build_text_graph  # noqa: E402
from open_clip.zero_shot_metadata import IMAGENET_CLASSNAMES  # noqa: E402
from timm.data import ImageNetInfo  # noqa: E402

DEFAULT = "a photo of a {}."


@pytest.fixture(scope="module")
def model() -> Any:
    return make_state()


def classify(model: Any, names: tuple[str, ...], templates: tuple[str, ...]) -> FloatArray:
    """Return the classifier as open_clip's zero-shot evaluation builds it."""
    tokenizer, rows = open_clip.tokenizer.SimpleTokenizer(), []
    with torch.no_grad():
        for name in names:
            texts = tokenizer([template.format(name) for template in templates])
            row = torch.nn.functional.normalize(model.encode_text(texts), dim=-1).mean(0)
            rows.append(row / row.norm())
        weight: FloatArray = (model.logit_scale.exp() * torch.stack(rows)).numpy()
    return weight


def encode(model: Any, images: Any) -> FloatArray:
    pixels = torch.tensor(images).permute(0, 3, 1, 2).float() / 255
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (OPENAI_MEAN, OPENAI_STD))
    with torch.no_grad():
        embedding: FloatArray = model.encode_image((pixels - mean) / std, normalize=True).numpy()
    return embedding


@pytest.mark.parametrize("templates", [(DEFAULT,), ("a {} on a table.", "{}", "the {}!")])
def test_bundle_classifies_as_open_clip_does(templates: tuple[str, ...], model: Any, tmp_path: Path) -> None:
    result = export_tiny(tmp_path, model.state_dict(), templates=templates)
    bundle, expected = Bundle.open(result.bundle.path), classify(model, ANIMALS, templates)
    images = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    with Network.open(bundle, workers=1) as network:
        weight = network.info.head_weight
        assert_close(weight[:, :24], expected, "classifier")
        assert not weight[:, 24:].any()
        assert_close(network(images).logits, encode(model, images) @ expected.T, "logits")
        assert network.info.logit_scale == pytest.approx(float(model.logit_scale.detach().exp()), rel=1e-6)
    m = bundle.manifest
    assert m.text is not None
    assert m.class_names == m.class_ids == ANIMALS
    assert m.heads["animals"].templates == templates
    assert (m.layers, m.width, m.feature_width, m.feature_widths) == (3, 32, 32, (32, 32, 24))
    assert (m.text.width, m.text.embedding_width, m.text.context_length) == (16, 24, 77)
    assert (m.text.start_token, m.text.end_token) == (49406, 49407)
    assert (m.preprocessing.size, m.preprocessing.resize) == ((32, 32), 32)
    assert (m.preprocessing.interpolation, m.preprocessing.crop_mode) == ("bicubic", "center")
    assert m.provenance["mean"] == list(OPENAI_MEAN)
    assert result.text is not None
    assert 0 < result.text.difference < 1e-5
    assert result.text.texts > 1000


def test_the_default_classes_are_imagenets(tmp_path: Path) -> None:
    result = export_clip(ClipRequest(register(tmp_path), random=True), tmp_path / "bundle")
    m = result.bundle.manifest
    assert m.class_ids == tuple(ImageNetInfo().label_names())
    assert m.class_names == tuple(IMAGENET_CLASSNAMES)
    assert m.head_name == "imagenet"
    assert any("'missile' (657 and 744), 'sunglasses' (836 and 837)" in note for note in result.notes)
    assert m.text is not None
    assert m.text.record["activation"] == "gelu"


def test_vocabulary_and_files_are_those_of_the_manifest(model: Any, tmp_path: Path) -> None:
    bundle = export_tiny(tmp_path, model.state_dict()).bundle
    content = (bundle.path / "vocabulary.txt.gz").read_bytes()
    assert content == Path(open_clip.tokenizer.default_bpe()).read_bytes()
    names = {path.name for path in bundle.path.iterdir()}
    assert {"model.onnx", "text.onnx", "vocabulary.txt.gz", "bundle.json"} <= names
    assert bundle.manifest.heads["animals"].text_sha256 == bundle.text_sha256
    assert bundle.load_head("animals").class_names == ANIMALS


def test_two_exports_give_the_same_bytes(model: Any, tmp_path: Path) -> None:
    hashes = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        bundle = export_tiny(tmp_path / name, model.state_dict()).bundle
        hashes.append(hashlib.sha256((bundle.path / "bundle.json").read_bytes()).hexdigest())
    assert hashes[0] == hashes[1]


def read_activation(bundle: Bundle) -> str:
    assert bundle.manifest.text is not None
    return str(bundle.manifest.text.record["activation"])


def test_openai_archive_is_read_and_means_quick_gelu(tmp_path: Path) -> None:
    quick = make_state(activation="quick_gelu")
    for parameter in quick.parameters():
        parameter.data = parameter.data.half().float()
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    expected = encode(quick, images), classify(quick, ANIMALS, (DEFAULT,))
    archive = save_openai_archive(tmp_path, quick)
    result = export_tiny(tmp_path, archive, activation=None)
    assert read_activation(result.bundle) == "quick_gelu"
    assert any("TorchScript archive" in note for note in result.notes)
    with Network.open(result.bundle, workers=1) as network:
        assert_close(network(images).logits, expected[0] @ expected[1].T, "logits")
    with pytest.raises(ExportError, match=r"--activation says gelu.*layout.*says quick_gelu"):
        export_clip(ClipRequest(NAME, archive, activation="gelu"), tmp_path / "other")


@pytest.mark.parametrize("kind", ["training", "plain", "safetensors"])
@pytest.mark.parametrize("activation", ["gelu", "quick_gelu"])
def test_files_of_open_clip_are_read(kind: str, activation: str, tmp_path: Path) -> None:
    model = make_state(activation=activation)
    state: Any = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    name = "weights.safetensors" if kind == "safetensors" else "epoch_3.pt"
    if kind == "training":
        optimizer = {"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"lr": 0.1}]}
        prefixed = {f"module.{key}": value for key, value in state.items()}
        state = {"epoch": 3, "name": "run", "state_dict": prefixed, "optimizer": optimizer}
    path = save_weights(tmp_path, state, name)
    result = export_tiny(tmp_path, path, activation=activation)
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    with Network.open(result.bundle, workers=1) as network:
        expected = encode(model, images) @ classify(model, ANIMALS, (DEFAULT,)).T
        assert_close(network(images).logits, expected, kind)
    assert read_activation(result.bundle) == activation
    assert result.bundle.manifest.provenance["weights_key"] == (
        "state_dict.module" if kind == "training" else ""
    )


def test_activation_is_never_guessed(model: Any, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"does not tell.*--activation quick_gelu.*--activation gelu"):
        export_tiny(tmp_path, model.state_dict(), activation=None)
    assert not (tmp_path / "bundle").exists()


def test_the_name_of_a_model_tells_the_activation(model: Any, tmp_path: Path) -> None:
    name = register(tmp_path, f"{NAME}-quickgelu", quick_gelu=True)
    weights = save_weights(tmp_path, model.state_dict())
    request = ClipRequest(name, weights, classes_file=write_names(tmp_path))
    assert read_activation(export_clip(request, tmp_path / "bundle").bundle) == "quick_gelu"
    with pytest.raises(ExportError, match="--activation says gelu, and open_clip's configuration"):
        export_clip(ClipRequest(name, weights, activation="gelu"), tmp_path / "other")


def write_settings(folder: Path, **content: Any) -> Path:
    path = folder / "open_clip_config.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


@pytest.mark.parametrize("quick_gelu", [None, False, True])
def test_settings_beside_the_weights_are_read(quick_gelu: bool | None, model: Any, tmp_path: Path) -> None:
    described = dict(CONFIGURATION) if quick_gelu is None else {**CONFIGURATION, "quick_gelu": quick_gelu}
    images = {"mean": [0.5, 0.5, 0.5], "std": [0.25] * 3, "interpolation": "bilinear"}
    write_settings(tmp_path, model_cfg=described, preprocess_cfg=images)
    result = export_tiny(tmp_path, model.state_dict(), activation=None)
    m = result.bundle.manifest
    assert read_activation(result.bundle) == ("quick_gelu" if quick_gelu else "gelu")
    assert (m.provenance["mean"], m.provenance["std"]) == ([0.5] * 3, [0.25] * 3)
    assert m.preprocessing.interpolation == "bilinear"
    assert m.provenance["image_settings"] == "open_clip_config.json"
    if quick_gelu:
        request = ClipRequest(NAME, tmp_path / "weights.pt", activation="gelu")
        with pytest.raises(ExportError, match="beside the weights says quick_gelu"):
            export_clip(request, tmp_path / "other")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({"model_cfg": {**CONFIGURATION, "embed_dim": 25}}, "describes another model"),
        ({"model_cfg": {**CONFIGURATION, "text_cfg": {"width": 16, "odd": 1}}}, "describes another model"),
        ({"preprocess_cfg": {}}, "describes another model"),
        ({"model_cfg": CONFIGURATION, "preprocess_cfg": {"resize_mode": "longest"}}, "'longest'"),
        ({"model_cfg": CONFIGURATION, "preprocess_cfg": {"interpolation": "random"}}, "'random'"),
        ({"model_cfg": CONFIGURATION, "preprocess_cfg": {"mean": [0.5]}}, "three"),
        ({"model_cfg": CONFIGURATION, "preprocess_cfg": {"std": "0.5"}}, "three"),
        ({"model_cfg": CONFIGURATION, "preprocess_cfg": {"std": [1, 0, 1]}}, "above 0"),
        ({"model_cfg": CONFIGURATION, "preprocess_cfg": {"mean": [1, 10**400, 1]}}, "three ordinary"),
        ({"model_cfg": CONFIGURATION, "preprocess_cfg": [1]}, "an object as preprocess_cfg"),
        ({"model_cfg": {**CONFIGURATION, "quick_gelu": "no"}}, "true or false"),
    ],
)
def test_settings_that_contradict_are_refused(
    content: dict[str, Any], reason: str, model: Any, tmp_path: Path
) -> None:
    write_settings(tmp_path, **content)
    with pytest.raises(ExportError, match=reason):
        export_tiny(tmp_path, model.state_dict())


def test_options_for_images_come_first(model: Any, tmp_path: Path) -> None:
    from fozo.export.image_format import ImageOptions

    write_settings(tmp_path, model_cfg=CONFIGURATION, preprocess_cfg={"mean": [0.1] * 3, "std": [0.2] * 3})
    images = ImageOptions(mean=(0.5,), crop_pct=0.8)
    m = export_tiny(tmp_path, model.state_dict(), images=images).bundle.manifest
    assert (m.provenance["mean"], m.provenance["std"]) == ([0.5] * 3, [0.2] * 3)
    assert m.preprocessing.resize == 40
    assert m.provenance["options"] == ["crop_pct", "mean"]


def test_files_that_hold_something_else_are_refused(model: Any, tmp_path: Path) -> None:
    state = model.state_dict()
    cases = {
        "transformers": {"text_model.final_layer_norm.bias": torch.zeros(3)},
        "no image tower": {"blocks.0.norm1.weight": torch.zeros(3)},
        "logit_bias": {**state, "logit_bias": torch.zeros(())},
        "text_projection": {**state, "text_projection": torch.zeros(16, 32)},
        "floating point": {**state, "text_projection": torch.zeros(16, 24, dtype=torch.int8)},
    }
    for reason, content in cases.items():
        with pytest.raises(ExportError, match=reason):
            export_tiny(tmp_path, content)
    both = {"a": state, "b": state}
    with pytest.raises(ExportError, match="under several names: a, b"):
        export_tiny(tmp_path, both)
    damaged = tmp_path / "ViT.pt"
    damaged.write_bytes(save_openai_archive(tmp_path, make_state()).read_bytes()[:-2000])
    with pytest.raises(ExportError, match="cannot be read"):
        export_tiny(tmp_path, damaged)
    with pytest.raises(ExportError, match=r"cannot read the weights"):
        export_tiny(tmp_path, tmp_path / "none.pt")
    assert export_tiny(tmp_path, both, weights_key="b").bundle.manifest.provenance["weights_key"] == "b"


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_a_logit_scale_that_is_no_number_is_refused(value: float, tmp_path: Path) -> None:
    state = make_state().state_dict()
    state["logit_scale"] = torch.tensor(value)
    with pytest.raises(ExportError, match="multiplies its cosines by"):
        export_tiny(tmp_path, state)


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    for name, tower in (("ln_final.weight", "text tower"), ("visual.ln_post.weight", "model")):
        state = make_state().state_dict()
        state[name][0] = float("nan")
        with pytest.raises(ExportError, match=f"the {tower} answers.*non-finite"):
            export_tiny(tmp_path, state)
    assert not (tmp_path / "bundle").exists()


def test_requests_that_say_too_little_or_too_much(tmp_path: Path) -> None:
    name = register(tmp_path)
    with pytest.raises(ExportError, match="--clip needs --weights FILE"):
        export_clip(ClipRequest(name), tmp_path / "bundle")
    with pytest.raises(ExportError, match="found both"):
        export_clip(ClipRequest(name, tmp_path / "a.pt", random=True), tmp_path / "bundle")
    with pytest.raises(ExportError, match="--weights-key goes with --weights"):
        export_clip(ClipRequest(name, random=True, weights_key="a"), tmp_path / "bundle")
    with pytest.raises(ExportError, match=r"has no model 'ViT-B-17'; did you mean .*ViT-B-16"):
        export_clip(ClipRequest("ViT-B-17", random=True), tmp_path / "bundle")
    for place in ("hf-hub:owner/name", "local-dir:folder", "hf-hub:"):
        with pytest.raises(ExportError, match="has no model"):
            export_clip(ClipRequest(place, random=True), tmp_path / "bundle")
    with pytest.raises(ExportError, match="norms of block 7"):
        export_clip(ClipRequest(name, random=True, norms=(7,)), tmp_path / "bundle")


@pytest.mark.parametrize(
    ("names", "templates", "reason"),
    [
        ((), (DEFAULT,), "names of classes"),
        (("cat", "dog", "cat"), (DEFAULT,), "'cat'"),
        (("cat",), ("a photo",), "template"),
        (("cat",), ("{} and {}",), "template"),
        (("cat " * 80,), (DEFAULT,), "77 tokens"),
        (("a\x07b",), (DEFAULT,), "control"),
    ],
)
def test_classes_that_cannot_be_used(
    names: tuple[str, ...], templates: tuple[str, ...], reason: str, tmp_path: Path
) -> None:
    request = ClipRequest(
        register(tmp_path), random=True, classes_file=write_names(tmp_path, names), templates=templates
    )
    with pytest.raises(InputError, match=reason):
        export_clip(request, tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


def test_a_wrong_text_graph_is_not_written(
    model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def build_wrong(tower: Any) -> onnx.ModelProto:
        graph = build_text_graph(tower)
        tensor = next(t for t in graph.graph.initializer if t.name == "blocks.1.attn.value.bias")
        values = onnx.numpy_helper.to_array(tensor).copy()
        values[3] += 0.05
        tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
        return graph

    monkeypatch.setattr("fozo.export.clip_exporter.build_text_graph", build_wrong)
    with pytest.raises(ExportError, match="the text graph does not compute what open_clip does"):
        export_tiny(tmp_path, model.state_dict())
    assert not (tmp_path / "bundle").exists()


def test_another_tokenizer_is_not_written(
    model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fozo.engine.text.tokenizer import Tokenizer

    encode = Tokenizer.encode
    monkeypatch.setattr(Tokenizer, "encode", lambda self, text: encode(self, text)[::-1])
    with pytest.raises(ExportError, match="the tokenizer does not do what open_clip's does"):
        export_tiny(tmp_path, model.state_dict())
    assert not (tmp_path / "bundle").exists()


def test_gradients(model: Any, tmp_path: Path) -> None:
    result = export_tiny(tmp_path, model.state_dict(), gradients=True)
    assert result.gradient_difference is not None
    assert result.gradient_difference < 1e-3
    with Network.open(result.bundle, gradients=True) as network:
        assert set(network.info.gradients) == {"prompts", "norms"}


REFUSED = {
    "coca_ViT-B-32": "CoCa",
    "roberta-ViT-B-32": "takes its text tower, roberta-base, from Hugging Face's transformers",
    "ViT-B-16-SigLIP": "takes its image tower, vit_base_patch16_siglip_224, from timm",
    "RN50": "has a ModifiedResNet as image tower",
    "ViT-L-14-CLIPA": "another tokenizer",
    "ViT-H-14": "weights of the image tower have 2.4 GiB",
}


@pytest.mark.parametrize("name", REFUSED)
def test_models_of_other_parts_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=REFUSED[name]):
        export_clip(ClipRequest(name, random=True), tmp_path / "bundle")


def change(key: str, **values: Any) -> dict[str, Any]:
    return {key: {**CONFIGURATION[key], **values}}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"init_logit_bias": -10}, "adds a bias to its logits"),
        (change("text_cfg", hf_tokenizer_name="bert"), "another tokenizer"),
        (change("text_cfg", no_causal_mask=True), "without causal mask"),
        (change("text_cfg", pool_type="last"), "pooling 'last'"),
        ({"custom_text": True, **change("text_cfg", embed_cls=True)}, "class token of its own"),
        ({"custom_text": True, **change("text_cfg", proj_type="none")}, "no projection of its texts"),
        (change("text_cfg", qk_norm=True), "CustomResidualAttentionBlock"),
        (change("text_cfg", vocab_size=49000), "vocabulary of 49000 tokens"),
        (change("vision_cfg", pool_type="avg"), "pooling 'avg'"),
        (change("vision_cfg", attentional_pool=True), "by attention"),
        (change("vision_cfg", image_size=(32, 48)), "square"),
    ],
)
def test_configurations_that_compute_something_else_are_refused(
    changes: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    name = register(tmp_path, f"{NAME}-odd", **changes)
    request = ClipRequest(name, random=True, classes_file=write_names(tmp_path))
    with pytest.raises(ExportError, match=reason):
        export_clip(request, tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()
