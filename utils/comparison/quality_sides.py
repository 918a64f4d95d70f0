"""The predictions of two sides: which are compared, and whether they belong to their runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from utils.comparison.loading import RunResults, Side
from utils.comparison.quality import ReadTexts, compare_quality
from utils.core.errors import UserError, reason_of
from utils.core.files import sha256_file
from utils.core.paths import project_path
from utils.data.reader import iter_rows
from utils.schema.baseline import STEP_02
from utils.schema.comparison_quality import QualityComparison
from utils.schema.warning_codes import WarningCode

MAX_ACCURACY_ERROR = 1e-6
"""Accuracies of the same predictions differ by rounding at most."""
QUALITY_NAMES = ("accuracy", "f1_macro", "f1_weighted")
"""Metrics of quality whose change has an interval."""
SIGNIFICANCE = 0.05
"""p value of McNemar's exact test up to which a change of the accuracy is no chance."""
MIN_CHANGED_ROWS = 10
"""Changed rows from which the bootstrap is relied on: it resamples those that it has, and a few
that all changed in one direction never give the other."""
CHUNK_ROWS = 8192
"""Rows of the data set that are read together."""


class QualityResult(NamedTuple):
    """The comparison of the predictions, or why there is none; and warnings."""

    quality: QualityComparison | None
    reason: str | None
    warnings: tuple[str, ...] = ()


class QualityChange(NamedTuple):
    """The change of a metric of quality with its 95% interval, as fractions.

    ``chance`` says why it may be chance although the interval excludes 0; None where it is not.
    """

    change: float
    ci95: tuple[float, float]
    chance: str | None


def compare_predictions(
    baseline: Side, candidate: Side, refused: str | None, *, force: bool, show_texts: bool
) -> QualityResult:
    """Compare the predictions of the first run of each side that has them.

    Args:
        refused: why they cannot be compared; with ``force`` that is tried all the same.

    Raises:
        UserError: predictions are damaged, or of other rows than their run evaluated.
    """
    if refused is not None and not force:
        return QualityResult(None, refused)
    one = _run_with_predictions(baseline)
    other = _run_with_predictions(candidate)
    for side, run in ((baseline, one), (candidate, other)):
        if run is None:
            return QualityResult(None, f"the {side.name} has no predictions beside its metrics")
    assert one is not None and other is not None
    assert one.predictions is not None and other.predictions is not None
    read_texts = _text_reader(other) if show_texts else None
    try:
        quality = compare_quality(
            one.predictions,
            other.predictions,
            other.metrics.dataset_info.label_names,
            read_texts=read_texts,
        )
    except UserError as error:
        if refused is None:
            raise
        return QualityResult(None, f"{refused}; forced: {reason_of(error)}")
    _check_belonging(one, quality.num_rows, quality.accuracy_baseline)
    _check_belonging(other, quality.num_rows, quality.accuracy_candidate)
    warnings = (
        *_varying_accuracy(baseline),
        *_varying_accuracy(candidate),
        *quality.warnings,
    )
    return QualityResult(quality, refused, warnings)


def chance_reason(quality: QualityComparison, name: str) -> str | None:
    """Why a change may be chance although its interval excludes 0; None where it is not.

    The intervals hold for many rows. With few rows that differ, the exact test decides for the
    accuracy, and for F1, which has none, their number.
    """
    if name == "accuracy":
        if quality.mcnemar_p is not None and quality.mcnemar_p > SIGNIFICANCE:
            return f"McNemar's exact test has p = {quality.mcnemar_p:.2g}"
    elif quality.num_changed < MIN_CHANGED_ROWS:
        return f"only {quality.num_changed} rows changed, too few for an interval of F1"
    return None


def quality_change(result: QualityResult, name: str) -> QualityChange | str:
    """The change of a metric of quality, or why it has none."""
    if result.quality is None:
        return result.reason or "not compared"
    change: float | None = getattr(result.quality, f"{name}_change")
    interval: tuple[float, float] | None = getattr(result.quality, f"{name}_change_ci95")
    if change is None or interval is None:
        return result.quality.reason(f"{name}_change") or "not measured"
    return QualityChange(change, interval, chance_reason(result.quality, name))


def _run_with_predictions(side: Side) -> RunResults | None:
    for run in side.runs:
        if run.predictions is not None and run.evaluation is not None:
            return run
    return None


def _check_belonging(run: RunResults, num_rows: int, accuracy: float | None) -> None:
    """Raise if stored predictions are not those that the metrics of the run were made from."""
    assert run.evaluation is not None
    expected_rows = run.evaluation.num_samples
    problem = None
    if num_rows != expected_rows:
        problem = f"they have {num_rows:,} rows, the metrics are of {expected_rows:,}"
    elif _differ(accuracy, run.evaluation.accuracy):
        problem = f"their accuracy is {accuracy}, in the metrics it is {run.evaluation.accuracy}"
    if problem is not None:
        raise UserError(
            f"The stored predictions do not belong to the metrics beside them: {problem}.",
            where=run.predictions,
            fix=f"evaluate again: {STEP_02}",
        )


def _differ(one: float | None, other: float | None) -> bool:
    """Whether two accuracies are known and are not the same."""
    if one is None or other is None:
        return False
    return abs(one - other) > MAX_ACCURACY_ERROR


def _varying_accuracy(side: Side) -> list[str]:
    """A warning where processes of a side predict differently."""
    accuracies = set()
    for run in side.runs:
        if run.evaluation is not None and run.evaluation.accuracy is not None:
            accuracies.add(run.evaluation.accuracy)
    if len(accuracies) < 2:
        return []
    warning = WarningCode.OUTPUTS.warn(
        f"the processes of the {side.name} predict differently: accuracy {min(accuracies):.4f} to "
        f"{max(accuracies):.4f}; the predictions of the first are compared"
    )
    return [warning]


def _text_reader(run: RunResults) -> ReadTexts:
    """Reads texts from the data set of a run.

    Raises:
        UserError: the data set is no longer there or has changed.
    """
    data = run.metrics.dataset_info
    path = project_path(data.path)

    def read_texts(row_ids: Sequence[int]) -> Mapping[int, str]:
        if not path.is_file() or sha256_file(path) != data.sha256:
            raise UserError(
                "The texts cannot be shown: the data set is not there, or has changed since.",
                where=path,
                fix="bring the data set back, or leave --show-texts out",
            )
        wanted = set(row_ids)
        texts = {}
        for rows in iter_rows(path, CHUNK_ROWS):
            for position, text in enumerate(rows.texts, start=rows.start):
                if position in wanted:
                    texts[position] = text
        return texts

    return read_texts
