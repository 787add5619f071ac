"""Every example runs, on public interfaces only."""

from __future__ import annotations

import ast
import asyncio
import itertools
import json
import os
import re
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fozo
import numpy as np
import pytest
from click.testing import CliRunner
from doubles import WNIDS, child_environment, draw_picture, load_script, vit_manifest
from fozo.cli import cli
from fozo.engine.bundle.preprocessing import CROP_MODES, Preprocessing
from fozo.eval.datasets.dataset_request import DatasetRequest
from fozo.methods import Outputs, Request, answer_with, drive
from fozo.testing import StandInNetwork, check_method, draw_images
from PIL import Image

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

EXAMPLES = Path(__file__).parent.parent / "examples"
OWN_METHOD = EXAMPLES / "own_method"
SCRIPTS = sorted(EXAMPLES.rglob("*.py"))


def run_example(name: str, *arguments: object) -> str:
    command = [sys.executable, str(EXAMPLES / name), *map(str, arguments)]
    result = subprocess.run(command, env=child_environment(), capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout


def save_frames(folder: Path, count: int) -> Path:
    folder.mkdir(exist_ok=True)
    for index in range(count):
        Image.fromarray(draw_picture(index)).save(folder / f"{index:03d}.png")
    return folder


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_examples_import_public_modules_only(path: Path) -> None:
    public = {"fozo", "fozo.methods", "fozo.testing", "fozo.evaluation"}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = {alias.name for alias in node.names}
        else:
            names = {node.module or ""} if isinstance(node, ast.ImportFrom) else set()
        assert {name for name in names if name.split(".")[0] == "fozo"} <= public


def test_every_example_is_listed() -> None:
    page = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    for path in EXAMPLES.iterdir():
        assert path.name in ("README.md", "__pycache__") or f"]({path.name}" in page


def test_own_method_keeps_the_contract(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(OWN_METHOD)
    load_script(OWN_METHOD / "test_fozo_one_plus_one.py").test_contract()


def test_own_method_learns() -> None:
    """A mutant that survives makes the state another one, and the step size follows the successes."""
    method = load_script(OWN_METHOD / "fozo_one_plus_one.py").OnePlusOne()
    check_method(method)
    network = StandInNetwork()
    bound, images = method.bind(network.info), draw_images(16)
    state, losses, sigmas = bound.init(seed=0), [], [method.sigma]
    for _ in range(40):
        prediction, state = drive(bound.step(state, images), answer_with(network))
        losses.append(prediction.loss)
        sigmas.append(state.sigma)
    assert losses == sorted(losses, reverse=True) and losses[-1] < 0.9 * losses[0]
    growth = {round(after / before, 6) for before, after in itertools.pairwise(sigmas)}
    assert growth == {1.5, round(1.5**-0.25, 6)}


def test_own_method_is_found_by_its_entry_point(tmp_path: Path) -> None:
    project = tomllib.loads((OWN_METHOD / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    information = tmp_path / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    information.mkdir()
    (information / "METADATA").write_text(f"Name: {project['name']}\nVersion: {project['version']}\n")
    entries = project["entry-points"]["fozo.methods"]
    lines = ["[fozo.methods]", *(f"{name} = {value}" for name, value in entries.items())]
    (information / "entry_points.txt").write_text("\n".join(lines))
    environment = child_environment()
    environment["PYTHONPATH"] += os.pathsep + os.pathsep.join([str(tmp_path), str(OWN_METHOD)])
    command = [sys.executable, "-m", "fozo.cli", "methods", "one_plus_one", "--json"]
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    options = [option["name"] for option in json.loads(result.stdout)["one_plus_one"]]
    assert options == ["sigma", "discrepancy_weight"]


def test_camera_loop_resumes_where_it_stopped(tmp_path: Path, bundle_path: Path) -> None:
    frames = sorted(save_frames(tmp_path / "all", 27).iterdir())
    first_frames, second_frames = tmp_path / "first", tmp_path / "second"
    for folder, paths in ((first_frames, frames[:16]), (second_frames, frames[16:])):
        folder.mkdir()
        for path in paths:
            (folder / path.name).symlink_to(path)
    resumed, at_once = tmp_path / "resumed.npz", tmp_path / "at_once.npz"
    first = run_example("camera_loop.py", bundle_path, first_frames, "--state", resumed)
    second = run_example("camera_loop.py", bundle_path, second_frames, "--state", resumed)
    expected = run_example("camera_loop.py", bundle_path, tmp_path / "all", "--state", at_once)
    assert len(first.splitlines()) == 16 and len(second.splitlines()) == 11
    assert first + second == expected
    assert resumed.read_bytes() == at_once.read_bytes()


def test_camera_loop_reads_frames_of_opencv(monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenCV gives blue, green, red, and None once the camera stops."""
    frames = [draw_picture(index, (4, 6)) for index in range(3)]
    answers = iter([*((True, frame[..., ::-1]) for frame in frames), (False, None)])
    released: list[bool] = []
    camera = SimpleNamespace(read=lambda: next(answers), release=lambda: released.append(True))
    opencv = SimpleNamespace(
        VideoCapture=lambda number: camera, cvtColor=lambda frame, code: frame[..., ::-1], COLOR_BGR2RGB=4
    )
    monkeypatch.setitem(sys.modules, "cv2", opencv)
    images = list(load_script(EXAMPLES / "camera_loop.py").read_camera(0))
    assert [np.asarray(image).tolist() for image in images] == [frame.tolist() for frame in frames]
    assert released == [True]


def test_camera_loop_leaves_a_state_that_does_not_fit(tmp_path: Path, bundle_path: Path) -> None:
    state = tmp_path / "state.npz"
    state.write_bytes(b"of something else")
    command = [sys.executable, str(EXAMPLES / "camera_loop.py"), str(bundle_path), str(tmp_path)]
    result = subprocess.run(
        [*command, "--state", str(state)], env=child_environment(), capture_output=True, text=True
    )
    assert result.returncode == 1 and result.stderr.startswith("camera_loop: ")
    assert state.read_bytes() == b"of something else"


def test_foreign_runtime_answers_as_the_adapter(tmp_path: Path, bundle_path: Path) -> None:
    frames = save_frames(tmp_path / "frames", 11)
    printed = run_example("foreign_runtime.py", bundle_path, frames).split()
    adapter = fozo.Adapter.open(bundle_path, method="pizo", seed=0)
    preprocessing = fozo.Bundle.open(bundle_path).manifest.preprocessing
    images = np.stack(
        [fozo.preprocess(fozo.read_image(path), preprocessing) for path in sorted(frames.iterdir())]
    )
    expected = [*adapter.step(images[:8]).logits.argmax(1), *adapter.step(images[8:]).logits.argmax(1)]
    assert printed == [str(index) for index in expected]


def test_a_compiled_step_without_fozo_predicts_as_the_adapter(tmp_path: Path, bundle_path: Path) -> None:
    pytest.importorskip("onnx")
    frames, step = save_frames(tmp_path / "frames", 11), tmp_path / "step"
    arguments = ["compile", str(bundle_path), "--out", str(step), "--seed", "3"]
    result = CliRunner().invoke(cli, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    printed = [line.split()[1] for line in run_example("python/adapt.py", step, frames).splitlines()]
    bundle = fozo.Bundle.open(bundle_path)
    adapter = fozo.Adapter.open(bundle_path, method="pizo", generator="philox", seed=3)
    images = np.stack(
        [
            fozo.preprocess(fozo.read_image(path), bundle.manifest.preprocessing)
            for path in sorted(frames.iterdir())
        ]
    )
    labels = [*adapter.step(images[:8]).logits.argmax(1), *adapter.step(images[8:]).logits.argmax(1)]
    names = bundle.manifest.class_names or bundle.manifest.class_ids or range(bundle.manifest.classes)
    assert printed == [str(names[label]) for label in labels]


@pytest.mark.parametrize("batch", [4, None])
def test_batches_and_deep_images_of_a_compiled_step_without_fozo(
    tmp_path: Path, bundle_path: Path, batch: int | None
) -> None:
    """A fixed batch is filled up with copies of its images; of 16 bits, the upper eight are kept."""
    pytest.importorskip("onnx")
    frames, step = save_frames(tmp_path / "frames", 11), tmp_path / "step"
    grey = np.linspace(0, 65535, 32 * 32).reshape(32, 32).astype(np.uint16)
    Image.fromarray(grey).save(frames / "005.png")
    fixed = ["--batch", str(batch)] if batch else []
    arguments = ["compile", str(bundle_path), "-m", "neo", "--out", str(step), *fixed]
    assert CliRunner().invoke(cli, arguments, catch_exceptions=False).exit_code == 0
    bundle, size = fozo.Bundle.open(bundle_path), batch or 8
    images = [
        fozo.preprocess(fozo.read_image(path), bundle.manifest.preprocessing)
        for path in sorted(frames.iterdir())
    ]
    adapter, labels = fozo.Adapter.open(bundle_path, method="neo"), []
    for start in range(0, len(images), size):
        piece = images[start : start + size]
        filled = [piece[index % len(piece)] for index in range(batch or len(piece))]
        labels += adapter.step(np.stack(filled)).logits.argmax(1).tolist()[: len(piece)]
    names = bundle.manifest.class_names or bundle.manifest.class_ids or range(bundle.manifest.classes)
    printed = [line.split()[1] for line in run_example("python/adapt.py", step, frames).splitlines()]
    assert printed == [str(names[label]) for label in labels]
    prepare = load_script(EXAMPLES / "python" / "adapt.py").prepare
    recipe = json.loads((step / "step.json").read_text())["preprocessing"]
    np.testing.assert_array_equal(prepare(frames / "005.png", recipe), images[5])


@pytest.mark.parametrize("crop_mode", CROP_MODES)
def test_example_without_fozo_prepares_images_inside_a_frame(tmp_path: Path, crop_mode: str) -> None:
    prepare = load_script(EXAMPLES / "python" / "adapt.py").prepare
    Image.fromarray(draw_picture(1, (61, 90))).save(tmp_path / "photo.png")
    for frame in (0, 7):
        recipe = Preprocessing((32, 40), 45, "bicubic", crop_mode, frame=frame)
        expected = fozo.preprocess(fozo.read_image(tmp_path / "photo.png"), recipe)
        np.testing.assert_array_equal(prepare(tmp_path / "photo.png", asdict(recipe)), expected)


def test_awaited_answers_give_the_same_step() -> None:
    drive_async = load_script(EXAMPLES / "foreign_runtime.py").drive_async
    network, images = StandInNetwork(), draw_images(5)
    bound = fozo.method("fozo").bind(network.info)
    answer = answer_with(network)

    async def answer_later(request: Request) -> list[Outputs]:
        await asyncio.sleep(0)
        return answer(request)

    expected, _ = drive(bound.step(bound.init(0), images), answer)
    prediction: Any
    prediction, state = asyncio.run(drive_async(bound.step(bound.init(0), images), answer_later))
    assert prediction.logits.tobytes() == expected.logits.tobytes()
    assert state.step == 1


def python_blocks(page: str) -> list[str]:
    text = (EXAMPLES.parent / page).read_text(encoding="utf-8")
    return [
        block.strip("\n") for block in re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    ]


def test_the_guide_shows_the_code_of_the_example() -> None:
    code = "".join(path.read_text(encoding="utf-8") for path in OWN_METHOD.glob("*.py"))
    guide = (EXAMPLES.parent / "docs" / "extending.md").read_text(encoding="utf-8")
    method_guide = guide[: guide.index("## A data set")]
    blocks = [block for block in python_blocks("docs/extending.md") if block in method_guide]
    assert len(blocks) == 5
    assert [block for block in blocks if block not in code] == []


def test_the_data_set_of_the_guide_can_be_opened(tmp_path: Path) -> None:
    (code,) = [block for block in python_blocks("docs/extending.md") if "def open_listed_images" in block]
    module: dict[str, Any] = {"__name__": "fozo.eval.datasets.listed_images"}
    exec(compile(code, "listed_images.py", "exec"), module)
    save_frames(tmp_path, 2)
    request, manifest = DatasetRequest("listed", data=tmp_path), vit_manifest(32, 32)
    (tmp_path / "labels.csv").write_text(f"001.png,{WNIDS[2]}\n000.png,{WNIDS[0]}\n")
    name, (domain,) = module["open_listed_images"](request, manifest, 0)
    assert (name, domain.ids, domain.labels.tolist()) == ("listed", ("001.png", "000.png"), [2, 0])
    assert domain.load(1).shape == (32, 32, 3)
    for content, message in (
        ("001.png,n1\n", "no class 'n1'"),
        ("001.png\n", "expected lines of path,class"),
    ):
        (tmp_path / "labels.csv").write_text(content)
        with pytest.raises(fozo.InputError, match=message):
            module["open_listed_images"](request, manifest, 0)


@pytest.mark.parametrize("page", ["README.md", "docs/engine.md", "docs/extending.md"])
def test_python_in_the_documents_runs(
    page: str, tmp_path: Path, int8_bundle_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FOZO_CACHE_DIR", str(tmp_path / "cache"))
    Path("bundle").symlink_to(int8_bundle_path)
    Image.fromarray(draw_picture(0)).save("photo.jpg")
    images = np.stack([draw_picture(index, (32, 32)) for index in range(2)])
    network = fozo.Network.open("bundle/", workers=1)
    names: dict[str, Any] = {
        "images": images,
        "camera": [images, images[:1]],
        "cameras": ["door", "gate"],
        "frames": {"door": images, "gate": images[:1]},
        "my_answer": answer_with(network),
        "batches": [(images, np.array([0, 1]))],
    }
    # The guide to extending shows pieces of files as well, which are tested above.
    blocks = [block for block in python_blocks(page) if page != "docs/extending.md" or "import fozo" in block]
    assert blocks
    for block in blocks:
        exec(compile(block, page, "exec"), names)
    network.close()
    assert Path("state.npz").is_file() or page == "docs/extending.md"
