"""`fozo tune`."""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..engine.errors import InputError
from ..eval.tuning.tuning_presets import OPTIONS
from .image_options import print_notes, reading_options
from .options import PATH, PRECISION, PROVIDER, QUIET, WORKERS, out_option, overwrite_option
from .progress import Progress, clear_bar
from .tune_options import make_spec, tuning_options

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..engine.bundle.bundle import Bundle
    from ..engine.model import FloatArray
    from ..eval.tuning.context_training import TrainingState
    from ..eval.tuning.seed_jobs import SeedJob
    from ..eval.tuning.tuning_evaluation import Evaluation
    from ..eval.tuning.tuning_run import TuningRun
    from ..eval.tuning.tuning_spec import TuningSpec

_LINES = 10  # of progress


@click.command()
@click.argument("bundle", type=PATH)
@click.option("--as", "name", required=True, metavar="NAME", help="Name of the new head in the bundle.")
@tuning_options
@click.option(
    "--evaluate",
    "targets",
    multiple=True,
    metavar="test|base|new|DIR",
    help="Test images to classify at the end, beside the untuned texts; repeat it. With --classes base, new"
    " stands for both halves, and the harmonic mean of both is shown.",
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
    seeds: tuple[int, ...],
    out: Path,
    resume: bool,
    overwrite: bool,
    save_every: float,
    quiet: bool,
    **options: Any,
) -> None:
    """Learn a prompt from a few labelled images, as a new head of a BUNDLE.

    Most methods learn the words before the class names. The new head works like any other: fozo adapt
    BUNDLE --head NAME.

    \b
    Examples:
      fozo tune clip/ --data PETS --method zip --seeds 1,2,3 --as pets-zip --evaluate test
      fozo tune clip/ --data PETS --method zip --classes base --evaluate new --as pets-base
      fozo tune clip/ --data PETS --shots 16 --as pets-sapt      # with PyTorch
    """
    from ..engine.bundle.bundle import Bundle, check_head_name
    from ..engine.files import check_writable, claim_file
    from ..eval.tuning.saved_training import check_unused
    from ..eval.tuning.seed_jobs import plan_jobs

    if out.suffix != ".json":
        raise InputError(f"expected a .json file for --out, found {out}; picture and progress go beside it")
    check_writable(out)
    jobs, spec = plan_jobs(seeds, name, out), make_spec(options)
    for job in jobs:
        check_head_name(job.head)
    if len(jobs) > 1 and not (resume or overwrite):
        for job in (*jobs, replace(jobs[0], out=out)):
            check_unused(Bundle.open(bundle), job.out, job.head)
    if spec.classes == "base" and "new" in targets and not {"base", "test"} & set(targets):
        targets = ("base", *targets)
    contents = []
    # Seeds are tested on the same images, whose features are computed once.
    memories: list[list[FloatArray] | None] = [[] if len(jobs) > 1 else None for _ in targets]
    tests = list(zip(targets, memories, strict=True))
    with claim_file(out):
        for job in jobs:
            seeded = replace(spec, seed=job.seed)
            contents.append(_tune_seed(bundle, seeded, job, tests, resume, overwrite, save_every, quiet))
        if len(jobs) > 1:
            _store_summary(contents, jobs, out)


def _tune_seed(
    bundle: Path,
    spec: TuningSpec,
    job: SeedJob,
    tests: Sequence[tuple[str, list[FloatArray] | None]],
    resume: bool,
    overwrite: bool,
    save_every: float,
    quiet: bool,
) -> Mapping[str, Any]:
    """Learn a context with one seed, store it, and return its results."""
    from ..engine.bundle.bundle import Bundle
    from ..engine.ordinary_files import read_json
    from ..eval.tuning.saved_training import begin_training, get_progress_path
    from ..eval.tuning.tuning_evaluation import open_test
    from ..eval.tuning.tuning_run import open_run

    ask_slopes = _import_slopes() if spec.method == "sapt" else None
    with open_run(Bundle.open(bundle), spec, ask_slopes) as run:
        opened = [(target, open_test(run, target), memory) for target, memory in tests]
        state = begin_training(run, job.out, job.head, resume=resume, overwrite=overwrite)
        if state is None:
            click.echo(f"{job.out} is complete already.")
            content: Mapping[str, Any] = read_json(job.out)
            return content
        _print_start(run, state)
        state = _train(run, state, get_progress_path(job.out), save_every, quiet)
        evaluations = [_evaluate(run, state, *test, quiet) for test in opened]
        content = _store(run, state, evaluations, job)
    get_progress_path(job.out).unlink(missing_ok=True)
    return content


def _import_slopes() -> Any:
    """Return what asks PyTorch for gradients."""
    try:
        from ..export.text_gradient import ask_slopes
    except ImportError as error:
        raise InputError(
            f'--method sapt needs PyTorch and onnx ({error}); install them with: pip install "fozo[export]", '
            "or use a method without gradients, such as --method zip"
        ) from error
    return ask_slopes


def _print_start(run: TuningRun, state: TrainingState) -> None:
    spec, task = run.spec, run.task
    where = f" of the {spec.classes} classes" if spec.classes != "all" else ""
    click.echo(
        f"{run.bundle.manifest.model} {spec.precision}: {spec.method} on {len(task.shots):,} images of "
        f"{task.data.classes:,} classes{where} of {task.data.name}, seed {spec.seed}"
    )
    if spec.learns_context:
        _print_context(run)
    elif run.learner.frame:
        _print_border(run)
    elif run.learner.coordinator is not None:
        source = "the model's own features" if spec.encoder is None else f"features of {spec.encoder}"
        click.echo(
            f"Decoder: {run.initial.size:,} values, from {source} ({run.learner.coordinator.width}); "
            f"texts: {spec.template!r}"
        )
    click.echo(f"Cost: {run.cost.describe()}")
    print_notes(task.notes)
    if state.step:
        click.echo(f"Continuing after {state.step:,} of {run.training.steps:,} steps.")


def _print_context(run: TuningRun) -> None:
    spec = run.spec
    kind = "zero" if spec.method == "bpt" else "random"
    start = f"the words {spec.words!r}" if spec.words else f"{spec.vectors} {kind} vectors"
    sharp = f"; rho {spec.radius:g}" if "radius" in OPTIONS[spec.method] else ""
    click.echo(f"Context: {len(run.initial)} vectors, from {start}, of length {run.initial_norm:.3g}{sharp}")
    if spec.visual:
        click.echo(
            "Prompts of the image tower: learnt beside the context; every candidate encodes the images"
        )


def _print_border(run: TuningRun) -> None:
    frame, (height, width) = run.learner.frame, run.bundle.manifest.preprocessing.size
    click.echo(
        f"Border: {frame} pixels around images of {height - 2 * frame} x {width - 2 * frame}, "
        f"{run.initial.size:,} values; texts: {run.spec.template!r}"
    )


def _train(
    run: TuningRun, state: TrainingState, progress: Path, save_every: float, quiet: bool
) -> TrainingState:
    """Train to the end and return the last state."""
    if state.step < run.training.steps:
        begin = time.monotonic()
        _encode_first_crops(run, state, quiet)
        state = replace(state, seconds=state.seconds + time.monotonic() - begin)
    remaining, interval = run.training.steps - state.step, max(1, run.training.steps // _LINES)
    steps = closing(run.training.run(state, progress, save_every))
    with Progress(remaining, quiet, "steps") as advance, steps as states:
        for state in states:
            advance(1)
            if state.step % interval == 0 or state.step == run.training.steps:
                _print_step(run, state, interval, quiet)
    click.echo(f"Used: {run.cost.describe()}")
    return state


def _encode_first_crops(run: TuningRun, state: TrainingState, quiet: bool) -> None:
    """Compute the features of the first step, and say how long a step takes."""
    count = run.training.order.size if run.training.encodes_anew else len(run.task.shots)
    with Progress(count, quiet) as advance:
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
    loss, rise, _ = state.curve[-interval:].mean(axis=0)
    sharp = f", {loss + rise:.4f} at the perturbed context" if rise else ""
    clear_bar(quiet)
    click.echo(f"step {state.step:,} of {run.training.steps:,}: loss {loss:.4f}{sharp}")


def _evaluate(
    run: TuningRun,
    state: TrainingState,
    target: str,
    data: Any,
    memory: list[FloatArray] | None,
    quiet: bool,
) -> Evaluation:
    from ..eval.tuning.tuning_document import format_evaluation
    from ..eval.tuning.tuning_evaluation import evaluate_run

    rounds = 1 + run.spec.changes_images  # plain images, and changed ones
    with Progress(rounds * len(data.test), quiet) as advance:
        evaluation = evaluate_run(run, state, data, advance, target=target, memory=memory)
    click.echo(f"\n{format_evaluation(evaluation)}")
    return evaluation


def _store(
    run: TuningRun, state: TrainingState, evaluations: Sequence[Evaluation], job: SeedJob
) -> Mapping[str, Any]:
    """Store the head, and write results and picture; return the results."""
    from ..data.image_reader import describe_files
    from ..eval.tuning.learning_curve import list_lines
    from ..eval.tuning.tuning_document import describe_run, save_run

    changed: Bundle = run.bundle.with_head(job.head, run.make_head(state))
    content = describe_run(run, state, evaluations, job.head)
    save_run(job.out, content)
    print_notes(describe_files([run.reader]))
    for prompt, mean in content["harmonic_means"].items():
        click.echo(f"Harmonic mean of base and new, {prompt}: {100 * mean:.2f} %")
    click.echo(f"\nHead {job.head} is in {changed.path}: use it with --head {job.head}\nResults: {job.out}")
    calls_per_step = run.cost.calls // run.cost.steps
    if not calls_per_step:  # GDA: there is no curve
        return content
    _draw(job.out, list_lines(state.curve), calls_per_step, f"{run.spec.method} on {run.task.data.name}")
    return content


def _store_summary(contents: Sequence[Mapping[str, Any]], jobs: Sequence[SeedJob], out: Path) -> None:
    """Write results and picture of all seeds."""
    from ..eval.tuning.learning_curve import list_seed_lines
    from ..eval.tuning.seed_summary import collect_scores, describe_seeds, format_seeds
    from ..eval.tuning.tuning_document import save_run

    summary = describe_seeds(contents, [job.out.name for job in jobs])
    save_run(out, summary)
    seeds = ", ".join(str(job.seed) for job in jobs)
    facts, cost = summary["tuning"], summary["cost"]
    click.echo(f"\n{facts['method']} on {facts['data']}, seeds {seeds}: mean ± standard deviation")
    if summary["scores"]:
        click.echo(format_seeds(collect_scores(contents), summary["harmonic_means"]))
    click.echo(f"Results of all seeds: {out}")
    title = f"{facts['method']} on {facts['data']}"
    if cost["calls"]:
        _draw(out, list_seed_lines(contents), cost["calls"] // cost["steps"], title)


def _draw(out: Path, lines: Mapping[str, FloatArray], calls_per_step: int, title: str) -> None:
    from ..eval.tuning.learning_curve import save_curves

    picture = out.with_suffix(".png")
    try:
        save_curves(picture, lines, calls_per_step, title)
        click.echo(f"Picture: {picture}")
    except InputError as error:
        click.echo(f"No picture: {error}")
