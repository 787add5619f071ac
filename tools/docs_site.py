"""Hooks of MkDocs: what the site needs beyond the pages in docs/.

Pages link to files of the repository outside docs/, such as examples. These files become part of the site,
and links to them are rewritten, so that the strict build checks them as it checks all others.
"""

from __future__ import annotations

import atexit
import os
import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

from mkdocs.plugins import event_priority
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
OUTSIDE = "repository"  # folder of the site for files outside docs/
_LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#)([^)#\s]+)")
_FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_LIST_AFTER_TEXT = re.compile(r"^(?!\s*(?:[-*#|>]|\d+\.))(\S.*)\n(?=(?:- |1\. ))", re.MULTILINE)


@event_priority(100)  # before mkdocstrings reads its options
def on_config(config: Any) -> Any:
    """Show the repository root to mkdocstrings as the package `fozo`."""
    sources = Path(tempfile.mkdtemp(prefix="fozo-docs-"))
    atexit.register(shutil.rmtree, sources)
    (sources / "fozo").mkdir()
    for path in [*ROOT.glob("*.py"), *(init.parent for init in ROOT.glob("*/__init__.py"))]:
        (sources / "fozo" / path.name).symlink_to(path)
    config.plugins["mkdocstrings"].config.handlers["python"]["paths"] = [str(sources)]
    return config


def on_files(files: Files, config: Any) -> Files:
    """Add every file outside docs/ that a page links to, and in turn what those pages link to."""
    pages = [Path(file.abs_src_path) for file in files if file.src_uri.endswith(".md")]
    while pages:
        page = pages.pop()
        for link in _LINK.findall(_outside_code(page.read_text(encoding="utf-8"))):
            target = _resolve(page, link)
            uri = _site_uri(target)
            if target.is_file() and uri.startswith(f"{OUTSIDE}/") and uri not in files.src_uris:
                files.append(File.generated(config, uri, abs_src_path=str(target)))
                pages += [target] if target.suffix == ".md" else []
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Rewrite links that leave docs/, and put the blank line before a list that Python-Markdown needs."""
    source = Path(page.file.abs_src_path)
    folder = PurePosixPath(page.file.src_uri).parent

    def rewrite(match: re.Match[str]) -> str:
        return os.path.relpath(_site_uri(_resolve(source, match[1])), folder)

    return _apply_outside_code(
        markdown, lambda text: _LIST_AFTER_TEXT.sub(r"\1\n\n", _LINK.sub(rewrite, text))
    )


def _resolve(page: Path, link: str) -> Path:
    """Return the file that a page links to; a folder stands for its README.md."""
    target = Path(os.path.normpath(page.parent / link))
    return target / "README.md" if target.is_dir() else target


def _site_uri(target: Path) -> str:
    """Return where a file of the repository lies in the site's sources."""
    relative = Path(os.path.relpath(target, ROOT))
    return (relative.relative_to("docs") if relative.parts[0] == "docs" else OUTSIDE / relative).as_posix()


def _outside_code(text: str) -> str:
    return _FENCED.sub("", text)


def _apply_outside_code(text: str, change: Callable[[str], str]) -> str:
    """Change a text everywhere but in fenced blocks."""
    blocks = [*_FENCED.findall(text), ""]
    return "".join(change(prose) + block for prose, block in zip(_FENCED.split(text), blocks, strict=True))
