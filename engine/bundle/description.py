"""A bundle described in a few lines for people."""

from __future__ import annotations

from .bundle import Bundle
from .head_description import describe_heads
from .origin import describe_preparation, describe_weights, list_origin


def describe_bundle(bundle: Bundle) -> str:
    """Return the model, its preprocessing, and each graph with the origin of its source statistics."""
    m, origin = bundle.manifest, list_origin(bundle.manifest)
    blocks = f"{m.layers} blocks of width {m.width}"
    if m.text is not None:
        blocks = f"{m.layers - 1} blocks of width {m.width}, image embedding of {m.text.embedding_width}"
    elif m.feature_widths:
        blocks = f"{m.layers} stages of width {', '.join(map(str, m.feature_widths))}"
    names = f" ({m.class_ids[0]}, {m.class_ids[1]}, …)" if m.class_ids and len(m.class_ids) > 1 else ""
    lines = [
        f"Bundle {bundle.path}: {m.model}, {blocks}, {m.classes} classes{names}",
        f"  weights   {describe_weights(origin)}",
        f"  images    {describe_preparation(origin)}; normalisation is inside the graph",
    ]
    for precision in m.graphs:
        lines += _describe_graph(bundle, precision)
    lines += [_describe_pull_back(bundle, precision) for precision in m.pull_backs]
    if m.text is not None:
        lines += [_describe_text(bundle), *(f"  head      {line}" for line in describe_heads(m))]
    return "\n".join(lines)


def _describe_text(bundle: Bundle) -> str:
    text = bundle.manifest.text
    assert text is not None
    size = bundle.manifest.files[text.file].bytes / 1e6
    return (
        f"  text      {text.file}, {size:.1f} MB, at most {text.max_abs_difference:.2g} from PyTorch, up to "
        f"{text.context_length} tokens, logit scale {text.logit_scale:.4g}; heads (* in use):"
    )


def _describe_pull_back(bundle: Bundle, precision: str) -> str:
    graph = bundle.manifest.pull_backs[precision]
    size = bundle.manifest.files[graph.file].bytes / 1e6
    difference = f"at most {graph.max_abs_difference:.2g} of the largest gradient from {graph.reference}"
    if (cosine := graph.record.get("cosine_to_fp32")) is not None:
        difference = (
            f"logits at most {graph.max_abs_difference:.2g} from {graph.reference}, cosine of the gradients "
            f"to those of fp32 {cosine:.3f}"
        )
    return f"  gradients {graph.file}, {size:.1f} MB, {difference}"


def _describe_graph(bundle: Bundle, precision: str) -> list[str]:
    graph = bundle.manifest.graphs[precision]
    size = bundle.manifest.files[graph.file].bytes / 1e6
    source = bundle.manifest.source.get(precision)
    return [
        f"  {precision:9s} {graph.file}, {size:.1f} MB, opset {graph.opset}, at most "
        f"{graph.max_abs_difference:.2g} from {graph.reference}",
        f"  source    {source.origin}" if source else "  source    none: fozo source BUNDLE CLEAN_IMAGES",
    ]
