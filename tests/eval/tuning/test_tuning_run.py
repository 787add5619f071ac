"""Tuning runs without gradients on a bundle in closed form."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundle_doubles import make
from fozo.engine.bundle.bundle import Bundle
from fozo.engine.errors import BundleError, InputError, StateError
from fozo.engine.records import load_record, to_dict
from fozo.engine.runtime.class_head import make_head
from fozo.engine.runtime.network import Network
from fozo.engine.runtime.text_encoder import TextEncoder
from fozo.eval.results.method_record import TallyRecord
from fozo.eval.results.outcome import MethodResult
from fozo.eval.tuning.context_training import TrainingState
from fozo.eval.tuning.saved_training import begin_training, get_progress_path
from fozo.eval.tuning.tuning_document import describe_run, format_evaluation, save_run
from fozo.eval.tuning.tuning_evaluation import TUNED, evaluate_run, open_test
from fozo.eval.tuning.tuning_run import TuningRun, open_run
from metric_doubles import compute_macro_f1
from tune_doubles import TEST, make_colours, make_spec, open_colours


def train(run: TuningRun, steps: int | None = None) -> TrainingState:
    state = run.training.init(run.initial, run.spec.seed)
    for _ in range(run.training.steps if steps is None else steps):
        state = run.training.advance(state)
    return state


def test_the_loss_falls_and_the_counts_are_those_announced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts: list[int] = []
    encode = TextEncoder.encode

    def count_texts(self: Any, tokens: Any, contexts: Any) -> Any:
        texts.append(len(tokens) * len(contexts))
        return encode(self, tokens, contexts)

    with open_colours(tmp_path, epochs=60) as run:
        monkeypatch.setattr(TextEncoder, "encode", count_texts)
        images: list[int] = []
        run.on_images = images.append
        state = train(run)
    losses = state.curve[:, 0]
    assert losses[-10:].mean() < losses[:10].mean() - 0.005
    assert (run.cost.steps, run.cost.calls) == (60, 60 * 8)
    assert run.cost.text_encodes == sum(texts) == 60 * 8 * 3
    assert run.cost.image_encodes == sum(images) == 12
    assert len(texts) == 2 * 60  # all candidates of a round in one call
    assert "forwards)" in run.cost.describe()


@pytest.mark.parametrize(
    ("options", "steps", "calls", "images"),
    [
        ({"method": "zip", "budget": 30, "crops": None, "batch": 5}, 8, 32, 40),
        ({"method": "zip", "budget": 32, "crops": 0}, 8, 32, 12),
        ({"method": "zip", "crops": 3, "epochs": 9, "batch": 5}, 18, 72, 36),
        ({"method": "sapt", "batch": 5, "crops": None, "epochs": 3}, 6, 12, 30),
        ({"method": "sapt", "batch": 5, "epochs": 3}, 6, 12, 12),
        ({"method": "sapt", "batch": 100, "epochs": 3, "sharpness": 0.0}, 3, 3, 12),
        ({"crops": 2, "epochs": 3, "radius": 0.0}, 3, 12, 24),
        ({"crops": 9, "epochs": 3}, 3, 24, 36),
    ],
)
def test_costs(options: dict[str, Any], steps: int, calls: int, images: int, tmp_path: Path) -> None:
    with open_colours(tmp_path, **options) as run:
        assert (run.cost.steps, run.cost.calls, run.cost.image_encodes) == (steps, calls, images)
        assert run.cost.text_encodes == 3 * calls
        assert run.cost.gradients == (run.spec.method == "sapt")


def test_zip_learns_and_keeps_within_its_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    contexts: list[int] = []
    encode = TextEncoder.encode

    def count_contexts(self: Any, tokens: Any, vectors: Any) -> Any:
        contexts.append(len(vectors))
        return encode(self, tokens, vectors)

    options = {"method": "zip", "budget": 240, "dimension": 8, "rank": 2, "rate": 0.3, "crops": None}
    with open_colours(tmp_path, **options, batch=5) as run:
        monkeypatch.setattr(TextEncoder, "encode", count_contexts)
        images: list[int] = []
        run.on_images = images.append
        state = train(run)
        assert (run.cost.steps, run.cost.calls) == (60, 240)
        assert contexts == [4] * 60  # all candidates of a step in one call
        assert sum(images) == run.cost.image_encodes == 60 * 5  # not once for each candidate
        np.testing.assert_array_equal(state.tuned.start, run.initial)
        assert state.tuned.parameters.shape == (2 * 2 + 2 + 4 * 2 + 4,)
        head = run.make_head(state)
    losses = state.curve[:, 0]
    assert losses[-10:].mean() < losses[:10].mean() - 0.005
    record = head.record["tuning"]
    assert (record["method"], record["budget"], record["update"]) == ("zip", 240, "spsa-clip")
    assert not {"momentum", "radius", "epochs"} & set(record)  # options without effect


def test_bpt_counts_every_batch_of_a_generation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    contexts: list[int] = []
    encode = TextEncoder.encode

    def count_contexts(self: Any, tokens: Any, vectors: Any) -> Any:
        contexts.append(len(vectors))
        return encode(self, tokens, vectors)

    options = {"method": "bpt", "budget": 200, "dimension": 6, "population": 5, "batch": 5, "crops": None}
    with open_colours(tmp_path, **options) as run:
        monkeypatch.setattr(TextEncoder, "encode", count_contexts)
        images: list[int] = []
        run.on_images = images.append
        state = train(run)
        assert not run.initial.any()
        # 12 images are two batches of 5, and five contexts see both: 10 calls a generation.
        assert (run.cost.steps, run.cost.calls, run.cost.text_encodes) == (20, 200, 20 * 5 * 3)
        assert contexts == [5] * 20
        assert sum(images) == run.cost.image_encodes == 20 * 10
        path = tmp_path / "tuning.progress.npz"
        run.training.save(path, train(run, 7))
    with open_colours(tmp_path, **options) as run:
        continued = list(run.training.run(run.training.load(path, run.initial, 1), None, 0))[-1]
    np.testing.assert_array_equal(continued.tuned.values, state.tuned.values)
    np.testing.assert_array_equal(continued.tuned.search.mean, state.tuned.search.mean)
    np.testing.assert_array_equal(continued.curve, state.curve)
    assert state.tuned.best_loss < state.curve[0, 0]


def test_budgets_need_a_method_without_gradients() -> None:
    with pytest.raises(InputError, match="give epochs instead"):
        make_spec(Path(), method="sapt", budget=10)


def test_runs_are_a_function_of_the_seed(tmp_path: Path) -> None:
    with open_colours(tmp_path) as run, open_colours(tmp_path, workers=2) as again:
        first, second = train(run), train(again)
    np.testing.assert_array_equal(first.tuned.values, second.tuned.values)
    np.testing.assert_array_equal(first.curve, second.curve)
    with open_colours(tmp_path, seed=2) as run:
        assert not np.array_equal(train(run).tuned.values, first.tuned.values)


def test_contexts_begin_with_words_or_random_vectors(tmp_path: Path) -> None:
    with open_colours(tmp_path, words="a cat at") as run, TextEncoder.open(run.bundle) as encoder:
        np.testing.assert_array_equal(run.initial, encoder.embed_words("a cat at"))
    with open_colours(tmp_path, vectors=50) as run:
        assert run.initial.shape == (50, 4)
        assert run.initial.std() == pytest.approx(0.02, rel=0.2)


def test_the_head_is_that_of_the_context_in_another_process(tmp_path: Path) -> None:
    with open_colours(tmp_path, ending="{}, a beast.") as run:
        state = train(run)
        run.bundle.with_head("learnt", run.make_head(state))
    stored = Bundle.open(run.bundle.path)
    head = stored.load_head("learnt")
    np.testing.assert_array_equal(head.context, state.tuned.values)
    expected = make_head(stored, ("cat", "cow", "dog"), ["{}, a beast."], context=state.tuned.values)
    np.testing.assert_array_equal(head.weight, expected.weight)
    assert (head.class_names, head.templates) == (("cat", "cow", "dog"), ("{}, a beast.",))
    record = head.record["tuning"]
    assert (record["method"], record["shots"], record["steps"], record["seed"]) == ("zo-sapt", 4, 8, 1)
    assert record["images_sha256"] == run.task.sha256
    assert "data" in record and str(tmp_path) not in json.dumps(record)
    with Network.open(stored.select_head("learnt"), workers=1) as network:
        assert network.info.classes == 3


@pytest.mark.parametrize(
    ("stop", "options"),
    [
        (1, {}),
        (3, {}),
        (7, {}),
        (4, {"method": "zip", "crops": None, "update": "spsa-gc"}),
        (5, {"method": "zip-cached", "crops": 0, "batch": None}),
    ],
)
def test_a_continued_run_gives_the_same_result(stop: int, options: dict[str, Any], tmp_path: Path) -> None:
    path, options = tmp_path / "tuning.progress.npz", {"crops": 3, "batch": 5, **options}
    with open_colours(tmp_path, **options) as run:
        whole = train(run)
        run.training.save(path, train(run, stop))
    with open_colours(tmp_path, **options) as run:
        state = run.training.load(path, run.initial, 1)
        assert state.step == stop
        state = list(run.training.run(state, None, 0))[-1]
    np.testing.assert_array_equal(state.tuned.values, whole.tuned.values)
    np.testing.assert_array_equal(state.curve, whole.curve)


@pytest.mark.parametrize(
    "options", [{"rate": 0.2}, {"seed": 2}, {"shots": 3}, {"words": "a"}, {"classes": "base"}]
)
def test_progress_of_another_run_is_refused(options: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "tuning.progress.npz"
    with open_colours(tmp_path) as run:
        run.training.save(path, train(run, 2))
    with open_colours(tmp_path, **options) as run, pytest.raises(StateError, match=str(*options)):
        run.training.load(path, run.initial, run.spec.seed)


def test_an_interrupted_run_saves_its_last_step(tmp_path: Path) -> None:
    path = tmp_path / "tuning.progress.npz"
    with open_colours(tmp_path) as run:
        start = run.training.init(run.initial, 1)
        with pytest.raises(KeyboardInterrupt), closing(run.training.run(start, path, 1000)) as states:
            for state in states:
                if state.step == 3:
                    raise KeyboardInterrupt
        assert run.training.load(path, run.initial, 1).step == 3
        assert len(list(run.training.run(start, path, 1000))) == 8
        assert run.training.load(path, run.initial, 1).step == 8


def test_where_a_run_begins(tmp_path: Path) -> None:
    out = tmp_path / "tuning.json"
    with open_colours(tmp_path) as run:

        def begin(**options: bool) -> TrainingState | None:
            return begin_training(run, out, "learnt", **{"resume": False, "overwrite": False, **options})

        assert begin() is not None and begin(resume=True) is not None
        state = train(run)
        run.training.save(get_progress_path(out), train(run, 2))
        with pytest.raises(InputError, match="is of an interrupted run"):
            begin()
        continued = begin(resume=True)
        assert continued is not None and continued.step == 2
        restarted = begin(overwrite=True)
        assert restarted is not None and restarted.step == 0
        assert not get_progress_path(out).exists()
        bundle = run.bundle.with_head("learnt", run.make_head(state))
        save_run(out, describe_run(run, state, [], "learnt"))
        run.bundle = bundle
        with pytest.raises(InputError, match="has a head learnt already"):
            begin()
        assert begin(resume=True) is None
        assert begin(overwrite=True) is not None
    with open_colours(tmp_path, seed=3) as run, pytest.raises(InputError, match="is not of this run"):
        begin(resume=True)
    with open_colours(tmp_path) as run, pytest.raises(InputError, match="exists, perhaps with results"):
        begin_training(run, out, "other", resume=False, overwrite=False)


def test_losses_that_are_not_finite_stop_the_run(tmp_path: Path) -> None:
    with open_colours(tmp_path) as run:
        broken = replace(run.training, question=lambda features, labels: lambda c: np.full(len(c), np.nan))
        with pytest.raises(InputError, match="no longer finite in step 1; use a smaller --rate"):
            broken.advance(broken.init(run.initial, 1))


def test_accuracy_beside_the_untuned_texts(tmp_path: Path) -> None:
    with open_colours(tmp_path, epochs=40) as run:
        state = train(run)
        evaluation = evaluate_run(run, state, open_test(run, "test"))
        assert (evaluation.images, evaluation.classes) == ("data", 3)
        assert list(evaluation.results) == ["a photo of a {}.", TUNED]
        head = run.make_head(state)
        files = [run.task.data.folder / image.path for image in run.task.data.test]
        prepare = run.reader.prepare(run.bundle.manifest.preprocessing)
        logits = run.network.with_classifier(head.weight)(np.stack([prepare(str(f)) for f in files])).logits
        right = (logits.argmax(1) == [image.label for image in run.task.data.test]).sum()
        tally = evaluation.results[TUNED].tally
        assert (tally.images, tally.top1) == (3 * TEST, right)
        assert "tuned" in format_evaluation(evaluation)
        content = describe_run(run, state, [evaluation], "learnt")
        prompt = content["evaluations"][0]["prompts"][TUNED]
        assert prompt["accuracy"] == right / 12
        labels = np.array([image.label for image in run.task.data.test])
        assert prompt["macro_f1"] == pytest.approx(compute_macro_f1(labels, logits.argmax(1)), rel=1e-12)
        assert prompt["by_class"]["images"] == [TEST] * 3
        again = load_record(TallyRecord, json.loads(json.dumps(prompt)), "prompt")
        assert to_dict(MethodResult.from_tally_record(again).to_tally_record()) == prompt
        assert len(content["curve"]["loss"]) == 40 and len(content["images"]) == 12
        assert content["complete"]
        json.dumps(content)


def test_images_are_encoded_once_for_several_evaluations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_colours(tmp_path, epochs=4) as run:
        state, test, images = train(run), open_test(run, "test"), []
        forward = Network.__call__

        def count_images(self: Any, batch: Any, **tunables: Any) -> Any:
            images.append(len(batch))
            return forward(self, batch, **tunables)

        monkeypatch.setattr(Network, "__call__", count_images)
        memory: list[Any] = []
        evaluations = [evaluate_run(run, state, test, memory=memory) for _ in range(2)]
        assert sum(images) == len(test.test)
        plain = evaluate_run(run, state, test)
        assert sum(images) == 2 * len(test.test)
    for evaluation in evaluations:
        for prompt, result in plain.results.items():
            assert to_dict(evaluation.results[prompt].to_tally_record()) == to_dict(result.to_tally_record())


def test_what_may_be_classified(tmp_path: Path) -> None:
    with open_colours(tmp_path, classes="base") as run:
        assert open_test(run, "test").class_ids == open_test(run, "base").class_ids == ("cat", "cow")
        new = open_test(run, "new")
        assert (new.class_ids, len(new.test)) == (("dog",), TEST)
        assert evaluate_run(run, train(run, 1), new).results[TUNED].tally.accuracy == 1  # one class
        cows = make_colours(tmp_path / "other") / "test"
        with pytest.raises(InputError, match="has classes that were not learnt: dog"):
            open_test(run, str(cows))
        for path in (cows / "dog").iterdir():
            path.unlink()
        (cows / "dog").rmdir()
        data = open_test(run, str(cows))
        assert [image.label for image in data.test] == [0] * TEST + [1] * TEST
    with open_colours(tmp_path) as run:
        run.task = replace(run.task, data=replace(run.task.data, test=()))
        with pytest.raises(InputError, match="has no test images; name a folder"):
            open_test(run, "test")


def test_published_templates_are_classified_too(tmp_path: Path) -> None:
    with open_colours(tmp_path) as run:
        data = replace(open_test(run, "test"), published="dtd")
        assert list(evaluate_run(run, train(run, 1), data).results) == [
            "a photo of a {}.",
            "{} texture.",
            TUNED,
        ]


def test_bundles_without_texts_are_refused(tmp_path: Path) -> None:
    bundle = make(tmp_path)
    with pytest.raises(BundleError, match="has no text side"):
        open_run(bundle, make_spec(make_colours(tmp_path / "data")))
