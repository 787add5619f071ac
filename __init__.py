"""Forward-only test-time adaptation that runs anywhere ONNX Runtime runs.

    import fozo

    adapter = fozo.Adapter.open("bundle/", method="pizo", domains=16)
    for images in camera:                  # uint8 [N, 224, 224, 3]
        prediction = adapter.step(images)  # prediction.logits [N, K], prediction.probabilities, …
    adapter.save("state.npz")

This module is for programs that embed fozo. `fozo.evaluation` is for experiments.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ._version import __version__

if TYPE_CHECKING:
    from .data.images import preprocess, read_image
    from .data.views import views
    from .engine.bundle.bundle import Bundle
    from .engine.errors import (
        BundleError,
        ComputeError,
        ExportError,
        FozoError,
        InputError,
        OutputError,
        StateError,
    )
    from .engine.interface.method import Prediction
    from .engine.registry import METHODS, method
    from .engine.runtime.arrangement import store_arrangement
    from .engine.runtime.class_head import make_head
    from .engine.runtime.class_text import open_class_text
    from .engine.runtime.cpu import count_cpus
    from .engine.runtime.network import Network
    from .engine.runtime.tuning import tune
    from .engine.streams.adapter import Adapter
    from .engine.streams.pool import Pool

__all__ = [
    "METHODS",
    "Adapter",
    "Bundle",
    "BundleError",
    "ComputeError",
    "ExportError",
    "FozoError",
    "InputError",
    "Network",
    "OutputError",
    "Pool",
    "Prediction",
    "StateError",
    "__version__",
    "count_cpus",
    "make_head",
    "method",
    "open_class_text",
    "preprocess",
    "read_image",
    "store_arrangement",
    "tune",
    "views",
]

# Modules load at first use: `fozo --help` answers without waiting for ONNX Runtime.
_MODULES = {
    "METHODS": "engine.registry",
    "Adapter": "engine.streams.adapter",
    "Bundle": "engine.bundle.bundle",
    "BundleError": "engine.errors",
    "ComputeError": "engine.errors",
    "ExportError": "engine.errors",
    "FozoError": "engine.errors",
    "InputError": "engine.errors",
    "Network": "engine.runtime.network",
    "OutputError": "engine.errors",
    "Pool": "engine.streams.pool",
    "Prediction": "engine.interface.method",
    "StateError": "engine.errors",
    "count_cpus": "engine.runtime.cpu",
    "make_head": "engine.runtime.class_head",
    "method": "engine.registry",
    "open_class_text": "engine.runtime.class_text",
    "preprocess": "data.images",
    "read_image": "data.images",
    "store_arrangement": "engine.runtime.arrangement",
    "tune": "engine.runtime.tuning",
    "views": "data.views",
}


def __getattr__(name: str) -> Any:
    """Load the module of a public name at its first use.

    Raises:
        AttributeError: the name is not public.
    """
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_MODULES[name]}", __name__), name)
