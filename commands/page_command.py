"""`fozo page`."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import click

from ..engine.errors import InputError
from .console import echo_json
from .options import json_option, overwrite_option

RUNTIME = Path("node_modules/onnxruntime-web")


@click.command()
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--runtime",
    type=click.Path(path_type=Path),
    default=RUNTIME,
    show_default=True,
    help="Folder of the npm package onnxruntime-web.",
)
@click.option(
    "--step",
    "steps",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="STEP",
    help="Folder of fozo compile that can be chosen on the page, too; several times for several.",
)
@click.option("--serve", is_flag=True, help="Serve the page on this machine until Ctrl-C.")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0: any.")
@json_option("Print the content of page.json.")
@overwrite_option("Replace a page that is there.")
def page(
    out: Path, runtime: Path, steps: tuple[Path, ...], serve: bool, port: int, as_json: bool, overwrite: bool
) -> None:
    """Write a page for browsers to the folder OUT: a frozen and an adapted network beside each other.

    The page has the model and the digits of fozo demo, methods as compiled steps, and ONNX Runtime for
    browsers, which npm install --ignore-scripts onnxruntime-web gets. Visitors can choose steps, images and a
    camera of their own. Any web server can serve the folder; nothing is loaded from elsewhere.

    With --serve, a page that is already in OUT is served as it is, unless --step or --overwrite is given.

    \b
    Examples:
      fozo page site --serve
      fozo page site --step step-pizo --step step-frozen --overwrite
    """
    if not (serve and not steps and not overwrite and (out / "page.json").is_file()):
        catalogue = _write(out, runtime, steps, overwrite)
        if as_json:
            echo_json(json.dumps(catalogue, indent=1, ensure_ascii=False))
        else:
            size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file()) / 1e6
            click.echo(f"{out}: a page with {len(catalogue['steps'])} steps, {size:.0f} MB")
            if not serve:
                click.echo(f"Next: fozo page {out} --serve, or put the folder on a web server")
    if serve:
        _serve(out, port)


def _write(out: Path, runtime: Path, steps: tuple[Path, ...], overwrite: bool) -> Any:
    try:
        from ..export.page.page_folder import PageRequest, write_page
    except ImportError as error:
        raise InputError(f'page needs onnx ({error}); install it with: pip install "fozo[quant]"') from error
    return write_page(PageRequest(runtime, steps), out, overwrite=overwrite)


def _serve(out: Path, port: int) -> None:
    """Serve until Ctrl-C, which is the ordinary end."""
    from ..export.page.page_server import open_server

    with open_server(out, port) as server:
        host, number = server.server_address[:2]
        click.echo(f"Serving {out} at http://{host!s}:{number}/ (Ctrl-C ends it)")
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever()
