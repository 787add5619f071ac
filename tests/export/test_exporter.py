"""Exports of vision transformers to bundles: manifests, preprocessing, and everything that is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from doubles import real_data
from export_doubles import RANDOM, SMALL, export_small, save_weights
from fozo.data.images import preprocess, read_image
from fozo.engine.bundle.bundle import Bundle
from fozo.engine.errors import ExportError, InputError, OutputError
from fozo.engine.runtime.network import Network
from numpy.typing import NDArray
from PIL import Image
from vit_doubles import MEAN, STD, VITS, assert_close, compute_reference, make_vit, randomise

torch = pytest.importorskip("torch", reason="export needs PyTorch")
timm = pytest.importorskip("timm", reason="export needs timm")

from fozo.export import exporter  # noqa: E402
from fozo.export.exporter import export_model  # noqa: E402
from fozo.export.model_request import Request  # noqa: E402
from fozo.export.vit_graph import build_vit_graph  # noqa: E402
from timm.data import ImageNetInfo, create_transform, resolve_model_data_config  # noqa: E402


def test_two_exports_give_the_same_bytes(tmp_path: Path, small_weights: dict[str, Any]) -> None:
    path = save_weights(tmp_path, small_weights)
    found = [
        export_model(Request("test_vit", path, image_size=SMALL), tmp_path / name).bundle
        for name in ("a", "b")
    ]
    for name in ("model.onnx", "head.npz", "bundle.json"):
        assert (found[0].path / name).read_bytes() == (found[1].path / name).read_bytes()


def test_imagenet_classes_and_manifest(tmp_path: Path, small_weights: dict[str, Any]) -> None:
    bundle = export_small(tmp_path, save_weights(tmp_path, small_weights), imagenet_classes=True)
    m = bundle.manifest
    assert m.class_ids is not None
    assert m.class_names is not None
    assert len(m.class_ids) == len(set(m.class_ids)) == 1000
    assert m.class_ids == tuple(sorted(m.class_ids))
    assert m.class_ids[:2] == ("n01440764", "n01443537")
    assert m.class_ids == tuple(ImageNetInfo().label_names())
    assert "tench" in m.class_names[0]
    assert (m.layers, m.width, m.tokens, m.classes, m.feature_width) == (6, 64, 5, 1000, 64)
    assert m.prompt_bound == pytest.approx((6 / (3 * 16 * 16 + 64)) ** 0.5)
    with Network.open(bundle, workers=1) as net:
        assert net.image_size == (SMALL, SMALL)


def test_own_classes(tmp_path: Path) -> None:
    state = randomise(timm.create_model("test_vit", num_classes=3, img_size=SMALL)).state_dict()
    weights = save_weights(tmp_path, state)
    names = tmp_path / "classes.txt"
    names.write_text("cat  a small cat\n\ndog\nbird  bird of prey\n")
    m = export_small(tmp_path, weights, num_classes=3, classes_file=names).manifest
    assert m.class_ids == ("cat", "dog", "bird")
    assert m.class_names == ("a small cat", "dog", "bird of prey")
    other = export_model(
        Request("test_vit", weights, num_classes=3, image_size=SMALL), tmp_path / "none"
    ).bundle.manifest
    assert other.class_ids is None


@pytest.mark.parametrize(
    "content", ["a\nb\n", "a\nb\nb\n", "a\nb\nc\nd\n", "", None, b"\xff\xfe\xff\xff\n1\n2\n"]
)
def test_bad_classes_file(content: str | bytes | None, tmp_path: Path) -> None:
    names = tmp_path / "classes.txt"
    if isinstance(content, str):
        names.write_text(content)
    elif content is not None:
        names.write_bytes(content)
    with pytest.raises(InputError, match=r"classes"):
        export_model(Request("test_vit", random=True, num_classes=3, classes_file=names), tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


def test_unknown_model_suggests(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"no model 'vit_tiny'.*did you mean .*vit_tiny"):
        export_model(Request("vit_tiny"), tmp_path / "bundle")
    with pytest.raises(ExportError, match="no model"):
        export_model(Request("qqqqqq"), tmp_path / "bundle")
    with pytest.raises(ExportError, match="no model"):
        export_model(Request(""), tmp_path / "bundle")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("model", ["test_resnet", "test_vit2", "test_vit3"])
def test_unsupported_timm_models_write_nothing(model: str, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="cannot be exported"):
        export_model(Request(model, random=True), tmp_path / "bundle")
    assert not list(tmp_path.iterdir())


def test_a_wrong_graph_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def perturbed(*arguments: Any) -> onnx.ModelProto:
        model = build_vit_graph(*arguments)
        tensor = next(t for t in model.graph.initializer if t.name == "blocks.3.attn.value.bias")
        values = onnx.numpy_helper.to_array(tensor).copy()
        values[7] += 0.05
        tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
        return model

    monkeypatch.setattr("fozo.export.vit.build_vit_graph", perturbed)
    with pytest.raises(ExportError, match="does not compute what PyTorch does"):
        export_model(Request("fozo_demo_vit"), tmp_path / "bundle")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("model_name", ["norm_without_bias", "norm_without_affine"])
def test_norms_without_parameters_are_verified(
    model_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The graph has addends to a gain and a bias that PyTorch's module does not have."""
    model = VITS[model_name]()
    monkeypatch.setattr(exporter, "create_model", lambda request: (model, RANDOM))
    monkeypatch.setattr("fozo.export.verify.BATCHES", (1, 3))
    bundle = export_model(Request("m", random=True, image_size=28), tmp_path / "bundle").bundle
    assert len(bundle.manifest.norms) == 4


def test_existing_output_is_kept(tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    first = export_model(Request("fozo_demo_vit"), out).bundle
    (out / "mark").write_text("old")
    for overwrite in (False, True):  # somebody's file inside a bundle is not thrown away either
        with pytest.raises(OutputError, match="it holds mark"):
            export_model(Request("fozo_demo_vit"), out, overwrite=overwrite)
    assert (out / "mark").read_text() == "old"
    (out / "mark").unlink()
    with pytest.raises(OutputError, match="--overwrite"):
        export_model(Request("fozo_demo_vit"), out)
    again = export_model(Request("fozo_demo_vit"), out, overwrite=True).bundle
    assert again.sha256 == first.sha256
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_a_failed_export_keeps_the_old_bundle(tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    old = export_model(Request("fozo_demo_vit"), out).bundle
    with pytest.raises(ExportError):
        export_model(Request("test_resnet", random=True), out, overwrite=True)
    assert Bundle.open(out).sha256 == old.sha256


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("kind", ["folder", "file", "foreign bundle.json"])
def test_what_is_no_bundle_is_never_replaced(kind: str, overwrite: bool, tmp_path: Path) -> None:
    out = tmp_path / "thesis"
    if kind == "file":
        out.write_text("years of work")
        precious = out
    else:
        out.mkdir()
        precious = out / "chapter1.txt"
        precious.write_text("years of work")
        if kind == "foreign bundle.json":
            (out / "bundle.json").write_text('{"name": "a JavaScript project"}')
    with pytest.raises(OutputError, match="already exists"):
        export_model(Request("fozo_demo_vit"), out, overwrite=overwrite)
    assert precious.read_text() == "years of work"


def test_output_in_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot create"):
        export_model(Request("fozo_demo_vit"), tmp_path / "no" / "bundle")
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot create"):
        export_model(Request("fozo_demo_vit"), tmp_path / "file" / "bundle")


def test_random_weights_are_recorded_as_random(tmp_path: Path) -> None:
    small = export_model(Request("test_vit", random=True, image_size=SMALL), tmp_path / "a").bundle.manifest
    demo = export_model(Request("fozo_demo_vit", random=True), tmp_path / "b").bundle.manifest
    assert small.provenance["weights"] == "random"
    assert demo.provenance["weights"] == "random"


def timm_pixels(config: dict[str, Any], image: Image.Image) -> NDArray[np.uint8]:
    transform = create_transform(**config, is_training=False, use_prefetcher=True)
    pixels: NDArray[np.uint8] = np.asarray(transform(image)).transpose(1, 2, 0)
    return pixels


@pytest.mark.parametrize(
    ("mode", "crop", "interpolation"),
    [
        ("center", 0.875, "bilinear"),
        ("center", 0.9, "bicubic"),
        ("center", 1.0, "bicubic"),
        ("center", 0.95, "nearest"),
        ("squash", 1.0, "bicubic"),
        ("squash", 0.95, "bicubic"),  # vit_base_patch16_clip_384.openai_ft_in12k_in1k
    ],
)
@pytest.mark.parametrize("size", [32, 28])
def test_preprocessing_is_timms(
    mode: str,
    crop: float,
    interpolation: str,
    size: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = make_vit(img_size=size, patch_size=4)
    model.pretrained_cfg = {
        "input_size": (3, size, size),
        "crop_mode": mode,
        "crop_pct": crop,
        "interpolation": interpolation,
        "mean": MEAN,
        "std": STD,
    }
    monkeypatch.setattr(exporter, "create_model", lambda request: (model, RANDOM))
    how = export_model(Request("m"), tmp_path / "bundle").bundle.manifest.preprocessing
    config = resolve_model_data_config(model)
    generator = np.random.default_rng(0)
    for shape in ((50, 70), (71, 40), (100, 100), (29, 33)):
        pixels = generator.integers(0, 256, (*shape, 3), dtype=np.uint8)
        image = Image.fromarray(pixels)
        expected, found = timm_pixels(config, image), preprocess(image, how)
        assert found.shape == expected.shape == (size, size, 3)
        np.testing.assert_array_equal(found, expected)


def test_images_that_are_not_square_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """timm covers the target with `ResizeKeepRatio`; `Preprocessing.resize` cannot say that."""
    model = make_vit(img_size=(28, 56))
    monkeypatch.setattr(exporter, "create_model", lambda request: (model, RANDOM))
    with pytest.raises(ExportError, match="28 × 56"):
        export_model(Request("m"), tmp_path / "bundle")
    assert not list(tmp_path.iterdir())


def test_other_crop_modes_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_vit()
    model.pretrained_cfg = {"input_size": (3, 28, 28), "crop_mode": "border", "crop_pct": 1.0}
    monkeypatch.setattr(exporter, "create_model", lambda request: (model, RANDOM))
    with pytest.raises(ExportError, match="border"):
        export_model(Request("m"), tmp_path / "bundle")


def test_mean_and_std_of_the_model_are_in_the_graph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_vit()
    model.pretrained_cfg = {"input_size": (3, 28, 28), "mean": MEAN, "std": STD, "crop_pct": 1.0}
    monkeypatch.setattr(exporter, "create_model", lambda request: (model, RANDOM))
    bundle = export_model(Request("m"), tmp_path / "bundle").bundle
    images = np.random.default_rng(0).integers(0, 256, (4, 28, 28, 3), dtype=np.uint8)
    with Network.open(bundle, workers=1) as net:
        assert_close(
            net(images).logits, compute_reference(model, images, np.zeros((1, 0, 32), np.float32))[0], ""
        )


def test_vit_tiny_on_real_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = real_data("models", "vit_tiny_patch16_224.augreg_in21k_ft_in1k.safetensors")
    monkeypatch.setattr("fozo.export.verify.BATCHES", (1, 2))  # the 200 images below check more
    bundle = export_model(
        Request("vit_tiny_patch16_224", weights, imagenet_classes=True), tmp_path / "bundle"
    ).bundle
    paths = sorted(real_data("imagenet", "val").glob("*/*"))
    paths = [paths[i] for i in np.random.default_rng(0).choice(len(paths), 200, replace=False)]
    model = timm.create_model("vit_tiny_patch16_224", checkpoint_path=str(weights)).eval()
    transform = create_transform(**resolve_model_data_config(model), is_training=False)
    tensors, arrays = [], []
    for path in paths:
        with Image.open(path) as image:
            tensors.append(transform(image.convert("RGB")))
        arrays.append(preprocess(read_image(path), bundle.manifest.preprocessing))
    with torch.inference_mode():
        expected = np.concatenate([model(batch).numpy() for batch in torch.stack(tensors).split(20)])
    with Network.open(bundle, workers=2) as net:
        found = net(np.stack(arrays)).logits
    assert (found.argmax(1) == expected.argmax(1)).all()
    assert np.abs(found - expected).max() < 1e-3
    ids = bundle.manifest.class_ids
    assert ids is not None
    accuracy = np.mean([ids[k] == path.parent.name for k, path in zip(found.argmax(1), paths, strict=True)])
    assert accuracy > 0.7


def test_verification_runs_the_batches_that_it_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the micro-batch: the graph itself must see 1, 2, 3 and 17 images at once."""
    seen: set[tuple[int, int]] = set()
    original = Network.__init__

    def watching(self: Network, *arguments: Any, **options: Any) -> None:
        original(self, *arguments, **options)
        session = self._session

        class Watched:
            def run(self, names: Any, feed: Any) -> Any:
                seen.add((len(feed["images"]), feed["prompts"].shape[1]))
                return session.run(names, feed)

        self._session = Watched()

    monkeypatch.setattr(Network, "__init__", watching)
    export_model(Request("fozo_demo_vit"), tmp_path / "bundle")
    assert seen == {(n, p) for n in (1, 2, 3, 17) for p in (0, 3)}


def test_a_pretrained_model_with_a_random_classifier_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda name, pretrained, **options: create(name, **options))
    with pytest.raises(ExportError, match="its classifier would be random"):
        export_model(Request("vit_tiny_patch16_224", num_classes=10), tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == []
