"""The six answers as cards: one large number each, with its interval and whether to trust it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from utils.core.rounding import Rounded, round_value
from utils.reporting import roads
from utils.reporting.answers import six_answers
from utils.reporting.commands import STEP_03_MISSING
from utils.reporting.evaluation_facts import has_guessed_labels, majority_text
from utils.reporting.formatting import format_number, not_measured
from utils.reporting.page.verdicts import VERDICTS
from utils.reporting.results import Results
from utils.reporting.sweeps import NO_BATCH_SIZE_FINISHED
from utils.reporting.warning_groups import short_reasons
from utils.schema.batch_size import SweepRow
from utils.schema.diagnosis import BatchSizeDiagnosis, Diagnosis
from utils.schema.evaluation import EvaluationMetrics

NOT_STABLE = "not stable"
CLOSE = "another verdict is almost as likely"
LARGE_PADDING = 0.1
"""Share of the tokens from which a reader asks why nobody suggests to avoid the padding."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Card:
    """One answer.

    Args:
        value: the large number or word; a dash where there is none.
        mark: why the value is not to be relied on; empty where it may be.
        details: what the number is, and what stands beside it.
        source: the file that has it.
    """

    value: str
    question: str = ""
    unit: str = ""
    interval: str = ""
    mark: str = ""
    details: tuple[str, ...] = ()
    source: str = ""


def six_cards(results: Results) -> list[Card]:
    """The cards in the order of the six answers."""
    answers = six_answers(results)
    contents = (
        _latency(results),
        _batch_size(results),
        _throughput(results),
        _memory(results),
        _bottleneck(results),
        _accuracy(results),
    )
    cards = []
    for answer, content in zip(answers, contents, strict=True):
        cards.append(replace(content, question=answer.question, source=answer.source))
    return cards


def _interval(rounded: Rounded) -> str:
    if not rounded.interval:
        return ""
    return f"95% interval {rounded.interval}"


def _stability_mark(row: SweepRow | None) -> str:
    """Why the times of a batch size are not to be relied on."""
    if row is None or row.stable is not False:
        return ""
    reasons = short_reasons(row.warnings)
    if not reasons:
        return NOT_STABLE
    return f"{NOT_STABLE}: {', '.join(reasons)}"


def _missing(reason: str | None) -> Card:
    return Card(value="–", details=(not_measured(reason),))


def _latency(results: Results) -> Card:
    """The median of the smallest batch size, which is one text wherever that was measured."""
    rows = [
        row for row in results.sweep.measured_rows if row.latency_per_batch_ms_median is not None
    ]
    if not rows:
        return _latency_of_evaluation(results.evaluation)
    row = rows[0]
    median_ms = row.latency_per_batch_ms_median
    assert median_ms is not None
    what = "one text alone" if row.batch_size == 1 else f"a batch of {row.batch_size} texts"
    details = [f"{what}, median ({roads.SWEEP})"]
    details += _spread(row)
    if row.latency_per_batch_ms_p95 is not None:
        p95 = round_value(
            row.latency_per_batch_ms_p95,
            row.latency_per_batch_ms_p95_ci95_low,
            row.latency_per_batch_ms_p95_ci95_high,
        )
        details.append(f"95% of them are at most {p95.value} ms")
    return Card(
        value=round_value(median_ms).value,
        unit="ms",
        interval=_interval_of_average(row),
        mark=_stability_mark(row),
        details=tuple(details),
    )


def _latency_of_evaluation(evaluation: EvaluationMetrics | None) -> Card:
    if evaluation is None:
        return _missing(NO_BATCH_SIZE_FINISHED)
    return Card(
        value=round_value(evaluation.latency_per_sample_ms).value,
        unit="ms per text",
        details=(f"{roads.EVALUATION}; the sweep: {NO_BATCH_SIZE_FINISHED}",),
    )


def _interval_of_average(row: SweepRow) -> str:
    """Where another process's average time of one text lies; empty where that is not known.

    The interval is of the average over a run, in the middle one of the runs. The median over all
    texts, which the card shows, has none.
    """
    value = row.latency_per_sample_ms_median
    low = row.latency_per_sample_ms_median_ci95_low
    high = row.latency_per_sample_ms_median_ci95_high
    if row.batch_size != 1 or value is None or low is None or high is None:
        return ""
    interval = round_value(value, low, high).interval
    return f"average of a run: {round_value(value, low, high).value} ms (95% interval {interval})"


def _spread(row: SweepRow) -> list[str]:
    """How far half of the batches are from the median."""
    # The median absolute deviation.
    if row.latency_per_batch_ms_mad is None:
        return []
    mad_ms = round_value(row.latency_per_batch_ms_mad).value
    return [f"half of the measured times are at most {mad_ms} ms from it"]


def _batch_size(results: Results) -> Card:
    best = results.metrics.optimal_batch_size
    if best is None:
        return _missing(NO_BATCH_SIZE_FINISHED)
    details = [best.criterion]
    tied = [str(size) for size in best.tied_with if size != best.batch_size]
    if tied:
        details.append(f"no measurable difference to batches of {', '.join(tied)}")
    diagnosis = results.diagnosis
    if diagnosis is not None and diagnosis.saturation is not None:
        details.append(diagnosis.saturation.sentence)
    return Card(
        question="",
        value=str(best.batch_size),
        unit="text in a batch" if best.batch_size == 1 else "texts in a batch",
        mark=_stability_mark(roads.row_of(results, best.batch_size)),
        details=tuple(details),
    )


def _throughput(results: Results) -> Card:
    """The larger throughput of the two roads, with the other one beside it."""
    fastest = roads.fastest_speed(results)
    if fastest is None:
        return _missing(NO_BATCH_SIZE_FINISHED)
    rounded = round_value(fastest.samples_per_s, fastest.low, fastest.high)
    mark = _stability_mark(fastest.row)
    if fastest.row is None and roads.is_noisy(results):
        mark = f"{NOT_STABLE}: no batch size of the sweep is stable"
    return Card(
        value=rounded.value,
        unit="texts/s",
        interval=_interval(rounded),
        mark=mark,
        details=(_road_text(results, fastest), _other_road(results, fastest)),
    )


def _road_text(results: Results, speed: roads.Speed) -> str:
    if speed.row is not None:
        return f"{speed.road}, batch size {speed.row.batch_size}"
    evaluation = results.evaluation
    assert evaluation is not None
    text = f"{speed.road}: one pass over {evaluation.num_samples:,} texts"
    if evaluation.batching == "token_budget":
        text += ", where texts of similar length share a batch"
    return text


def _other_road(results: Results, fastest: roads.Speed) -> str:
    """The throughput of the other road, or why it has none."""
    if fastest.row is None:
        other = roads.sweep_speed(results)
        reason = f"{roads.SWEEP}: {NO_BATCH_SIZE_FINISHED}"
    else:
        other = roads.evaluation_speed(results)
        reason = f"{roads.EVALUATION}: {not_measured(results.metrics.not_evaluated)}"
    if other is None:
        return reason
    rounded = round_value(other.samples_per_s, other.low, other.high)
    interval = f" ({_interval(rounded)})" if rounded.interval else ""
    return f"{rounded.value} texts/s{interval} in the {_road_text(results, other)}"


def _memory(results: Results) -> Card:
    evaluation = results.evaluation
    if evaluation is None:
        return _missing(results.metrics.not_evaluated)
    weights = f"of which the weights: {format_number(results.metrics.model_info.total_size_mb)} MB"
    if not results.on_gpu:
        used = evaluation.cpu_mem_used
        if used is None:
            return _missing(evaluation.reason("cpu_mem_used") or "the file has none")
        return Card(
            value=round_value(used).value,
            unit="MB",
            details=(f"resident memory of the process ({roads.EVALUATION})", weights),
        )
    peak = evaluation.peak_gpu_mem
    if peak is None:
        return _missing(evaluation.reason("peak_gpu_mem") or "the file has none")
    after_chunk = f"{format_number(evaluation.gpu_mem_used, 'MB')} after a chunk"
    return Card(
        value=round_value(peak).value,
        unit="MB",
        details=(f"peak of the GPU memory ({roads.EVALUATION})", after_chunk, weights),
    )


def _bottleneck(results: Results) -> Card:
    diagnosis = results.diagnosis
    if diagnosis is None:
        return _missing(STEP_03_MISSING)
    item = main_diagnosis(results, diagnosis)
    if item is None:
        return _missing("no batch size was diagnosed")
    mark = ""
    details = [item.sentence]
    if item.confidence == "low":
        # The section about the bottleneck has all reasons.
        mark = f"low confidence: {item.doubts[0] if item.doubts else CLOSE}"
    elif roads.is_noisy(results):
        mark = "the times that it rests on are not stable"
    elif item.confidence is not None:
        details.insert(0, f"Confidence of this verdict: {item.confidence}.")
    if (item.padding_fraction or 0.0) >= LARGE_PADDING:
        # What is applied already is not suggested again.
        details += diagnosis.applied
    return Card(
        question="",
        value=VERDICTS[item.verdict].name,
        unit=f"at batch size {item.batch_size}",
        mark=mark,
        details=tuple(details),
    )


def main_diagnosis(results: Results, diagnosis: Diagnosis) -> BatchSizeDiagnosis | None:
    """The verdict of the best batch size; of the largest one where that was not diagnosed."""
    best = results.metrics.optimal_batch_size
    for item in diagnosis.batch_sizes:
        if best is not None and item.batch_size == best.batch_size:
            return item
    return max(diagnosis.batch_sizes, key=lambda item: item.batch_size, default=None)


def accuracy_percent(evaluation: EvaluationMetrics) -> Rounded:
    """The accuracy in percent; it must have been measured."""
    assert evaluation.accuracy is not None
    low = evaluation.accuracy_ci95_low
    high = evaluation.accuracy_ci95_high
    if low is None or high is None:
        return round_value(100 * evaluation.accuracy)
    return round_value(100 * evaluation.accuracy, 100 * low, 100 * high)


def _accuracy(results: Results) -> Card:
    evaluation = results.evaluation
    if evaluation is None:
        return _missing(results.metrics.not_evaluated)
    if evaluation.accuracy is None:
        reason = evaluation.reason("accuracy")
        if reason is None and results.metrics.model_info.weights == "dummy":
            reason = "the weights are random (dummy)"
        return _missing(reason or "no row has a label")
    rounded = accuracy_percent(evaluation)
    details = [f"of {evaluation.num_labelled or 0:,} labelled texts are predicted right"]
    majority = majority_text(evaluation, in_percent=True)
    if majority is not None:
        details.append(majority)
    mark = ", ".join(short_reasons(evaluation.warnings))
    if has_guessed_labels(results.metrics.dataset_info):
        mark = "only if the label ids are right: they were guessed"
    return Card(
        value=rounded.value,
        unit="%",
        interval=_interval(rounded),
        mark=mark,
        details=tuple(details),
    )
