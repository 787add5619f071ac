"""The contract of text graphs (docs/bundle.md): inputs, outputs and widths."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..bundle.text_entries import TextEntry
from ..errors import BundleError
from .graph_contract import CONTEXTS, EMBEDDED, EMBEDDINGS, LENGTHS, TOKENS

_TYPES = {
    TOKENS: ("tensor(int64)", 2),
    LENGTHS: ("tensor(int64)", 1),
    CONTEXTS: ("tensor(float)", 3),
    EMBEDDINGS: ("tensor(float)", 3),
    EMBEDDED: ("tensor(float)", 3),
}


def check_text_contract(session: Any, entry: TextEntry, graph: Path) -> None:
    """Check names, types and widths of a text graph.

    Raises:
        BundleError: they are not those of the contract and of the manifest.
    """
    nodes = {node.name: node for node in (*session.get_inputs(), *session.get_outputs())}
    actual = {name: (node.type, len(node.shape)) for name, node in nodes.items()}
    if actual != _TYPES:
        raise BundleError(
            f"{graph} does not follow the contract of text graphs: expected {_describe(_TYPES)}, found "
            f"{_describe(actual)}; export the model again with fozo export --clip"
        )
    expected = {CONTEXTS: entry.width, EMBEDDED: entry.width, EMBEDDINGS: entry.embedding_width}
    widths = {name: nodes[name].shape[-1] for name in expected}
    if widths != expected:
        raise BundleError(
            f"{graph} does not fit its manifest: expected last axes {expected}, found {widths}; export the "
            "model again"
        )


def _describe(nodes: Mapping[str, tuple[str, int]]) -> str:
    return ", ".join(f"{name} {kind} of {axes} axes" for name, (kind, axes) in sorted(nodes.items()))
