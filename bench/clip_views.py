"""Votes of many views, with every view computed once for all methods, options and classes.

`zero` and `stss` look at the same views of an image, whatever their options and classes are, and neither
changes the forwards. So `embed` computes the unit embeddings of all views, and `vote` lets the methods
themselves, as they are in fozo, ask for them. This takes minutes where `fozo adapt` would take days.

    python bench/clip_views.py embed clip-like --images DIR --frost-textures DIR --out views
    python bench/clip_views.py vote clip-like --embeddings views --images DIR --frost-textures DIR \
        --head imagenet -m zero -m few=zero:views=8 --out clip-zero.json

Interrupted, `embed` continues with the images that are missing.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from fozo.data.lazy_views import LazyViews
from fozo.engine.files import from_npz, to_npz, write_atomic
from fozo.engine.interface.method import count_views
from fozo.engine.interface.view_batch import get_plain_images
from fozo.engine.interface.view_recipe import ViewRecipe
from fozo.engine.model import FloatArray, ImageArray, Outputs
from fozo.eval.results.outcome import DomainResult, MethodResult, Run, Trace
from fozo.eval.streaming.stream import Segment, plan_segments
from fozo.evaluation import Domain, EvaluationSpec, Experiment, MethodAverage, compute_averages, prepare
from fozo.methods import Request, drive

CORRUPTIONS = ("gaussian_noise", "motion_blur", "snow", "contrast", "pixelate", "clean")
VIEWS = 64
BATCH = 64
ROUND = 128  # images of a domain before those of the next


def main() -> None:
    """Compute embeddings, or results from them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    embedding, voting = commands.add_parser("embed"), commands.add_parser("vote")
    for command in (embedding, voting):
        command.add_argument("bundle", type=Path)
        command.add_argument("--images", type=Path, required=True, help="clean images, to be corrupted")
        command.add_argument("--frost-textures", type=Path, required=True)
        command.add_argument("--subset-list", type=Path, help="images to take, a line each; default: all")
        command.add_argument("--out", type=Path, required=True)
    voting.add_argument("--embeddings", type=Path, required=True, help="folder that `embed` has made")
    voting.add_argument("--head", required=True)
    voting.add_argument("-m", "--method", action="append", required=True)
    options = parser.parse_args()
    if options.command == "embed":
        embed_domains(open_experiment(options, ("no_adapt",), None), options.out)
    else:
        experiment = open_experiment(options, options.method, options.head)
        vote_in_domains(experiment, options.embeddings)
        experiment.results.save(options.out)
        print("\n".join(describe(label, row) for label, row in compute_averages(experiment.runs).items()))


def open_experiment(options: argparse.Namespace, methods: Sequence[str], head: str | None) -> Experiment:
    """Return the experiment of `fozo adapt` with these methods."""
    return prepare(
        EvaluationSpec.from_options(
            options.bundle,
            list(methods),
            "imagenet-c",
            generate_from=options.images,
            frost_textures=options.frost_textures,
            corruptions=CORRUPTIONS,
            severities=(5,),
            subset_list=options.subset_list,
            batch_size=BATCH,
            precision="int8",
            head=head,
        )
    )


def plan_stream(experiment: Experiment) -> list[Segment]:
    """Return the segments of the first seed, each with one domain."""
    seed = experiment.protocol.seeds[0]
    return plan_segments(experiment.domains(seed), experiment.protocol, seed)


def embed_domains(experiment: Experiment, folder: Path) -> None:
    """Write the embeddings of the views of all images, in rounds over the domains.

    Images that are in the folder already are left out.
    """
    folder.mkdir(parents=True, exist_ok=True)
    domains = experiment.domains(experiment.protocol.seeds[0])
    graph = experiment.bundle.graph_sha256(experiment.precision)
    stored = {domain.name: set(read_embeddings(folder, domain.name, experiment)) for domain in domains}
    for start in range(0, max(map(len, domains)), ROUND):
        for domain in domains:
            present = stored[domain.name]
            order = np.random.default_rng(0).permutation(len(domain))[start : start + ROUND]
            missing = domain.take([row for row in order if domain.ids[row] not in present])
            if len(missing):
                print(f"{domain.name}: {len(present) + len(missing)} of {len(domain)}", flush=True)
                rows = dict(embed(experiment, missing))
                content = to_npz(ids=np.array(list(rows)), embeddings=np.stack(list(rows.values())))
                write_atomic(folder / f"{domain.name}-{graph[:8]}-{missing.hash_ids()[:8]}.npz", content)
                present |= set(rows)


def read_embeddings(folder: Path, domain: str, experiment: Experiment) -> dict[str, FloatArray]:
    """Return the embeddings `[64, F]` of a domain's images by identifier, as far as they are there."""
    graph = experiment.bundle.graph_sha256(experiment.precision)
    result: dict[str, FloatArray] = {}
    for path in folder.glob(f"{domain}-{graph[:8]}-*.npz"):
        arrays = from_npz(path)
        result |= dict(zip(arrays["ids"].tolist(), arrays["embeddings"], strict=True))
    return result


def embed(experiment: Experiment, domain: Domain) -> Iterator[tuple[str, FloatArray]]:
    """Yield the identifier of every image, and the unit embedding of each of its views, `[64, F]`."""
    network, seed = experiment.network, experiment.protocol.seeds[0]
    (segment,) = plan_segments([domain], experiment.protocol, seed)
    for batch in segment.batches(BATCH):
        with LazyViews(batch.images, ViewRecipe(VIEWS), seed, batch.ids, batch.open_image) as views:
            for index, name in enumerate(batch.ids):
                yield name, network(views[index][0:VIEWS]).features[:, -1]


def vote_in_domains(experiment: Experiment, folder: Path) -> None:
    """Fill the experiment with the results of its methods, from the embeddings."""
    seed, labels = experiment.protocol.seeds[0], list(experiment.methods)
    run = Run(seed, [], {label: Trace() for label in labels})
    experiment.runs.append(run)
    for number, segment in enumerate(plan_stream(experiment)):
        (domain,) = segment.domains
        order = segment.order()
        present = read_embeddings(folder, domain.name, experiment)
        embeddings = np.stack([present[domain.ids[row]] for row in order])
        targets = domain.labels[order]
        results = {label: vote(experiment, label, embeddings, targets) for label in labels}
        run.domains.append(
            DomainResult(
                domain.name,
                results,
                severity=domain.severity,
                segment=number,
                generated=domain.generated,
                images=len(domain),
                available_images=domain.available_images,
                ids_sha256=domain.hash_ids(),
                complete=True,
            )
        )
        run.segment = number + 1
    run.complete = True


def vote(experiment: Experiment, label: str, embeddings: FloatArray, targets: FloatArray) -> MethodResult:
    """Return the outcome of one method on one domain; it takes no time, as nothing is computed anew."""
    bound, result = experiment.adapters[label].bound, MethodResult()
    state, classifier = bound.init(experiment.protocol.seeds[0]), experiment.network.info.head_weight
    for start in range(0, len(embeddings), BATCH):
        rows = embeddings[start : start + BATCH]
        images = number_views(len(rows), VIEWS)
        if count_views(experiment.methods[label]) == 1:
            images = get_plain_images(images)

        def answer(request: Request, rows: FloatArray = rows) -> list[Outputs]:
            features = look_up(rows, request.images)
            return [Outputs(features @ classifier.T, features[:, None]) for _ in request.tunables]

        prediction, state = drive(bound.step(state, images), answer)
        result.right.append(result.tally.add(prediction.logits, targets[start : start + BATCH]))
        result.forwards += prediction.forwards
        result.batches += 1
    return result


def number_views(images: int, views: int) -> ImageArray:
    """Return stand-ins for views, uint8 `[N, V, 1, 1, 3]`, that hold the numbers of image and view."""
    numbers = np.zeros((images, views, 1, 1, 3), np.uint8)
    numbers[..., 0] = np.arange(images)[:, None, None, None]
    numbers[..., 1] = np.arange(views)[:, None, None]
    return numbers


def look_up(embeddings: FloatArray, numbers: ImageArray) -> FloatArray:
    """Return the embeddings of numbered views, `[V, F]`."""
    result: FloatArray = embeddings[numbers[:, 0, 0, 0], numbers[:, 0, 0, 1]]
    return result


def describe(label: str, average: MethodAverage) -> str:
    """Return a line on a method's accuracy."""
    return (
        f"{label:24} accuracy {100 * average.accuracy:5.1f}  ECE {100 * average.ece:5.1f}  "
        f"forwards {average.forwards_per_batch:5.1f}"
    )


if __name__ == "__main__":
    main()
