"""A prompt for digits in negative, learnt by the tiny CLIP that ships with fozo."""

from __future__ import annotations

from pathlib import Path

from doubles import load_script
from fozo.data.demo import DEMO_CLIP_BUNDLE
from fozo.engine.bundle.bundle import Bundle
from fozo.eval.tuning.tuning_evaluation import TUNED, evaluate_run, open_test
from fozo.eval.tuning.tuning_presets import PRESETS
from fozo.eval.tuning.tuning_run import open_run
from fozo.eval.tuning.tuning_spec import TuningSpec

ROOT = Path(__file__).resolve().parents[3]


def test_random_vectors_become_better_than_the_plain_template(tmp_path: Path) -> None:
    load_script(ROOT / "tools" / "negative_digits.py").write_folders(tmp_path)
    options = {**PRESETS["zip-cached"], "words": "", "vectors": 4, "dimension": 100, "budget": 300}
    with open_run(Bundle.open(DEMO_CLIP_BUNDLE), TuningSpec(tmp_path, "zip-cached", **options)) as run:
        state = run.training.init(run.initial, run.spec.seed)
        while state.step < run.training.steps:
            state = run.training.advance(state)
        results = evaluate_run(run, state, open_test(run, "test")).results
    assert state.step == 30
    assert results[TUNED].tally.accuracy > results["a photo of a {}."].tally.accuracy + 0.2
