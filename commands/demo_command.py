"""`fozo demo`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..engine.errors import InputError, OutputError, StateError
from .console import echo_json
from .demonstrations import SEVERITY, Lines, find_demonstration
from .options import FOLDER, PRECISION, QUIET, json_option, overwrite_option
from .progress import Progress, clear_bar

if TYPE_CHECKING:
    from ..engine.model import ImageArray
    from ..eval.results.outcome import DomainResult
    from ..eval.streaming.experiment import Experiment
    from ..eval.streaming.saved_run import Start

SAMPLES = 4  # images of each corruption in the picture


@click.command()
@click.option(
    "--clip",
    is_flag=True,
    help="Show a tiny CLIP that was trained on digits, whose classes are words, with methods made for CLIP.",
)
@click.option(
    "--out",
    type=FOLDER,
    help="Folder for the bundle, the results and a picture; default: demo, or demo-clip with --clip.",
)
@PRECISION
@json_option("Print the results instead of bars or a table.")
@overwrite_option("Replace what an earlier demonstration has left there.")
@QUIET
def demo(clip: bool, out: Path | None, precision: str, as_json: bool, overwrite: bool, quiet: bool) -> None:
    """Adapt a small model that ships with fozo over corrupted digits. Needs no download and no PyTorch.

    Takes less than a minute, and continues where it was interrupted. Bundle and digits can then be used with
    the other commands.

    \b
    Examples:
      fozo demo
      fozo demo --precision int8 --out demo-int8
      fozo demo --clip
    """
    from ..data.demo import DEMO_BUNDLE, DEMO_CLIP_BUNDLE, copy_demo_bundle
    from ..engine.files import write_atomic
    from ..eval.datasets.dataset_request import DatasetRequest
    from ..eval.results.sample_picture import draw_samples
    from ..eval.streaming.experiment import prepare
    from ..eval.streaming.saved_run import claim_results
    from ..eval.streaming.spec import EvaluationSpec

    demonstration, lines = find_demonstration(clip=clip)
    out, shipped = out or Path(demonstration.folder), DEMO_CLIP_BUNDLE if clip else DEMO_BUNDLE
    bundle = copy_demo_bundle(_make_folder(out) / "bundle", shipped, overwrite=overwrite)
    data = DatasetRequest("demo", severities=(SEVERITY,), corruptions=demonstration.corruptions)
    spec = EvaluationSpec(
        bundle.path, demonstration.methods, data, subset=demonstration.subset, precision=precision
    )
    experiment, results = prepare(spec), out / "results.json"
    with experiment.method_networks, claim_results(results):
        start = _start(experiment, results, overwrite=overwrite)
        _run(experiment, results, start, lines, quiet=quiet, silent=as_json)
    title = f"{bundle.manifest.model} {precision}: accuracy on digits, corruptions of severity {SEVERITY}"
    write_atomic(out / "results.png", draw_samples(experiment.runs, _choose_samples(experiment), title))
    if as_json:
        echo_json(results.read_text(encoding="utf-8").rstrip())
    else:
        click.echo(demonstration.describe_next_steps(out))


def _make_folder(path: Path) -> Path:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"cannot make the folder {path}: {error.strerror}; name another with --out"
        ) from error
    return path


def _start(experiment: Experiment, results: Path, *, overwrite: bool) -> Start:
    """Continue or keep an earlier run of the same demonstration; refuse to replace any other."""
    from ..eval.results.partial_results import get_path
    from ..eval.streaming.saved_run import start_run

    again = not overwrite and (results.exists() or get_path(results).exists())
    try:
        return start_run(experiment, results, resume=again, overwrite=overwrite)
    except (InputError, StateError) as error:
        raise InputError(
            f"{results.parent} holds another run, perhaps of another version or precision: choose another "
            "place with --out, or replace it with --overwrite"
        ) from error


def _run(
    experiment: Experiment, results: Path, start: Start, lines: Lines, *, quiet: bool, silent: bool
) -> None:
    """Run what is missing, and print a line per corruption as soon as it is measured."""
    from ..eval.streaming.saved_run import Start, run_and_save

    def echo(text: str) -> None:
        if not silent:
            click.echo(text)

    def print_domain(seed: int, domain: DomainResult) -> None:
        clear_bar(quiet)
        echo(lines.add(experiment, domain))

    echo(lines.begin(experiment))
    if start is Start.COMPLETE:
        for domain in experiment.runs[0].domains:
            echo(lines.add(experiment, domain))
    else:
        with Progress(experiment.images, quiet) as advance:
            run_and_save(experiment, results, save_every=30, on_images=advance, on_domain=print_domain)
    echo(lines.end(experiment))


def _choose_samples(experiment: Experiment) -> dict[str, list[ImageArray]]:
    """Return the first images of each corruption."""
    domains = experiment.domains(experiment.protocol.seeds[0])
    return {domain.name: [domain.load(index) for index in range(SAMPLES)] for domain in domains}
