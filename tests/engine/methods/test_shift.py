"""Activation shift (docs/specification.md §3), and the running mean inside FOZO (§6.4, §6.7, §12.3)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from doubles import apply_head, draw_images, last_features, predict_on, step_on
from fozo.engine.errors import BundleError
from fozo.engine.methods.fozo import Fozo
from fozo.engine.methods.shift import Shift
from fozo.engine.model import FloatArray, ImageArray, Outputs
from fozo.engine.registry import METHODS, get_options
from fozo.engine.statistics.activation_shift import compute_logit_offset, compute_shift, update_average
from fozo.engine.streams.adapter import Adapter

StandIn = Callable[..., Any]
SINGLE = 1e-6  # the shift and the weights it meets are rounded to float32


def test_moving_average() -> None:
    first = update_average(None, np.array([2.0, 4.0]), 0.9)
    assert first.tolist() == [2, 4]
    np.testing.assert_allclose(update_average(first, np.array([12.0, -6.0]), 0.9), [3, 3], rtol=1e-12)
    assert update_average(first, np.array([12.0, -6.0]), 0.0).tolist() == [12, -6]
    assert update_average(first, np.array([12.0, -6.0]), 1.0).tolist() == [2, 4]


def test_shift_vector() -> None:
    target, center = np.array([1.0, 2.0]), np.array([4.0, -2.0])
    assert compute_shift(target, None, 1.0) is None
    assert compute_shift(None, None, 1.0) is None
    for gain, expected in ((1.0, [-3, 4]), (0.5, [-1.5, 2]), (0.0, [0, 0])):
        shift = compute_shift(target, center, gain)
        assert shift is not None and shift.tolist() == expected
    origin = compute_shift(None, center, 0.5)
    assert origin is not None and origin.tolist() == [-2, 1]


def test_logit_offset_is_the_head_without_its_bias() -> None:
    generator = np.random.default_rng(0)
    weight, bias = generator.normal(size=(7, 5)).astype(np.float32), generator.normal(size=7)
    features, shift = generator.normal(size=(4, 5)), generator.normal(size=5)
    direct = (features + shift) @ weight.T + bias
    offset = compute_logit_offset(weight, shift)
    assert (offset.dtype, offset.shape) == (np.float32, (7,))
    np.testing.assert_allclose(features @ weight.T + bias + offset, direct, atol=SINGLE)
    assert compute_logit_offset(weight, None).tolist() == [0] * 7


@pytest.mark.parametrize("gain", [0.0, 0.6, 1.0])
@pytest.mark.parametrize("decay", [0.9, 0.3])
@pytest.mark.parametrize("update", ["lagged", "inclusive"])
@pytest.mark.parametrize("target", ["source_mean", "origin"])
def test_against_the_head_applied_to_shifted_features(
    stand_in: StandIn, target: Any, update: Any, decay: float, gain: float
) -> None:
    network, method = stand_in(), Shift(target=target, update=update, decay=decay, gain=gain)
    state, running = method.bind(network.info).init(0), None
    aim = network.info.source.mean[-1] if target == "source_mean" else np.zeros(3)
    for batch, size in enumerate((5, 5, 1, 1, 3, 5)):
        given = draw_images(size, batch)
        features = last_features(network, given)
        mean = features.mean(axis=0)
        following = mean if running is None else decay * running + (1 - decay) * mean
        used = following if update == "inclusive" else running
        shift = np.zeros(3) if used is None else gain * (aim - used)
        prediction, state = step_on(network, method, state, given)
        np.testing.assert_allclose(prediction.logits, apply_head(network, features + shift), atol=SINGLE)
        np.testing.assert_allclose(state.center, following, rtol=1e-12)
        running = following


@pytest.mark.parametrize("target", ["source_mean", "origin"])
def test_first_batch(stand_in: StandIn, target: Any) -> None:
    network = stand_in()
    plain = network(draw_images(6)).logits
    lagged = Shift(target=target)
    prediction, _ = step_on(network, lagged, lagged.bind(network.info).init(0), draw_images(6))
    assert prediction.logits.tobytes() == plain.tobytes()
    inclusive = replace(lagged, update="inclusive")
    prediction, _ = step_on(network, inclusive, inclusive.bind(network.info).init(0), draw_images(6))
    assert not np.allclose(prediction.logits, plain)
    aim = network.info.source.mean[-1] if target == "source_mean" else np.zeros(3)
    centred = (
        last_features(network, draw_images(6)) - last_features(network, draw_images(6)).mean(axis=0) + aim
    )
    np.testing.assert_allclose(prediction.logits, apply_head(network, centred), atol=SINGLE)


def test_a_single_image_moved_inclusively_lands_on_the_target(stand_in: StandIn) -> None:
    network, method = stand_in(), Shift(update="inclusive", target="origin")
    prediction, _ = step_on(network, method, method.bind(network.info).init(0), draw_images(1))
    np.testing.assert_allclose(prediction.logits, network.bias[None], atol=SINGLE)


def test_one_forward_without_prompts(stand_in: StandIn) -> None:
    network, method = stand_in(), Shift()
    state = method.bind(network.info).init(0)
    for count in range(1, 4):
        prediction, state = step_on(network, method, state, draw_images(3))
        assert network.forwards == count
        assert prediction.forwards == method.forwards == 1
        assert state.step == count


def test_only_the_source_mean_needs_source_statistics(stand_in: StandIn) -> None:
    network = stand_in()
    network.info = replace(network.info, source=None)
    assert Shift(target="origin").bind(network.info).init(0).center is None
    with pytest.raises(BundleError, match="fozo source"):
        Shift().bind(network.info).init(0)
    with pytest.raises(BundleError, match="fozo source"):
        Fozo().bind(network.info).init(0)


@pytest.mark.parametrize("sizes", [(5, 5, 5), (1, 1, 1, 1, 1), (7, 1, 2, 64, 1)])
@pytest.mark.parametrize("update", ["lagged", "inclusive"])
@pytest.mark.parametrize("target", ["source_mean", "origin"])
def test_global_average_is_the_mean_of_all_images_seen(
    stand_in: StandIn, target: Any, update: Any, sizes: tuple[int, ...]
) -> None:
    network, method = stand_in(), Shift(target=target, update=update, average="global", decay=0.5)
    state, seen = method.bind(network.info).init(0), np.zeros((0, 3))
    aim = network.info.source.mean[-1] if target == "source_mean" else np.zeros(3)
    for batch, size in enumerate(sizes):
        given = draw_images(size, batch)
        features = last_features(network, given)
        known = np.concatenate([seen, features])
        used = known if update == "inclusive" else seen
        moved = aim - used.mean(axis=0) if len(used) else np.zeros(3)
        prediction, state = step_on(network, method, state, given)
        np.testing.assert_allclose(prediction.logits, apply_head(network, features + moved), atol=SINGLE)
        np.testing.assert_allclose(state.center, known.mean(axis=0), rtol=1e-12)
        assert state.images == len(known)
        after = apply_head(network, features + aim - known.mean(axis=0))
        np.testing.assert_allclose(predict_on(network, method, state, given).logits, after, atol=SINGLE)
        seen = known


def test_neo_does_not_depend_on_how_images_come_in_batches(stand_in: StandIn) -> None:
    network, method, stream = stand_in(), METHODS["neo"], draw_images(12)
    states = []
    for size in (12, 5, 1):
        state = method.bind(network.info).init(0)
        for first in range(0, 12, size):
            state = step_on(network, method, state, stream[first : first + size])[1]
        states.append(state)
    for state in states:
        np.testing.assert_allclose(state.center, states[0].center, rtol=1e-12)
        assert state.images == 12
    moving = Shift(target="origin", update="inclusive")
    state = moving.bind(network.info).init(0)
    for first in range(0, 12, 5):
        state = step_on(network, moving, state, stream[first : first + 5])[1]
    assert not np.allclose(state.center, states[0].center)


def test_neo_resumes_and_forgets(bundle_path: Path, random_images: Any, tmp_path: Path) -> None:
    batches = [random_images(size, seed=size) for size in (3, 1, 5)]
    whole, cut = (Adapter.open(bundle_path, method="neo", workers=1) for _ in range(2))
    expected = [whole.step(batch).logits.tobytes() for batch in batches]
    for batch in batches[:2]:
        cut.step(batch)
    cut.save(tmp_path / "state.npz")
    cut.reset()
    assert (cut.state.center, cut.state.images) == (None, 0)  # type: ignore[attr-defined]
    cut.load(tmp_path / "state.npz")
    assert cut.state.images == 4  # type: ignore[attr-defined]
    assert cut.step(batches[2]).logits.tobytes() == expected[2]


def test_presets() -> None:
    moving = {"average": "moving", "decay": 0.9, "gain": 1.0, "warm_up": 0}
    assert get_options(METHODS["shift"]) == {"target": "source_mean", "update": "lagged", **moving}
    assert get_options(METHODS["shift_origin"]) == {"target": "origin", "update": "lagged", **moving}
    neo = {"target": "origin", "update": "inclusive", **moving, "average": "global"}
    assert get_options(METHODS["neo"]) == neo


# --- inside FOZO


class Seen:
    """Records what a network answers, candidate by candidate."""

    def __init__(self, network: Any) -> None:
        self.network, self.info = network, network.info
        self.outputs: list[Outputs] = []

    def __call__(self, images: ImageArray, prompts: FloatArray | None = None) -> Outputs:
        return self.candidates(images, [{} if prompts is None else {"prompts": prompts}])[0]

    def candidates(self, images: ImageArray, tunables: Any) -> list[Outputs]:
        made = [self.network(images, **each) for each in tunables]
        self.outputs += made
        return made

    def means(self) -> list[FloatArray]:
        """Return the last block's batch means since the last call."""
        taken, self.outputs = self.outputs, []
        return [output.features[:, -1].mean(axis=0) for output in taken]


@pytest.mark.parametrize("samples", [1, 3])
def test_official_center_is_the_sum_of_both_means(stand_in: StandIn, samples: int) -> None:
    network, method = Seen(stand_in()), Fozo(samples=samples)
    _, first = step_on(network, method, method.bind(network.info).init(0), draw_images(5))
    means = network.means()
    plus, minus = np.mean(means[::2], axis=0), np.mean(means[1::2], axis=0)
    np.testing.assert_allclose(first.center, plus + minus, rtol=1e-12)
    _, second = step_on(network, method, first, draw_images(5, 1))
    means = network.means()
    plus, minus = np.mean(means[::2], axis=0), np.mean(means[1::2], axis=0)
    np.testing.assert_allclose(second.center, 0.9 * first.center + 0.1 * (plus + minus), rtol=1e-12)


@pytest.mark.parametrize("shift", ["source_mean", "origin"])
def test_other_centers_are_averages(stand_in: StandIn, shift: Any) -> None:
    network, method = Seen(stand_in()), Fozo(samples=2, shift=shift)
    _, first = step_on(network, method, method.bind(network.info).init(0), draw_images(5))
    np.testing.assert_allclose(first.center, np.mean(network.means(), axis=0), rtol=1e-12)


@pytest.mark.parametrize("shift", ["official_sum", "source_mean", "origin", "none"])
@pytest.mark.parametrize("gain", [1.0, 0.4])
def test_constant_features(stand_in: StandIn, shift: Any, gain: float) -> None:
    """Features f ≡ c: the official shift is μ_S − 2c, and the shifted mean is μ_S − c."""
    network = stand_in()
    network.mix[:] = 0.01  # the same images
    network.steer[:] = 0  # and prompts without effect
    batch = np.full((4, 2, 2, 3), 200, np.uint8)
    constant, source = last_features(network, batch)[0], network.info.source.mean[-1]
    method = Fozo(shift=shift, shift_gain=gain)
    _, state = step_on(network, method, method.bind(network.info).init(0), batch)
    prediction, _ = step_on(network, method, state, batch)
    moved = {
        "official_sum": source - 2 * constant,
        "source_mean": source - constant,
        "origin": -constant,
        "none": np.zeros(3),
    }[shift]
    expected = apply_head(network, constant + gain * moved)
    np.testing.assert_allclose(prediction.logits, np.broadcast_to(expected, (4, 5)), atol=SINGLE)
    if (shift, gain) == ("official_sum", 1.0):
        np.testing.assert_allclose(expected, apply_head(network, source - constant), atol=1e-12)


@pytest.mark.parametrize("shift", ["official_sum", "source_mean", "origin", "none"])
def test_first_batch_of_fozo_is_unshifted(stand_in: StandIn, shift: Any) -> None:
    network, method = Seen(stand_in()), Fozo(shift=shift)
    prediction, _ = step_on(network, method, method.bind(network.info).init(0), draw_images(5))
    assert any(prediction.logits.tobytes() == output.logits.tobytes() for output in network.outputs)


@pytest.mark.parametrize("update", ["lagged", "inclusive"])
@pytest.mark.parametrize("shift", ["official_sum", "source_mean", "origin"])
def test_returned_logits_are_a_candidate_with_shifted_features(
    stand_in: StandIn, shift: Any, update: Any
) -> None:
    network, method = Seen(stand_in()), Fozo(shift=shift, shift_update=update, samples=2)
    state = method.bind(network.info).init(0)
    for batch in range(5):
        network.outputs = []
        prediction, following = step_on(network, method, state, draw_images(6, batch))
        used = following.center if update == "inclusive" else state.center
        aim = np.zeros(3) if shift == "origin" else network.info.source.mean[-1]
        moved = np.zeros(3) if used is None else aim - used
        direct = [apply_head(network.network, output.features[:, -1] + moved) for output in network.outputs]
        assert any(np.allclose(prediction.logits, each, rtol=0, atol=SINGLE) for each in direct)
        assert sum(np.allclose(prediction.logits, each, rtol=0, atol=1e-3) for each in direct) == 1
        state = following


def test_clean_output_is_the_head_of_the_shifted_unperturbed_features(stand_in: StandIn) -> None:
    network, method = stand_in(), Fozo(output="clean")
    state = method.bind(network.info).init(0)
    for batch in range(3):
        plain = network(draw_images(6, batch), prompts=state.prompts[None]).features[:, -1]
        moved = np.zeros(3) if state.center is None else network.info.source.mean[-1] - state.center
        prediction, state = step_on(network, method, state, draw_images(6, batch))
        np.testing.assert_allclose(prediction.logits, apply_head(network, plain + moved), atol=SINGLE)


def test_fozo_with_one_image(stand_in: StandIn) -> None:
    network, method = stand_in(), Fozo()
    state = method.bind(network.info).init(0)
    for batch in range(20):
        before = state.prompts
        prediction, state = step_on(network, method, state, draw_images(1, batch))
        assert np.isfinite(prediction.logits).all() and prediction.loss is not None
        assert not np.array_equal(before, state.prompts)
        assert np.isfinite(state.prompts).all() and np.isfinite(state.center).all()


@pytest.mark.parametrize("update", ["lagged", "inclusive"])
def test_the_shift_warms_up_with_the_images_seen(stand_in: StandIn, update: Any) -> None:
    """With a warm-up of 6: after 2 images 2/8 of it, after 6 a half; and predicting alone counts no more."""
    configured = Shift(target="origin", update=update, average="global", warm_up=6)
    network = stand_in()
    batches = [draw_images(2, 0), draw_images(4, 1), draw_images(3, 2)]
    state, seen = configured.bind(network.info).init(0), np.zeros((0, 3))
    for batch in batches:
        before = seen
        seen = np.concatenate([seen, last_features(network, batch)])
        used = seen if update == "inclusive" else before
        moved = last_features(network, batch)
        if len(used):
            moved = moved - used.mean(axis=0) * len(used) / (len(used) + 6)
        prediction, state = step_on(network, configured, state, batch)
        np.testing.assert_allclose(prediction.logits, apply_head(network, moved), atol=SINGLE * 10)
    alone = predict_on(network, configured, state, batches[0]).logits
    moved = last_features(network, batches[0]) - seen.mean(axis=0) * 9 / 15
    np.testing.assert_allclose(alone, apply_head(network, moved), atol=SINGLE * 10)
