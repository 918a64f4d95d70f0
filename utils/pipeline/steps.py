"""The steps, and whether the results of one are still valid.

Results are valid while the settings, the code, the inputs and the outputs of their step are
unchanged, and for a step that measures the libraries. Which code a step has follows from its
imports (``code_files``).

Functions here take the complete ``Config``, unlike those of the stages: a step names the settings
that it depends on by their dotted keys, which may be of any section.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from utils.config_loader import Config
from utils.core.errors import UserError
from utils.core.files import PROJECT_ROOT, JsonObject, read_json, sha256_tree, write_json
from utils.core.paths import project_path, source_files
from utils.pipeline.code_files import hash_code
from utils.pipeline.machine import read_libraries
from utils.settings import EMBEDDED

RECORD_VERSION = 4
NEVER_FINISHED = "it has not finished here before"
MAX_NAMED_CHANGES = 3
"""So many changes are named in a reason; more are counted."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """One numbered script, and what makes it run again when it changes.

    Args:
        settings: dotted keys or sections.
        inputs: files and folders that it reads.
        outputs: files and folders that it writes.
        measures: whether its results depend on the versions of Python and the libraries.
    """

    number: str
    script: str
    title: str
    skip_flag: str
    settings: tuple[str, ...]
    inputs: Callable[[Config], tuple[Path, ...]]
    outputs: Callable[[Config], tuple[Path, ...]]
    measures: bool = False

    @property
    def path(self) -> Path:
        return PROJECT_ROOT / "scripts" / self.script

    @property
    def command(self) -> str:
        """The command that runs this step alone."""
        return f"python scripts/{self.script}"


def _data(config: Config) -> tuple[Path, ...]:
    info_file = config.data_file.with_name("dataset_info.json")
    return (config.data_file, config.label_mappings_file, info_file)


def _source_and_label_names(config: Config) -> tuple[Path, ...]:
    """The local files that step 01 reads: those of the data set, and the model's label names."""
    candidates = []
    for name in (config.model.name, config.model.adapter_base):
        if name:
            folder = project_path(name)
            candidates += [folder, folder / "config.json", folder / "adapter_config.json"]
    model_files = [path for path in candidates if path.is_file()]
    return (*source_files(config.dataset.hf_name), *model_files)


def _data_and_model(config: Config) -> tuple[Path, ...]:
    if config.model.name == EMBEDDED:
        return (*_data(config), project_path(config.embedded.dir) / "model")
    local = project_path(config.model.name)
    if local.exists():
        return (*_data(config), local)
    return _data(config)


def _results_read_by_step_03(config: Config) -> tuple[Path, ...]:
    return (*_data_and_model(config), config.files.metrics)


def _files(*names: str) -> Callable[[Config], tuple[Path, ...]]:
    """Results by their names in ``ResultFiles``."""
    return lambda config: tuple(getattr(config.files, name) for name in names)


STEPS = (
    Step(
        number="01",
        script="01_download_data.py",
        skip_flag="skip_download",
        title="Download and check the data set",
        settings=(
            "dataset.hf_name",
            "dataset.revision",
            "dataset.split",
            "dataset.config",
            "dataset.local_path",
            "dataset.text_column",
            "dataset.label_column",
            "dataset.label_map",
            "model.name",
            "model.revision",
            "model.adapter_base",
            "model.tokenizer",
            "model.trust_remote_code",
            "embedded",
            "evaluation.unknown_labels",
        ),
        inputs=_source_and_label_names,
        outputs=_data,
    ),
    Step(
        number="02",
        script="02_baseline_inference.py",
        skip_flag="skip_baseline",
        title="Baseline: batch-size sweep and accuracy on the complete data set",
        settings=("model", "dataset", "profiling", "evaluation", "output"),
        inputs=_data_and_model,
        outputs=_files("metrics", "detailed_metrics", "predictions_dir"),
        measures=True,
    ),
    Step(
        number="03",
        script="03_detailed_profiling.py",
        skip_flag="skip_profiling",
        title="Profile operators and layers, find the bottleneck",
        settings=(
            "model",
            "dataset",
            "profiling",
            "output",
            "evaluation.compile",
            "evaluation.max_tokens_per_batch",
        ),
        inputs=_results_read_by_step_03,
        outputs=_files("trace", "stacks", "operators", "layers", "bottlenecks", "ceilings"),
        measures=True,
    ),
    Step(
        number="04",
        script="04_visualize_results.py",
        skip_flag="skip_viz",
        title="Draw the plots and write the report",
        settings=("cost", "targets", "output"),
        inputs=_files(
            "metrics",
            "detailed_metrics",
            "bottlenecks",
            "operators",
            "layers",
            "kernels",
            "memory",
            "stacks",
            "predictions_dir",
            "gpu_timeline",
        ),
        outputs=_files("summary_report", "html_report", "comparison_plot", "heatmap_plot"),
    ),
)


def get_step(number: str) -> Step:
    """The step with that number."""
    return next(step for step in STEPS if step.number == number)


def record_finished(step: Step, config: Config) -> None:
    """Save the fingerprints of a step that has finished."""
    record = {
        "record_version": RECORD_VERSION,
        "finished_at": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        **_fingerprints(step, config),
    }
    write_json(_record_file(step, config), record)


def stale_reason(step: Step, config: Config) -> str | None:
    """Why the step has to run again, or None if its results are still valid."""
    try:
        record = read_json(_record_file(step, config), made_by=step.command)
    except UserError:
        return NEVER_FINISHED
    if record.get("record_version") != RECORD_VERSION:
        return "its record is of another version"
    changes = _list_changes(record, _fingerprints(step, config))
    if not changes:
        return None
    named = ", ".join(changes[:MAX_NAMED_CHANGES])
    if len(changes) > MAX_NAMED_CHANGES:
        named += f" and {len(changes) - MAX_NAMED_CHANGES} more"
    return f"changed: {named}"


def _list_changes(before: dict[str, JsonObject], after: dict[str, JsonObject]) -> list[str]:
    """What differs between two fingerprints: what has another value, then what was added or
    removed.
    """
    changed = []
    added_or_removed = []
    for kind, now in after.items():
        earlier = before[kind]
        for key in {**earlier, **now}:
            name = f"{kind} {key.removeprefix(f'{PROJECT_ROOT}/')}"
            if key not in earlier or key not in now:
                added_or_removed.append(name)
            elif earlier[key] != now[key]:
                changed += _changed_names(name, earlier[key], now[key])
    return changed + added_or_removed


def _changed_names(name: str, before: object, now: object) -> list[str]:
    """The settings of a section that changed; anything else by its own name."""
    if not isinstance(before, dict) or not isinstance(now, dict):
        return [name]
    keys = {**before, **now}
    return [f"{name}.{key}" for key in keys if before.get(key) != now.get(key)]


def _record_file(step: Step, config: Config) -> Path:
    return config.files.state_dir / f"step_{step.number}.json"


def _fingerprints(step: Step, config: Config) -> dict[str, JsonObject]:
    """All that decides whether a step's results are valid.

    Settings and versions of libraries as they are; code, inputs and outputs by their hashes.
    """
    libraries: JsonObject = {}
    if step.measures:
        libraries = dict(read_libraries())
    return {
        "setting": {key: config.get(key) for key in step.settings},
        "code": hash_code(step.path, PROJECT_ROOT),
        "library": libraries,
        "input": {str(path): sha256_tree(path) for path in step.inputs(config)},
        "output": {str(path): sha256_tree(path) for path in step.outputs(config)},
    }
