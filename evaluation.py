"""Public interface for experiments: data sets, streams, evaluation, results and reports.

Everything here may be imported as `fozo.evaluation.NAME`. Modules below `fozo.eval` are internal.
"""

from .data.image_reader import ImageReader
from .data.reading import Reading
from .eval.corruptions.corruption_registry import corrupt
from .eval.datasets.dataset_registry import open_dataset
from .eval.datasets.dataset_request import DatasetRequest
from .eval.datasets.domain import Domain
from .eval.datasets.image_folder import load_image_folder
from .eval.datasets.subset import choose_subset
from .eval.predict.class_list import read_class_list
from .eval.predict.image_paths import resolve_inputs
from .eval.predict.predict import predict
from .eval.predict.prediction_row import Guess, Row
from .eval.predict.watch import Watch
from .eval.protocol import SETTINGS, Protocol
from .eval.report.digest.report_digest import digest_results
from .eval.report.digest.sources import collect_results
from .eval.report.html.page import render as render_page
from .eval.report.markdown import render as render_markdown
from .eval.results.average import MethodAverage, compute_averages, compute_mean_corruption_error
from .eval.results.outcome import DomainResult, MethodResult, Run
from .eval.results.results_file import Results, read_results
from .eval.results.run_facts import results_of_run
from .eval.streaming.experiment import Experiment, prepare
from .eval.streaming.runner import evaluate
from .eval.streaming.spec import EvaluationSpec
from .eval.streaming.stream import shuffle_order

__all__ = [
    "SETTINGS",
    "DatasetRequest",
    "Domain",
    "DomainResult",
    "EvaluationSpec",
    "Experiment",
    "Guess",
    "ImageReader",
    "MethodAverage",
    "MethodResult",
    "Protocol",
    "Reading",
    "Results",
    "Row",
    "Run",
    "Watch",
    "choose_subset",
    "collect_results",
    "compute_averages",
    "compute_mean_corruption_error",
    "corrupt",
    "digest_results",
    "evaluate",
    "load_image_folder",
    "open_dataset",
    "predict",
    "prepare",
    "read_class_list",
    "read_results",
    "render_markdown",
    "render_page",
    "resolve_inputs",
    "results_of_run",
    "shuffle_order",
]
