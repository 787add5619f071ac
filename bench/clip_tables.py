"""Tables of the CLIP-like model: methods, numbers of views, and classifiers made from texts."""

from __future__ import annotations

from accuracy_tables import CLEAN, average_accuracy, complete_runs, read_accuracy
from fozo.evaluation import Run, compute_averages
from paired import compare
from result_files import NONE, RESULTS, format_table, read_document

# What the classes are made from, by name of the results file; the first method of the first is compared with.
CONTEXTS = {
    "clip-one": "one template",
    "clip-ensemble": "80 templates",
    "clip-sapt": "SAPT",
}
HEADS = {"exact": "the ViT's own rows", "imagenet": "one template", "ensemble": "80 templates"}
_MISSING = "Not measured yet: `bench/run.sh clip`."


def tabulate_clip() -> str:
    """Return a row per method and classes: accuracy, paired differences with intervals, ECE, and cost."""
    runs = read_clip_runs()
    if not runs:
        return _MISSING
    reference = next(iter(runs.values())), "no_adapt"
    head = (
        "method",
        "classes from",
        "accuracy, %",
        "difference",
        "clean, %",
        "difference",
        "ECE, %",
        "forwards",
        "ms per image",
    )
    rows = []
    for name, run in runs.items():
        for label, average in compute_averages([run]).items():
            same = (name, label) == (next(iter(runs)), "no_adapt")
            differences = [
                NONE if same else str(compare(reference, (run, label), clean=clean))
                for clean in (False, True)
            ]
            rows.append(
                [
                    f"`{label}`",
                    CONTEXTS[name],
                    f"{100 * average.accuracy:.1f}",
                    differences[0],
                    f"{100 * average_accuracy([run], CLEAN, label):.1f}",
                    differences[1],
                    f"{100 * average.ece:.1f}",
                    f"{average.forwards_per_batch:.3g}",
                    f"{1000 / average.images_per_second:.1f}",
                ]
            )
    return format_table(head, rows)


def tabulate_clip_domains() -> str:
    """Return a row per method and classes, and a column per domain: accuracy in %."""
    runs = read_clip_runs()
    if not runs:
        return _MISSING
    domains = [domain.name for domain in next(iter(runs.values())).domains]
    rows = [
        [f"`{label}`", CONTEXTS[name], *(f"{100 * average_accuracy([run], d, label):.1f}" for d in domains)]
        for name, run in runs.items()
        for label in run.traces
    ]
    return format_table(("method", "classes from", *domains), rows)


def tabulate_views() -> str:
    """Return a row per method that reads views: its accuracy and differences for each number of views.

    Labels of the results are like `zero-16`; the first one is the frozen network.
    """
    if not has_results("clip-views"):
        return _MISSING
    (run,) = complete_runs(read_accuracy("clip-views"))
    first, *labels = run.traces
    averages = compute_averages([run])
    methods = list(dict.fromkeys(label.rsplit("-", 1)[0] for label in labels))
    counts = list(dict.fromkeys(label.rsplit("-", 1)[1] for label in labels))
    rows = [[f"`{first}`", f"{100 * averages[first].accuracy:.1f}", *[NONE] * (len(counts) - 1)]]
    for method in methods:
        cells = []
        for count in counts:
            label = f"{method}-{count}"
            difference = compare((run, first), (run, label))
            cells.append(f"{100 * averages[label].accuracy:.1f}, {difference}")
        rows.append([f"`{method}`", *cells])
    return format_table(("method", *(f"{count} views" for count in counts)), rows)


def tabulate_texts() -> str:
    """Return a row per classifier: accuracy on clean images, and how closely it hits the ViT's rows."""
    if not has_results("clip-like"):
        return _MISSING
    document = read_document("clip-like")
    rows = [
        [
            description,
            f"{100 * document['accuracy'][name]:.1f}",
            f"{document['cosine'][name]:.3f}",
        ]
        for name, description in HEADS.items()
    ]
    return format_table(("classifier", "accuracy, %", "mean cosine to the ViT's rows"), rows)


def read_clip_runs() -> dict[str, Run]:
    """Return the one run of each results file that there is, by its name; none without the first file."""
    if not has_results(next(iter(CONTEXTS))):
        return {}
    runs = {name: complete_runs(read_accuracy(name)) for name in CONTEXTS if has_results(name)}
    return {name: complete[0] for name, complete in runs.items() if complete}


def has_results(name: str) -> bool:
    """Return whether a results file is there."""
    return (RESULTS / f"{name}.json").exists()
