"""Options of `fozo tune`: data, start of the context, training, and those that only some methods have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ..engine.errors import InputError
from ..eval.tuning.tuning_presets import OPTIONS, PRESETS, list_foreign_options
from .image_options import take_reading
from .option_types import Batch, Crops, Seeds
from .options import FILE, FOLDER, PATH, Decorator

if TYPE_CHECKING:
    from ..eval.tuning.tuning_spec import TuningSpec

_METHOD = (
    click.option(
        "--method",
        type=click.Choice(list(PRESETS)),
        default="sapt",
        show_default=True,
        help="sapt: sharpness-aware training with gradients, needs PyTorch; zo-sapt: the same from losses"
        " alone; zip: few parameters, from losses alone, as published; zip-cached: the same from all images"
        " in every step, one crop of each; bpt: CMA-ES in a random subspace; gda: no context,"
        " but a classifier in closed form; bar: a border around the images, and blackvip: a prompt in every"
        " image, both from losses alone.",
    ),
)
_DATA = (
    click.option(
        "--data",
        type=FOLDER,
        required=True,
        help="Folder with labelled images: class folders, a split file of CoOp with its images, FGVC"
        " Aircraft, or train/ with class folders.",
    ),
    click.option(
        "--shots",
        type=click.IntRange(0),
        default=16,
        show_default=True,
        help="Training images of each class, chosen as CoOp's code does; 0: all.",
    ),
    click.option("--split", type=FILE, help="Split file, if the folder has several."),
    click.option(
        "--dataset",
        metavar="NAME",
        help="Published data set in class folders whose rule names the classes, such as eurosat.",
    ),
    click.option(
        "--head",
        metavar="NAME",
        help="Head of the bundle that names the classes; default: the one in use, if it has all class"
        " folders.",
    ),
    click.option(
        "--classes",
        type=click.Choice(["all", "base", "new"]),
        default="all",
        show_default=True,
        help="Classes to learn from: all, the first half, or the other half.",
    ),
)
_START = (
    click.option(
        "--words",
        help="Words that the context starts from, or that stay as they are; default: 'a photo of a'.",
    ),
    click.option(
        "--vectors",
        type=click.IntRange(1),
        help="Start from so many random vectors instead, bpt from zeros; default of zip: 8, of bpt: 5.",
    ),
    click.option(
        "--ending",
        default="{}.",
        show_default=True,
        metavar="TEXT",
        help="Text behind the context; it begins with {}, the name of the class.",
    ),
)
_TRAINING = (
    click.option(
        "--epochs", type=click.IntRange(1), help="Passes over the training images; default: 50, zo-sapt 250."
    ),
    click.option(
        "--budget",
        type=click.IntRange(1),
        metavar="CALLS",
        help="Instead of --epochs: losses of a batch under one candidate after which training ends, as"
        " publications count queries; zip, zip-cached, bpt, bar and blackvip:"
        " 5000.",
    ),
    click.option(
        "--batch",
        type=Batch(),
        help="Images in a step, or all; default: 32, zip, bpt, bar and blackvip 128, zo-sapt and zip-cached"
        " all.",
    ),
    click.option(
        "--crops",
        type=Crops(),
        help="Random crops of each image, encoded once and used in turn; 0: the ordinary crop alone; fresh:"
        " new ones in every epoch, as published. Default: 0; zip, bpt, bar and blackvip fresh.",
    ),
    click.option(
        "--rate",
        type=click.FloatRange(0, min_open=True),
        help="Largest learning rate; default: 0.002, bar 10; others without gradients: the gain of the"
        " steps, 0.01.",
    ),
    click.option(
        "--seed",
        "--seeds",
        "seeds",
        type=Seeds(),
        default="1",
        show_default=True,
        help="Seed of the choice of images, order, crops, and everything random. Several, like 1,2,3, make"
        " one head each, NAME-1 and so on, and results with mean and standard deviation.",
    ),
)
_OF_METHODS = (
    click.option(
        "--rho",
        "radius",
        type=click.FloatRange(0),
        default=0.1,
        show_default=True,
        help="For sapt and zo-sapt: length of the perturbation at which the loss is made small, too."
        " Published: one of 0.05, 0.1, 0.3, 0.5 and 0.7.",
    ),
    click.option(
        "--sharpness",
        type=click.FloatRange(0),
        default=1.0,
        show_default=True,
        help="For sapt and zo-sapt: weight of the sharpness in the loss; 0: plain training, as CoOp.",
    ),
    click.option(
        "--momentum",
        type=click.FloatRange(0, 1, max_open=True),
        default=0.9,
        show_default=True,
        help="For sapt: momentum of its descent.",
    ),
    click.option(
        "--decay", type=click.FloatRange(0), default=5e-4, show_default=True, help="For sapt: weight decay."
    ),
    click.option(
        "--pairs",
        type=click.IntRange(1),
        default=5,
        show_default=True,
        help="Without gradients: pairs of losses for each estimate of a gradient; a step of zo-sapt has two.",
    ),
    click.option(
        "--directions",
        type=click.IntRange(1),
        default=5,
        show_default=True,
        help="For bar: random directions for each estimate of a gradient, each with one loss.",
    ),
    click.option(
        "--perturbation",
        type=click.FloatRange(0, min_open=True),
        default=0.01,
        show_default=True,
        help="Without gradients: size of the random perturbations.",
    ),
    click.option(
        "--update",
        type=click.Choice(["spsa-clip", "spsa", "spsa-gc"]),
        default="spsa-clip",
        show_default=True,
        help="For zip: limit the estimated gradient to the root of the number of parameters; do not; or take"
        " steps with momentum.",
    ),
    click.option(
        "--dimension",
        type=click.IntRange(1),
        help="For zip and bpt: intrinsic dimension, the values that a context is computed from; default: 500,"
        " bpt 2000.",
    ),
    click.option(
        "--rank", type=click.IntRange(1), default=5, show_default=True, help="For zip: rank of these values."
    ),
    click.option(
        "--shared/--not-shared",
        default=True,
        show_default=True,
        help="For zip: whether all vectors share a part of these values.",
    ),
    click.option(
        "--alpha",
        type=click.FloatRange(0),
        help="For gda: weight of the images beside the texts; default: chosen by cross-validation.",
    ),
    click.option(
        "--population",
        type=click.IntRange(2),
        default=15,
        show_default=True,
        help="For bpt: solutions in a generation.",
    ),
    click.option(
        "--sigma",
        type=click.FloatRange(0, min_open=True),
        default=1.0,
        show_default=True,
        help="For bpt: step size of the search at its start.",
    ),
    click.option(
        "--encoder",
        type=PATH,
        metavar="BUNDLE",
        help="For blackvip: bundle whose features the decoder reads, on images of the same size; its graph is"
        " copied. Default: the model's own features.",
    ),
    click.option(
        "--visual",
        is_flag=True,
        help="For bpt: learn 5 prompts of the image tower, too, as published. Then every candidate encodes"
        " all images, which costs --population times as many.",
    ),
    click.option(
        "--first-batches",
        is_flag=True,
        help="For bpt: let a solution win by its first batches, as the official code does.",
    ),
)


def tuning_options(command: Decorator) -> Decorator:
    """Add the options that decide what is learnt."""
    for decorator in reversed((*_DATA, *_METHOD, *_START, *_TRAINING, *_OF_METHODS)):
        command = decorator(command)
    return command


def make_spec(options: dict[str, Any]) -> TuningSpec:
    """Return the run that the options of the current command ask for, with defaults of its method.

    Args:
        options: values by parameter, without `seeds`; None where the default is the method's.

    Raises:
        InputError: options contradict each other, or the method does not have one.
    """
    from ..eval.tuning.tuning_spec import TuningSpec

    _refuse_foreign_options(options["method"])
    reading = take_reading(options)
    values = {name: value for name, value in options.items() if value is not None}
    if "vectors" in values and "words" in values:
        raise InputError("expected --words or --vectors, found both; the context starts from one of them")
    if "epochs" in values and "budget" in values:
        raise InputError("expected --epochs or --budget, found both; training ends by one of them")
    values = {**PRESETS[options["method"]], **values}
    if options["vectors"] is not None:
        values["words"] = ""
    if options["epochs"] is not None:
        values["budget"] = None
    if values["batch"] == Batch.ALL:
        values["batch"] = None
    if values["crops"] == Crops.FRESH:
        values["crops"] = None
    return TuningSpec(**values, reading=reading)


def _refuse_foreign_options(method: str) -> None:
    """Check that no option was typed that only other methods have.

    Raises:
        InputError: one was.
    """
    context, foreign = click.get_current_context(), list_foreign_options(method)
    for parameter in context.command.params:
        name = parameter.name or ""
        typed = context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
        if name in foreign and typed:
            owners = ", ".join(owner for owner, names in OPTIONS.items() if name in names)
            raise InputError(
                f"--method {method} has no {parameter.opts[0]}, which belongs to {owners}; leave it out"
            )
