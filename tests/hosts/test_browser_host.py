"""The page of `fozo page` in a real browser: Chromium without a window, driven by Playwright."""

from __future__ import annotations

import base64
import io
import json
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from doubles import draw_picture
from fozo.data.images import preprocess
from fozo.engine.bundle.preprocessing import INTERPOLATIONS, Preprocessing
from fozo.export.page.page_folder import DEMO_METHODS, PageRequest, write_page
from fozo.export.page.page_server import open_server
from host_doubles import ROOT, STEPS
from PIL import Image

RUNTIME = ROOT / "examples" / "browser" / "node_modules" / "onnxruntime-web"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
METHODS = ("pizo", "fozo", "neo")
BATCH = 16
PATIENCE = 300_000  # milliseconds

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is missing: make host-browser")
if CHROMIUM is None:
    pytest.skip("there is no Chromium: apt-get install chromium", allow_module_level=True)
if not RUNTIME.is_dir():
    pytest.skip("onnxruntime-web is missing: make host-browser", allow_module_level=True)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, compiled_step: Callable[..., Path], digits: Path) -> Path:
    """Return a page with steps of 50 vectors, and with corrupted digits in a folder `noisy`."""
    steps = tmp_path_factory.mktemp("steps")
    for name in METHODS:
        shutil.copytree(compiled_step(name), steps / f"{name}-{STEPS}")
    shutil.copytree(compiled_step("pizo", "int8"), steps / "pizo-int8")
    folder = tmp_path_factory.mktemp("page") / "site"
    write_page(PageRequest(RUNTIME, tuple(sorted(steps.iterdir()))), folder)
    shutil.copytree(digits, folder / "noisy")
    return folder


@contextmanager
def serve(folder: Path, *, isolated: bool) -> Iterator[str]:
    with open_server(folder, isolated=isolated) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    with serve(site, isolated=True) as url:
        yield url


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        camera = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", *camera])
        yield chromium
        chromium.close()


@contextmanager
def open_tab(browser: Any, url: str, **options: Any) -> Iterator[Any]:
    """Open a page; at the end, nothing was asked of another server, and no script has failed."""
    context = browser.new_context(**options)
    tab = context.new_page()
    requests: list[str] = []
    failures: list[str] = []
    context.on("request", lambda request: requests.append(request.url))
    tab.on("pageerror", lambda error: failures.append(str(error)))
    tab.goto(url)
    yield tab
    origin = "/".join(url.split("/")[:3])
    assert all(request.startswith((origin, "data:", f"blob:{origin}")) for request in requests), requests
    assert failures == []
    context.close()


def read_results(browser: Any, url: str) -> dict[str, Any]:
    """Return what `verify.html` has found."""
    with open_tab(browser, url) as tab:
        tab.wait_for_selector("body[data-results]", state="attached", timeout=PATIENCE)
        results: dict[str, Any] = json.loads(tab.get_attribute("body", "data-results"))
    return results


def read_share(tab: Any, side: str) -> float:
    return float(tab.inner_text(f"#{side} [data-part=score]").removesuffix("%"))


def wait_until(tab: Any, state: str) -> None:
    tab.wait_for_selector(f"body[data-stream={state}]", state="attached", timeout=PATIENCE)


def test_fifty_steps_agree_with_the_vectors(browser: Any, address: str) -> None:
    steps = "&".join(f"step=steps/{name}-{STEPS}" for name in METHODS)
    results = read_results(browser, f"{address}verify.html?{steps}")
    assert results["passed"] and results["threads"] == 1, results
    assert [entry["steps"] for entry in results["results"]] == [STEPS] * len(METHODS)
    assert all(0 < entry["difference"] < 1e-4 for entry in results["results"])


def test_threads_need_isolation_and_agree(browser: Any, site: Path, address: str) -> None:
    steps = "&".join(f"step=steps/{name}" for name in DEMO_METHODS)
    results = read_results(browser, f"{address}verify.html?threads=2&{steps}")
    assert results["passed"] and results["threads"] == 2, results
    assert {entry["steps"] for entry in results["results"]} == {5, 8}  # PIZO has two updates in eight
    with serve(site, isolated=False) as plain:
        alone = read_results(browser, f"{plain}verify.html?threads=2&step=steps/pizo")
        assert alone["passed"] and alone["threads"] == 1
        with open_tab(browser, f"{plain}?pace=fast&limit=16") as tab:
            wait_until(tab, "paused")
            assert "one thread. More need a server that isolates" in tab.text_content("#about")


def test_vectors_that_were_changed_are_noticed(browser: Any, site: Path, address: str) -> None:
    copy = site / "changed"
    shutil.copytree(site / "steps" / "neo", copy)
    logits = np.fromfile(copy / "vectors" / "logits.bin", np.float32)
    logits[-1] += 2e-4 * np.abs(logits).max()
    logits.tofile(copy / "vectors" / "logits.bin")
    results = read_results(browser, f"{address}verify.html?step=changed")
    assert not results["passed"] and results["results"][0]["place"] == "logits, step 5"
    shutil.rmtree(copy)


@pytest.mark.parametrize("step", ["no_adapt", "pizo", "pizo-int8"])
def test_digits_are_read_as_by_the_engine(
    browser: Any, address: str, engine_accuracy: Callable[[str, str, int], float], step: str
) -> None:
    results = read_results(browser, f"{address}verify.html?step=steps/{step}&digits=noisy&batch={BATCH}")
    (result,) = results["results"]
    assert result["images"] == 400
    name, _, precision = step.partition("-")
    expected = engine_accuracy(name, precision or "fp32", BATCH)
    # Kernels for integers round otherwise than those of Python's ONNX Runtime.
    assert abs(100 * result["accuracy"] - expected) <= (1.5 if precision else 0.5)


def test_adapting_beats_frozen(browser: Any, address: str) -> None:
    with open_tab(browser, f"{address}?seed=1&kind=fog&severity=3&pace=fast&limit=400") as tab:
        wait_until(tab, "paused")
        assert tab.get_attribute("body", "data-images") == "400"
        frozen, adapted = read_share(tab, "frozen"), read_share(tab, "adapted")
        assert frozen + 5 < adapted < 95, (frozen, adapted)
        assert f"{adapted - frozen:.0f} points more than the frozen" in tab.text_content("#summary")
        assert "After 400 images" in tab.get_attribute("#plot svg", "aria-label")
        assert tab.locator(".tile").count() == 8
        assert tab.locator(".answer").count() == 16


def test_controls_work_with_the_keyboard(browser: Any, address: str) -> None:
    with open_tab(browser, f"{address}?seed=1&limit=16&pace=fast&method=neo") as tab:
        wait_until(tab, "paused")
        tab.focus("#kinds input:checked")
        tab.keyboard.press("ArrowRight")
        assert tab.is_checked('#kinds input[value="brightness"]')
        tab.keyboard.press("Tab")
        tab.keyboard.press("ArrowRight")
        assert tab.text_content("#severity-text") == "3.5"
        assert tab.locator("#plot text", has_text="Glare 3.5").count() == 0  # drawn with the next batch
        tab.keyboard.press("Tab")
        tab.keyboard.press("Tab")
        tab.keyboard.press("Enter")  # start again
        wait_until(tab, "running")
        tab.wait_for_selector("#plot text:has-text('Glare 3.5')", timeout=PATIENCE)
        tab.focus("#pause")
        tab.keyboard.press("Space")
        wait_until(tab, "paused")
        assert tab.text_content("#pause") == "Continue"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_fits_its_screen(browser: Any, address: str, width: int, scheme: str) -> None:
    options = {"viewport": {"width": width, "height": 844}, "color_scheme": scheme}
    with open_tab(browser, f"{address}?limit=16&pace=fast", **options) as tab:
        wait_until(tab, "paused")
        tab.evaluate("document.querySelectorAll('details').forEach((each) => (each.open = true))")
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
        background = tab.evaluate("getComputedStyle(document.body).backgroundColor")
        assert background == ("rgb(255, 255, 255)" if scheme == "light" else "rgb(21, 24, 28)")


def list_files(step: Path) -> list[str]:
    return [str(step / name) for name in ("step.json", "init.onnx", "step.onnx")]


def save_pictures(folder: Path, count: int = 6) -> list[str]:
    paths = [folder / f"{index}.png" for index in range(count)]
    for index, path in enumerate(paths):
        Image.fromarray(draw_picture(index, (40, 50))).save(path)
    return [str(path) for path in paths]


def test_visitors_bring_steps_and_images(browser: Any, site: Path, address: str, tmp_path: Path) -> None:
    (tmp_path / "notes.png").write_text("no image")
    with open_tab(browser, f"{address}?limit=16&pace=fast") as tab:
        wait_until(tab, "paused")
        tab.evaluate("document.getElementById('own').open = true")
        tab.set_input_files("#own-step", list_files(site / "steps" / "neo"))
        tab.wait_for_selector("body.single", timeout=PATIENCE)
        tab.set_input_files("#own-images", [*save_pictures(tmp_path), str(tmp_path / "notes.png")])
        tab.wait_for_selector("#summary:has-text('Nobody has said')", timeout=PATIENCE)
        assert tab.text_content("#message") == "notes.png is no image that this browser can read"
        tab.wait_for_selector(".words .tile", timeout=PATIENCE)
        assert tab.locator(".tile").count() == 6 and tab.locator(".answer").count() == 6
        tab.set_input_files("#own-frozen", list_files(site / "steps" / "no_adapt"))
        tab.wait_for_selector("body:not(.single)", timeout=PATIENCE)
        tab.click("#camera")
        tab.wait_for_selector("#video", state="visible", timeout=PATIENCE)
        tab.wait_for_selector("body:not([data-images='0']) .tile:nth-child(8)", timeout=PATIENCE)
        tab.click("#digits")
        tab.wait_for_selector("#video", state="hidden", timeout=PATIENCE)
        tab.wait_for_selector("body:not(.words)", timeout=PATIENCE)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("missing", "init.onnx is missing; choose step.json, init.onnx, step.onnx of one folder"),
        ("truncated", "step.onnx cannot be opened; copy or compile the step again"),
        ("foreign", "step.json describes no step that this page knows; compile the step again"),
        ("text", "step.json is no JSON file; choose the one that fozo compile has written"),
    ],
)
def test_steps_that_are_none(
    browser: Any, site: Path, address: str, tmp_path: Path, damage: str, message: str
) -> None:
    step = tmp_path / "step"
    shutil.copytree(site / "steps" / "neo", step)
    files = list_files(step)
    if damage == "missing":
        files.pop(1)
    elif damage == "truncated":
        (step / "step.onnx").write_bytes((step / "step.onnx").read_bytes()[:-1000])
    else:
        (step / "step.json").write_text("{}" if damage == "foreign" else "step")
    with open_tab(browser, f"{address}?limit=16&pace=fast") as tab:
        wait_until(tab, "paused")
        tab.set_input_files("#own-step", files)
        wait_until(tab, "failed")
        assert tab.text_content("#message").startswith(message)


def test_a_state_of_another_step_and_images_of_another_size(browser: Any, address: str) -> None:
    script = """async () => {
      const { createOrt, openStep, readFolder, runStep } = await import("./step.js");
      const ort = await createOrt(1);
      const step = await openStep(ort, readFolder("steps/pizo"));
      const state = { ...step.firstState };
      const identity = state["state.identity"];
      state["state.identity"] = new ort.Tensor("int64", [identity.data[0] + 1n], identity.dims);
      const { valid } = await runStep(step, new Uint8Array(2 * 32 * 32 * 3), state);
      const narrow = new Uint8Array(31 * 32 * 3);
      const message = await runStep(step, narrow, step.firstState).catch((error) => error.message);
      return { valid, message };
    }"""
    with open_tab(browser, f"{address}digits/digits.json") as tab:
        tab.goto(f"{address}verify.html?step=none")
        found = tab.evaluate(script)
    assert found == {"valid": False, "message": "expected some images of 32 × 32, found 2976 bytes"}


def prepare_in_browser(tab: Any, picture: Image.Image, recipe: Preprocessing, kind: str) -> Any:
    stream = io.BytesIO()
    picture.save(stream, kind)
    script = """async ([content, recipe]) => {
      const { decodeFile, prepare } = await import("./image_recipe.js");
      const bytes = Uint8Array.from(atob(content), (character) => character.charCodeAt(0));
      return Array.from(prepare(await decodeFile(new Blob([bytes])), recipe).data);
    }"""
    fields: Mapping[str, Any] = {
        "size": list(recipe.size),
        "resize": recipe.resize,
        "interpolation": recipe.interpolation,
        "crop_mode": recipe.crop_mode,
        "frame": recipe.frame,
    }
    pixels = tab.evaluate(script, [base64.b64encode(stream.getvalue()).decode(), fields])
    return np.array(pixels, np.uint8).reshape(*recipe.size, 3)


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_images_are_prepared_as_by_pillow(browser: Any, address: str, interpolation: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (61, 93, 3), dtype=np.uint8)
    recipes = [
        Preprocessing((32, 32), 37, interpolation),
        Preprocessing((32, 48), 40, interpolation, "squash"),
        Preprocessing((64, 96), 80, interpolation),
        Preprocessing((63, 64), 30, interpolation, frame=3),
    ]
    with open_tab(browser, f"{address}verify.html?step=none") as tab:
        for pixels in (noise, noise.transpose(1, 0, 2), noise[:32, :33]):
            picture = Image.fromarray(np.ascontiguousarray(pixels))
            for recipe in recipes:
                found = prepare_in_browser(tab, picture, recipe, "PNG")
                np.testing.assert_array_equal(found, preprocess(picture, recipe), str(recipe))
