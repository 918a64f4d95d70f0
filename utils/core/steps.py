"""The steps, and whether one is still good: what it read, how it was set, what it wrote."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from utils.config_loader import EMBEDDED, Config, project_path, source_files
from utils.core.artifacts import PROJECT_ROOT, fingerprint, read_json, sha256_tree, write_json
from utils.core.errors import UserError

RECORD_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Step:
    """One numbered script.

    Args:
        settings: dotted keys or sections whose change makes the step run again.
        inputs, outputs: files and folders that the step reads and writes.
        sources: code folders whose change makes the step run again.
    """

    number: str
    script: str
    title: str
    skip_flag: str
    settings: tuple[str, ...]
    inputs: Callable[[Config], tuple[Path, ...]]
    outputs: Callable[[Config], tuple[Path, ...]]
    sources: tuple[str, ...]

    @property
    def path(self) -> Path:
        return PROJECT_ROOT / "scripts" / self.script


def _source(config: Config) -> tuple[Path, ...]:
    return tuple(source_files(config.dataset.hf_name))


def _model(config: Config) -> tuple[Path, ...]:
    local = project_path(config.embedded.dir if config.model.name == EMBEDDED else config.model.name)
    return (local / "model",) if config.model.name == EMBEDDED else (local,) if local.exists() else ()


def _data(config: Config) -> tuple[Path, ...]:
    return (config.data_file, config.label_mappings_file)


STEPS = (
    Step(
        number="01",
        script="01_download_data.py",
        title="Download and check the data set",
        skip_flag="skip_download",
        settings=("dataset.hf_name", "dataset.revision", "dataset.split", "dataset.local_path", "dataset.text_column",
                  "dataset.label_column", "model.name", "model.revision", "embedded", "evaluation.unknown_labels"),
        inputs=_source,
        outputs=_data,
        sources=("utils/data", "utils/hub.py", "utils/model_source.py", "utils/model_utils.py"),
    ),
    Step(
        number="02",
        script="02_baseline_inference.py",
        title="Baseline: batch-size sweep and accuracy on the whole data set",
        skip_flag="skip_baseline",
        settings=("model", "dataset", "profiling", "evaluation", "output"),
        inputs=lambda config: (*_data(config), *_model(config)),
        outputs=lambda config: (config.files.metrics, config.files.detailed_metrics, config.files.predictions_dir),
        sources=("utils/profiler.py", "utils/metrics.py", "utils/gpu_monitor.py", "utils/statistics.py",
                 "utils/model_utils.py", "utils/evaluation", "utils/baseline.py"),
    ),
    Step(
        number="03",
        script="03_detailed_profiling.py",
        title="Profile operators and layers, find the bottleneck",
        skip_flag="skip_profiling",
        settings=("model", "dataset", "profiling", "output"),
        inputs=lambda config: (*_data(config), *_model(config), config.files.metrics),
        outputs=lambda config: (config.files.trace, config.files.stacks, config.files.operators, config.files.layers,
                                config.files.bottlenecks),
        sources=("utils/analysis", "utils/model_utils.py", "utils/model_source.py", "utils/hub.py"),
    ),
    Step(
        number="04",
        script="04_visualize_results.py",
        title="Draw the plots and write the report",
        skip_flag="skip_viz",
        settings=("output",),
        inputs=lambda config: (config.files.metrics, config.files.detailed_metrics, config.files.bottlenecks,
                               config.files.operators, config.files.layers),
        outputs=lambda config: (config.files.summary_report, config.files.html_report, config.files.comparison_plot,
                                config.files.heatmap_plot),
        sources=("utils/reporting",),
    ),
)


def step(number: str) -> Step:
    """The step with that number."""
    return next(item for item in STEPS if item.number == number)


def record_finished(item: Step, config: Config) -> None:
    """Write down what the step read, how it was set and what it wrote, once it has finished."""
    state = {
        "record_version": RECORD_VERSION,
        "step": item.number,
        "finished_at": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "settings": _settings(item, config),
        "sources": _sources(item),
        "inputs": _hashes(item.inputs(config)),
        "outputs": _hashes(item.outputs(config)),
    }
    write_json(_record_file(item, config), state)


def reason_to_run(item: Step, config: Config) -> str | None:
    """Why the step has to run again, or None where what it wrote is still good."""
    try:
        record = read_json(_record_file(item, config), made_by=f"python scripts/{item.script}")
    except UserError:
        return "it has not finished here before"
    if record.get("record_version") != RECORD_VERSION:
        return "its record is of another version"
    now = {"settings": _settings(item, config), "sources": _sources(item)}
    changed = [f"setting {key}" for key in _differences(record["settings"], now["settings"])]
    changed += [f"code {key}" for key in _differences(record["sources"], now["sources"])]
    changed += [f"input {_short(key)}" for key in _differences(record["inputs"], _hashes(item.inputs(config)))]
    changed += [f"output {_short(key)}" for key in _differences(record["outputs"], _hashes(item.outputs(config)))]
    return f"changed: {', '.join(changed)}" if changed else None


def _record_file(item: Step, config: Config) -> Path:
    return config.files.state_dir / f"step_{item.number}.json"


def _settings(item: Step, config: Config) -> dict[str, Any]:
    return {key: config.get(key) for key in item.settings}


def _sources(item: Step) -> dict[str, str | None]:
    def digest(path: Path) -> str | None:
        files = sorted(path.rglob("*.py")) if path.is_dir() else [path]
        return fingerprint([(file.name, sha256_tree(file)) for file in files])

    return {name: digest(PROJECT_ROOT / name) for name in (f"scripts/{item.script}", *item.sources)}


def _hashes(paths: tuple[Path, ...]) -> dict[str, str | None]:
    return {str(path): sha256_tree(path) for path in paths}


def _differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    return [key for key in {**before, **now} if before.get(key) != now.get(key)]


def _short(path: str) -> str:
    return os.path.relpath(path, PROJECT_ROOT) if path.startswith(str(PROJECT_ROOT)) else path
