"""Tables of the CLIP-like model: methods, numbers of views, and classifiers made from texts."""

from __future__ import annotations

from accuracy_tables import CLEAN, average_accuracy, complete_runs, read_accuracy
from fozo.evaluation import Run, compute_averages
from paired import compare
from result_files import NONE, RESULTS, format_table, read_document
from speed_tables import tabulate_methods

# What the classes are made from, by name of the results file; the first method of the first is compared with.
CONTEXTS = {
    "clip-one": "one template",
    "clip-one-pizo": "one template",
    "clip-ensemble": "80 templates",
    "clip-ensemble-pizo": "80 templates",
    "clip-sapt": "SAPT",
}
# Settings of methods with many views: label in the results, and what it changes.
SETTINGS = "clip-settings"
HEADS = {"exact": "the ViT's own rows", "imagenet": "one template", "ensemble": "80 templates"}
_TASKS = {"views": "`stss`, 64 views of an image", "texts": "1,000 classes behind 9 prompts"}
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
    )
    rows = []
    for name, run in runs.items():
        for label, average in compute_averages([run]).items():
            if label == "no_adapt" and name.endswith("-pizo"):
                continue  # the row is there already
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
        if not (label == "no_adapt" and name.endswith("-pizo"))
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


def tabulate_settings() -> str:
    """Return a row per setting of a method with many views, with its difference to the defaults.

    Labels of the results are like `zero`, or `zero-kept-0.1`, which is compared with `zero`.
    """
    if not has_results(SETTINGS):
        return _MISSING
    (run,) = complete_runs(read_accuracy(SETTINGS))
    rows = []
    for label, average in compute_averages([run]).items():
        method, _, setting = label.partition("-")
        setting = setting.replace("-", "=")
        difference = str(compare((run, method), (run, label))) if setting else NONE
        rows.append(
            [
                f"`{method}`",
                f"`{setting}`" if setting else "as it is",
                f"{100 * average.accuracy:.1f}",
                difference,
                f"{100 * average_accuracy([run], CLEAN, label):.1f}",
                f"{100 * average.ece:.1f}",
                f"{average.forwards_per_batch:.1f}",
            ]
        )
    head = ("method", "setting", "accuracy, %", "difference", "clean, %", "ECE, %", "forwards")
    return format_table(head, rows)


def tabulate_clip_cost() -> str:
    """Return a row per method: its time on each graph."""
    return tabulate_methods("clip-cost") if has_results("clip-cost") else _MISSING


def tabulate_clip_speed() -> str:
    """Return a row per arm of the speed measurement: its time, and that of open_clip in fp32 by it."""
    if not has_results("clip-speed"):
        return _MISSING
    document = read_document("clip-speed")
    rows = []
    for task, first in (("views", "open_clip fp32"), ("texts", "open_clip, 77 tokens")):
        for arm, seconds in document[task].items():
            ratio = document[task][first] / seconds
            rows.append([_TASKS[task], arm, f"{seconds:,.1f}", f"{ratio:.2f}"])
    return format_table(("task", "computed by", "seconds", "times as fast as open_clip fp32"), rows)


def tabulate_clip_memory() -> str:
    """Return a row per method and precision: the peak memory of a process that predicts one image."""
    if not has_results("clip-speed"):
        return _MISSING
    rows = [[f"`{arm}`", f"{peak:,.0f}"] for arm, peak in read_document("clip-speed")["peak_mb"].items()]
    return format_table(("process", "peak MB"), rows)


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
