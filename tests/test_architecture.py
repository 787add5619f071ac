"""Who may import whom, and what `import fozo` does not load."""

from __future__ import annotations

import ast
import re
import subprocess
import sys

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib
from importlib import resources
from pathlib import Path

import fozo
import pytest
from doubles import child_environment
from fozo._version import __version__

ROOT = Path(str(fozo.__file__)).parent
HEAVY = (
    "torch",
    "timm",
    "open_clip",
    "onnx",
    "onnxscript",
    "PIL",
    "click",
    "sklearn",
    "matplotlib",
    "safetensors",
)
# Modules that the command line imports at once: they load neither NumPy nor ONNX Runtime.
LIGHT_MODULES = {
    "data.reading",
    "engine.bundle.preprocessing",
    "engine.errors",
    "engine.names",
    "eval.datasets.dataset_registry",
    "eval.datasets.dataset_request",
    "eval.protocol",
    "eval.tuning.tuning_presets",
    "quant.settings",
}
STANDARD = sys.stdlib_module_names
ROOMS = ("engine", "data", "eval", "export", "quant", "commands")
# Per room: other rooms, and packages beside the standard library.
ALLOWED: dict[str, tuple[set[str], set[str]]] = {
    "engine": (set(), {"numpy", "onnxruntime"}),
    "data": ({"engine"}, {"numpy", "PIL"}),
    "quant": ({"engine", "data", "export"}, {"numpy", "onnx", "onnxruntime"}),
    "eval": ({"engine", "data"}, {"numpy", "PIL", "onnxruntime", "matplotlib", "ray"}),
    "export": (
        {"engine", "data"},
        {
            "numpy",
            "torch",
            "timm",
            "open_clip",
            "huggingface_hub",
            "onnx",
            "onnxruntime",
            "safetensors",
            "click",
        },
    ),
    "commands": ({"engine", "data", "eval", "export", "quant"}, {"click"}),
}

# Inside a room, a file or folder imports only those before it: arrows run down.
LAYERS = {
    "engine": (
        "names",
        "errors",
        "ordinary_files",
        "files",
        "records",
        "state",
        "model",
        "statistics",
        "bundle",
        "text",
        "runtime",
        "search",
        "tuning",
        "interface",
        "methods",
        "wrappers",
        "registry",
        "streams",
    ),
    "eval": (
        "protocol",
        "processes",
        "corruptions",
        "datasets",
        "results",
        "tuning",
        "streaming",
        "transfer",
        "sweep",
        "predict",
        "bench",
        "report",
    ),
}


def loaded_by(statement: str) -> set[str]:
    """Return the top-level modules that a fresh Python has loaded after a statement."""
    code = f"{statement}\nimport sys\nprint(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    result = subprocess.run(
        [sys.executable, "-c", code], env=child_environment(), capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    return set(result.stdout.split())


@pytest.mark.parametrize(
    "statement",
    [
        "import fozo, fozo.engine.streams.adapter",
        "import fozo; fozo.Adapter, fozo.Bundle, fozo.Network, fozo.METHODS, fozo.method",
    ],
)
def test_engine_needs_numpy_and_onnxruntime_alone(statement: str) -> None:
    loaded = loaded_by(statement)
    assert not loaded & set(HEAVY)
    assert "onnxruntime" in loaded


def test_import_fozo_is_light() -> None:
    assert not loaded_by("import fozo; fozo.__version__") & {*HEAVY, "onnxruntime", "numpy"}


def test_command_line_starts_without_heavy_modules() -> None:
    loaded = loaded_by("import fozo.cli")
    assert not loaded & {"onnxruntime", "torch", "timm", "onnx", "PIL", "numpy", "sklearn", "matplotlib"}


def test_quantisation_loads_no_torch() -> None:
    loaded = loaded_by("import fozo.quant.quantization, fozo.quant.quantization_report")
    assert not loaded & {"torch", "timm", "click", "matplotlib", "sklearn"}


def test_evaluation_loads_no_torch() -> None:
    loaded = loaded_by("import fozo.eval.streaming.experiment, fozo.data.source")
    assert not loaded & {"torch", "timm", "onnx", "click", "matplotlib", "sklearn"}


def imports(path: Path) -> set[tuple[str, ...]]:
    """Return everything that a file imports, as absolute dotted names below or outside `fozo`."""
    package = ["fozo", *path.relative_to(ROOT).parent.parts]
    names: set[tuple[str, ...]] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {tuple(alias.name.split(".")) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            target = [*base, *(node.module.split(".") if node.module else [])]
            assert not (node.level == 0 and target[0] == "fozo"), f"{path}: use a relative import"
            names |= {(*target, alias.name) for alias in node.names}
    return names


def files(room: str) -> list[Path]:
    return sorted((ROOT / room).rglob("*.py"))


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_import_only_what_they_may(room: str) -> None:
    rooms, packages = ALLOWED[room]
    assert files(room)
    for path in files(room):
        for name in imports(path):
            if name[0] == "fozo":
                target = name[1]
                assert target == "_version" or target in rooms | {room}, f"{path.name} imports {name}"
                assert target != "cli", f"{path.name} imports the command line"
            else:
                assert name[0] in STANDARD | packages, f"{path.name} imports {name}"


@pytest.mark.parametrize("room", LAYERS)
def test_arrows_inside_a_room_run_down(room: str) -> None:
    layers = LAYERS[room]
    for path in files(room):
        layer = path.relative_to(ROOT / room).parts[0].removesuffix(".py")
        if layer == "__init__":
            continue
        assert layer in layers, f"{room}/{layer} has no layer: add it to LAYERS"
        for name in imports(path):
            if name[:2] == ("fozo", room) and name[2] != layer:
                assert layers.index(name[2]) < layers.index(layer), f"{room}/{layer} imports {name[2]}"


def test_only_export_knows_torch() -> None:
    outside = [*ROOT.glob("*.py"), *(p for r in ROOMS if r != "export" for p in files(r))]
    for path in outside:
        assert not {name[0] for name in imports(path)} & {"torch", "timm", "safetensors"}, path


def test_only_export_and_quant_know_onnx() -> None:
    for room in set(ROOMS) - {"export", "quant"}:
        for path in files(room):
            assert "onnx" not in {name[0] for name in imports(path)}, path


@pytest.mark.parametrize("path", [ROOT / "cli.py", *files("commands")], ids=lambda path: path.name)
def test_command_line_imports_rooms_inside_its_commands(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    top = {node.module or "" for node in tree.body if isinstance(node, ast.ImportFrom) and node.level}
    rooms = {module for module in top if module.split(".")[0] in set(ROOMS) - {"commands"}}
    assert rooms <= LIGHT_MODULES


def test_no_wildcards_and_no_package_that_is_not_a_room() -> None:
    for room in ROOMS:
        for path in files(room):
            assert not any(name[-1] == "*" for name in imports(path)), path
    assert {path.parent.name for path in ROOT.glob("*/__init__.py")} == set(ROOMS)


def test_every_package_is_installed() -> None:
    """A package that `pyproject.toml` forgets works in a checkout and is missing from the wheel."""
    configuration = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    folders = {path.parent for room in ROOMS for path in (ROOT / room).rglob("__init__.py")}
    packages = {"fozo." + ".".join(folder.relative_to(ROOT).parts): folder for folder in folders}
    assert set(configuration["packages"]) == {"fozo", *packages}
    directories = {name: ROOT / folder for name, folder in configuration["package-dir"].items()}
    assert directories == {"fozo": ROOT, **packages}


def test_typed_and_versioned() -> None:
    assert resources.files("fozo").joinpath("py.typed").is_file()
    assert fozo.__version__ == __version__
    assert re.fullmatch(r"\d+\.\d+\.\d+([.+a-z0-9]*)", __version__)
    configuration = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert 'version = { attr = "fozo._version.__version__" }' in configuration
    for room in ROOMS:
        assert f'"fozo.{room}"' in configuration
