"""The CLIP demonstration's model as an export takes it: fixed architecture, vocabulary and images."""

from __future__ import annotations

from ..data.demo import DEMO_CLASSES, DEMO_CLIP
from ..engine.errors import ExportError
from .clip_activation import Activation
from .clip_head import ClassList
from .clip_source import ClipRequest, ClipSource
from .clip_weights import load_clip_weights, read_clip_weights
from .demo_captions import DEMO_NAMES
from .demo_clip_model import DEMO_CLIP_WEIGHTS, create_demo_clip
from .demo_vocabulary import DEMO_VOCABULARY, read_demo_tokenizer
from .weights import LoadedWeights

ACTIVATION = "gelu"


def list_demo_classes() -> ClassList:
    """Return the digits: their identifiers are numerals, and their names are words."""
    return ClassList("digits", DEMO_CLASSES, DEMO_NAMES, "the demonstration's digits")


def prepare_demo_clip(request: ClipRequest) -> ClipSource:
    """Create the demonstration's CLIP, and load the weights that ship with fozo, or those of the request.

    Raises:
        ExportError: the request asks for what is fixed, or its weights do not fit.
        InputError: the shipped vocabulary is missing or damaged.
    """
    _check_fixed(request)
    model = create_demo_clip()
    weights = LoadedWeights("random")
    if not request.random:
        file = read_clip_weights(request.weights or DEMO_CLIP_WEIGHTS, request.weights_key)
        weights = load_clip_weights(model, DEMO_CLIP, file)
    side = int(model.visual.image_size[0])
    half = (0.5, 0.5, 0.5)
    return ClipSource(
        name=DEMO_CLIP,
        model=model.eval(),
        vocabulary=DEMO_VOCABULARY,
        start=read_demo_tokenizer().vocabulary.start,
        activation=Activation(ACTIVATION, "the demonstration's model"),
        images={
            "input_size": (3, side, side),
            "mean": half,
            "std": half,
            "interpolation": "bicubic",
            "crop_pct": 1.0,
            "crop_mode": "center",
        },
        weights=weights,
    )


def _check_fixed(request: ClipRequest) -> None:
    if request.weights is not None and request.random:
        raise ExportError(
            f"expected random weights or those of {request.weights}, found both; leave one of them out"
        )
    if request.images.given or request.activation not in (None, ACTIVATION):
        raise ExportError(
            f"{DEMO_CLIP} has a fixed activation and preparation of images; leave --activation and the "
            "options for images out"
        )
