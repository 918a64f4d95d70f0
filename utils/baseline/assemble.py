"""The record of ``baseline_metrics.json``, put together from what step 02 measured."""

from __future__ import annotations

import shlex
import sys
import time
import uuid
from collections.abc import Sequence

from utils.baseline.sweep import SweepResult
from utils.config_loader import Config
from utils.core.errors import ModelError
from utils.core.files import fingerprint
from utils.data.labels import LabelMapping
from utils.data.prepared import PreparedData
from utils.data.reader import count_rows
from utils.model_utils import LoadedModel
from utils.schema.baseline import BASELINE_VERSION, BaselineMetrics
from utils.schema.catalog import units_of
from utils.schema.evaluation import EvaluationMetrics
from utils.schema.run import DatasetInfo, ModelInfo, RunInfo
from utils.settings import DatasetConfig
from utils.system.environment import read_environment

NOT_EVALUATED = "evaluation.enabled is false: only the batch-size sweep was measured"


def check_labels(loaded: LoadedModel, labels: LabelMapping) -> None:
    """Refuse a model with another number of labels than the data set has.

    Raises:
        ModelError: the numbers differ.
    """
    if loaded.info.num_labels == len(labels.names):
        return
    raise ModelError(
        f"The model has {loaded.info.num_labels} labels, the data set {len(labels.names)}.",
        where=loaded.info.name,
        fix=(
            "use a model fine-tuned on this data set, or make the mapping again: "
            "python scripts/01_download_data.py"
        ),
    )


def build_metrics(
    config: Config,
    loaded: LoadedModel,
    prepared: PreparedData,
    sweep: SweepResult,
    evaluation: EvaluationMetrics | None,
    *,
    started: float,
) -> BaselineMetrics:
    """The content of ``baseline_metrics.json``.

    Args:
        config: complete, because the file records every setting of the run.
        evaluation: None where ``evaluation.enabled`` is false.
        started: Unix time in seconds.
    """
    settings = config.to_dict()
    data_file = config.dataset.local_path or str(config.data_file)
    return BaselineMetrics(
        schema_version=BASELINE_VERSION,
        run=_run_info(
            started,
            seed=config.profiling.seed,
            config_sha256=fingerprint(settings),
            data_sha256=prepared.info.sha256,
            warnings=_warnings(prepared, sweep, evaluation),
        ),
        environment=read_environment(loaded.info.device),
        config=settings,
        model_info=ModelInfo.model_validate(loaded.info.to_dict()),
        dataset_info=_dataset_info(
            prepared, config.dataset, path=data_file, num_rows=count_rows(config.data_file)
        ),
        batch_size_profiling=sweep.rows,
        optimal_batch_size=sweep.optimal_batch_size,
        full_dataset_metrics=evaluation,
        first_inference_ms=sweep.first_inference_ms,
        measurement=sweep.measurement,
        latency_target=sweep.latency_target,
        unavailable=_missing_parts(evaluation),
        units=units_of(BaselineMetrics),
    )


def _warnings(
    prepared: PreparedData, sweep: SweepResult, evaluation: EvaluationMetrics | None
) -> tuple[str, ...]:
    """What to know about the data set, the sweep and the evaluation."""
    warnings = (*prepared.info.warnings, *sweep.warnings)
    if evaluation is None:
        return warnings
    return (*warnings, *evaluation.warnings)


def _missing_parts(evaluation: EvaluationMetrics | None) -> dict[str, str]:
    """Why a part of the file is null."""
    if evaluation is None:
        return {"full_dataset_metrics": NOT_EVALUATED}
    return {}


def _run_info(
    started: float, *, seed: int, config_sha256: str, data_sha256: str, warnings: Sequence[str]
) -> RunInfo:
    finished = time.time()
    run_name = time.strftime("%Y%m%d-%H%M%S", time.localtime(started))
    return RunInfo(
        id=f"{run_name}-{uuid.uuid4().hex[:8]}",
        started_at=_iso(started),
        finished_at=_iso(finished),
        duration_s=finished - started,
        command=shlex.join(["python", *sys.argv]),
        seed=seed,
        config_sha256=config_sha256,
        data_sha256=data_sha256,
        warnings=tuple(warnings),
    )


def _dataset_info(
    prepared: PreparedData, settings: DatasetConfig, *, path: str, num_rows: int
) -> DatasetInfo:
    """The data set as step 01 recorded it, by the name that it was made from."""
    info = prepared.info
    return DatasetInfo.model_validate(
        {
            "name": info.name,
            "revision": info.revision,
            "config": info.settings.get("dataset.config"),
            "split": info.split,
            "path": path,
            "num_rows": num_rows,
            "num_labels": len(prepared.mapping.names),
            "label_names": prepared.mapping.names,
            "sha256": info.sha256,
            "sample_sizes": settings.sample_sizes,
            "label_mapping_source": info.label_mapping_source,
            "label_mapping_confidence": info.label_mapping_confidence,
            "label_mapping_note": info.label_mapping_note,
        }
    )


def _iso(unix_s: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(unix_s))
