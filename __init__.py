"""Forward-only test-time adaptation that runs anywhere ONNX Runtime runs.

import fozo

adapter = fozo.Adapter.open("bundle/", method="fozo", seed=0)
for images in camera:                  # uint8 [N, 224, 224, 3]
    prediction = adapter.step(images)  # prediction.logits [N, K], prediction.loss, …
adapter.save("state.npz")
"""

from typing import TYPE_CHECKING, Any

from ._version import __version__

if TYPE_CHECKING:
    from .engine import METHODS as METHODS
    from .engine import Adapter as Adapter
    from .engine import Bundle as Bundle
    from .engine import BundleError as BundleError
    from .engine import ExportError as ExportError
    from .engine import FozoError as FozoError
    from .engine import InputError as InputError
    from .engine import Network as Network
    from .engine import OutputError as OutputError
    from .engine import Prediction as Prediction
    from .engine import StateError as StateError
    from .engine import method as method

__all__ = [
    "METHODS",
    "Adapter",
    "Bundle",
    "BundleError",
    "ExportError",
    "FozoError",
    "InputError",
    "Network",
    "OutputError",
    "Prediction",
    "StateError",
    "__version__",
    "method",
]


def __getattr__(name: str) -> Any:
    # The engine (ONNX Runtime, 0.2 s) loads at first use, so that `fozo --help` answers at once.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import engine

    return getattr(engine, name)
