"""The batch-size sweep of step 02: every sample size measured, an interrupted one continued."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from utils.baseline.checkpoint import (
    SweepCheckpoint,
    checkpoint_writer,
    load_checkpoint,
)
from utils.baseline.later_steps import StartTimes, later_steps
from utils.baseline.resume import count_evaluated_rows, resume_lines
from utils.baseline.run_time import RestOfRun, TimeAnnouncer, evaluation_work, price_of
from utils.config_loader import Config
from utils.core.files import JsonObject, fingerprint
from utils.core.result_files import ResultFiles
from utils.evaluation.evaluation_settings import EvaluationSettings
from utils.evaluation.identity import prediction_identity
from utils.model_utils import LoadedModel, check_on_texts
from utils.pipeline import console
from utils.profiler import InferenceProfiler
from utils.schema.baseline import (
    BASELINE_VERSION,
    SampleDependence,
    SweepMeasurement,
    SweepRounds,
)
from utils.schema.batch_size import OptimalBatchSize, SweepRow
from utils.schema.common import complete_reasons
from utils.schema.latency import LatencyTarget
from utils.schema.sweep_checkpoint import CHECKPOINT_VERSION, GpuReadings
from utils.schema.warning_codes import WarningCode
from utils.settings import ProfilingConfig
from utils.sweep.conclusions import optimal_batch_size, sample_dependence
from utils.sweep.latency_target import latency_target
from utils.sweep.row_reasons import SHARED
from utils.sweep.sample import draw_texts
from utils.sweep.schedule import SweepSettings, SweepState, new_state
from utils.system.environment import read_environment
from utils.system.process import process_age_s

SWEEP_SECTIONS = ("model", "dataset", "profiling", "embedded")
"""Sections of the settings that decide whether a checkpoint of the sweep can be resumed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SweepResult:
    """What the batch-size sweep measured.

    Args:
        rows: one for each sample size and batch size.
        optimal_batch_size: of the largest sample.
        measurement: the order in which batch sizes were measured, the GPU at rest, and whether
            metrics depend on the sample.
        latency_target: of the largest sample; None where no target is set.
    """

    rows: tuple[SweepRow, ...]
    optimal_batch_size: OptimalBatchSize | None
    first_inference_ms: float
    measurement: SweepMeasurement
    latency_target: LatencyTarget | None
    warnings: tuple[str, ...]


def measure_sweep(loaded: LoadedModel, config: Config, data_sha256: str) -> SweepResult:
    """Run the sweep on each sample size.

    Runs that an interrupted run has measured under the same settings are reused. ``config`` is
    complete, because the sections in ``SWEEP_SECTIONS`` decide which settings are the same.
    """
    start = _start_times(loaded)
    settings = config.profiling
    sweep_settings = _sweep_settings(settings)
    identity = prediction_identity(loaded, EvaluationSettings.of(config), data_sha256)
    checkpoint = load_checkpoint(config.files, _sweep_fingerprint(loaded, config, identity))
    profiler = InferenceProfiler(
        loaded.model,
        loaded.tokenizer,
        loaded.info.device,
        gpu_sample_interval_ms=settings.gpu_sample_interval_ms,
    )
    samples, warnings = _draw_samples(loaded, config)
    is_new = checkpoint.first_inference_ms is None
    if is_new:
        checkpoint.samples = [new_state(len(texts), settings.batch_sizes) for texts in samples]
    rows = count_evaluated_rows(config, identity)
    for line in resume_lines(checkpoint, sweep_settings, rows):
        console.print_line(line)
    if is_new:
        _start_checkpoint(checkpoint, profiler, samples[0], settings, config.files)
    rest = RestOfRun(
        evaluation=evaluation_work(config.evaluation, rows, profiler.device),
        later=later_steps(start),
        reads_gpu=profiler.device.type == "cuda" and profiler.collector.monitor.reason is None,
        price=price_of(config, profiler.device),
    )
    announcer = TimeAnnouncer(checkpoint, sweep_settings, rest)
    _measure_samples(profiler, samples, checkpoint, sweep_settings, announcer, config.files)
    sweep = _to_sweep_result(checkpoint, sweep_settings)
    size_warnings = _sample_size_warnings(config.dataset.sample_sizes, checkpoint.samples)
    return replace(sweep, warnings=(*warnings, *size_warnings, *sweep.warnings))


def _start_times(loaded: LoadedModel) -> StartTimes:
    """How long this process took until now, when the model is loaded."""
    info = loaded.info
    return StartTimes(
        process_s=process_age_s(),
        load_s=info.load_times["total_s"],
        weights_s=info.load_times["weights_s"],
        weights_mb=info.total_size_mb,
    )


def _draw_samples(loaded: LoadedModel, config: Config) -> tuple[list[list[str]], tuple[str, ...]]:
    """The texts of each sample size, and what to know of them."""
    settings = config.profiling
    samples = []
    drawn_warnings: tuple[str, ...] = ()
    for size in config.dataset.sample_sizes:
        drawn = draw_texts(loaded, config.data_file, settings, size)
        samples.append(list(drawn.texts))
        drawn_warnings = drawn.warnings
    largest = max(samples, key=len)
    return samples, (*drawn_warnings, *check_on_texts(loaded, largest, settings.max_length))


def _measure_samples(
    profiler: InferenceProfiler,
    samples: Sequence[list[str]],
    checkpoint: SweepCheckpoint,
    settings: SweepSettings,
    announcer: TimeAnnouncer,
    files: ResultFiles,
) -> None:
    """Measure what each sample lacks, and save the checkpoint after each round."""
    after_round = checkpoint_writer(checkpoint, profiler.collector.monitor, files)
    num_largest = max(len(texts) for texts in samples)
    for texts, state in zip(samples, checkpoint.samples, strict=True):
        if len(samples) > 1:
            console.print_line(f"\nSample of {len(texts)} texts")
        sample_settings = settings
        if len(texts) < num_largest:
            # One answer is enough, from the sample that the optimal batch size is of.
            sample_settings = replace(settings, latency_target_ms=None)
        profiler.sweep(
            texts,
            state,
            sample_settings,
            after_warm_up=announcer.after_warm_up,
            after_round=after_round,
        )


def _sweep_settings(settings: ProfilingConfig) -> SweepSettings:
    values: dict[str, Any] = {"num_runs": settings.num_measurement_runs}
    for item in fields(SweepSettings):
        if item.name != "num_runs":
            values[item.name] = getattr(settings, item.name)
    return SweepSettings(**values)


def _sweep_fingerprint(loaded: LoadedModel, config: Config, identity: JsonObject) -> str:
    """Identity of everything that decides what the sweep measures.

    Args:
        identity: what predictions of the model depend on.
    """
    settings = config.to_dict()
    parts: list[Any] = [settings[name] for name in SWEEP_SECTIONS]
    parts.append(identity)
    parts.append(read_environment(loaded.info.device).to_dict())
    parts.append(BASELINE_VERSION)
    parts.append(CHECKPOINT_VERSION)
    return fingerprint(parts)


def _start_checkpoint(
    checkpoint: SweepCheckpoint,
    profiler: InferenceProfiler,
    texts: Sequence[str],
    settings: ProfilingConfig,
    files: ResultFiles,
) -> None:
    """Measure what comes before the first run: the cold model and the GPU at rest."""
    # An earlier run's timeline is not continued.
    files.gpu_timeline.unlink(missing_ok=True)
    checkpoint.first_inference_ms = profiler.first_inference_ms(texts, settings.max_length)
    checkpoint.idle = profiler.idle_readings()
    if checkpoint.idle.shared:
        for state in checkpoint.samples:
            for trial in state.trials:
                trial.interference.append(SHARED)


def _to_sweep_result(checkpoint: SweepCheckpoint, settings: SweepSettings) -> SweepResult:
    rows = []
    rounds = []
    for state in checkpoint.samples:
        order = tuple(tuple(sizes) for sizes in state.order)
        rounds.append(SweepRounds(sample_size=state.sample_size, order=order))
        rows += _rows_of_sample(state)
    largest = max(checkpoint.samples, key=lambda state: state.sample_size)
    dependence = sample_dependence(checkpoint.samples)
    assert checkpoint.first_inference_ms is not None
    return SweepResult(
        rows=tuple(rows),
        optimal_batch_size=optimal_batch_size(_rows_of_sample(largest), largest),
        first_inference_ms=checkpoint.first_inference_ms,
        measurement=_measurement(rounds, checkpoint.idle, dependence),
        latency_target=latency_target(largest, settings),
        warnings=(*_dependence_warnings(dependence), *checkpoint.idle.warnings),
    )


def _rows_of_sample(state: SweepState) -> list[SweepRow]:
    rows = []
    for trial in state.trials:
        columns = dict(trial.record())
        rows.append(SweepRow.model_validate({**columns, "sample_size": state.sample_size}))
    return rows


def _measurement(
    rounds: Sequence[SweepRounds], idle: GpuReadings, dependence: tuple[SampleDependence, ...]
) -> SweepMeasurement:
    values: dict[str, Any] = {
        "idle_gpu_power_w": idle.power_w_mean,
        "idle_gpu_util_pct": idle.util_pct_mean,
        "gpu_shared": idle.shared,
    }
    reasons = {
        "idle_gpu_power_w": idle.unavailable.get("power_w_mean"),
        "idle_gpu_util_pct": idle.unavailable.get("util_pct_mean"),
        "gpu_shared": idle.unavailable.get("shared"),
    }
    known_reasons = {name: reason for name, reason in reasons.items() if reason is not None}
    return SweepMeasurement(
        rounds=tuple(rounds),
        **values,
        sample_dependence=dependence,
        unavailable=complete_reasons(SweepMeasurement, values, known_reasons),
    )


def _sample_size_warnings(sizes: Sequence[int], states: Sequence[SweepState]) -> list[str]:
    warnings = []
    for size, state in zip(sizes, states, strict=True):
        if state.sample_size < size:
            warnings.append(
                WarningCode.SAMPLE.warn(
                    f"dataset.sample_sizes asks for {size} texts; "
                    f"the data set has {state.sample_size}"
                )
            )
    return warnings


def _dependence_warnings(dependence: Sequence[SampleDependence]) -> list[str]:
    warnings = []
    for one in dependence:
        if not one.depends_on_sample or one.time_per_token_ratio is None:
            continue
        difference = abs(one.time_per_token_ratio - 1)
        sizes = " and ".join(map(str, one.sample_sizes))
        warnings.append(
            WarningCode.SAMPLE.warn(
                f"at batch size {one.batch_size} the time per token differs by {difference:.0%} "
                f"between samples of {sizes} texts: metrics depend on the sample, take a larger one"
            )
        )
    return warnings
