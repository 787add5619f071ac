"""The folder of `fozo page`, its server and its errors; browsers see it in tests/hosts."""

from __future__ import annotations

import http.client
import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from fozo.cli import cli
from fozo.data.demo import demo_images
from fozo.engine.errors import InputError, OutputError
from fozo.engine.files import hash_file
from fozo.export.page.page_folder import (
    DEMO_METHODS,
    RUNTIME_FILES,
    RUNTIME_VERSION,
    SITE,
    PageRequest,
    name_steps,
    write_page,
)
from fozo.export.page.page_server import open_server

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a stand-in for the npm package: names are right, contents are not."""
    folder = tmp_path_factory.mktemp("onnxruntime-web")
    (folder / "dist").mkdir()
    for name in RUNTIME_FILES:
        (folder / "dist" / name).write_bytes(name.encode())
    return folder


@pytest.fixture(scope="module")
def site(runtime: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page") / "site"
    result = CliRunner().invoke(cli, ["page", str(folder), "--runtime", str(runtime)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert (
        f"{folder}: a page with 4 steps" in result.output and f"fozo page {folder} --serve" in result.output
    )
    return folder


def test_the_folder_has_everything(site: Path) -> None:
    catalogue = json.loads((site / "page.json").read_text())
    assert [step["folder"] for step in catalogue["steps"]] == [f"steps/{name}" for name in DEMO_METHODS]
    for step in catalogue["steps"]:
        assert step["model"] == "fozo_demo_vit" and step["precision"] == "fp32"
        assert json.loads((site / step["folder"] / "step.json").read_text())["schema"] == 1
        assert (site / step["folder"] / "vectors.json").is_file()
        check_hashes(site / step["folder"])
    images, labels = demo_images("test")
    stored = np.fromfile(site / "digits" / "images.bin", np.uint8).reshape(images.shape)
    np.testing.assert_array_equal(stored, images)
    np.testing.assert_array_equal(np.fromfile(site / "digits" / "labels.bin", np.uint8), labels)
    assert "Alpaydin" in (site / "digits" / "license.txt").read_text()
    for name in RUNTIME_FILES:
        assert (site / "runtime" / name).read_text() == name
    for path in SITE.iterdir():
        assert (site / path.name).read_bytes() == path.read_bytes()


def check_hashes(step: Path) -> None:
    """Check the files of a step as the programs of examples/ do."""
    files = json.loads((step / "step.json").read_text())["files"]
    assert "vectors/logits.bin" in files
    for name, digest in files.items():
        assert hash_file(step / name) == digest


def test_nothing_is_loaded_from_elsewhere() -> None:
    """The policy of the page forbids it; no file names another server either."""
    for path in SITE.iterdir():
        text = path.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?://|//[a-z0-9-]+\.[a-z]", text), path
        if path.suffix == ".html":
            assert "default-src 'none'" in text and "connect-src 'self'" in text


def test_scripts_and_styles_that_a_page_names_exist() -> None:
    for path in SITE.iterdir():
        text = path.read_text(encoding="utf-8")
        for name in re.findall(r"(?:from |src=|href=|new URL\()\"(?:\./)?([\w.]+\.(?:js|css|html))\"", text):
            assert (SITE / name).is_file(), (path, name)


def test_the_runtime_is_the_one_that_was_tested() -> None:
    package = json.loads((ROOT / "examples" / "browser" / "package.json").read_text())
    assert package["dependencies"] == {"onnxruntime-web": RUNTIME_VERSION}


def test_a_page_stays_unless_it_shall_be_replaced(site: Path, runtime: Path, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="--overwrite"):
        write_page(PageRequest(runtime), site)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").touch()
    with pytest.raises(OutputError, match="has other content"):
        write_page(PageRequest(runtime), tmp_path / "photos", overwrite=True)
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="expected a folder"):
        write_page(PageRequest(runtime), tmp_path / "file")


def test_a_runtime_that_is_missing(tmp_path: Path) -> None:
    result = CliRunner().invoke(cli, ["page", str(tmp_path / "site"), "--runtime", str(tmp_path / "none")])
    assert isinstance(result.exception, InputError)
    message = str(result.exception)
    assert f"npm install --ignore-scripts onnxruntime-web@{RUNTIME_VERSION}" in message
    assert "--runtime node_modules/onnxruntime-web" in message
    assert not (tmp_path / "site").exists()


def test_steps_of_visitors(site: Path, runtime: Path, tmp_path: Path) -> None:
    step = tmp_path / "my-step"
    (step / "vectors").mkdir(parents=True)
    for name in ("step.onnx", "init.onnx", "vectors.npz", "vectors.json", "vectors/logits.bin"):
        (step / name).write_bytes(b"content")
    files = {name: hash_file(step / name) for name in ("vectors.npz", "vectors/logits.bin")}
    description = {"model": "vit", "precision": "int8", "method": "pizo", "files": files}
    (step / "step.json").write_text(json.dumps(description))
    catalogue = write_page(PageRequest(runtime, (step,)), tmp_path / "site")
    assert catalogue["steps"][-1] == {
        "folder": "steps/my-step",
        "model": "vit",
        "precision": "int8",
        "method": "pizo",
    }
    written = tmp_path / "site" / "steps" / "my-step"
    assert (written / "vectors" / "logits.bin").is_file() and not (written / "vectors.npz").exists()
    check_hashes(written)
    (step / "init.onnx").unlink()
    with pytest.raises(InputError, match=r"found no init\.onnx"):
        write_page(PageRequest(runtime, (step,)), tmp_path / "other")
    (step / "init.onnx").touch()
    (step / "step.json").write_text("[]")
    with pytest.raises(InputError, match="description of a step"):
        write_page(PageRequest(runtime, (step,)), tmp_path / "other")
    with pytest.raises(InputError, match="two steps of the page are called pizo"):
        name_steps((tmp_path / "pizo",))


@pytest.fixture(params=[True, False], ids=["isolated", "plain"])
def port(site: Path, request: pytest.FixtureRequest) -> Iterator[tuple[int, bool]]:
    with open_server(site, isolated=request.param) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_address[1], request.param
        server.shutdown()
        thread.join()


def test_the_server_sends_types_and_isolation(port: tuple[int, bool]) -> None:
    number, isolated = port
    types = {
        "/": "text/html",
        "/page.js": "text/javascript",
        "/runtime/ort.wasm.min.mjs": "text/javascript",
        "/runtime/ort-wasm-simd-threaded.wasm": "application/wasm",
    }
    for path, expected in types.items():
        connection = http.client.HTTPConnection("127.0.0.1", number, timeout=10)
        connection.request("GET", path)
        answer = connection.getresponse()
        assert answer.status == 200 and answer.getheader("Content-Type", "").startswith(expected), path
        answer.read()
        policies = [answer.getheader(f"Cross-Origin-{name}-Policy") for name in ("Opener", "Embedder")]
        assert policies == (["same-origin", "require-corp"] if isolated else [None, None])
        connection.close()


def test_a_port_in_use(site: Path) -> None:
    with open_server(site) as server, pytest.raises(OutputError, match="name another with --port"):
        open_server(site, server.server_address[1])
