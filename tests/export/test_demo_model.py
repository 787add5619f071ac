"""The demonstration's model: predictions, options and training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fozo.data.demo import demo_images
from fozo.engine.errors import ExportError
from fozo.engine.runtime.network import Network

torch = pytest.importorskip("torch", reason="export needs PyTorch")
timm = pytest.importorskip("timm", reason="export needs timm")

from fozo.export.demo_model import create_demo_model  # noqa: E402
from fozo.export.exporter import export_model  # noqa: E402
from fozo.export.model_request import Request, create_model  # noqa: E402


def test_demo_model_reads_digits(tmp_path: Path) -> None:
    bundle = export_model(Request("fozo_demo_vit"), tmp_path / "bundle").bundle
    assert bundle.manifest.class_ids == tuple("0123456789")
    images, labels = demo_images("test")
    model, _ = create_model(Request("fozo_demo_vit"))
    with torch.inference_mode():
        pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
        expected = model((pixels - 0.5) / 0.5).numpy()
    with Network.open(bundle, workers=2) as net:
        found = net(images).logits
    assert (found.argmax(1) == labels).mean() >= 0.97
    assert (found.argmax(1) == expected.argmax(1)).all()
    assert np.abs(found - expected).max() < 1e-3


def test_demo_model_is_fixed(tmp_path: Path) -> None:
    for request in (Request("fozo_demo_vit", num_classes=3), Request("fozo_demo_vit", image_size=64)):
        with pytest.raises(ExportError, match="fixed"):
            export_model(request, tmp_path / "bundle")


def test_demo_model_leaves_the_random_state_alone() -> None:
    state = torch.random.get_rng_state()
    create_demo_model()
    assert torch.equal(state, torch.random.get_rng_state())


def test_training_the_demo_model_is_deterministic(tmp_path: Path) -> None:
    """One epoch, twice; the shipped weights are what 60 of them give (minutes, hence not here)."""
    from fozo.export.demo_model import DEMO_WEIGHTS
    from fozo.export.train_demo import main

    threads = torch.get_num_threads()
    try:
        for name in ("a", "b"):
            main(["--epochs", "1", "--out", str(tmp_path / f"{name}.safetensors")], standalone_mode=False)
    finally:  # a script may set these for its process, a test may not
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(False)
    first = (tmp_path / "a.safetensors").read_bytes()
    assert first == (tmp_path / "b.safetensors").read_bytes()
    assert len(first) == DEMO_WEIGHTS.stat().st_size <= 2_000_000
    assert first != DEMO_WEIGHTS.read_bytes()
