"""`fozo bench`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ..engine.errors import InputError
from ..engine.names import PROVIDERS
from .console import echo_json
from .head_options import HEAD
from .options import BUNDLE, QUIET, json_option, method_option, out_option
from .progress import Progress


@click.command()
@BUNDLE
@method_option(("no_adapt", "fozo"), "Methods to measure")
@HEAD
@click.option(
    "--precision",
    "precisions",
    multiple=True,
    help="Graphs of the bundle to measure, such as int8; repeat it. Default: all.",
)
@click.option(
    "--batch-size",
    "batch_sizes",
    type=click.IntRange(1),
    multiple=True,
    default=(1, 8, 64),
    show_default=True,
    help="Images per step; repeat it.",
)
@click.option(
    "--workers",
    "threads",
    type=click.IntRange(1),
    multiple=True,
    help="Number of threads; repeat it. Default: 1, and all processors.",
)
@click.option(
    "--provider",
    "providers",
    type=click.Choice(list(PROVIDERS)),
    multiple=True,
    default=("cpu",),
    show_default=True,
    help="Execution provider of ONNX Runtime; repeat it.",
)
@click.option(
    "--torch",
    "with_torch",
    is_flag=True,
    help="Compare with the same model in eager PyTorch, float32 and bfloat16.",
)
@click.option(
    "--samples",
    type=click.IntRange(1),
    default=3,
    show_default=True,
    help="Samples to take of every cell, in rounds over all cells.",
)
@click.option(
    "--min-seconds",
    type=click.FloatRange(0),
    default=0.5,
    show_default=True,
    help="Minimum time for the steps of a sample.",
)
@out_option("bench.json", "File for all samples.")
@json_option("Print the content of that file instead of a table.")
@click.option(
    "--tune",
    is_flag=True,
    help="Only find the fastest workers and micro-batch for the largest batch size, and save them.",
)
@QUIET
def bench(bundle: Path, out: Path, as_json: bool, tune: bool, quiet: bool, **options: Any) -> None:
    """Measure how fast a BUNDLE (default: ./bundle) runs on this machine.

    \b
    Every sample is taken in a process of its own, one after the other. Examples:
      fozo bench --batch-size 64 --torch
      fozo bench tiny --precision int8 --workers 1 --samples 9
      fozo bench tiny --tune --batch-size 8
    """
    if tune:
        _tune(bundle, quiet, **options)
        return
    from ..engine.files import check_writable, write_atomic
    from ..eval.bench.bench_document import format_document
    from ..eval.bench.bench_table import format_table
    from ..eval.bench.benchmark import prepare
    from ..eval.bench.samples import BenchError

    check_writable(out)  # fails now and not after the work
    benchmark = prepare(bundle, **options)
    try:
        with Progress(benchmark.sample_count, quiet, "samples") as advance:
            benchmark.run(advance)
    finally:
        if benchmark.started:
            document = format_document(benchmark)
            write_atomic(out, document.encode())
            if as_json:
                echo_json(document.rstrip())
            else:
                click.echo(format_table(benchmark))
            state = "All samples" if benchmark.complete else "Incomplete: what was measured so far"
            click.echo(f"\n{state}: {out}", err=as_json)
    if benchmark.failures:
        failures = benchmark.failures
        raise BenchError(f"{len(failures)} of {len(benchmark.measurements)} cells failed; {failures[0]}")


def _tune(
    bundle: Path,
    quiet: bool,
    precisions: tuple[str, ...],
    providers: tuple[str, ...],
    batch_sizes: tuple[int, ...],
    samples: int,
    **ignored: Any,
) -> None:
    """Tune every selected graph on every selected provider, and refuse options that would have no effect."""
    from ..engine.bundle.bundle import Bundle
    from ..eval.bench.tune import Tuning

    context = click.get_current_context()
    sources = {name: context.get_parameter_source(name) for name in (*ignored, "out", "as_json")}
    unused = [name for name, source in sources.items() if source is click.core.ParameterSource.COMMANDLINE]
    if unused:
        flags = [option.opts[-1] for option in context.command.params if option.name in unused]
        raise InputError(
            "--tune goes with --precision, --provider, --batch-size, --samples and --quiet; "
            f"leave out {', '.join(flags)}"
        )
    opened = Bundle.open(bundle)
    for provider in dict.fromkeys(providers):
        for precision in dict.fromkeys(precisions or opened.manifest.graphs):
            tuning = Tuning(opened, precision, provider, max(batch_sizes), samples)
            with Progress(tuning.images, quiet) as advance:
                measured = tuning.run(advance)
            click.echo(tuning.table(measured))
