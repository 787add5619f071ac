"""The command line: parses, calls the rooms, prints. Rooms are imported inside the commands."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ._version import __version__
from .engine.errors import FozoError, InputError

if TYPE_CHECKING:
    from .data.source import SourceImages
    from .engine.bundle import Bundle
    from .engine.methods import AnyMethod, Option
    from .eval.experiment import Experiment
    from .eval.runner import DomainResult

DEFAULT_METHODS = ("no_adapt", "shift", "fozo")
COMMON = "common"  # stands for a method where the options that all have are meant
CALIBRATION_IMAGES, HELD_OUT_IMAGES = 256, 512
PROVIDER = click.Choice(["cpu", "openvino", "openvino-bf16"])  # engine/network.py, without loading it
FOLDER = click.Path(path_type=Path, file_okay=False)
FILE = click.Path(path_type=Path, dir_okay=False)


class Blocks(click.ParamType):  # type: ignore[type-arg, unused-ignore]
    """Blocks of a network: `all` (None), `none`, or numbers and ranges like `0,2-5`."""

    name = "all|none|BLOCKS"

    def convert(
        self, value: str, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...] | None:
        """The blocks, each once and in order."""
        if value == "all":
            return None
        try:
            ranges = [part.split("-") for part in value.split(",")] if value != "none" else []
            blocks = {n for ends in ranges for n in range(int(ends[0]), int(ends[-1]) + 1)}
            if any(len(ends) > 2 or int(ends[0]) > int(ends[-1]) for ends in ranges):
                raise ValueError
        except ValueError:
            self.fail(f"expected all, none, or blocks like 1-8 or 0,2-5, found {value!r}", param, ctx)
        return tuple(sorted(blocks))


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
    help="A class-token ViT, DeiT or DINOv2 of timm, a ResNet with batch norms, or fozo_demo_vit, which ships"
    " with fozo.",
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
    "--norms",
    type=Blocks(),
    default="all",
    show_default=True,
    help="Blocks whose norms methods may tune: all, none, or blocks counted from 0, like 1-8 or 0,2-5; in a"
    " ResNet over all stages.",
)
@click.option(
    "--seed",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Seed of the choice of source images.",
)
@click.option(
    "--int8/--no-int8",
    default=True,
    show_default=True,
    help="Add an int8 graph as well, if clean images are given (see fozo quantize).",
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
    norms: tuple[int, ...] | None,
    seed: int,
    int8: bool,
    out: Path,
    overwrite: bool,
) -> None:
    """Export a timm model to a bundle: ONNX graphs, head, preprocessing, source statistics.

    The fp32 graph is compared with PyTorch before anything is written, the int8 graph with the fp32 graph
    before it is added.
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
    request = Request(model, weights, origin == "random", class_ids, num_classes, image_size, norms)
    result = export_model(request, out, overwrite=overwrite)
    parity = result.parity
    click.echo(
        f"Verified against PyTorch at {result.checked}: largest absolute difference "
        f"{parity.logits:.2g} in logits, {parity.features:.2g} in features."
    )
    bundle = result.bundle
    if source is not None or model == "fozo_demo_vit":
        bundle = _store_source(bundle, source, source_images, seed)
        if int8:
            bundle = _add_int8(bundle, source, source_images, seed)
    else:
        click.echo(
            f"No source statistics yet: FOZO needs them. Compute them with: fozo source {out} CLEAN_IMAGES"
        )
        if int8 and "batch_statistics" not in bundle.manifest.tunables:
            click.echo(f"No int8 graph yet. Make one with: fozo quantize {out} CLEAN_IMAGES")
    click.echo(_description(bundle))


@cli.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("folder", type=FOLDER)
@click.option("--images", default=512, show_default=True, help="How many images to use.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of their choice.")
def source(bundle: Path, folder: Path, images: int, seed: int) -> None:
    """Compute the source statistics of a BUNDLE from a FOLDER of clean images. Needs no PyTorch.

    Every graph of the bundle gets its own, computed by that graph.
    """
    from .engine.bundle import Bundle

    click.echo(_description(_store_source(Bundle.open(bundle), folder, images, seed)))


@cli.command()
@click.argument("bundle", type=click.Path(path_type=Path), default="bundle")
@click.argument("folder", type=FOLDER, required=False)
@click.option(
    "--images",
    type=click.IntRange(1),
    default=CALIBRATION_IMAGES,
    show_default=True,
    help="How many images to calibrate with.",
)
@click.option(
    "--held-out",
    type=click.IntRange(1),
    default=HELD_OUT_IMAGES,
    show_default=True,
    help="How many others to judge the result by.",
)
@click.option(
    "--calibrator",
    type=click.Choice(["percentile", "average", "minmax"]),
    default="percentile",
    show_default=True,
    help="What becomes of the extremes that a channel takes in each calibration batch.",
)
@click.option(
    "--weight-bits",
    type=click.Choice(["8", "7"]),
    help="Default: 8, or 7 where this processor's kernels would overflow.",
)
@click.option(
    "--keep-float",
    multiple=True,
    metavar="PATTERN",
    help="Layers to leave in float, like blocks.7.mlp.fc2 or '*.attn.*'; repeat it.",
)
@click.option(
    "--portable", is_flag=True, help="Add int8-qdq too, the same in standard operators for other runtimes."
)
@click.option("--sensitivity", is_flag=True, help="Measure and print what each layer loses on its own.")
@click.option("--source-images", default=512, show_default=True, help="Images for source statistics.")
@click.option(
    "--seed",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Of images and prompts.",
)
@click.option("--force", is_flag=True, help="Add the graph even if it is less accurate or slower.")
def quantize(
    bundle: Path,
    folder: Path | None,
    images: int,
    held_out: int,
    weight_bits: str | None,
    sensitivity: bool,
    source_images: int,
    **options: Any,
) -> None:
    """Add an int8 graph with integer kernels to a BUNDLE, from a FOLDER of clean images. Needs no PyTorch.

    The result is compared with fp32 on images that were not used for calibration, and refused if it loses
    more than one point of accuracy or is slower on this machine. The bundle is then as it was.

    \b
    Examples:
      fozo quantize bundle CLEAN_IMAGES
      fozo quantize bundle CLEAN_IMAGES --sensitivity --keep-float 'blocks.0.*'
    """
    from .engine.bundle import Bundle

    try:
        from .data.source import choose_images
        from .quant.quantizer import Options
    except ImportError as error:
        raise InputError(
            f'quantize needs onnx ({error}); install it with: pip install "fozo[quant]"'
        ) from error
    if folder is not None:
        choose_images(folder, source_images, options["seed"])  # fails before the work, not after it
    chosen = Options(weight_bits=None if weight_bits is None else int(weight_bits), **options)
    changed, report = _quantize(Bundle.open(bundle), folder, images, held_out, chosen, sensitivity)
    click.echo(report)
    added = ["int8", "int8-qdq"] if chosen.portable else ["int8"]
    click.echo(_description(_store_source(changed, folder, source_images, chosen.seed, added)))


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
    "--frost-textures",
    type=FOLDER,
    help="Folder with frost1.png to frost6.jpg of ImageNet-C's code; without it, no frost is generated.",
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
@click.option(
    "--provider",
    type=PROVIDER,
    default="cpu",
    show_default=True,
    help="Who computes; openvino needs onnxruntime-openvino in place of onnxruntime.",
)
@click.option("--precision", default="fp32", show_default=True, help="Which graph of the bundle, e.g. int8.")
@click.option("--workers", type=int, help="Threads that compute; default: as tuned, or all processors.")
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
    title = f"{experiment.bundle.manifest.model}: {experiment.protocol.describe()}"
    results = experiment.results
    del experiment  # and the network with it: a picture takes memory of its own
    _draw(out.with_suffix(".png"), results, title)


@cli.command()
@BUNDLE
@click.option(
    "-m",
    "--method",
    "methods",
    multiple=True,
    default=("no_adapt", "fozo"),
    show_default=True,
    metavar="[LABEL=]NAME[:OPTION=VALUE,…]",
    help="Methods to measure; repeat it.",
)
@click.option(
    "--precision",
    "precisions",
    multiple=True,
    help="Graphs of the bundle to measure; repeat it. Default: all.",
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
    "--threads", type=click.IntRange(1), multiple=True, help="Repeat it. Default: 1, and all processors."
)
@click.option(
    "--provider",
    "providers",
    type=PROVIDER,
    multiple=True,
    default=("cpu",),
    show_default=True,
    help="Of ONNX Runtime; repeat it.",
)
@click.option(
    "--torch",
    "with_torch",
    is_flag=True,
    help="Compare with the same model in eager PyTorch, float32 and bfloat16.",
)
@click.option(
    "--rounds", type=click.IntRange(1), default=3, show_default=True, help="Samples of every cell, in turn."
)
@click.option(
    "--min-seconds",
    type=click.FloatRange(0),
    default=0.5,
    show_default=True,
    help="How long the steps of a sample take at least.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    default="bench.json",
    show_default=True,
    help="Where all samples go.",
)
@click.option("--json", "as_json", is_flag=True, help="Print what goes there, instead of a table.")
@click.option(
    "--tune",
    is_flag=True,
    help="Instead: find the fastest workers and micro-batch for the largest batch size, and remember them.",
)
@click.option("--quiet", is_flag=True, help="No progress bar.")
def bench(bundle: Path, out: Path, as_json: bool, tune: bool, quiet: bool, **options: Any) -> None:
    """Measure how fast a BUNDLE (default: ./bundle) runs on this machine.

    \b
    Every sample is taken in a process of its own, one after the other. Examples:
      fozo bench --batch-size 64 --torch
      fozo bench tiny --precision int8 --threads 1 --rounds 9
      fozo bench tiny --tune --batch-size 8
    """
    if tune:
        _tune(bundle, quiet, **options)
        return
    from .engine.files import check_writable, write_atomic
    from .eval.bench import BenchError, prepare

    check_writable(out)  # fails now and not after the work
    benchmark = prepare(bundle, **options)
    try:
        with _Progress(benchmark.samples, quiet, "samples") as advance:
            benchmark.run(advance)
    finally:
        if benchmark.started:
            document = benchmark.to_json()
            write_atomic(out, document.encode())
            click.echo(document.rstrip() if as_json else benchmark.table())
            state = "All samples" if benchmark.complete else "Incomplete: what was measured so far"
            click.echo(f"\n{state}: {out}", err=as_json)
    if benchmark.failures:
        failures = benchmark.failures
        raise BenchError(f"{len(failures)} of {len(benchmark.measurements)} cells failed; {failures[0]}")


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
    """List the methods, or the options of the method NAME with their defaults; then those that all have.

    For the latter alone, the NAME is common.
    """
    from dataclasses import asdict

    from .engine.methods import METHODS, common_options, describe, method

    chosen = {} if name == COMMON else {name: method(name)} if name else dict(METHODS)
    options = {key: describe(value) for key, value in chosen.items()}
    if form != "markdown" or name == COMMON:
        options[COMMON] = common_options()
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
            click.echo(f"{key:14s} {value.forwards} forward(s) per batch. {about}{_preset(value)}")
            _echo_options(options[key] if name else [])
        click.echo("\nEvery method has:")
        _echo_options(options[COMMON])


def _preset(method: AnyMethod) -> str:
    """In what a registered method differs from the defaults of its class."""
    from .engine.methods import options_of

    defaults = options_of(type(method)())
    changed = [f"{name}={value}" for name, value in options_of(method).items() if value != defaults[name]]
    return f" With {', '.join(changed)}." if changed else ""


def _echo_options(options: Sequence[Option]) -> None:
    for option in options:
        click.echo(f"  {option.name} = {option.default}  ({option.kind})\n      {option.help}")


def _clean_images(bundle: Bundle, folder: Path | None, count: int, seed: int) -> SourceImages:
    """Clean images from a folder, or for the demonstration's model its own."""
    from .data.source import demo_source, folder_source

    manifest = bundle.manifest
    if folder is not None:
        return folder_source(folder, manifest.preprocessing, count, seed, manifest.class_ids)
    if manifest.model == "fozo_demo_vit":
        return demo_source()
    raise InputError("expected a folder of clean images, found none; name one behind the bundle")


def _store_source(
    bundle: Bundle, folder: Path | None, count: int, seed: int, precisions: Sequence[str] = ()
) -> Bundle:
    """Source statistics of some of the graphs of a bundle, or of all."""
    from .data.source import store_source

    images = _clean_images(bundle, folder, count, seed)
    for precision in precisions or bundle.manifest.graphs:
        click.echo(f"Source statistics of {precision} from {images.origin} …")
        with _Progress(images.count) as advance:
            bundle = store_source(bundle, precision, images, advance)
    return bundle


def _add_int8(bundle: Bundle, folder: Path | None, source_images: int, seed: int) -> Bundle:
    """The bundle with an int8 graph, or as it is where that is refused."""
    from .quant.quantizer import Options, QuantizationError

    try:
        bundle, report = _quantize(bundle, folder, CALIBRATION_IMAGES, HELD_OUT_IMAGES, Options(seed=seed))
    except (QuantizationError, InputError) as error:
        click.echo(f"No int8 graph: {error}")
        return bundle
    click.echo(report)
    return _store_source(bundle, folder, source_images, seed, ["int8"])


def _quantize(
    bundle: Bundle, folder: Path | None, images: int, held_out: int, options: Any, sensitivity: bool = False
) -> tuple[Bundle, str]:
    from .quant.quantizer import quantize, split_images
    from .quant.report import describe

    chosen = _clean_images(bundle, folder, images + held_out, options.seed)
    calibration, rest = split_images(chosen, images, held_out, options.seed)

    @contextmanager
    def step(what: str, count: int) -> Iterator[Callable[[int], None]]:
        unit = "layers" if "layer" in what else "images"
        click.echo(f"{what}: {count} {unit} …")
        with _Progress(count, unit=unit) as advance:
            yield advance

    bundle, report = quantize(bundle, calibration, rest, options, sensitivity=sensitivity, progress=step)
    return bundle, describe(report)


def _description(bundle: Bundle) -> str:
    m = bundle.manifest
    how = m.preprocessing
    resize = f"squash to {how.resize} ×" if how.crop_mode == "squash" else "resize shorter side to"
    resize += f" {how.resize} ({how.interpolation}), crop {how.size[0]} × {how.size[1]}"
    blocks = f"{m.layers} blocks of width {m.width}"
    if m.feature_widths:
        blocks = f"{m.layers} stages of width {', '.join(map(str, m.feature_widths))}"
    lines = [
        f"Bundle {bundle.path}: {m.model}, {blocks}, {m.classes} classes"
        + (f" ({m.class_ids[0]}, {m.class_ids[1]}, …)" if m.class_ids and len(m.class_ids) > 1 else ""),
        f"  images    {resize}; scaling and normalisation are inside the graph",
    ]
    for precision, graph in m.graphs.items():
        size = m.files[graph.file].bytes / 1e6
        lines.append(
            f"  {precision:9s} {graph.file}, {size:.1f} MB, opset {graph.opset}, at most "
            f"{graph.max_abs_difference:.2g} from {graph.reference}"
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


def _draw(path: Path, results: Sequence[DomainResult], title: str) -> None:
    from .eval.plot import save_plot

    try:
        save_plot(path, results, title)
        click.echo(f"Picture: {path}")
    except InputError as error:
        click.echo(f"No picture: {error}")


def _tune(
    bundle: Path,
    quiet: bool,
    precisions: tuple[str, ...],
    providers: tuple[str, ...],
    batch_sizes: tuple[int, ...],
    rounds: int,
    **others: Any,
) -> None:
    """Tunes every chosen graph on every chosen provider; the options that do not matter here are refused."""
    from .engine.bundle import Bundle
    from .eval.tune import Tuning

    context = click.get_current_context()
    given = {name: context.get_parameter_source(name) for name in (*others, "out", "as_json")}
    unused = [name for name, source in given.items() if source is click.core.ParameterSource.COMMANDLINE]
    if unused:
        flags = [option.opts[-1] for option in context.command.params if option.name in unused]
        raise InputError(
            "--tune goes with --precision, --provider, --batch-size, --rounds and --quiet; "
            f"leave out {', '.join(flags)}"
        )
    opened = Bundle.open(bundle)
    for provider in dict.fromkeys(providers):
        for precision in dict.fromkeys(precisions or opened.manifest.graphs):
            tuning = Tuning(opened, precision, provider, max(batch_sizes), rounds)
            with _Progress(tuning.images, quiet) as advance:
                measured = tuning.run(advance)
            click.echo(tuning.table(measured))


class _Progress:
    """A progress bar on standard error, as a context that gives the function to advance it."""

    def __init__(self, count: int, quiet: bool = False, unit: str = "images") -> None:
        self._bar: Any = click.progressbar(
            length=count,
            file=sys.stderr,
            show_pos=True,
            width=30,
            bar_template=f"%(bar)s %(info)s {unit}",
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
    warnings.showwarning = lambda message, *_: click.echo(f"Warning: {message}", err=True)
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
    except MemoryError:
        click.echo("Error: out of memory; use a smaller --batch-size, or the int8 graph", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
