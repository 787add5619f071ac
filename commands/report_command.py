"""`fozo report`."""

from __future__ import annotations

from pathlib import Path

import click

from ..engine.errors import InputError
from .options import FILE, QUIET
from .progress import Progress


@click.command()
@click.argument("results", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--out",
    type=FILE,
    help="File for the page.  [default: report.html, unless only --csv or --markdown is given]",
)
@click.option(
    "--csv",
    "csv_file",
    type=FILE,
    help="Write all counts and rates to this file, one row per domain and method.",
)
@click.option(
    "--markdown",
    "markdown_file",
    type=FILE,
    help="Write the tables to this file, for a document or an issue.",
)
@click.option("--title", help="Heading of the page; default: model, precision and data.")
@QUIET
def report(
    results: tuple[Path, ...],
    out: Path | None,
    csv_file: Path | None,
    markdown_file: Path | None,
    title: str | None,
    quiet: bool,
) -> None:
    """Make a page from RESULTS of fozo adapt, sweep, tune or transfer: tables, charts and their provenance.

    The page is one HTML file that needs neither a network nor scripts. RESULTS may be several files, a folder
    of them, or the folder of a sweep: the page compares them and then shows each. Tunings come first, side by
    side, with their seeds averaged. Only the page needs matplotlib: pip install "fozo[report]".

    \b
    Examples:
      fozo report results.json
      fozo report fp32.json int8.json --title "ViT-B: fp32 and int8"
      fozo report runs/ --out runs.html --csv runs.csv
      fozo report night/ --markdown table.md
      fozo report zip/tuning.json bpt/tuning.json transfer.json --title "Few shots, then transfer"
    """
    from ..engine.files import check_writable, write_atomic
    from ..eval.report import csv_file as as_csv
    from ..eval.report import markdown
    from ..eval.report.digest.report_digest import digest_results
    from ..eval.report.digest.sources import collect_results
    from ..eval.report.html import page

    if out is None and csv_file is None and markdown_file is None:
        out = Path("report.html")
    targets = [path for path in (out, csv_file, markdown_file) if path is not None]
    sources, skipped = collect_results(results)
    _check_targets(targets, [source.path for source in sources])
    for path in targets:
        check_writable(path)  # fails now and not after the work
    for path in skipped:
        click.echo(f"Passed over {path}: no results that a report can show", err=True)
    digest = digest_results(sources, title)
    documents: dict[Path, bytes] = {}
    if out is not None:
        with Progress(len(sources), quiet, "files") as advance:
            documents[out] = page.render(digest, advance)
    if csv_file is not None:
        documents[csv_file] = as_csv.render(digest)
    if markdown_file is not None:
        documents[markdown_file] = markdown.render(digest)
    for path, content in documents.items():
        write_atomic(path, content)
        click.echo(f"Wrote {path}")


def _check_targets(targets: list[Path], sources: list[Path]) -> None:
    """Refuse to write one document over another, or over the results."""
    used = {path.resolve(): path for path in sources}
    for path in targets:
        if path.resolve() in used:
            raise InputError(
                f"cannot write {path}: it is {used[path.resolve()]}, which is also in use; name another"
            )
        used[path.resolve()] = path
