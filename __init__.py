"""Forward-only test-time adaptation that runs anywhere ONNX Runtime runs.

import fozo

adapter = fozo.Adapter.open("bundle/", method="pizo", domains=16)
for images in camera:                  # uint8 [N, 224, 224, 3]
    prediction = adapter.step(images)  # prediction.logits [N, K], prediction.probabilities, …
adapter.save("state.npz")
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ._version import __version__

if TYPE_CHECKING:
    from .engine.bundle.bundle import Bundle as Bundle
    from .engine.errors import BundleError as BundleError
    from .engine.errors import ComputeError as ComputeError
    from .engine.errors import ExportError as ExportError
    from .engine.errors import FozoError as FozoError
    from .engine.errors import InputError as InputError
    from .engine.errors import OutputError as OutputError
    from .engine.errors import StateError as StateError
    from .engine.interface.method import Prediction as Prediction
    from .engine.registry import METHODS as METHODS
    from .engine.registry import method as method
    from .engine.runtime.network import Network as Network
    from .engine.streams.adapter import Adapter as Adapter
    from .engine.streams.pool import Pool as Pool

# Modules load at first use: `fozo --help` answers without waiting for ONNX Runtime.
_HOMES = {
    "Adapter": "streams.adapter",
    "Bundle": "bundle.bundle",
    "BundleError": "errors",
    "ComputeError": "errors",
    "ExportError": "errors",
    "FozoError": "errors",
    "InputError": "errors",
    "METHODS": "registry",
    "Network": "runtime.network",
    "OutputError": "errors",
    "Pool": "streams.pool",
    "Prediction": "interface.method",
    "StateError": "errors",
    "method": "registry",
}

__all__ = [*_HOMES, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".engine.{_HOMES[name]}", __name__), name)
