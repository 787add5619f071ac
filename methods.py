"""Public interface for authors of methods.

A method is a frozen dataclass of options with a function `bind`; the bound method has `init`, `step` and
`predict`. A step is a generator: it yields a `Request` for forwards, is sent their outputs, and returns the
prediction and the next state. Other packages offer methods through the entry-point group `fozo.methods`;
`fozo.testing.check_method` checks one.
"""

from .engine.errors import BundleError, InputError
from .engine.interface.method import Binding, BoundMethod, Method, Prediction, Step
from .engine.interface.method_options import option, validate
from .engine.interface.request import Request, Requests, answer_with, drive
from .engine.interface.view_batch import ViewBatch, get_plain_images
from .engine.interface.view_recipe import ViewRecipe
from .engine.model import (
    Activation,
    ActivationUse,
    FloatArray,
    ImageArray,
    ModelInfo,
    Outputs,
    Slopes,
    SourceStatistics,
    Tunables,
)
from .engine.search.gradient_steps import take_velocity_step
from .engine.search.norm_selection import select_norms
from .engine.search.spsa import (
    compute_directional_slope,
    draw_gaussian_direction,
    draw_segmented_direction,
    draw_uniform,
)
from .engine.state import (
    State,
    optional_array,
    replace_step_counts,
    state_list,
    variable_length_array,
)
from .engine.statistics.activation_shift import compute_logit_offset, compute_shift, update_average
from .engine.statistics.feature_statistics import ChannelMoments, Moments
from .engine.statistics.objective import (
    compute_alignment_loss,
    compute_discrepancy,
    entropy,
    log_softmax,
    softmax,
)
from .engine.statistics.output_slopes import derive_discrepancy, derive_entropy
from .engine.statistics.recentred_activations import RecentredActivations, map_to_source
from .engine.statistics.window import compute_window_moments, create_empty_window, slide_window

__all__ = [
    "Activation",
    "ActivationUse",
    "Binding",
    "BoundMethod",
    "BundleError",
    "ChannelMoments",
    "FloatArray",
    "ImageArray",
    "InputError",
    "Method",
    "ModelInfo",
    "Moments",
    "Outputs",
    "Prediction",
    "RecentredActivations",
    "Request",
    "Requests",
    "Slopes",
    "SourceStatistics",
    "State",
    "Step",
    "Tunables",
    "ViewBatch",
    "ViewRecipe",
    "answer_with",
    "compute_alignment_loss",
    "compute_directional_slope",
    "compute_discrepancy",
    "compute_logit_offset",
    "compute_shift",
    "compute_window_moments",
    "create_empty_window",
    "derive_discrepancy",
    "derive_entropy",
    "draw_gaussian_direction",
    "draw_segmented_direction",
    "draw_uniform",
    "drive",
    "entropy",
    "get_plain_images",
    "log_softmax",
    "map_to_source",
    "option",
    "optional_array",
    "replace_step_counts",
    "select_norms",
    "slide_window",
    "softmax",
    "state_list",
    "take_velocity_step",
    "update_average",
    "validate",
    "variable_length_array",
]
