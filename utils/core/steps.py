"""The steps, and whether one is still good: what it read, how it was set, what it wrote."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from utils.config_loader import EMBEDDED, Config, project_path, source_files
from utils.core.artifacts import PROJECT_ROOT, fingerprint, read_json, sha256_file, sha256_tree, write_json
from utils.core.errors import UserError

RECORD_VERSION = 2


@dataclass(frozen=True, kw_only=True)
class Step:
    """One numbered script, and what makes it run again when it changes: ``settings`` (dotted keys or sections), files and
    folders that it reads and writes, and code (``sources`` are patterns)."""

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


def _data(config: Config) -> tuple[Path, ...]:
    return (config.data_file, config.label_mappings_file, config.data_file.with_name("dataset_info.json"))


def _source_and_label_names(config: Config) -> tuple[Path, ...]:
    """The local files that step 01 reads: the data set's, and of the model those that decide its label names."""
    places = [project_path(name) for name in (config.model.name, config.model.adapter_base) if name]
    candidates = [place / name for place in places for name in ("config.json", "adapter_config.json")]
    return (*source_files(config.dataset.hf_name), *(path for path in [*places, *candidates] if path.is_file()))


def _data_and_model(config: Config) -> tuple[Path, ...]:
    if config.model.name == EMBEDDED:
        return (*_data(config), project_path(config.embedded.dir) / "model")
    local = project_path(config.model.name)
    return (*_data(config), *([local] if local.exists() else []))


def _files(*names: str) -> Callable[[Config], tuple[Path, ...]]:
    """Results by their names in ``ResultFiles``."""
    return lambda config: tuple(getattr(config.files, name) for name in names)


STEPS = (
    Step(
        number="01", script="01_download_data.py", skip_flag="skip_download", title="Download and check the data set",
        settings=(
            "dataset.hf_name", "dataset.revision", "dataset.split", "dataset.config", "dataset.local_path",
            "dataset.text_column", "dataset.label_column", "dataset.label_map",
            "model.name", "model.revision", "model.adapter_base", "model.tokenizer", "model.trust_remote_code",
            "embedded", "evaluation.unknown_labels",
        ),
        inputs=_source_and_label_names,
        outputs=_data,
        sources=("utils/data/*.py", "utils/hub.py", "utils/model/*.py", "utils/model_utils.py"),
    ),
    Step(
        number="02", script="02_baseline_inference.py", skip_flag="skip_baseline",
        title="Baseline: batch-size sweep and accuracy on the whole data set",
        settings=("model", "dataset", "profiling", "evaluation", "output"),
        inputs=_data_and_model,
        outputs=_files("metrics", "detailed_metrics", "predictions_dir"),
        sources=("utils/profiler.py", "utils/sweep.py", "utils/metrics.py", "utils/records.py", "utils/gpu_*.py",
                 "utils/statistics.py", "utils/costs.py", "utils/model_utils.py", "utils/model/*.py", "utils/sample.py",
                 "utils/evaluation/*.py", "utils/baseline.py"),
    ),
    Step(
        number="03", script="03_detailed_profiling.py", skip_flag="skip_profiling",
        title="Profile operators and layers, find the bottleneck",
        settings=("model", "dataset", "profiling", "output", "evaluation.compile", "evaluation.max_tokens_per_batch"),
        inputs=lambda config: (*_data_and_model(config), config.files.metrics),
        outputs=_files("trace", "stacks", "operators", "layers", "bottlenecks", "ceilings"),
        sources=("utils/analysis/*.py", "utils/costs.py", "utils/model_utils.py", "utils/model/*.py", "utils/hub.py",
                 "utils/sample.py",
                 "utils/evaluation/*.py"),
    ),
    Step(
        number="04", script="04_visualize_results.py", skip_flag="skip_viz", title="Draw the plots and write the report",
        settings=("output",),
        inputs=_files("metrics", "detailed_metrics", "bottlenecks", "operators", "layers", "kernels", "memory", "stacks"),
        outputs=_files("summary_report", "html_report", "comparison_plot", "heatmap_plot"),
        sources=("utils/reporting/*.py", "utils/reporting/templates/*",),
    ),
)


def step(number: str) -> Step:
    """The step with that number."""
    return next(item for item in STEPS if item.number == number)


def record_finished(item: Step, config: Config) -> None:
    """Write down what the step read, how it was set and what it wrote, once it has finished."""
    head = {"record_version": RECORD_VERSION, "finished_at": time.strftime("%Y-%m-%dT%H:%M:%S%z")}
    write_json(_record_file(item, config), {**head, **_state(item, config)})


def reason_to_run(item: Step, config: Config) -> str | None:
    """Why the step has to run again, or None where what it wrote is still good."""
    try:
        record = read_json(_record_file(item, config), made_by=f"python scripts/{item.script}")
    except UserError:
        return "it has not finished here before"
    if record.get("record_version") != RECORD_VERSION:
        return "its record is of another version"
    changed = [
        f"{kind} {key.removeprefix(f'{PROJECT_ROOT}/')}" for kind, now in _state(item, config).items()
        for key in {**record[kind], **now} if record[kind].get(key) != now.get(key)
    ]
    return f"changed: {', '.join(changed)}" if changed else None


def _record_file(item: Step, config: Config) -> Path:
    return config.files.state_dir / f"step_{item.number}.json"


def _state(item: Step, config: Config) -> dict[str, dict[str, Any]]:
    """All that decides whether the step is still good: settings as they are, code and files by their hashes."""
    return {
        "setting": {key: config.get(key) for key in item.settings},
        "code": {
            pattern: fingerprint({file.name: sha256_file(file) for file in PROJECT_ROOT.glob(pattern)})
            for pattern in (f"scripts/{item.script}", *item.sources)
        },
        "input": {str(path): sha256_tree(path) for path in item.inputs(config)},
        "output": {str(path): sha256_tree(path) for path in item.outputs(config)},
    }
