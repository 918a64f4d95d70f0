"""The diagnosis of a loaded model: measure and trace batch sizes, name what limits them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch

from utils.config_loader import Config
from utils.core.errors import UserError
from utils.core.files import write_json
from utils.diagnosis import profiling, roofline
from utils.diagnosis.baseline_sweep import BaselineSweep, choose_throughputs, read_sweep
from utils.diagnosis.bottleneck import CONFIDENCE_RULE, Bottleneck, classify_bottleneck
from utils.diagnosis.evidence import Evidence
from utils.diagnosis.findings import ESTIMATE, Findings, Suggestion
from utils.diagnosis.forecast import MAX_FIT_ERROR, Forecast, fit_time_model
from utils.diagnosis.measurement import MeasuredSize, measure_batch_size
from utils.diagnosis.roofline import Ceilings
from utils.diagnosis.saturation import Saturation, find_saturation
from utils.diagnosis.suggestions import SHOWN_FIRST, rank_suggestions
from utils.evaluation.predictor import CPU_BUDGETS, CUDA_BUDGETS
from utils.evaluation.tokens import tokenize
from utils.model_utils import LoadedModel, check_on_texts
from utils.pipeline import console
from utils.schema.diagnosis_versions import DIAGNOSIS_VERSION
from utils.sweep.sample import draw_texts
from utils.system.device import is_out_of_memory


@dataclass(frozen=True, kw_only=True, slots=True)
class SizeDiagnosis:
    """What was measured at one batch size, and what limits it."""

    evidence: Evidence
    bottleneck: Bottleneck

    def to_dict(self) -> dict[str, Any]:
        return {
            "batch_size": self.evidence.batch_size,
            **self.bottleneck.to_dict(),
            "evidence": self.evidence.to_dict(),
            "padding_fraction": self.evidence.padding_fraction,
            "measured_ms": self.evidence.total_ms,
            "roofline_ms": self.evidence.roofline_ms,
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class Diagnosis:
    """What ``bottlenecks.json`` holds.

    Args:
        detail_batch_size: the one that profile and suggestions belong to.
        suggestions: the largest saving first.
        verified_at: when the suggestions were tried; None where they were not.
    """

    device: str
    dtype: str
    matmul_precision: str
    ceilings: Ceilings
    detail_batch_size: int
    profile: profiling.DetailedProfile
    batch_sizes: tuple[SizeDiagnosis, ...]
    saturation: Saturation
    suggestions: tuple[Suggestion, ...]
    headline: str
    verified_at: str | None = None
    warnings: tuple[str, ...] = field(default=())

    def to_dict(self) -> dict[str, Any]:
        suggestions = [suggestion.to_dict() for suggestion in self.suggestions]
        peak = self.profile.memory_peak
        on_device = self.profile.kernels
        return {
            "schema_version": DIAGNOSIS_VERSION,
            "device": self.device,
            "dtype": self.dtype,
            "matmul_precision": self.matmul_precision,
            "ceilings": asdict(self.ceilings),
            "detail_batch_size": self.detail_batch_size,
            "tracing_overhead_ratio": self.profile.tracing_overhead_ratio,
            "layers_by_kind": self.profile.layers_by_kind,
            "layers_by_index": self.profile.layers_by_index,
            "batch_sizes": [size.to_dict() for size in self.batch_sizes],
            "confidence_rule": CONFIDENCE_RULE,
            "saturation": self.saturation.to_dict(),
            "suggestions": suggestions[:SHOWN_FIRST],
            "further_suggestions": suggestions[SHOWN_FIRST:],
            "main_bottleneck": self.headline,
            "verified_at": self.verified_at,
            "warnings": list(self.warnings),
            "kernels": None if on_device is None else asdict(on_device),
            "peak_memory": None if peak is None else asdict(peak),
            "unavailable": self.profile.unavailable,
        }


def diagnose(loaded: LoadedModel, config: Config) -> Diagnosis:
    """Measure, trace and classify; write trace, stacks, operators, layers and ``bottlenecks.json``.

    Raises:
        DataError: there is no data set.
        UserError: not even the smallest batch fits into memory.
    """
    sweep = read_sweep(config)
    sample = draw_texts(loaded, config, config.dataset.sample_sizes[0])
    warnings = [*sweep.warnings, *sample.warnings]
    warnings += check_on_texts(loaded, sample.texts, config.profiling.max_length)
    dtype = getattr(torch, loaded.info.dtype)
    with torch.inference_mode():
        ceilings = roofline.load_or_measure_ceilings(loaded.device, dtype, config.files.ceilings)
        measured = _measure_sizes(loaded, sample.texts, sweep.sizes, ceilings, config)
        for size in sweep.sizes:
            if size not in measured:
                warnings.append(f"Batch size {size} does not fit into memory and is left out.")
            else:
                warnings += measured[size].warnings
        diagnosis = _build_diagnosis(loaded, sample.texts, measured, sweep, ceilings, config)
    all_warnings = dict.fromkeys((*warnings, *diagnosis.warnings))
    diagnosis = replace(diagnosis, warnings=tuple(all_warnings))
    write_json(config.files.bottlenecks, diagnosis.to_dict())
    return diagnosis


def make_forecast(
    loaded: LoadedModel,
    texts: Sequence[str],
    size: int,
    evidence_by_size: Mapping[int, Evidence],
    config: Config,
) -> tuple[Forecast | None, tuple[str, ...]]:
    """What other batches of the same texts would take; None, with a warning, where not known."""
    timed = [forward for evidence in evidence_by_size.values() for forward in evidence.timed]
    model = fit_time_model(timed, loaded.device.type)
    reason = None
    if model is None:
        reason = "Batches of too few different shapes were timed"
    elif model.error > MAX_FIT_ERROR:
        reason = (
            f"Forward times follow from rows and tokens within {model.error:.0%} only (limit"
            f" {MAX_FIT_ERROR:.0%}), as on a busy machine"
        )
    if model is None or reason is not None:
        return None, (f"{reason}: what other batches would save is not predicted.",)
    configured_budget = config.evaluation.max_tokens_per_batch
    if configured_budget != "auto":
        budgets: tuple[int, ...] = (configured_budget,)
    elif loaded.device.type == "cuda":
        budgets = CUDA_BUDGETS
    else:
        budgets = CPU_BUDGETS
    max_length = config.profiling.max_length
    lengths = tokenize(loaded.tokenizer, texts, max_length, loaded.inputs).lengths
    return Forecast(model=model, lengths=lengths, batch_size=size, budgets=budgets), ()


def _measure_sizes(
    loaded: LoadedModel,
    texts: Sequence[str],
    sizes: Sequence[int],
    ceilings: Ceilings,
    config: Config,
) -> dict[int, MeasuredSize]:
    """The batch sizes that fit into memory.

    Raises:
        UserError: none does.
    """
    measured = {}
    max_length = config.profiling.max_length
    for size in console.progress(sizes, what="Profiling batch sizes", unit="size"):
        try:
            measured[size] = measure_batch_size(loaded, texts, size, max_length, ceilings)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            torch.cuda.empty_cache()
    if not measured:
        raise UserError(
            "No batch size fits into memory.",
            where="profiling.batch_sizes",
            fix="--set profiling.batch_sizes=[1] or a smaller profiling.max_length",
        )
    return measured


def _build_diagnosis(
    loaded: LoadedModel,
    texts: Sequence[str],
    measured: Mapping[int, MeasuredSize],
    sweep: BaselineSweep,
    ceilings: Ceilings,
    config: Config,
) -> Diagnosis:
    """What limits each batch size, and the profile and suggestions of one of them."""
    evidence_by_size = {size: one.evidence for size, one in measured.items()}
    detail = sweep.optimal if sweep.optimal in measured else max(measured)
    forecast, warnings = make_forecast(loaded, texts, detail, evidence_by_size, config)
    profile = profiling.profile_sizes(measured, detail, ceilings, config)
    bottlenecks = {size: classify_bottleneck(one) for size, one in evidence_by_size.items()}
    throughputs, source = choose_throughputs(sweep, sorted(bottlenecks), forecast)
    saturation = find_saturation(throughputs, source, bottlenecks)
    products = profiling.largest_products(profile.op_costs)
    too_large = sweep.out_of_memory | (set(sweep.sizes) - measured.keys())
    findings = Findings(
        evidence=evidence_by_size[detail],
        groups=profile.groups,
        module_ms=profile.module_ms,
        product_speedups=roofline.product_speedups(products, loaded.device, ceilings),
        forecast=forecast,
        largest_batch=max([*bottlenecks, *sweep.batch_sizes]),
        too_large=min(too_large, default=None),
    )
    suggestions = rank_suggestions(findings, config)
    return Diagnosis(
        device=str(loaded.device),
        dtype=loaded.info.dtype,
        matmul_precision=config.model.matmul_precision,
        ceilings=ceilings,
        detail_batch_size=detail,
        profile=profile,
        batch_sizes=_diagnose_sizes(evidence_by_size, bottlenecks),
        saturation=saturation,
        suggestions=suggestions,
        headline=_headline(bottlenecks[detail], saturation, suggestions),
        warnings=(*warnings, *profile.warnings, *_unknown_operators(evidence_by_size)),
    )


def _diagnose_sizes(
    evidence_by_size: Mapping[int, Evidence], bottlenecks: Mapping[int, Bottleneck]
) -> tuple[SizeDiagnosis, ...]:
    diagnoses = []
    for size, evidence in evidence_by_size.items():
        diagnoses.append(SizeDiagnosis(evidence=evidence, bottleneck=bottlenecks[size]))
    return tuple(diagnoses)


def _unknown_operators(evidence_by_size: Mapping[int, Evidence]) -> tuple[str, ...]:
    """A warning that names the operators without a FLOP formula, if there are any."""
    names: set[str] = set()
    for evidence in evidence_by_size.values():
        names.update(evidence.unknown_operators)
    if not names:
        return ()
    return (
        f"No FLOP formula is known for {', '.join(sorted(names))}: their bytes are counted, their"
        " FLOPs are not.",
    )


def _headline(
    bottleneck: Bottleneck, saturation: Saturation, suggestions: Sequence[Suggestion]
) -> str:
    """The verdict, where larger batches stop helping, and what to try first."""
    sentences = f"{bottleneck.sentence} Confidence: {bottleneck.confidence}. {saturation.sentence}"
    if not suggestions:
        return f"{sentences} Nothing that was looked for would save 1% or more."
    # What is known to be saved comes before what may be saved at most.
    estimates = [one for one in suggestions[:SHOWN_FIRST] if one.prediction == ESTIMATE]
    first = estimates[0] if estimates else suggestions[0]
    amount = "about" if first.prediction == ESTIMATE else "at most"
    return (
        f"{sentences} First to try: {first.advice} ({first.title}, {amount}"
        f" {first.saving_pct:.0f}% of the batch time)."
    )
