"""`bn_adapt`: batch norms with the statistics of the batch, on a small residual network that was exported."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from doubles import predict_on
from export_doubles import RANDOM
from fozo.engine.errors import BundleError, InputError, StateError
from fozo.engine.methods.bn_adapt import BnAdapt
from fozo.engine.model import FloatArray, ImageArray
from fozo.engine.registry import METHODS, method
from fozo.engine.runtime.network import Network
from fozo.engine.streams.adapter import Adapter

torch = pytest.importorskip("torch", reason="export needs PyTorch")
timm = pytest.importorskip("timm", reason="export needs timm")

from fozo.export import exporter  # noqa: E402
from fozo.export.exporter import export_model  # noqa: E402
from fozo.export.model_request import Request  # noqa: E402
from timm.models.resnet import BasicBlock, ResNet  # noqa: E402

PIXELS = 64


@pytest.fixture(scope="module")
def model() -> Any:
    """Random parameters and running statistics that fit no image."""
    torch.set_num_threads(1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        made = ResNet(BasicBlock, (1, 1, 1, 1), num_classes=5, channels=(8, 8, 12, 16), zero_init_last=False)
        for module in made.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                for values in (module.weight.data, module.bias.data, module.running_mean):
                    values.add_(0.3 * torch.randn(values.shape))
                module.running_var.add_(torch.rand(module.running_var.shape))
    made.pretrained_cfg = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
    return made.eval()


@pytest.fixture(scope="module")
def path(model: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exporter, "create_model", lambda request: (model, RANDOM))
        folder = tmp_path_factory.mktemp("bn_adapt") / "bundle"
        return export_model(Request("small", image_size=PIXELS), folder).bundle.path


@pytest.fixture(scope="module")
def network(path: Path) -> Iterator[Network]:
    with Network.open(path, workers=1, micro_batch=2) as opened:
        yield opened


def images(count: int, seed: int = 0) -> ImageArray:
    generator = np.random.default_rng([seed, count])
    centre = generator.uniform(60, 190, (count, 1, 1, 3))
    noise = generator.normal(0, 40, (count, PIXELS, PIXELS, 3))
    array = (centre + noise).clip(0, 255).astype(np.uint8)
    array.setflags(write=False)
    return array


def torch_logits(model: Any, batch: ImageArray, prior: int) -> FloatArray:
    """Schneider et al. (2020), equation 2, in float64 and module by module."""
    model = copy.deepcopy(model).double()
    n = len(batch)

    def mix(norm: Any, inputs: Any) -> None:
        x = inputs[0]
        norm.running_mean = (prior * norm.running_mean + n * x.mean((0, 2, 3))) / (prior + n)
        norm.running_var = (prior * norm.running_var + n * x.var((0, 2, 3), unbiased=False)) / (prior + n)

    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.register_forward_pre_hook(mix)
    with torch.no_grad():
        logits: FloatArray = model(torch.tensor(batch).permute(0, 3, 1, 2).double() / 127.5 - 1).numpy()
    return logits


@pytest.mark.parametrize("prior", [0, 16])
@pytest.mark.parametrize("size", [1, 2, 7, 64])
def test_statistics_are_mixed_as_published(size: int, prior: int, model: Any, network: Network) -> None:
    model = copy.deepcopy(model)
    batch = images(size)
    prediction = Adapter(network, BnAdapt(prior=prior)).step(batch)
    expected = torch_logits(model, batch, prior)
    assert np.abs(prediction.logits - expected).max() <= 1e-4 * max(1, np.abs(expected).max())
    assert prediction.forwards == BnAdapt().forwards == 1
    assert prediction.diagnostics["batch_share"] == size / (size + prior)
    assert np.abs(prediction.logits - network(batch).logits).max() > 1e-2


def test_a_large_prior_is_no_adaptation(network: Network) -> None:
    batch = images(4)
    found = Adapter(network, BnAdapt(prior=10**9)).step(batch).logits
    np.testing.assert_allclose(found, network(batch).logits, atol=1e-4)


def test_a_stream_of_ragged_batches(network: Network, tmp_path: Path) -> None:
    """Nothing is carried: each batch is predicted as if it were the first, by `predict` as by `step`."""
    adapter = Adapter(network, METHODS["bn_adapt"])
    before = adapter.state
    for step, size in enumerate((7, 1, 2, 8, 4)):
        batch = images(size, seed=step)
        prediction = adapter.step(batch)
        assert np.isfinite(prediction.logits).all() and not prediction.frozen
        fresh = Adapter(network, BnAdapt())
        for other in (fresh.step(batch), predict_on(network, fresh.method, fresh.state, batch)):
            np.testing.assert_array_equal(other.logits, prediction.logits)
    assert adapter.state == type(before)(step=5, seed=before.seed)
    adapter.save(tmp_path / "state.npz")
    again = Adapter(network, BnAdapt())
    again.load(tmp_path / "state.npz")
    assert again.state == adapter.state
    with pytest.raises(StateError, match="options"):
        Adapter(network, BnAdapt(prior=1)).load(tmp_path / "state.npz")
    adapter.reset()
    assert adapter.state == before


def test_order_of_the_images_and_classes(network: Network) -> None:
    batch = images(6)
    order = np.array([3, 1, 5, 0, 2, 4])
    found = Adapter(network, BnAdapt()).step(batch).logits
    shuffled = Adapter(network, BnAdapt()).step(batch[order]).logits
    np.testing.assert_allclose(shuffled, found[order], atol=1e-4)
    some = Adapter(network.select([4, 0]), BnAdapt()).step(batch).logits
    np.testing.assert_array_equal(some, found[:, [4, 0]])


@pytest.mark.parametrize("value", [-1, 0.5, "many", True])
def test_options_that_make_no_sense(value: object) -> None:
    with pytest.raises(InputError, match="bn_adapt: option prior must be int"):
        method("bn_adapt", prior=value)


def test_transformers_have_no_batch_norms(bundle_path: Path) -> None:
    with pytest.raises(BundleError, match=r"bn_adapt tunes batch_statistics, and the graph of .*only: "):
        Adapter.open(bundle_path, method="bn_adapt", workers=1)
