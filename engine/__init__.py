"""The adaptation engine: NumPy and ONNX Runtime, nothing else."""

from .adapter import Adapter
from .bundle import Bundle
from .errors import BundleError, ExportError, FozoError, InputError, OutputError, StateError
from .methods import METHODS, Prediction, method
from .network import Network

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
    "method",
]
