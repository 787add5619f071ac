"""Checkpoints as training programs and other libraries write them, and what is said about the choice."""

from __future__ import annotations

import argparse
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from export_doubles import SMALL, save_weights
from fozo.engine.errors import ExportError
from vit_doubles import randomise
from weights_doubles import State, in_google_layout

torch = pytest.importorskip("torch", reason="export needs PyTorch")
timm = pytest.importorskip("timm", reason="export needs timm")

from fozo.export.weights import LoadedWeights, load_weights  # noqa: E402
from timm.models.deit import VisionTransformerDistilled  # noqa: E402
from timm.models.vision_transformer import VisionTransformer  # noqa: E402


def make_model(**options: Any) -> Any:
    defaults = {
        "img_size": SMALL,
        "patch_size": 8,
        "embed_dim": 32,
        "depth": 2,
        "num_heads": 2,
        "num_classes": 5,
    }
    return VisionTransformer(**{**defaults, **options}).eval()


@pytest.fixture(scope="module")
def plain() -> State:
    state: State = randomise(make_model(), seed=1).state_dict()
    return state


@pytest.fixture(scope="module")
def average() -> State:
    state: State = randomise(make_model(), seed=2).state_dict()
    return state


def load(folder: Path, content: Any, key: str | None = None, **options: Any) -> tuple[State, LoadedWeights]:
    """Save a checkpoint, load it, and return the model's tensors and where they come from."""
    model = make_model()
    origin = load_weights(model, save_weights(folder, content, "ckpt.pth"), key, **options)
    return model.state_dict(), origin


def refuse(folder: Path, content: Any, key: str | None = None, **options: Any) -> str:
    with pytest.raises(ExportError) as caught:
        load(folder, content, key, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def assert_equal(found: State, expected: State) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        assert torch.equal(tensor, expected[name]), name


def prefixed(state: State, prefix: str) -> State:
    return {prefix + name: tensor for name, tensor in state.items()}


# --- training checkpoints ---


def test_a_training_checkpoint_of_timm_with_its_arguments(tmp_path: Path, plain: State) -> None:
    args = argparse.Namespace(model="vit", lr=0.1, mean=None, opt_betas=[0.9, 0.99])
    content = {
        "epoch": 3,
        "arch": "vit",
        "state_dict": plain,
        "optimizer": {"state": {}},
        "args": args,
        "version": 2,
    }
    found, origin = load(tmp_path, content)
    assert_equal(found, plain)
    assert origin.key == "state_dict"
    assert origin.notes == ()


class Callback:
    """Stand-in for an object of a training program, which only running code could read."""


def test_other_objects_in_a_checkpoint_are_still_refused(tmp_path: Path, plain: State) -> None:
    assert "cannot be read" in refuse(tmp_path, {"state_dict": plain, "callback": Callback()})
    args = argparse.Namespace(callback=Callback())
    assert "cannot be read" in refuse(tmp_path, {"state_dict": plain, "args": args})


@pytest.mark.parametrize(("averaged", "trained"), [("state_dict_ema", "state_dict"), ("model_ema", "model")])
def test_moving_averages_beside_plain_weights(
    averaged: str, trained: str, tmp_path: Path, plain: State, average: State
) -> None:
    content = {trained: plain, averaged: average, "epoch": 1}
    found, origin = load(tmp_path, content)
    assert_equal(found, average)
    assert origin.key == averaged
    (note,) = origin.notes
    assert f"holds {averaged}, a moving average" in note
    assert f"--weights-key {trained}" in note
    assert averaged in origin.description
    found, origin = load(tmp_path, content, trained)
    assert_equal(found, plain)
    assert (origin.key, origin.notes) == (trained, ())


def test_student_and_teacher_must_be_chosen(tmp_path: Path, plain: State, average: State) -> None:
    content = {"student": plain, "teacher": average}
    message = refuse(tmp_path, content)
    assert "student, teacher" in message
    assert "--weights-key" in message
    assert_equal(load(tmp_path, content, "teacher")[0], average)
    assert "student, teacher" in refuse(tmp_path, content, "pupil")


def test_two_models_in_one_state_dict_must_be_chosen(tmp_path: Path, plain: State, average: State) -> None:
    content = {"state_dict": {**prefixed(plain, "model."), **prefixed(average, "ema.module.")}}
    assert "unexpected" in refuse(tmp_path, content)
    found, origin = load(tmp_path, content, "ema")
    assert_equal(found, average)
    assert origin.key == "state_dict.ema.module"
    assert_equal(load(tmp_path, content, "state_dict.model")[0], plain)


PREFIXES = [
    "module.",
    "_orig_mod.",
    "model.",
    "backbone.",
    "module._orig_mod.",
    "_orig_mod.module.",
    "net.model.vit.",
]


@pytest.mark.parametrize("prefix", PREFIXES)
def test_prefixes_that_all_names_share(prefix: str, tmp_path: Path, plain: State) -> None:
    found, origin = load(tmp_path, {"state_dict": prefixed(plain, prefix)})
    assert_equal(found, plain)
    assert origin.key == f"state_dict.{prefix.rstrip('.')}"


def test_a_backbone_with_its_head_beside_it(tmp_path: Path, plain: State) -> None:
    state = {name if name.startswith("head") else f"backbone.{name}": value for name, value in plain.items()}
    assert_equal(load(tmp_path, state)[0], plain)


def test_prefixed_names_that_do_not_fit_are_named_without_the_prefix(tmp_path: Path, plain: State) -> None:
    state = {**prefixed(plain, "module."), "module.projector.weight": torch.zeros(2)}
    del state["module.norm.bias"]
    message = refuse(tmp_path, state)
    assert "behind the prefix 'module.', 1 missing (norm.bias); 1 unexpected (projector.weight)" in message


def test_names_of_two_kinds_that_collide_are_refused(tmp_path: Path, plain: State) -> None:
    assert "unexpected" in refuse(tmp_path, {**prefixed(plain, "module."), "norm.bias": plain["norm.bias"]})


def test_weight_averages_of_pytorch_have_a_counter(tmp_path: Path, plain: State) -> None:
    state = {**prefixed(plain, "module."), "n_averaged": torch.tensor(7)}
    assert_equal(load(tmp_path, state)[0], plain)


# --- sizes ---


def of_pixels(side: int, kind: Any = VisionTransformer) -> Any:
    options = {"patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2, "num_classes": 5}
    return randomise(kind(img_size=side, **options), seed=3)


def test_position_embeddings_of_another_size_are_named_with_both_ways_out(tmp_path: Path) -> None:
    message = refuse(tmp_path, of_pixels(48).state_dict())
    assert "made for images of 48 × 48 pixels" in message
    assert "--image-size 48 for such images" in message
    assert "--image-size 32 to resample" in message


@pytest.mark.parametrize("kind", [VisionTransformer, VisionTransformerDistilled])
@pytest.mark.parametrize("side", [24, 48])
def test_position_embeddings_are_resampled_as_timm_does(side: int, kind: Any, tmp_path: Path) -> None:
    source = of_pixels(side, kind)
    model = of_pixels(SMALL, kind)
    origin = load_weights(model, save_weights(tmp_path, source.state_dict()), resample=True)
    (note,) = origin.notes
    assert f"from images of {side} × {side} pixels to {SMALL} × {SMALL}" in note
    # timm's own way to another size, on the model itself.
    source.set_input_size(img_size=SMALL)
    images = torch.randn(3, 3, SMALL, SMALL, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        np.testing.assert_allclose(model.eval()(images), source.eval()(images), atol=1e-5)


def test_equal_sizes_are_not_resampled(tmp_path: Path, plain: State) -> None:
    found, origin = load(tmp_path, plain, resample=True)
    assert_equal(found, plain)
    assert origin.notes == ()


def test_patches_of_another_size_are_never_resampled(tmp_path: Path) -> None:
    state = make_model(img_size=16, patch_size=4).state_dict()
    assert "patch_embed.proj.weight" in refuse(tmp_path, state, resample=True)


# --- other libraries ---


def save_google(folder: Path, model: Any, **more: Any) -> Path:
    path = folder / "ViT.npz"
    np.savez(path, **{**in_google_layout(model), **more})
    return path


def test_weights_of_google(tmp_path: Path) -> None:
    source, model = of_pixels(SMALL), make_model()
    assert load_weights(model, save_google(tmp_path, source)).notes == ()
    assert_equal(model.state_dict(), source.state_dict())


def test_weights_of_google_for_another_size(tmp_path: Path) -> None:
    path = save_google(tmp_path, of_pixels(48))
    with pytest.raises(ExportError, match=r"48 × 48 pixels: give --image-size 48 .* --image-size 32"):
        load_weights(make_model(), path)
    assert "48 × 48 pixels to 32 × 32" in load_weights(make_model(), path, resample=True).notes[0]


@pytest.mark.parametrize(
    ("options", "more", "message"),
    [
        ({"num_classes": 7}, {}, r"does not fill head\.weight, head\.bias"),
        ({"depth": 1}, {}, "other blocks, patches or layers"),
        ({"depth": 3}, {}, "does not hold the weights of this model"),
        ({}, {"pre_logits/kernel": np.zeros((32, 32)), "pre_logits/bias": np.zeros(32)}, "pre_logits"),
        ({"patch_size": 4, "img_size": 16}, {}, "other blocks, patches"),
        ({"class_token": False, "global_pool": "avg"}, {}, "ViT.npz"),
        ({}, {"Transformer/posembed_input/pos_embedding": np.zeros(7)}, r"of 3 axes, found shape \[7\]"),
    ],
)
def test_weights_of_google_that_do_not_fit(
    options: dict[str, Any], more: dict[str, Any], message: str, tmp_path: Path
) -> None:
    """timm itself leaves out what does not fit, without a word."""
    with pytest.raises(ExportError, match=message):
        load_weights(make_model(**options), save_google(tmp_path, of_pixels(SMALL), **more))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04" + bytes(100)])
def test_damaged_npz_files(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "w.npz"
    path.write_bytes(content)
    with pytest.raises(ExportError, match="cannot be read"):
        load_weights(make_model(), path)
    np.savez(path, weight=np.zeros(3))
    with pytest.raises(ExportError, match="embedding/kernel"):
        load_weights(make_model(), path)


@pytest.mark.parametrize("name", ["w.npz", "w.pt"])
def test_archives_that_would_fill_the_memory(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    np.savez_compressed(path.with_suffix(".npz"), **{"embedding/kernel": np.zeros(1 << 20)})
    path.with_suffix(".npz").rename(path)
    with pytest.raises(ExportError, match=r"would unpack to 8,38\d,\d{3}, expected weights"):
        load_weights(make_model(), path)


def test_compressed_arrays_of_weights_are_read(tmp_path: Path) -> None:
    source, model = of_pixels(SMALL), make_model()
    np.savez_compressed(tmp_path / "w.npz", **in_google_layout(source))
    load_weights(model, tmp_path / "w.npz")
    assert_equal(model.state_dict(), source.state_dict())


def test_an_archive_with_damaged_names_is_refused(tmp_path: Path) -> None:
    """A name that is not UTF-8 made zipfile raise an error that nobody caught."""
    path = tmp_path / "w.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/\u00e4", b"x")
    path.write_bytes(path.read_bytes().replace("\u00e4".encode(), b"\xff\xff"))
    with pytest.raises(ExportError, match="cannot be read as a state dict"):
        load_weights(make_model(), path)


def test_positions_that_claim_more_than_they_hold_are_not_resampled(tmp_path: Path) -> None:
    """Resampling would need the memory that they claim: here 400 gigabytes."""
    state = {**of_pixels(SMALL).state_dict(), "pos_embed": torch.zeros(1).expand(1, 1 + 10**5 * 10**4, 100)}
    assert "pos_embed" in refuse(tmp_path, state, resample=True)


FOREIGN: dict[str, tuple[list[str], str]] = {
    "transformers": (["vit.encoder.layer.0.attention.attention.query.weight"], "Hugging Face"),
    "torchvision": (["conv_proj.weight", "encoder.layers.encoder_layer_0.ln_1.weight"], "torchvision"),
    "clip": (["visual.proj", "visual.class_embedding", "text_projection", "logit_scale"], "a CLIP model"),
    "mae": (["decoder_embed.weight"], "masked autoencoder"),
    "lora": (["base_model.blocks.0.attn.qkv.lora_A.weight"], "LoRA"),
}


@pytest.mark.parametrize("library", FOREIGN)
def test_names_of_other_libraries_are_recognised(library: str, tmp_path: Path) -> None:
    names, message = FOREIGN[library]
    assert message in refuse(tmp_path, {name: torch.zeros(1) for name in names})


def test_layer_scale_of_deit3_is_converted_by_timm(tmp_path: Path) -> None:
    source = randomise(make_model(init_values=1e-3), seed=4)
    old: dict[str, Any] = {}
    for name, tensor in source.state_dict().items():
        old[name.replace("ls1.gamma", "gamma_1").replace("ls2.gamma", "gamma_2")] = tensor
    model = make_model(init_values=1e-3)
    load_weights(model, save_weights(tmp_path, old))
    assert_equal(model.state_dict(), source.state_dict())


def test_pre_logits_are_not_left_out(tmp_path: Path, plain: State) -> None:
    """timm's own conversion drops this layer."""
    state = {**plain, "pre_logits.fc.weight": torch.zeros(32, 32)}
    assert "1 unexpected (pre_logits.fc.weight)" in refuse(tmp_path, state)
