"""Methods of other packages: found by their entry points, and never in the way of ours."""

from __future__ import annotations

import os
import warnings
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
from doubles import child_environment, run_fozo
from fozo.engine.interface import plugins
from fozo.engine.interface.plugins import load_plugin_methods
from fozo.engine.methods.shift import Shift

OURS = ("fozo", "shift")
INSTANCE = Shift(gain=0.5)


def load(monkeypatch: pytest.MonkeyPatch, **values: str) -> Any:
    """Return the methods of a package with these entry points."""
    entries = [EntryPoint(name, value, plugins.GROUP) for name, value in values.items()]
    monkeypatch.setattr(plugins, "entry_points", lambda group: entries if group == plugins.GROUP else [])
    return load_plugin_methods(OURS)


def test_an_instance_and_a_class(monkeypatch: pytest.MonkeyPatch) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        methods = load(monkeypatch, mine="fozo.engine.methods.shift:Shift", instance=f"{__name__}:INSTANCE")
    assert methods == {"mine": Shift(), "instance": INSTANCE}


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("shift", "fozo.engine.methods.shift:Shift", "there is another method of this name"),
        ("Mine", "fozo.engine.methods.shift:Shift", "lower-case letters"),
        ("mine", "fozo.engine.methods.none:Shift", "ModuleNotFoundError: No module named"),
        ("mine", "fozo.engine.methods.shift:Nothing", "AttributeError"),
        ("mine", "fozo.engine.errors:InputError", "expected a dataclass with a method bind"),
        ("mine", "fozo.engine.wrappers.interval:Interval", "TypeError"),
    ],
)
def test_an_unusable_method_is_ignored_with_a_warning(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, message: str
) -> None:
    pattern = f"the method '{name}' = {value} of an unknown package is ignored: .*{message}"
    with pytest.warns(UserWarning, match=pattern):
        methods = load(monkeypatch, **{name: value, "other": "fozo.engine.methods.shift:Shift"})
    assert methods == {"other": Shift()}


MODULE = """
from dataclasses import dataclass, replace
from typing import ClassVar

from fozo.methods import Binding, Prediction, Request, State, option


@dataclass(frozen=True)
class Sharpen:
    name: ClassVar[str] = "sharpen"
    forwards: ClassVar[int] = 1
    factor: float = option(2.0, "factor of the logits", low=0)

    def bind(self, model):
        return BoundSharpen(self, model)


class BoundSharpen(Binding):
    def init(self, seed):
        return State(0, seed)

    def step(self, state, images):
        prediction = yield from self.predict(state, images)
        return prediction, replace(state, step=state.step + 1)

    def predict(self, state, images):
        (outputs,) = yield Request(images)
        return Prediction(outputs.logits * self.options.factor, 1)
"""


def test_an_installed_package(tmp_path: Path) -> None:
    """The command line lists its method with its options, and a broken one beside it does no harm."""
    (tmp_path / "sharpening.py").write_text(MODULE)
    folder = tmp_path / "sharpening-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: sharpening\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text(
        "[fozo.methods]\nsharpen = sharpening:Sharpen\nbroken = sharpening:Nothing\n"
    )
    environment = child_environment()
    environment["PYTHONPATH"] += f"{os.pathsep}{tmp_path}"
    listed = run_fozo("methods", "sharpen", env=environment)
    assert listed.returncode == 0, listed.stderr
    assert "factor of the logits" in listed.stdout
    assert "'broken' = sharpening:Nothing of sharpening is ignored" in listed.stderr
    assert run_fozo("--help", env=environment).returncode == 0
