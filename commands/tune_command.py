"""`fozo tune`."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..engine.errors import InputError
from .image_options import print_notes, reading_options, take_reading
from .option_types import Batch
from .options import FILE, FOLDER, PATH, PRECISION, PROVIDER, QUIET, WORKERS, out_option, overwrite_option
from .progress import Progress

if TYPE_CHECKING:
    from ..engine.bundle.bundle import Bundle
    from ..eval.tuning.context_training import TrainingState
    from ..eval.tuning.tuning_evaluation import Evaluation
    from ..eval.tuning.tuning_run import TuningRun
    from ..eval.tuning.tuning_spec import TuningSpec

# Options whose default depends on the method: those of TLLA with CoOp's code, and fozo's own.
_DEFAULTS: dict[str, dict[str, Any]] = {
    "sapt": {"epochs": 50, "batch": 32, "rate": 0.002},
    "zo-sapt": {"epochs": 250, "batch": None, "rate": 0.01},
}
_LINES = 10  # of progress


@click.command()
@click.argument("bundle", type=PATH)
@click.option(
    "--data",
    type=FOLDER,
    required=True,
    help="Folder with labelled images: class folders, a split file of CoOp with its images, FGVC Aircraft,"
    " or train/ with class folders.",
)
@click.option("--as", "name", required=True, metavar="NAME", help="Name of the new head in the bundle.")
@click.option(
    "--method",
    type=click.Choice(list(_DEFAULTS)),
    default="sapt",
    show_default=True,
    help="sapt: sharpness-aware training with gradients, needs PyTorch; zo-sapt: the same from losses alone.",
)
@click.option(
    "--shots",
    type=click.IntRange(0),
    default=16,
    show_default=True,
    help="Training images of each class, chosen as CoOp's code does; 0: all.",
)
@click.option("--split", type=FILE, help="Split file, if the folder has several.")
@click.option(
    "--dataset",
    metavar="NAME",
    help="Published data set in class folders whose rule names the classes, such as eurosat.",
)
@click.option(
    "--head",
    metavar="NAME",
    help="Head of the bundle that names the classes; default: the one in use, if it has all class folders.",
)
@click.option(
    "--classes",
    type=click.Choice(["all", "base", "new"]),
    default="all",
    show_default=True,
    help="Classes to learn from: all, the first half, or the other half.",
)
@click.option(
    "--words", default="a photo of a", show_default=True, help="Words that the context starts from."
)
@click.option("--vectors", type=click.IntRange(1), help="Start from so many random vectors instead.")
@click.option(
    "--ending",
    default="{}.",
    show_default=True,
    metavar="TEXT",
    help="Text behind the context; it begins with {}, the name of the class.",
)
@click.option(
    "--epochs", type=click.IntRange(1), help="Passes over the training images; default: 50, zo-sapt 250."
)
@click.option("--batch", type=Batch(), help="Images in a step, or all; default: 32, zo-sapt all.")
@click.option(
    "--crops",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Random crops of each image, encoded once and used in turn; 0: the ordinary crop alone; the number"
    " of epochs: fresh ones in every epoch, as published.",
)
@click.option(
    "--rate",
    type=click.FloatRange(0, min_open=True),
    help="Largest learning rate; default: 0.002; zo-sapt: gain of its steps, 0.01.",
)
@click.option(
    "--rho",
    "radius",
    type=click.FloatRange(0),
    default=0.1,
    show_default=True,
    help="Length of the perturbation at which the loss is made small, too. Published: one of 0.05, 0.1, 0.3,"
    " 0.5 and 0.7.",
)
@click.option(
    "--sharpness",
    type=click.FloatRange(0),
    default=1.0,
    show_default=True,
    help="Weight of the sharpness in the loss; 0: plain training, as CoOp.",
)
@click.option(
    "--momentum",
    type=click.FloatRange(0, 1, max_open=True),
    default=0.9,
    show_default=True,
    help="For sapt: momentum of its descent.",
)
@click.option(
    "--decay", type=click.FloatRange(0), default=5e-4, show_default=True, help="For sapt: weight decay."
)
@click.option(
    "--pairs",
    type=click.IntRange(1),
    default=5,
    show_default=True,
    help="For zo-sapt: pairs of losses for each estimate of a gradient; a step has two.",
)
@click.option(
    "--perturbation",
    type=click.FloatRange(0, min_open=True),
    default=0.01,
    show_default=True,
    help="For zo-sapt: size of the random perturbations.",
)
@click.option(
    "--seed",
    type=click.IntRange(0),
    default=1,
    show_default=True,
    help="Seed of the choice of images, order, crops, and everything random.",
)
@click.option(
    "--evaluate",
    "targets",
    multiple=True,
    metavar="test|base|new|DIR",
    help="Test images to classify at the end, beside the untuned texts; repeat it.",
)
@reading_options
@PRECISION
@WORKERS
@PROVIDER
@out_option("tuning.json", "File for the results; a picture of the curve is written beside it.")
@click.option(
    "--resume",
    is_flag=True,
    help="Continue an interrupted run; the results are those of one without interruption.",
)
@overwrite_option("Replace existing results, a head of this name, and the progress of an interrupted run.")
@click.option(
    "--save-every",
    type=click.FloatRange(0),
    default=30.0,
    show_default=True,
    metavar="SECONDS",
    help="How often progress is saved: the most work that an interruption loses.",
)
@QUIET
def tune(
    bundle: Path,
    name: str,
    targets: tuple[str, ...],
    out: Path,
    resume: bool,
    overwrite: bool,
    save_every: float,
    quiet: bool,
    **options: Any,
) -> None:
    """Learn the words before the class names from a few labelled images, as a new head of a BUNDLE.

    The image side stays as it is. The new head works like any other: fozo adapt BUNDLE --head NAME.

    \b
    Examples:
      fozo tune clip/ --data PETS --shots 16 --as pets-sapt --evaluate test
      fozo tune clip/ --data PETS --classes base --evaluate base --evaluate new --as pets-base
      fozo tune clip/ --data DIR --method zo-sapt --as mine       # without PyTorch
    """
    from ..engine.bundle.bundle import Bundle, check_head_name
    from ..engine.files import check_writable, claim_file
    from ..eval.tuning.saved_training import begin_training, get_progress_path
    from ..eval.tuning.tuning_evaluation import open_test
    from ..eval.tuning.tuning_run import open_run

    if out.suffix != ".json":
        raise InputError(f"expected a .json file for --out, found {out}; picture and progress go beside it")
    check_writable(out)
    check_head_name(name)
    opened, spec = Bundle.open(bundle), _make_spec(options)
    ask_slopes = _import_slopes() if spec.method == "sapt" else None
    with claim_file(out), open_run(opened, spec, ask_slopes) as run:
        tests = [open_test(run, target) for target in targets]
        state = begin_training(run, out, name, resume=resume, overwrite=overwrite)
        if state is None:
            click.echo(f"{out} is complete already.")
            return
        _print_start(run, state)
        state = _train(run, state, get_progress_path(out), save_every, quiet)
        evaluations = [_evaluate(run, state, test, quiet) for test in tests]
        _store(run, state, evaluations, name, out)
    get_progress_path(out).unlink(missing_ok=True)


def _make_spec(options: dict[str, Any]) -> TuningSpec:
    """Return the run that the options ask for."""
    from ..eval.tuning.tuning_spec import TuningSpec

    reading = take_reading(options)
    defaults = _DEFAULTS[options["method"]]
    values = {key: value for key, value in options.items() if value is not None or key not in defaults}
    if values["vectors"] is None:
        del values["vectors"]
    else:
        values["words"] = ""
    if values.get("batch") == Batch.ALL:
        values["batch"] = None
    return TuningSpec(**{**defaults, **values}, reading=reading)


def _import_slopes() -> Any:
    """Return what asks PyTorch for gradients."""
    try:
        from ..export.text_gradient import ask_slopes
    except ImportError as error:
        raise InputError(
            f'--method sapt needs PyTorch and onnx ({error}); install them with: pip install "fozo[export]", '
            "or use --method zo-sapt"
        ) from error
    return ask_slopes


def _print_start(run: TuningRun, state: TrainingState) -> None:
    spec, task = run.spec, run.task
    where = f" of the {spec.classes} classes" if spec.classes != "all" else ""
    click.echo(
        f"{run.bundle.manifest.model} {spec.precision}: {spec.method} on {len(task.shots):,} images of "
        f"{task.data.classes:,} classes{where} of {task.data.name}, seed {spec.seed}"
    )
    start = f"the words {spec.words!r}" if spec.words else f"{spec.vectors} random vectors"
    click.echo(
        f"Context: {len(run.initial)} vectors, from {start}, of length {run.initial_norm:.3g}; "
        f"rho {spec.radius:g}"
    )
    click.echo(f"Cost: {run.cost.describe()}")
    print_notes(task.notes)
    if state.step:
        click.echo(f"Continuing after {state.step:,} of {run.training.steps:,} steps.")


def _train(
    run: TuningRun, state: TrainingState, progress: Path, save_every: float, quiet: bool
) -> TrainingState:
    """Train to the end and return the last state."""
    if state.step < run.training.steps:
        _encode_first_crops(run, state, quiet)
    remaining, interval = run.training.steps - state.step, max(1, run.training.steps // _LINES)
    steps = closing(run.training.run(state, progress, save_every))
    with Progress(remaining, quiet, "steps") as advance, steps as states:
        for state in states:
            advance(1)
            if state.step % interval == 0 or state.step == run.training.steps:
                _print_step(run, state, interval, quiet)
    return state


def _encode_first_crops(run: TuningRun, state: TrainingState, quiet: bool) -> None:
    """Compute the features of the first step, and say how long a step takes."""
    with Progress(len(run.task.shots), quiet) as advance:
        run.on_images = advance
        seconds = run.training.time_step(state)
    run.on_images = lambda count: None
    remaining = seconds * (run.training.steps - state.step)
    click.echo(
        f"A step takes {seconds:.2g} s: about {_describe_time(remaining)}, if nothing else is computed."
    )


def _describe_time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"


def _print_step(run: TuningRun, state: TrainingState, interval: int, quiet: bool) -> None:
    from .progress import clear_bar

    loss, rise, _ = state.curve[-interval:].mean(axis=0)
    sharp = f", {loss + rise:.4f} at the perturbed context" if rise else ""
    clear_bar(quiet)
    click.echo(f"step {state.step:,} of {run.training.steps:,}: loss {loss:.4f}{sharp}")


def _evaluate(run: TuningRun, state: TrainingState, data: Any, quiet: bool) -> Evaluation:
    from ..eval.tuning.tuning_document import format_evaluation
    from ..eval.tuning.tuning_evaluation import evaluate_run

    with Progress(len(data.test), quiet) as advance:
        evaluation = evaluate_run(run, state, data, advance)
    click.echo(f"\n{format_evaluation(evaluation)}")
    return evaluation


def _store(run: TuningRun, state: TrainingState, evaluations: list[Evaluation], name: str, out: Path) -> None:
    """Store the head, and write results and picture."""
    from ..data.image_reader import describe_files
    from ..eval.tuning.learning_curve import save_curve
    from ..eval.tuning.tuning_document import describe_run, save_run

    changed: Bundle = run.bundle.with_head(name, run.make_head(state))
    save_run(out, describe_run(run, state, evaluations, name))
    print_notes(describe_files([run.reader]))
    click.echo(f"\nHead {name} is in {changed.path}: use it with --head {name}\nResults: {out}")
    picture = out.with_suffix(".png")
    try:
        save_curve(picture, state.curve, f"{run.spec.method} on {run.task.data.name}")
        click.echo(f"Picture: {picture}")
    except InputError as error:
        click.echo(f"No picture: {error}")
