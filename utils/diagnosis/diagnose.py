"""The diagnosis of a loaded model: measure and trace batch sizes, name what limits them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch

from utils.core.errors import UserError
from utils.diagnosis import profiling, roofline
from utils.diagnosis.applied import describe_applied, with_measured
from utils.diagnosis.attention import why_no_attention
from utils.diagnosis.baseline_sweep import BaselineSweep, choose_throughputs, read_sweep
from utils.diagnosis.bottleneck import CONFIDENCE_RULE, classify_bottleneck
from utils.diagnosis.diagnosis_settings import DiagnosisSettings
from utils.diagnosis.doubts import find_doubts, with_doubts
from utils.diagnosis.evidence import Evidence
from utils.diagnosis.findings import Findings, PresentSettings
from utils.diagnosis.forecast import Forecast, make_forecast
from utils.diagnosis.headline import main_bottleneck_text, rank
from utils.diagnosis.measurement import MeasuredSize, measure_batch_size, observe_device
from utils.diagnosis.saturation import find_saturation
from utils.diagnosis.suggestions import rank_suggestions
from utils.evaluation.budget_search import budgets_of
from utils.evaluation.masking import choose_min_fill
from utils.evaluation.tokens import tokenize
from utils.model_utils import LoadedModel, check_on_texts
from utils.pipeline import console
from utils.schema.ceilings import Ceilings
from utils.schema.diagnosis import (
    DIAGNOSIS_VERSION,
    BatchSizeDiagnosis,
    Bottleneck,
    Diagnosis,
    TimedForward,
    save_diagnosis,
)
from utils.schema.warning_codes import WarningCode
from utils.settings import EvaluationConfig
from utils.sweep.noise import noise_text
from utils.sweep.sample import draw_texts
from utils.system.device import catch_out_of_memory
from utils.system.process import use_tokenizer_threads_of_sweep

SHOWN_FIRST = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Measurements:
    """All that was measured, before anything is concluded from it.

    Args:
        evidence_by_size: of the batch sizes that fit into memory.
        detail_batch_size: the one that profile, forecast and speed-ups belong to.
        forecast: None where the time of other batches cannot be predicted.
        product_speedups: how many times faster the matrix products are by setting of ``model``.
    """

    ceilings: Ceilings
    evidence_by_size: Mapping[int, Evidence]
    detail_batch_size: int
    profile: profiling.DetailedProfile
    forecast: Forecast | None
    product_speedups: Mapping[str, float]
    warnings: tuple[str, ...]


def diagnose(loaded: LoadedModel, settings: DiagnosisSettings) -> Diagnosis:
    """Measure, trace and classify; write trace, stacks, operators, layers and ``bottlenecks.json``.

    Raises:
        DataError: there is no data set.
        UserError: not even the smallest batch fits into memory.
    """
    sweep = read_sweep(settings.files.metrics, settings.model, settings.profiling.batch_sizes)
    sample = draw_texts(loaded, settings.data_file, settings.profiling, settings.sample_size)
    checked = check_on_texts(loaded, sample.texts, settings.profiling.max_length)
    with torch.inference_mode(), use_tokenizer_threads_of_sweep(loaded.device.type):
        measurements = _measure(loaded, sample.texts, sweep, settings)
    diagnosis = conclude(measurements, sweep, settings.present, str(loaded.device))
    warnings = dict.fromkeys((*sweep.warnings, *sample.warnings, *checked, *diagnosis.warnings))
    diagnosis = diagnosis.model_copy(update={"warnings": tuple(warnings)})
    save_diagnosis(settings.files.bottlenecks, diagnosis)
    return diagnosis


def _measure(
    loaded: LoadedModel, texts: Sequence[str], sweep: BaselineSweep, settings: DiagnosisSettings
) -> Measurements:
    """Time the batch sizes of the sweep; profile one of them in detail."""
    profiled = settings.profiling
    dtype = getattr(torch, loaded.info.dtype)
    ceilings = roofline.load_or_measure_ceilings(loaded.device, dtype, settings.files.ceilings)
    measured = _measure_sizes(loaded, texts, sweep.sizes, profiled.max_length, ceilings)
    warnings: list[str] = []
    for size in sweep.sizes:
        if size in measured:
            warnings += measured[size].warnings
        else:
            warnings.append(
                WarningCode.MEMORY.warn(
                    f"batch size {size} does not fit into memory and is left out of the diagnosis"
                )
            )
    detail = sweep.optimal if sweep.optimal in measured else max(measured)
    evidence_by_size = {size: one.evidence for size, one in measured.items()}
    timed: list[TimedForward] = []
    for evidence in evidence_by_size.values():
        timed += evidence.timed_forwards
    forecast, reason = make_forecast(
        timed,
        tokenize(loaded.tokenizer, texts, profiled.max_length, loaded.inputs).lengths,
        detail,
        token_budgets(settings.evaluation, loaded.device),
        choose_min_fill(loaded.model, loaded.inputs, loaded.device),
        loaded.device.type,
    )
    if reason is not None:
        warnings.append(
            WarningCode.FORECAST.warn(f"{reason}, so that savings of other batches are not known")
        )
    profile = profiling.profile_sizes(
        measured, detail, ceilings, settings.files, profiled.trace_steps
    )
    products = profiling.largest_products(profile.op_costs)
    return Measurements(
        ceilings=ceilings,
        evidence_by_size=evidence_by_size,
        detail_batch_size=detail,
        profile=profile,
        forecast=forecast,
        product_speedups=roofline.product_speedups(products, loaded.device, ceilings),
        warnings=(*warnings, *profile.warnings),
    )


def token_budgets(settings: EvaluationConfig, device: torch.device) -> tuple[int, ...]:
    """The token budgets that the evaluation tries, or the one that is set."""
    if settings.max_tokens_per_batch != "auto":
        return (settings.max_tokens_per_batch,)
    return budgets_of(device)


def _measure_sizes(
    loaded: LoadedModel,
    texts: Sequence[str],
    sizes: Sequence[int],
    max_length: int,
    ceilings: Ceilings,
) -> dict[int, MeasuredSize]:
    """The batch sizes that fit into memory.

    Raises:
        UserError: none does.
    """
    timed = {}
    for size in console.progress(sizes, what="Profiling batch sizes", unit="size"):
        one = _unless_out_of_memory(
            partial(measure_batch_size, loaded, texts, size, max_length, ceilings)
        )
        if one is not None:
            timed[size] = one
    # Traces make later launches slower, so they come after all that is timed.
    measured = {}
    for size, one in timed.items():
        observed = _unless_out_of_memory(partial(observe_device, one))
        if observed is not None:
            measured[size] = observed
    if not measured:
        raise UserError(
            "No batch size fits into memory.",
            where="profiling.batch_sizes",
            fix="--set profiling.batch_sizes=[1] or a smaller profiling.max_length",
        )
    return measured


def _unless_out_of_memory(measure: Callable[[], MeasuredSize]) -> MeasuredSize | None:
    result = None
    with catch_out_of_memory() as memory:
        result = measure()
    if memory.reason is not None:
        torch.cuda.empty_cache()
    return result


def conclude(
    measurements: Measurements, sweep: BaselineSweep, settings: PresentSettings, device: str
) -> Diagnosis:
    """What limits each batch size and what to try, from what was measured alone."""
    evidence_by_size = measurements.evidence_by_size
    detail = measurements.detail_batch_size
    profile = measurements.profile
    bottlenecks = {}
    for size, evidence in evidence_by_size.items():
        doubts = find_doubts(evidence, sweep.row(size))
        bottlenecks[size] = with_doubts(classify_bottleneck(evidence), doubts)
    throughputs, source = choose_throughputs(sweep, sorted(bottlenecks), measurements.forecast)
    saturation = find_saturation(throughputs, source, bottlenecks)
    suggestions = rank_suggestions(_findings(measurements, sweep), settings)
    measured = [with_measured(suggestion, sweep.evaluation) for suggestion in suggestions]
    suggestions = tuple(sorted(measured, key=rank))
    noise = noise_text(sweep.rows)
    main_bottleneck = main_bottleneck_text(
        bottlenecks[detail], saturation, suggestions, is_noisy=bool(noise)
    )
    return Diagnosis(
        schema_version=DIAGNOSIS_VERSION,
        device=device,
        dtype=measurements.ceilings.dtype,
        matmul_precision=settings.model.matmul_precision,
        ceilings=measurements.ceilings,
        detail_batch_size=detail,
        tracing_overhead_ratio=profile.tracing_overhead_ratio,
        layers_by_kind=profile.layers_by_kind,
        layers_by_index=profile.layers_by_index,
        batch_sizes=_describe_batch_sizes(bottlenecks, evidence_by_size, sweep),
        confidence_rule=CONFIDENCE_RULE,
        saturation=saturation,
        suggestions=suggestions[:SHOWN_FIRST],
        further_suggestions=suggestions[SHOWN_FIRST:],
        applied=describe_applied(settings, sweep.evaluation),
        noise=noise or None,
        main_bottleneck=main_bottleneck,
        attention=profile.attention or None,
        kernels=profile.kernels,
        peak_memory=profile.peak_memory,
        warnings=(*measurements.warnings, *_unknown_operators(evidence_by_size.values())),
        unavailable=profile.unavailable | why_no_attention(profile.attention),
    )


def _findings(measurements: Measurements, sweep: BaselineSweep) -> Findings:
    """What is known of the batch size that suggestions are made for."""
    measured_sizes = measurements.evidence_by_size.keys()
    too_large = sweep.out_of_memory | (set(sweep.sizes) - measured_sizes)
    profile = measurements.profile
    detail = measurements.detail_batch_size
    evidence = measurements.evidence_by_size[detail]
    return Findings(
        evidence=evidence,
        groups=profile.groups,
        attention=[use for use in profile.attention if use.batch_size == detail],
        module_ms=profile.module_ms,
        product_speedups=measurements.product_speedups,
        forecast=measurements.forecast,
        largest_batch=max([*measured_sizes, *sweep.batch_sizes]),
        too_large=min(too_large, default=None),
        cpu_threads=torch.get_num_threads() if evidence.device == "cpu" else None,
    )


def _describe_batch_sizes(
    bottlenecks: Mapping[int, Bottleneck],
    evidence_by_size: Mapping[int, Evidence],
    sweep: BaselineSweep,
) -> tuple[BatchSizeDiagnosis, ...]:
    described = []
    for size, evidence in evidence_by_size.items():
        row = sweep.row(size)
        forward_ms = None if row is None else row.forward_ms_mean
        described.append(describe_batch_size(bottlenecks[size], evidence, forward_ms))
    return tuple(described)


def describe_batch_size(
    bottleneck: Bottleneck, evidence: Evidence, sweep_forward_ms: float | None = None
) -> BatchSizeDiagnosis:
    """The verdict with the evidence and what follows from it.

    Args:
        sweep_forward_ms: the forward pass as the sweep has measured it.
    """
    return BatchSizeDiagnosis(
        **dict(bottleneck),
        evidence=evidence,
        shares=evidence.shares,
        padding_fraction=evidence.padding_fraction,
        measured_ms=evidence.total_ms,
        roofline_ms=evidence.roofline_ms,
        overhead_ms=evidence.overhead_ms,
        padding_ms=evidence.padding_ms,
        sweep_forward_ms=sweep_forward_ms,
    )


def _unknown_operators(evidences: Iterable[Evidence]) -> tuple[str, ...]:
    """A warning that names the operators without a FLOP formula, if there are any."""
    names: set[str] = set()
    for evidence in evidences:
        names.update(evidence.unknown_operators)
    if not names:
        return ()
    warning = WarningCode.OPERATORS.warn(
        f"the arithmetic of {', '.join(sorted(names))} is not counted, because no formula is known;"
        " the bytes that they move are"
    )
    return (warning,)
