"""Fakes and helpers that several test files use: import them with `from doubles import …`."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import fozo
import numpy as np
import pytest
from fozo.engine.bundle.bundle import Bundle
from fozo.engine.bundle.manifest import Manifest
from fozo.engine.bundle.preprocessing import Preprocessing
from fozo.engine.interface.method import Prediction, count_pull_backs, list_activation_uses
from fozo.engine.interface.request import answer_with, drive
from fozo.engine.model import (
    FloatArray,
    ImageArray,
    ModelInfo,
    Outputs,
    Slopes,
    SourceStatistics,
    Tunables,
)
from fozo.engine.registry import METHODS, AnyMethod, count_views
from fozo.engine.runtime.network import Network
from fozo.engine.wrappers.fallback import step_with_fallback
from fozo.testing import sum_logits_slopes
from numpy.typing import NDArray
from PIL import Image

PROMPT_BOUND = 0.0625
WNIDS = ("n01440764", "n01443537", "n02007558", "n04254680")
# Methods for vision transformers (no batch norms) that take images as they are (one view of each).
VIT_METHODS = [name for name, each in METHODS.items() if name != "bn_adapt" and count_views(each) == 1]

# Those of them that need no activations, which a stand-in for a network does not offer.
STAND_IN_METHODS = [name for name in VIT_METHODS if not list_activation_uses([METHODS[name]])]


def list_needs(method: AnyMethod) -> dict[str, Any]:
    """Return the arguments of `Network.open` that a method asks for."""
    return {"gradients": count_pull_backs(method) > 0, "activations": list_activation_uses([method])}


@contextlib.contextmanager
def lend_network(network: Network, bundle: Bundle | Path, method: AnyMethod) -> Iterator[Network]:
    """Lend a network, or of a method that needs activations one with them, which is opened for it."""
    if not list_activation_uses([method]):
        yield network
        return
    with Network.open(bundle, workers=network.workers, **list_needs(method)) as opened:
        yield opened


# --- real data ---


def real_data(*names: str) -> Path:
    """Return the path `names` inside the folder FOZO_TEST_DATA, or skip the test and say why."""
    folder = os.environ.get("FOZO_TEST_DATA")
    if not folder:
        pytest.skip("FOZO_TEST_DATA is not set")
    path = Path(folder, *names)
    if not path.exists():
        pytest.skip(f"{'/'.join(names) or 'the data'} does not exist in FOZO_TEST_DATA ({folder})")
    return path


# --- child processes ---


def child_environment(**variables: str) -> dict[str, str]:
    """Return the environment of a child process that imports this copy of `fozo`, plus `variables`."""
    sources = Path(str(fozo.__file__)).parent.parent
    return {**os.environ, "PYTHONPATH": str(sources), **variables}


def fozo_command(*arguments: object) -> list[str]:
    """Return the command line that runs `fozo` with `arguments` in this interpreter."""
    return [sys.executable, "-m", "fozo.cli", *map(str, arguments)]


def run_fozo(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run `fozo` to its end and return what it printed, as text; `options` are those of `subprocess.run`."""
    defaults: dict[str, Any] = {
        "env": child_environment(),
        "capture_output": True,
        "text": True,
        "timeout": 600,
    }
    return subprocess.run(fozo_command(*arguments), **{**defaults, **options})


def accept_interrupts() -> None:
    """Restore SIGINT in a child process, because a shell ignores it in background jobs (`preexec_fn`)."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


# --- states and predictions ---


def state_bits(value: Any) -> Any:
    """Return a state or a prediction as nested lists that are equal only if every bit is."""
    if is_dataclass(value) and not isinstance(value, type):
        return [(field.name, state_bits(getattr(value, field.name))) for field in fields(value)]
    if isinstance(value, (tuple, list)):
        return [state_bits(item) for item in value]
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.shape, value.tobytes()
    if isinstance(value, Mapping):
        return {key: state_bits(item) for key, item in value.items()}
    return type(value), value


# --- methods driven by hand ---


def step_on(network: Any, method: Any, state: Any, images: ImageArray) -> tuple[Prediction, Any]:
    """Return prediction and next state of one step of a method on a network."""
    return drive(method.bind(network.info).step(state, images), answer_with(network))


def fallback_step_on(network: Any, method: Any, state: Any, images: ImageArray) -> tuple[Prediction, Any]:
    """Return the same with the fallback of non-finite steps."""
    return drive(step_with_fallback(method.bind(network.info), state, images), answer_with(network))


def predict_on(network: Any, method: Any, state: Any, images: ImageArray) -> Prediction:
    """Return the prediction of a method on a network, without a step."""
    return drive(method.bind(network.info).predict(state, images), answer_with(network))


# --- images and manifests ---


def load_script(path: Path) -> ModuleType:
    """Load a file that is no part of a package, such as a tool or an example."""
    specification = importlib.util.spec_from_file_location(path.stem, path)
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[path.stem] = module  # dataclasses look their module up
    specification.loader.exec_module(module)
    return module


def draw_images(count: int, seed: Any = 0) -> ImageArray:
    """Return `count` read-only images of noise for the stand-in, `[count, 2, 2, 3]`."""
    images: ImageArray = np.random.default_rng(seed).integers(0, 256, (count, 2, 2, 3), dtype=np.uint8)
    images.setflags(write=False)
    return images


def numbered_images(*rows: int) -> ImageArray:
    """Return an image of one pixel per row number, as `RowNetwork` reads them."""
    return np.array(rows, np.uint8)[:, None, None, None].repeat(3, axis=3)


def draw_picture(seed: int, size: tuple[int, int] = (224, 224)) -> NDArray[np.uint8]:
    """Return smooth noise of `size` (height, width), which JPEG keeps small and recognisable."""
    coarse = np.random.default_rng(seed).integers(0, 256, (7, 7, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((size[1], size[0]), Image.Resampling.BICUBIC))


def save_class_folders(folder: Path, images: Sequence[NDArray[np.uint8]], classes: int = 20) -> Path:
    """Write `images` as PNG files into folders of `classes` classes in turn, and return `folder`."""
    for index, image in enumerate(images):
        path = folder / f"class{index % classes:02d}" / f"{index:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    return folder


def vit_manifest(
    size: int = 224, resize: int = 256, interpolation: str = "bilinear", **changes: Any
) -> Manifest:
    """Return the manifest of a ViT-Tiny that knows the classes `WNIDS`, with `changes`."""
    manifest = Manifest(
        model="vit",
        preprocessing=Preprocessing((size, size), resize, interpolation),
        layers=12,
        width=192,
        tokens=197,
        feature_width=192,
        classes=len(WNIDS),
        prompt_bound=0.1,
        class_ids=WNIDS,
    )
    return replace(manifest, **changes)


# --- networks ---


class StandIn:
    """A network of two layers in plain NumPy that answers in float64 and counts its forwards.

    Images are `[N, 2, 2, 3]`. With `norms`, channels by name, it has that tunable too, and an embedding:
    the moments of its 4 pixels. Its parameters are attributes, so that a test can compute the answers.
    """

    def __init__(
        self,
        *,
        classes: int = 5,
        layers: int = 2,
        width: int = 3,
        seed: int = 0,
        norms: Mapping[str, int] | None = None,
    ) -> None:
        generator = np.random.default_rng(seed)
        shape = (layers, width)
        self.mix = generator.normal(size=(12, layers * width))
        self.steer = generator.normal(size=(width, layers * width))
        self.weight = generator.normal(size=(classes, width))
        self.bias = generator.normal(size=classes)
        source = SourceStatistics(
            generator.normal(size=shape) * 0.3, generator.uniform(0.2, 0.8, size=shape), 100
        )
        self.info = ModelInfo(
            "stand-in", "stand-in", layers, width, 5, PROMPT_BOUND, self.weight, self.bias, source
        )
        self.pull_backs = 0
        self.forwards = 0
        if norms is not None:
            fisher = np.full((len(norms), 2, max(norms.values(), default=0)), 0.01, np.float32)
            source = replace(source, fisher=fisher)
            self.info = replace(
                self.info, tunables=("prompts", "norms"), norms=norms, gradients=("norms",), source=source
            )
            addends = 2 * len(norms) * max(norms.values(), default=0)
            self.turn = generator.normal(size=(addends, layers * width))

    def __call__(
        self, images: ImageArray, prompts: FloatArray | None = None, norms: FloatArray | None = None
    ) -> Outputs:
        self.forwards += 1
        hidden = images.reshape(len(images), -1) / 255.0 @ self.mix
        if prompts is not None:
            powers = np.arange(1, prompts.shape[1] + 1)[None, :, None]  # no two prompts act alike
            hidden = hidden + np.sin(powers * prompts.astype(np.float64)).sum(axis=1) @ self.steer
        if norms is not None:
            hidden = hidden + norms.reshape(len(norms), -1).astype(np.float64) @ self.turn
        features = np.tanh(hidden).reshape(len(images), self.info.layers, self.info.width)
        logits = features[:, -1] @ self.weight.T + self.bias
        if "norms" not in self.info.tunables:
            return Outputs(logits, features)
        pixels = images.reshape(len(images), 4, 3) / 255.0
        return Outputs(logits, features, np.stack([pixels.mean(axis=1), pixels.var(axis=1)], axis=1))

    def candidates(self, images: ImageArray, tunables: Sequence[Tunables]) -> list[Outputs]:
        return [self(images, **candidate) for candidate in tunables]

    def pull_back(self, images: ImageArray, tunables: Tunables, slopes: Slopes) -> Outputs:
        outputs = self(images, **tunables)
        self.forwards, self.pull_backs = self.forwards - 1, self.pull_backs + 1
        features = np.zeros(outputs.features.shape) if slopes.features is None else slopes.features.copy()
        features[:, -1] += sum_logits_slopes(slopes, outputs.logits) @ self.weight
        hidden = (features * (1 - np.square(outputs.features))).reshape(len(images), -1)
        norms = (hidden @ self.turn.T).sum(axis=0).reshape(tunables["norms"].shape[1:])
        return replace(outputs, gradients={"norms": norms})


class RowNetwork:
    """A network that answers image i with row i of stored features; i is the value of the image's pixels.

    The logits are stored as well, or those of a linear head.
    """

    def __init__(self, features: Any, weight: Any = None, bias: Any = None, *, logits: Any = None) -> None:
        self.features = np.asarray(features)
        self.logits = None if logits is None else np.asarray(logits)
        if self.logits is not None:
            weight = np.zeros((self.logits.shape[1], self.features.shape[1]))
            bias = weight[:, 0]
        self.weight, self.bias = np.asarray(weight, np.float32), np.asarray(bias, np.float32)
        self.info = ModelInfo("rows", "rows", 1, 2, 5, 0.1, self.weight, self.bias)

    def __call__(self, images: ImageArray, **tunables: FloatArray) -> Outputs:
        rows = images[:, 0, 0, 0]
        features = self.features[rows].astype(np.float32)
        if self.logits is None:
            return Outputs(features @ self.weight.T + self.bias, features[:, None])
        return Outputs(self.logits[rows].astype(np.float32), features[:, None])

    def candidates(self, images: ImageArray, tunables: Sequence[Tunables]) -> list[Outputs]:
        return [self(images, **candidate) for candidate in tunables]


def last_features(network: Any, images: ImageArray) -> FloatArray:
    """Return the features of the last layer, `[N, F]`."""
    features: FloatArray = network(images).features[:, -1]
    return features


def apply_head(network: Any, features: FloatArray) -> FloatArray:
    """Return the logits of the stand-in's linear head for `features`."""
    logits: FloatArray = features @ network.weight.T + network.bias
    return logits
