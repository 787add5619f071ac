"""`fozo compile`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..engine.errors import InputError
from .options import BUNDLE, seed_option

if TYPE_CHECKING:
    from ..export.compile.step_folder import CompiledStep

LARGEST_SEED = 2**63 - 1  # of a state: an int64


@click.command(name="compile")
@BUNDLE
@click.option(
    "-m",
    "--method",
    "spec",
    default="pizo",
    show_default=True,
    metavar="NAME[:OPTION=VALUE,…]",
    help="Method of the step: no_adapt, shift, shift_origin, neo, moments, quar, fozo or pizo.",
)
@click.option("--precision", default="fp32", show_default=True, help="Graph of the bundle, such as int8.")
@click.option("--head", metavar="NAME", help="Classes, for bundles that make them from texts (fozo classes).")
@click.option(
    "--batch",
    type=click.IntRange(1),
    help="Images of every step, for runtimes that want fixed shapes; default: any number.",
)
@seed_option("Seed of the random directions, stored in the first state.", most=LARGEST_SEED)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("step"),
    show_default=True,
    help="Folder to write.",
)
@click.option(
    "--vector-steps",
    type=click.IntRange(1),
    default=5,
    show_default=True,
    help="Least number of steps of the vectors, with their images and states; there are more where an update"
    " of the method needs more images.",
)
@click.option("--overwrite", is_flag=True, help="Replace a step that is there.")
@click.option("--json", "as_json", is_flag=True, help="Print the content of step.json.")
def compile_bundle(
    bundle: Path,
    spec: str,
    precision: str,
    head: str | None,
    batch: int | None,
    seed: int,
    out: Path,
    vector_steps: int,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Write a step of a method on a BUNDLE as one ONNX file, for programs in any language.

    step.onnx takes images and a state, and returns predictions and the next state. init.onnx returns the
    first state. step.json says the rest: preparation of images, classes, names and shapes. vectors.npz and
    vectors/ have a few steps with their results, to check a program against. Needs no PyTorch.

    \b
    Examples:
      fozo compile bundle -m pizo --precision int8 --out step
      fozo compile bundle -m neo --batch 8 --out step-neo
    """
    from ..engine.bundle.bundle import Bundle
    from ..engine.registry import parse_method

    try:
        from ..export.compile.step_folder import StepRequest, compile_step
    except ImportError as error:
        raise InputError(
            f'compile needs onnx ({error}); install it with: pip install "fozo[quant]"'
        ) from error
    _, method = parse_method(spec)
    request = StepRequest(Bundle.open(bundle, head), method, precision, batch, seed, vector_steps)
    compiled = compile_step(request, out, overwrite=overwrite)
    if compiled.steps_to_update is not None:
        click.echo(warn_of_missing_update(compiled), err=True)
    if as_json:
        click.echo(json.dumps(dict(compiled.description), indent=1, ensure_ascii=False))
        return
    size = (out / "step.onnx").stat().st_size / 1e6
    click.echo(
        f"{out}: {compiled.description['method']} on {compiled.description['model']} {precision}, "
        f"step.onnx {size:.1f} MB, {len(compiled.description['state'])} values of state"
    )
    click.echo(describe_verification(compiled))
    click.echo("Next: run init.onnx once, then step.onnx for every batch (docs/embedding.md).")


def warn_of_missing_update(compiled: CompiledStep) -> str:
    """Return a warning that the vectors check no update."""
    description = compiled.description
    return (
        f"Warning: the {compiled.steps} steps of the vectors have no update of {description['method']}, "
        f"which waits for {description['options']['update_images']} images, so its updates were not "
        f"compared; for one, compile with --vector-steps {compiled.steps_to_update}."
    )


def describe_verification(compiled: CompiledStep) -> str:
    """Return what was compared, in a line or two."""
    difference = compiled.difference if compiled.exact_difference is None else compiled.exact_difference
    line = (
        f"Verified against the engine over {compiled.steps} steps: logits differ by at most {difference:.1e} "
        "of the largest"
    )
    if compiled.rounding is None:
        return f"{line}."
    return (
        f"{line} in fp32.\nIn {compiled.description['precision']} they differ by {compiled.difference:.1e}, "
        "because rounding to integers magnifies last bits; the engine's own steps differ from fp32 by "
        f"{compiled.rounding:.1e}."
    )
