"""The command line: parses, calls the rooms, prints. Rooms are imported inside the commands."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ._version import __version__
from .engine.errors import FozoError, InputError

if TYPE_CHECKING:
    from .engine.bundle import Bundle
    from .eval.experiment import Experiment

DEFAULT_METHODS = ("no_adapt", "shift", "fozo")
FOLDER = click.Path(path_type=Path, file_okay=False)
FILE = click.Path(path_type=Path, dir_okay=False)
BUNDLE = click.argument("bundle", type=click.Path(path_type=Path), default="bundle")


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="fozo")
def cli() -> None:
    """Forward-only test-time adaptation on ONNX Runtime.

    \b
    Export a model once (needs PyTorch), then adapt it anywhere (needs none):
      fozo export --model vit_base_patch16_224 --source CLEAN_IMAGES
      fozo adapt --dataset imagenet-c --data IMAGENET_C
    """


@cli.command()
@click.option(
    "--model",
    default="vit_base_patch16_224",
    show_default=True,
    help="A class-token ViT, DeiT or DINOv2 of timm, or fozo_demo_vit, which ships with fozo.",
)
@click.option(
    "--weights", type=FILE, help="Weights file (safetensors or state dict); default: timm's pretrained."
)
@click.option(
    "--pretrained",
    "origin",
    flag_value="pretrained",
    default="pretrained",
    help="Take timm's pretrained weights (the default).",
)
@click.option(
    "--random-weights", "origin", flag_value="random", help="Keep random weights: only to measure speed."
)
@click.option(
    "--source", type=FOLDER, help="Folder of clean images, for the source statistics that FOZO needs."
)
@click.option("--source-images", default=512, show_default=True, help="How many of them to use.")
@click.option(
    "--class-ids", type=FILE, help="Class identifiers, one per line; default: ImageNet's where they fit."
)
@click.option(
    "--num-classes", type=click.IntRange(1), help="Number of classes of the weights; default: the model's."
)
@click.option(
    "--image-size", type=click.IntRange(1), help="Side of the input in pixels; default: the model's."
)
@click.option(
    "--seed",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Seed of the choice of source images.",
)
@click.option(
    "--out", type=click.Path(path_type=Path), default="bundle", show_default=True, help="The new bundle."
)
@click.option("--overwrite", is_flag=True, help="Replace a bundle that is already there.")
def export(
    model: str,
    weights: Path | None,
    origin: str,
    source: Path | None,
    source_images: int,
    class_ids: Path | None,
    num_classes: int | None,
    image_size: int | None,
    seed: int,
    out: Path,
    overwrite: bool,
) -> None:
    """Export a timm model to a bundle: ONNX graph, head, preprocessing, source statistics.

    The graph is compared with PyTorch before anything is written.
    """
    try:
        from .data.source import choose_images
        from .export.exporter import Request, export_model
    except ImportError as error:
        raise InputError(
            f'export needs PyTorch and timm ({error}); install them with: pip install "fozo[export]"'
        ) from error
    if source is not None:
        choose_images(source, source_images, seed)  # fails before the export, not after it
    click.echo(f"Exporting {model} to {out} …")
    request = Request(model, weights, origin == "random", class_ids, num_classes, image_size)
    result = export_model(request, out, overwrite=overwrite)
    parity = result.parity
    click.echo(
        f"Verified against PyTorch at N = 1, 2, 3, 17 and P = 0, 3: largest absolute difference "
        f"{parity.logits:.2g} in logits, {parity.features:.2g} in features."
    )
    bundle = result.bundle
    if source is not None or model == "fozo_demo_vit":
        bundle = _store_source(bundle, source, source_images, seed)
    else:
        click.echo(
            f"No source statistics yet: FOZO needs them. Compute them with: fozo source {out} CLEAN_IMAGES"
        )
    click.echo(_description(bundle))


@cli.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("folder", type=FOLDER)
@click.option("--images", default=512, show_default=True, help="How many images to use.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of their choice.")
def source(bundle: Path, folder: Path, images: int, seed: int) -> None:
    """Compute the source statistics of a BUNDLE from a FOLDER of clean images. Needs no PyTorch."""
    from .engine.bundle import Bundle

    click.echo(_description(_store_source(Bundle.open(bundle), folder, images, seed)))


@cli.command()
@BUNDLE
@click.option(
    "--dataset",
    type=click.Choice(["imagenet-c", "imagefolder", "demo"]),
    default="imagenet-c",
    show_default=True,
    help="Layout of the data; demo is embedded and needs no --data.",
)
@click.option("--data", type=FOLDER, help="Folder with the data, in the official layout of the data set.")
@click.option(
    "--generate-from",
    type=FOLDER,
    help="For imagenet-c: clean images by class folder; corruptions are generated while streaming"
    " (not the official ImageNet-C, and labelled so).",
)
@click.option(
    "-m",
    "--method",
    "methods",
    multiple=True,
    default=DEFAULT_METHODS,
    show_default=True,
    metavar="[LABEL=]NAME[:OPTION=VALUE,…]",
    help="Methods to compare; repeat it. See: fozo methods.",
)
@click.option(
    "--setting",
    type=click.Choice(["reset", "continual"]),
    default="reset",
    show_default=True,
    help="Forget between corruptions, or carry on.",
)
@click.option(
    "--severity", type=click.IntRange(1, 5), default=5, show_default=True, help="Of the corruptions."
)
@click.option("--corruptions", help="Comma-separated; default: all of the data set.")
@click.option(
    "--subset",
    default="all",
    show_default=True,
    metavar="all|50k|5k|N",
    help="Images per corruption; 5k and N are seeded choices unless --subset-list is given.",
)
@click.option("--subset-list", type=FILE, help="A published list of images, <wnid>/<file> per line.")
@click.option(
    "--classes",
    type=click.Choice(["all", "present"]),
    default="all",
    show_default=True,
    help="Predict among all classes, or only those present in the data.",
)
@click.option("--batch-size", type=click.IntRange(1), default=64, show_default=True, help="Images per batch.")
@click.option(
    "--seed",
    type=click.IntRange(0),
    default=2000,
    show_default=True,
    help="Of order, subset, generated corruptions and methods.",
)
@click.option("--precision", default="fp32", show_default=True, help="Which graph of the bundle.")
@click.option("--workers", type=int, help="Threads that compute; default: all processors.")
@click.option("--micro-batch", type=int, help="Images per call of the runtime; results do not depend on it.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    default="results.json",
    show_default=True,
    help="Where results go; a picture goes beside it if matplotlib is installed.",
)
@click.option("--quiet", is_flag=True, help="No progress bar.")
def adapt(bundle: Path, methods: tuple[str, ...], out: Path, quiet: bool, **options: Any) -> None:
    """Adapt a BUNDLE (default: ./bundle) over corrupted streams and compare methods side by side.

    \b
    Examples:
      fozo adapt --dataset imagenet-c --data IMAGENET_C --subset 5k --setting continual
      fozo adapt --dataset imagefolder --data DIR -m no_adapt -m fozo:shift=origin,samples=2
    """
    from .engine.files import check_writable
    from .eval.experiment import prepare

    if out.suffix == ".png":
        raise InputError(f"{out} is where the picture goes; name a .json file with --out")
    check_writable(out)  # fails now and not after the work
    experiment = prepare(bundle, methods, **options)
    with experiment.network:
        _run_experiment(experiment, out, quiet)


@cli.command()
@BUNDLE
@click.option("--json", "as_json", is_flag=True, help="Print the manifest.")
def inspect(bundle: Path, as_json: bool) -> None:
    """Show what a BUNDLE is, after checking the hashes of all its files."""
    from .engine.bundle import Bundle

    opened = Bundle.open(bundle)
    for name in opened.manifest.files:
        opened.file(name)
    click.echo(opened.manifest.to_json().decode().rstrip() if as_json else _description(opened))


@cli.command("methods")
@click.argument("name", required=False)
@click.option("--json", "form", flag_value="json", help="Machine-readable.")
@click.option("--markdown", "form", flag_value="markdown", help="As a table for documents.")
def list_methods(name: str | None, form: str | None) -> None:
    """List the methods, or the options of the method NAME with their defaults."""
    from dataclasses import asdict

    from .engine.methods import METHODS, describe, method

    chosen = {name: method(name)} if name else dict(METHODS)
    options = {key: describe(value) for key, value in chosen.items()}
    if form == "json":
        plain = {key: [asdict(option) for option in values] for key, values in options.items()}
        click.echo(json.dumps(plain, indent=1, ensure_ascii=False))
    elif form == "markdown":
        click.echo("| option | default | kind | meaning |\n|---|---|---|---|")
        for option in (option for values in options.values() for option in values):
            kind = option.kind.replace("|", ", ")
            click.echo(f"| `{option.name}` | `{option.default}` | {kind} | {option.help} |")
    else:
        for key, value in chosen.items():
            about = (type(value).__doc__ or "").splitlines()[0]
            click.echo(f"{key:14s} {value.forwards} forward(s) per batch. {about}")
            for option in options[key] if name else ():
                click.echo(f"  {option.name} = {option.default}  ({option.kind})\n      {option.help}")


def _store_source(bundle: Bundle, folder: Path | None, count: int, seed: int) -> Bundle:
    """Source statistics from a folder, or for the demonstration's model from its own images."""
    from .data.source import demo_source, folder_source, store_source

    how = bundle.manifest.preprocessing
    images = demo_source() if folder is None else folder_source(folder, how, count, seed)
    click.echo(f"Source statistics from {images.origin} …")
    with _Progress(images.count) as advance:
        return store_source(bundle, "fp32", images, advance)


def _description(bundle: Bundle) -> str:
    m = bundle.manifest
    how = m.preprocessing
    resize = f"squash to {how.resize} ×" if how.crop_mode == "squash" else "resize shorter side to"
    resize += f" {how.resize} ({how.interpolation}), crop {how.size[0]} × {how.size[1]}"
    lines = [
        f"Bundle {bundle.path}: {m.model}, {m.layers} blocks of width {m.width}, {m.classes} classes"
        + (f" ({m.class_ids[0]}, {m.class_ids[1]}, …)" if m.class_ids and len(m.class_ids) > 1 else ""),
        f"  images    {resize}; scaling and normalisation are inside the graph",
    ]
    for precision, graph in m.graphs.items():
        size = m.files[graph.file].bytes / 1e6
        lines.append(
            f"  {precision:9s} {graph.file}, {size:.1f} MB, opset {graph.opset}, at most "
            f"{graph.max_abs_difference:.2g} from PyTorch"
        )
        source = m.source.get(precision)
        lines.append(
            f"  source    {source.origin}" if source else "  source    none: fozo source BUNDLE CLEAN_IMAGES"
        )
    return "\n".join(lines)


def _run_experiment(experiment: Experiment, out: Path, quiet: bool) -> None:
    from .eval import table

    click.echo(f"{experiment.bundle.manifest.model} {experiment.precision}: {experiment.protocol.describe()}")
    click.echo(table.header(list(experiment.adapters)))
    try:
        with _Progress(experiment.images, quiet) as advance:
            for result in experiment.run(on_batch=advance):
                if result.complete:
                    click.echo("\r\033[K" if sys.stderr.isatty() and not quiet else "", nl=False, err=True)
                    click.echo(table.row(result))
                    experiment.save(out)
    except BaseException:
        if experiment.started:
            if not experiment.results[-1].complete:
                click.echo(table.row(experiment.results[-1]))
            experiment.save(out)
            click.echo(f"Incomplete: what was measured so far is in {out}")
        raise
    click.echo("\n" + table.summary(experiment.results))
    click.echo(f"\nResults: {out}")
    _draw(experiment, out.with_suffix(".png"))


def _draw(experiment: Experiment, path: Path) -> None:
    from .eval.plot import save_plot

    try:
        save_plot(
            path, experiment.results, f"{experiment.bundle.manifest.model}: {experiment.protocol.describe()}"
        )
        click.echo(f"Picture: {path}")
    except InputError as error:
        click.echo(f"No picture: {error}")


class _Progress:
    """A progress bar on standard error, as a context that gives the function to advance it."""

    def __init__(self, images: int, quiet: bool = False) -> None:
        self._bar: Any = click.progressbar(
            length=images,
            file=sys.stderr,
            show_pos=True,
            width=30,
            bar_template="%(bar)s %(info)s images",
            hidden=quiet or not sys.stderr.isatty(),
        )

    def __enter__(self) -> Callable[[int], None]:
        self._bar.__enter__()
        return lambda count: self._bar.update(count)

    def __exit__(self, *error: Any) -> None:
        self._bar.__exit__(*error)


def main() -> None:
    """Runs the command line: exit code 1 and one line on an error, 130 on Ctrl-C."""
    # Images that large are refused with a message of our own.
    warnings.filterwarnings("ignore", message="Image size .* exceeds limit")
    try:
        cli(standalone_mode=False)
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        click.echo("Interrupted.", err=True)
        sys.exit(130)
    except FozoError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
