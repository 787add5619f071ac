"""TENT, EATA, SAR, DeYO and FOA's loss against PyTorch's autograd and optimisers over a stream."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from doubles import StandIn, draw_images, predict_on, step_on
from fozo.engine.bundle.bundle import Bundle
from fozo.engine.errors import BundleError
from fozo.engine.methods.align import AlignState
from fozo.engine.methods.deyo import shuffle_patches
from fozo.engine.model import FloatArray, ImageArray
from fozo.engine.registry import method
from fozo.engine.runtime.network import Network
from fozo.engine.streams.adapter import Adapter
from torch import Tensor

BATCHES, BATCH, CLASSES, DEPTH = 12, 8, 20, 4
SEED = 3
STAND_IN_NORMS = dict.fromkeys(("blocks.0.norm1", "blocks.0.norm2", "blocks.1.norm1", "blocks.1.norm2"), 3)


@pytest.fixture(scope="module")
def model(randomised_vit: Callable[..., Any]) -> Any:
    return randomised_vit(64, DEPTH, CLASSES, 0, 3.0)  # confident enough that margins matter


@pytest.fixture(scope="module")
def network(make_bundle: Callable[..., Bundle], model: Any, tmp_path_factory: Any) -> Iterator[Network]:
    folder = tmp_path_factory.mktemp("gradients")
    bundle = make_bundle(folder / "bundle", width=64, depth=DEPTH, classes=CLASSES, head_gain=3.0)
    with Network.open(bundle, gradients=True) as opened:
        yield opened


@pytest.fixture
def stream(random_images: Callable[..., ImageArray]) -> list[ImageArray]:
    return [random_images(BATCH, seed) for seed in range(BATCHES)]


class TorchModel:
    """The model in PyTorch, with an optimiser on the norms of some blocks."""

    def __init__(self, model: Any, normalisation: Any, rate: float, blocks: range) -> None:
        mean, std = normalisation
        self.model = model
        self.mean, self.std = (torch.tensor(values)[None, :, None, None] for values in (mean, std))
        self.original = {name: value.clone() for name, value in model.state_dict().items()}
        model.requires_grad_(False)
        self.parameters = [
            parameter.requires_grad_()
            for index in blocks
            for norm in (model.blocks[index].norm1, model.blocks[index].norm2)
            for parameter in (norm.weight, norm.bias)
        ]
        self.optimiser = torch.optim.SGD(self.parameters, lr=rate, momentum=0.9)
        self.prompts = torch.zeros(0, model.embed_dim)

    def features(self, images: ImageArray) -> Tensor:
        m = self.model
        pixels = torch.from_numpy(images.copy()).permute(0, 3, 1, 2).float() / 255
        x = m._pos_embed(m.patch_embed((pixels - self.mean) / self.std))
        x = torch.cat([x[:, :1], self.prompts.expand(len(x), -1, -1), x[:, 1:]], dim=1)
        features = []
        for block, norm in zip(m.blocks, [*(b.norm1 for b in m.blocks[1:]), m.norm], strict=True):
            x = block(x)
            features.append(norm(x[:, 0]))
        return torch.stack(features, dim=1)

    def logits(self, images: ImageArray) -> Tensor:
        return self.model.head(self.features(images)[:, -1])

    def addends(self) -> FloatArray:
        names = [
            f"blocks.{index}.{norm}.{kind}"
            for index in range(DEPTH)
            for norm in ("norm1", "norm2")
            for kind in ("weight", "bias")
        ]
        state = self.model.state_dict()
        values = torch.stack([state[name] - self.original[name] for name in names])
        return values.numpy().reshape(2 * DEPTH, 2, -1)

    def fisher(self, batches: list[ImageArray]) -> list[Tensor]:
        """Mean over the batches of the squared gradients of their mean cross entropy, per parameter."""
        sums = [torch.zeros_like(parameter) for parameter in self.parameters]
        for images in batches:
            self.optimiser.zero_grad()
            logits = self.logits(images)
            torch.nn.functional.cross_entropy(logits, logits.argmax(1)).backward()
            for total, parameter in zip(sums, self.parameters, strict=True):
                total += parameter.grad**2
        return [total / len(batches) for total in sums]

    def restore(self) -> None:
        self.model.load_state_dict(self.original)


def entropies_of(logits: Tensor) -> Tensor:
    return torch.special.entr(logits.softmax(1)).sum(1)


def tent_step(reference: TorchModel, images: ImageArray, _: Any) -> FloatArray:
    logits = reference.logits(images)
    reference.optimiser.zero_grad()
    entropies_of(logits).mean().backward()
    reference.optimiser.step()
    return logits.detach().numpy()


def foa_step(reference: TorchModel, images: ImageArray, network: Network) -> FloatArray:
    source = network.info.source
    assert source is not None
    features = reference.features(images)
    logits = reference.model.head(features[:, -1])
    mean, std = (torch.from_numpy(values) for values in (source.mean, source.std))
    distance = torch.nn.functional.mse_loss(features.mean(0), mean)
    distance = distance + torch.nn.functional.mse_loss(features.std(0), std)
    reference.optimiser.zero_grad()
    (entropies_of(logits).mean() + 30 * distance).backward()
    reference.optimiser.step()
    return logits.detach().numpy()


SIMILARITY = 0.9  # the published 0.05 is for a thousand classes
FISHER_WEIGHT = 100.0


class EataStep:
    def __init__(self, clean: list[ImageArray]) -> None:
        self.clean = clean
        self.average: Tensor | None = None
        self.counts: list[int] = []

    def __call__(self, reference: TorchModel, images: ImageArray, _: Any) -> FloatArray:
        if not self.counts:
            self.fisher = reference.fisher(self.clean)
            self.start = [parameter.detach().clone() for parameter in reference.parameters]
        margin = 0.4 * math.log(CLASSES)
        logits = reference.logits(images)
        entropies, probabilities = entropies_of(logits), logits.softmax(1).detach()
        counted = entropies < margin
        if self.average is not None:
            cosines = torch.nn.functional.cosine_similarity(self.average[None], probabilities)
            counted &= cosines.abs() < SIMILARITY
        self.counts.append(int(counted.sum()))
        if counted.any():
            weights = torch.exp(margin - entropies[counted].detach())
            reference.optimiser.zero_grad()
            loss = (entropies[counted] * weights).mean() + FISHER_WEIGHT * self.penalty(reference)
            loss.backward()
            reference.optimiser.step()
            mean = probabilities[counted].mean(0)
            self.average = mean if self.average is None else 0.9 * self.average + 0.1 * mean
        return logits.detach().numpy()

    def penalty(self, reference: TorchModel) -> Tensor:
        terms = zip(self.fisher, reference.parameters, self.start, strict=True)
        return sum(((weight * (value - start) ** 2).sum() for weight, value, start in terms), torch.zeros(()))


class SarStep:
    def __init__(self) -> None:
        self.average: float | None = None
        self.resets = 0

    def __call__(self, reference: TorchModel, images: ImageArray, _: Any) -> FloatArray:
        margin = 0.4 * math.log(CLASSES)
        logits = reference.logits(images)
        entropies = entropies_of(logits)
        reliable = torch.where(entropies < margin)[0]
        reference.optimiser.zero_grad()
        entropies[reliable].mean().backward()
        gradients = [parameter.grad.clone() for parameter in reference.parameters]
        norm = torch.sqrt(sum((gradient**2).sum() for gradient in gradients))
        before = [parameter.detach().clone() for parameter in reference.parameters]
        with torch.no_grad():
            for parameter, gradient in zip(reference.parameters, gradients, strict=True):
                parameter.add_(gradient * (0.05 / (norm + 1e-12)))
        reference.optimiser.zero_grad()
        losses = entropies_of(reference.logits(images))[reliable]
        loss = losses[losses < margin].mean()
        loss.backward()
        with torch.no_grad():
            for parameter, values in zip(reference.parameters, before, strict=True):
                parameter.copy_(values)
        reference.optimiser.step()
        if not math.isnan(loss.item()):
            self.average = loss.item() if self.average is None else 0.9 * self.average + 0.1 * loss.item()
        if self.average is not None and self.average < 0.2:
            self.resets += 1
            reference.restore()
            reference.optimiser.state.clear()
        return logits.detach().numpy()


class DeyoStep:
    def __init__(self) -> None:
        self.step = 0
        self.counts: list[tuple[int, int]] = []

    def __call__(self, reference: TorchModel, images: ImageArray, _: Any) -> FloatArray:
        logits = reference.logits(images)
        entropies = entropies_of(logits)
        first = torch.where(entropies < 0.5 * math.log(CLASSES))[0]
        shuffled = shuffle_patches(images[first.numpy()], 4, SEED, self.step)
        self.step += 1
        with torch.no_grad():
            again = reference.logits(shuffled).softmax(1)
        probabilities = logits[first].detach().softmax(1)
        label = probabilities.argmax(1)[:, None]
        falls = (probabilities.gather(1, label) - again.gather(1, label))[:, 0]
        second = falls > 0.2
        self.counts.append((len(first), int(second.sum())))
        if second.any():
            counted = entropies[first][second]
            weights = torch.exp(0.4 * math.log(CLASSES) - counted.detach()) + torch.exp(falls[second])
            reference.optimiser.zero_grad()
            (counted * weights).mean().backward()
            reference.optimiser.step()
        return logits.detach().numpy()


class AlignStep:
    """`align` without a window or a tolerance: every batch is an update of full strength."""

    def __init__(self, reference: TorchModel, tune: str) -> None:
        self.groups = {
            "norms": ([] if tune == "prompts" else reference.parameters, 0.005),
            "prompts": ([] if tune == "norms" else [reference.prompts.requires_grad_()], 0.1),
        }
        self.start = [value.detach().clone() for value in reference.parameters]
        self.momentum = {name: torch.zeros(()) for name in self.groups}
        self.updates = 0

    def __call__(self, reference: TorchModel, images: ImageArray, network: Network) -> FloatArray:
        source, head = network.info.source, reference.model.head
        assert source is not None
        features, share = reference.features(images), len(images) / 64
        mean, std = (torch.from_numpy(values) for values in (source.mean, source.std))
        distance = ((features.mean(0) - mean) ** 2).sum() + ((features.std(0) - std) ** 2).sum()
        offset = -share * (head.weight @ features[:, -1].mean(0)).detach()
        logits = head(features[:, -1]) + offset
        loss = entropies_of(logits).sum() + share * distance
        self.updates += 1
        values = [value for group, _ in self.groups.values() for value in group]
        gradients = dict(zip(values, torch.autograd.grad(loss, values), strict=True))
        for name, (group, rate) in self.groups.items():
            if group:
                self.descend(name, group, [gradients[value] for value in group], rate)
        return logits.detach().numpy()

    def descend(self, name: str, group: list[Tensor], gradients: list[Tensor], rate: float) -> None:
        gradient = torch.stack(gradients)
        self.momentum[name] = 0.9 * self.momentum[name] + 0.1 * gradient
        average = self.momentum[name] / (1 - 0.9**self.updates)
        longest = max(gradient.square().mean().sqrt(), average.square().mean().sqrt())
        start = self.start if name == "norms" else [torch.zeros(())]
        with torch.no_grad():
            for value, origin, step in zip(group, start, average, strict=True):
                value.copy_(origin + 0.98 * (value - origin) - rate * step / longest)


EATA = {"rate": 0.02, "similarity": SIMILARITY, "fisher_weight": FISHER_WEIGHT}
CASES: dict[str, tuple[dict[str, Any], Callable[[list[ImageArray]], Any], float, range]] = {
    "tent": ({"rate": 0.01}, lambda _: tent_step, 0.01, range(DEPTH)),
    "foa_bp": ({}, lambda _: foa_step, 0.005, range(DEPTH)),
    "eata": (EATA, EataStep, 0.02, range(DEPTH)),
    "sar": ({"rate": 0.01}, lambda _: SarStep(), 0.01, range(DEPTH - 3)),
    "deyo": ({"rate": 0.01}, lambda _: DeyoStep(), 0.01, range(DEPTH - 3)),
}


@pytest.fixture
def clean(random_images: Callable[..., ImageArray]) -> list[ImageArray]:
    """Clean images in the batches of the bundle's Fisher information."""
    images = random_images(40, seed=900)
    return [images[:20], images[20:]]


@pytest.fixture
def reference(model: Any) -> Iterator[Any]:
    before = {name: value.clone() for name, value in model.state_dict().items()}
    yield model
    model.load_state_dict(before)


@pytest.mark.parametrize("name", CASES)
def test_method_does_what_pytorch_does(
    name: str,
    network: Network,
    reference: Any,
    normalisation: Any,
    stream: list[ImageArray],
    clean: list[ImageArray],
) -> None:
    options, make_step, rate, blocks = CASES[name]
    torch_model, torch_step = TorchModel(reference, normalisation, rate, blocks), make_step(clean)
    adapter = Adapter(network, method(name, **options), SEED)
    for images in stream:
        expected = torch_step(torch_model, images, network)
        np.testing.assert_allclose(adapter.step(images).logits, expected, atol=2e-4)
    addends = torch_model.addends()
    actual = np.zeros_like(addends)
    actual[2 * blocks.start : 2 * blocks.stop] = adapter.state.norms
    assert np.abs(addends).max() > 0.01  # the stream moved the norms
    np.testing.assert_allclose(actual, addends, atol=1e-5)


@pytest.mark.parametrize("tune", ["norms", "prompts", "both"])
def test_align_does_what_pytorch_does(
    tune: str, network: Network, reference: Any, normalisation: Any, stream: list[ImageArray]
) -> None:
    options = {
        "frozen_last_blocks": 0,
        "tolerance": 0.0,
        "window": 1,
        "update_images": 1,
        "gradient_share": 1,
    }
    aligned = method("align", tune=tune, prompt_rate=0.1, **options)
    adapter = Adapter(network, aligned, SEED)
    torch_model = TorchModel(reference, normalisation, 0.0, range(1, DEPTH))
    start = adapter.state.prompts
    assert start.shape == ((0 if tune == "norms" else 3), 64)
    assert np.abs(start).max(initial=0) <= network.info.prompt_bound
    torch_model.prompts = torch.from_numpy(start.copy())
    torch_step = AlignStep(torch_model, tune)
    for images in stream:
        expected = torch_step(torch_model, images, network)
        np.testing.assert_allclose(adapter.step(images).logits, expected, atol=1e-3)
    np.testing.assert_allclose(adapter.state.prompts, torch_model.prompts.detach().numpy(), atol=1e-3)
    if tune != "norms":
        assert np.abs(adapter.state.prompts - start).max() > 0.1  # the stream moved the prompts
    addends = torch_model.addends()[2:]
    if tune == "prompts":
        assert not adapter.state.norms.size and not addends.any()
    else:
        np.testing.assert_allclose(adapter.state.norms, addends, atol=1e-4)
        assert np.abs(addends).max() > 0.01


def test_align_predicts_with_the_prompts_of_its_state(network: Network, stream: list[ImageArray]) -> None:
    aligned = method("align", tune="prompts", tolerance=0.0, update_images=1)
    bound = aligned.bind(network.info)
    _, state = step_on(network, aligned, bound.init(SEED), stream[0])
    prediction = predict_on(network, aligned, state, stream[1])
    plain = predict_on(network, aligned, replace(state, prompts=0 * state.prompts), stream[1])
    assert np.abs(prediction.logits - plain.logits).max() > 1e-3
    following, _ = step_on(network, aligned, replace(state, window=state.window[:0]), stream[1])
    unshifted = predict_on(network, aligned, replace(state, window=state.window[:0]), stream[1])
    offset = following.logits - unshifted.logits  # of one batch, equal for all its images
    np.testing.assert_allclose(offset, np.broadcast_to(offset[:1], offset.shape), atol=1e-5)


def test_align_says_which_gradients_are_missing(network: Network) -> None:
    for tune, missing in (("prompts", "prompts"), ("norms", "norms"), ("both", "prompts")):
        left = tuple(name for name in ("prompts", "norms") if name != missing)
        with pytest.raises(BundleError, match=f"exact gradients with respect to {missing}"):
            method("align", tune=tune).bind(replace(network.info, gradients=left))
    method("align", tune="prompts").bind(replace(network.info, gradients=("prompts",)))


def test_fisher_information_is_that_of_pytorch(
    network: Network, reference: Any, normalisation: Any, clean: list[ImageArray]
) -> None:
    source = network.info.source
    assert source is not None and source.fisher is not None
    expected = TorchModel(reference, normalisation, 0.0, range(DEPTH)).fisher(clean)
    fisher = source.fisher.reshape(4 * DEPTH, -1)  # gain and bias of each norm, in PyTorch's order
    np.testing.assert_allclose(fisher, torch.stack(expected).numpy(), rtol=1e-3, atol=1e-4 * fisher.max())


def test_fisher_information_holds_the_norms_back(network: Network, stream: list[ImageArray]) -> None:
    """Where predictions of clean images depend on them most, and hardly where these do not."""
    ends = []
    for weight in (FISHER_WEIGHT, 0.0):
        adapter = Adapter(network, method("eata", **{**EATA, "fisher_weight": weight}), SEED)
        for images in stream:
            adapter.step(images)
        ends.append(np.abs(adapter.state.norms).ravel())
    assert network.info.source is not None and network.info.source.fisher is not None
    order = np.argsort(network.info.source.fisher.ravel())
    count = len(order) // 10
    ratios = [ends[0][rows].sum() / ends[1][rows].sum() for rows in (order[:count], order[-count:])]
    assert ratios[1] < 0.7 < 0.9 < ratios[0]


def test_eata_without_fisher_information_says_so(network: Network) -> None:
    assert network.info.source is not None
    without = replace(network.info, source=replace(network.info.source, fisher=None))
    for info in (without, replace(network.info, source=None)):
        with pytest.raises(BundleError, match=r"Fisher information.*fozo source.*fisher_weight=0"):
            method("eata").bind(info)
        method("eata", fisher_weight=0).bind(info)


def test_filters_matter_in_these_streams(
    network: Network,
    reference: Any,
    normalisation: Any,
    stream: list[ImageArray],
    clean: list[ImageArray],
) -> None:
    eata, deyo = EataStep(clean), DeyoStep()
    for step in (eata, deyo):
        torch_model = TorchModel(reference, normalisation, 0.01, range(DEPTH))
        for images in stream:
            step(torch_model, images, network)
        torch_model.restore()
    assert sum(0 < count < BATCH for count in eata.counts) > BATCHES // 3
    assert any(0 < second < first < BATCH for first, second in deyo.counts)


def test_sar_resets_collapsed_norms(network: Network, stream: list[ImageArray]) -> None:
    adapter = Adapter(network, method("sar", rate=0.01, reset_below=10.0, forget_average=True), SEED)
    adapter.step(stream[0])
    assert not adapter.state.norms.any() and adapter.state.average is None


def test_sar_computes_gradients_only_where_images_count(network: Network, stream: list[ImageArray]) -> None:
    """Without gradients the velocity still moves the norms, as PyTorch's optimiser would."""
    learn = method("sar", rate=0.01)
    prediction, state = step_on(network, learn, learn.bind(network.info).init(SEED), stream[0])
    assert (prediction.forwards, prediction.pull_backs) == (2, 2)
    prediction, after = step_on(network, replace(learn, margin=0.0), state, stream[1])
    assert (prediction.forwards, prediction.pull_backs, prediction.loss) == (1, 0, None)
    expected = state.norms - 0.01 * 0.9 * state.velocity
    np.testing.assert_allclose(after.norms, expected, rtol=1e-6, atol=1e-9)
    assert np.abs(after.norms - state.norms).max() > 0


def test_sar_saves_the_second_gradient_where_no_image_stays_reliable(
    network: Network, stream: list[ImageArray]
) -> None:
    entropies = entropies_of(torch.from_numpy(network(stream[0]).logits))
    margin = float(entropies.min()) / math.log(CLASSES) * 1.0001  # a single image, and it rises above
    sar = method("sar", margin=margin, radius=5.0)
    prediction, _ = step_on(network, sar, sar.bind(network.info).init(SEED), stream[0])
    assert (prediction.forwards, prediction.pull_backs, prediction.loss) == (2, 1, None)


def test_patches_are_shuffled_and_nothing_is_lost(random_images: Callable[..., ImageArray]) -> None:
    images = random_images(3)
    mixed = shuffle_patches(images, 3, 0, 0)  # 32 pixels: patches of 10, and 2 rows and columns left over
    assert np.array_equal(mixed[:, 30:], images[:, 30:]) and np.array_equal(
        mixed[:, :, 30:], images[:, :, 30:]
    )
    assert not np.array_equal(mixed, images)

    def patches(image: ImageArray) -> list[bytes]:
        return sorted(
            image[10 * i : 10 * i + 10, 10 * j : 10 * j + 10].tobytes() for i in range(3) for j in range(3)
        )

    assert [patches(image) for image in mixed] == [patches(image) for image in images]


@pytest.mark.parametrize("name", [*CASES, "align"])
def test_bundle_without_gradients_is_refused(name: str, network: Network) -> None:
    with pytest.raises(BundleError, match="--gradients"):
        method(name).bind(replace(network.info, gradients=()))


def test_sums_do_not_depend_on_the_split(network: Network, stream: list[ImageArray], tmp_path: Path) -> None:
    reference = Adapter(network, method("align"), SEED)
    other = Adapter(network.rearrange(1, 3), method("align"), SEED)
    for images in stream[:3]:
        assert reference.step(images).logits.tobytes() == other.step(images).logits.tobytes()
    assert reference.state.norms.tobytes() == other.state.norms.tobytes()


@pytest.mark.parametrize("size", [1, 3, 16, 64])
def test_align_computes_gradients_of_its_share_of_the_images(size: int) -> None:
    adapter = Adapter(
        StandIn(norms=STAND_IN_NORMS), method("align", gradient_share=0.25, update_images=64), SEED
    )
    shares = [adapter.step(draw_images(size, seed=index)).pull_backs for index in range(-(-64 // size))]
    pulled = sum(share * size for share in shares)
    assert pulled == pytest.approx(math.ceil(0.25 * size * len(shares)))


def test_share_of_the_gradients_agrees_with_all_of_them_on_average() -> None:
    """The gradient of a random quarter of the images, times four, has the gradient of all as its mean."""
    images = draw_images(8, seed=1)
    whole = _compute_first_gradient(images, share=1, seed=0)
    quarters = [_compute_first_gradient(images, share=0.25, seed=seed) for seed in range(2000)]
    error = np.std(quarters, axis=0) / math.sqrt(len(quarters))
    assert (np.abs(4 * np.mean(quarters, axis=0) - whole) <= 4 * 5 * error + 1e-9).all()


def test_update_of_a_single_image_has_a_gradient() -> None:
    adapter = Adapter(StandIn(norms=STAND_IN_NORMS), method("align", update_images=1), SEED)
    assert [adapter.step(draw_images(1, seed=index)).pull_backs for index in range(3)] == [1, 1, 1]


def _compute_first_gradient(images: ImageArray, share: float, seed: int) -> FloatArray:
    configured = method("align", gradient_share=share, update_images=1000, tolerance=0)
    adapter = Adapter(StandIn(norms=STAND_IN_NORMS), configured, seed)
    adapter.step(images)
    state = adapter.state
    assert isinstance(state, AlignState)
    return state.norms_gradient
