"""The command line: its commands, and how their errors end the process."""

from __future__ import annotations

import signal
import sys
import warnings
from typing import NoReturn

import click

from ._version import __version__
from .commands.adapt_command import adapt
from .commands.bench_command import bench
from .commands.classes_command import classes
from .commands.compile_command import compile_bundle
from .commands.console import degrade_characters
from .commands.corrupt_command import corrupt
from .commands.demo_command import demo
from .commands.export_command import export
from .commands.inspect_command import inspect
from .commands.methods_command import list_methods
from .commands.page_command import page
from .commands.predict_command import predict
from .commands.quantize_command import quantize
from .commands.report_command import report
from .commands.source_command import source
from .commands.standard_streams import lenient_streams
from .commands.sweep_command import sweep
from .commands.transfer_command import transfer
from .commands.tune_command import tune
from .engine.errors import FozoError, escape_controls, reason


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="fozo")
def cli() -> None:
    """Forward-only test-time adaptation on ONNX Runtime.

    \b
    See it work, with a small model that is included:
      fozo demo

    \b
    Export a model once (needs PyTorch), then adapt it anywhere (needs none):
      fozo export --model vit_base_patch16_224 --source CLEAN_IMAGES
      fozo adapt --dataset imagenet-c --data IMAGENET_C
    """


for _command in (
    demo,
    export,
    classes,
    source,
    quantize,
    compile_bundle,
    page,
    corrupt,
    tune,
    transfer,
    predict,
    adapt,
    sweep,
    report,
    bench,
    inspect,
    list_methods,
):
    cli.add_command(_command)


def _exit_on_signal(number: int, frame: object) -> NoReturn:
    raise SystemExit(128 + number)


def main() -> None:
    """Run the command line: exit code 1 and one line on an error, 130 on Ctrl-C, 143 on SIGTERM.

    A command whose standard output cannot be written does its work to the end, and then fails.
    """
    degrade_characters()
    with lenient_streams() as output:
        _run()
        output.flush()
        if output.error is not None:
            if not isinstance(output.error, BrokenPipeError):  # its reader has seen enough
                click.echo(f"Error: cannot write standard output: {output.error.strerror}", err=True)
            sys.exit(1)


def _run() -> None:
    """Run the command line and turn errors into exit codes."""
    # Service managers and containers send SIGTERM: save then as after Ctrl-C.
    signal.signal(signal.SIGTERM, _exit_on_signal)
    # Such images are refused with an error of our own.
    warnings.filterwarnings("ignore", message="Image size .* exceeds limit")
    warnings.showwarning = lambda message, *_: click.echo(f"Warning: {escape_controls(message)}", err=True)
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
    except OSError as error:  # of a kind that the command does not foresee, such as a name that is too long
        where = f" {escape_controls(error.filename)}" if error.filename is not None else ""
        click.echo(f"Error: the system refuses{where}: {reason(error)}", err=True)
        sys.exit(1)
    except MemoryError:
        click.echo("Error: out of memory; use a smaller --batch-size, or the int8 graph", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
