"""Public interface for authors of methods.

A method is a frozen dataclass of options with a function `bind`; the bound method has `init`, `step` and
`predict`. A step is a generator: it yields a `Request` for forwards, is sent their outputs, and returns the
prediction and the next state. Other packages offer methods through the entry-point group `fozo.methods`;
`fozo.testing.check_method` checks one.
"""

from .engine.errors import BundleError, InputError
from .engine.interface.method import Binding, BoundMethod, Method, Prediction, Step
from .engine.interface.options import option, validate
from .engine.interface.request import Request, Requests, answer_with, drive
from .engine.model import FloatArray, ImageArray, ModelInfo, Outputs, SourceStatistics, Tunables
from .engine.search.adapted_norms import adapted_norms
from .engine.search.spsa import directional_slope, gaussian_direction, segmented_direction, uniform
from .engine.state import (
    State,
    optional_array,
    state_list,
    variable_length_array,
    with_step_counts_of,
)
from .engine.statistics.activation_shift import logit_offset, moving_average, shift_vector
from .engine.statistics.moments import Moments
from .engine.statistics.objective import alignment_loss, discrepancy, entropy, log_softmax, softmax
from .engine.statistics.window import empty_window, slide, window_moments

__all__ = [
    "Binding",
    "BoundMethod",
    "BundleError",
    "FloatArray",
    "ImageArray",
    "InputError",
    "Method",
    "ModelInfo",
    "Moments",
    "Outputs",
    "Prediction",
    "Request",
    "Requests",
    "SourceStatistics",
    "State",
    "Step",
    "Tunables",
    "adapted_norms",
    "alignment_loss",
    "answer_with",
    "directional_slope",
    "discrepancy",
    "drive",
    "empty_window",
    "entropy",
    "gaussian_direction",
    "log_softmax",
    "logit_offset",
    "moving_average",
    "option",
    "optional_array",
    "segmented_direction",
    "shift_vector",
    "slide",
    "softmax",
    "state_list",
    "uniform",
    "validate",
    "variable_length_array",
    "window_moments",
    "with_step_counts_of",
]
