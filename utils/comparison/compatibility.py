"""What differs between two sides apart from their results, and what it makes meaningless."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from utils.comparison.loading import RunResults, Side
from utils.comparison.metric_table import MetricKey
from utils.core.errors import UserError
from utils.core.files import JsonObject
from utils.schema.comparison import Category, Difference
from utils.schema.warning_codes import WarningCode
from utils.settings import Config

NOT_COMPARED = (
    "output.",
    "cost.",
    "targets.",
    "embedded.dir",
    "dataset.local_path",
    "evaluation.enabled",
)

"""Settings that decide where files are, what is shown, or which parts are measured at all."""
RESOLVED = ("model.name", "model.revision", "model.device", "model.dtype", "dataset.hf_name")
"""Settings whose resolved values are among the facts of the model, the data and the device."""
ALLOWED_WITHIN_SIDE: tuple[Category, ...] = ("libraries", "machine", "code")
"""What repeats of one measurement may differ in, with a warning."""
Facts = dict[tuple[Category, str], str]
"""What is known of a run: its value by category and name."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Refusals:
    """Why groups of metrics cannot be compared; None where they can.

    Args:
        sweep: all metrics of the sweep.
        tokens: those that count tokens.
        evaluation: the speed and memory of the evaluation.
        energy: energy.
        quality: accuracy, F1 and predictions.
    """

    sweep: str | None = None
    tokens: str | None = None
    evaluation: str | None = None
    energy: str | None = None
    quality: str | None = None

    def reason(self, key: MetricKey) -> str | None:
        """Why a metric cannot be compared."""
        if key.scope == "evaluation" and self.evaluation is not None:
            return self.evaluation
        if key.scope == "sweep" and self.sweep is not None:
            return self.sweep
        if key.name == "throughput_tokens_per_sec":
            return self.tokens
        if key.name == "energy_per_sample_j":
            return self.energy
        return None


def find_differences(baseline: Side, candidate: Side) -> list[Difference]:
    """Everything that is not the same on both sides, what decides most first."""
    of_baseline = _facts_of_side(baseline)
    of_candidate = _facts_of_side(candidate)
    differences = []
    for key in {**of_baseline, **of_candidate}:
        before = of_baseline.get(key, [])
        after = of_candidate.get(key, [])
        category, name = key
        is_setting_of_one_version = category == "settings" and not (before and after)
        if before == after:
            continue
        if is_setting_of_one_version and (before or after) == [_default_setting(name)]:
            continue
        differences.append(
            Difference(
                category=category,
                name=name,
                baseline=" | ".join(before) or "not recorded",
                candidate=" | ".join(after) or "not recorded",
            )
        )
    return differences


def check_repeats(side: Side, *, force: bool) -> list[str]:
    """Check that the runs of a side are repeats of one measurement.

    Returns:
        Warnings about what differs all the same.

    Raises:
        UserError: they differ in what is measured, and ``force`` is false.
    """
    warnings = []
    for (category, name), values in _facts_of_side(side).items():
        if len(values) == 1:
            continue
        message = f"The runs of the {side.name} differ in {name}: {', '.join(values)}"
        if category not in ALLOWED_WITHIN_SIDE and not force:
            raise UserError(
                f"{message}. They are no repeats of one measurement.",
                where=", ".join(str(run.file) for run in side.runs),
                fix="compare those that were measured alike, or add --force",
            )
        warnings.append(WarningCode.COMPARISON.warn(message))
    return warnings


def changed_settings(one: RunResults, other: RunResults) -> dict[str, object]:
    """The settings of the second run that differ from the first's, by dotted key.

    Those that say where files are or what is shown are left out.
    """
    before = one.metrics.config
    changed: dict[str, object] = {}
    for section, settings in other.metrics.config.items():
        if not isinstance(settings, dict):
            continue
        for key, value in settings.items():
            dotted = f"{section}.{key}"
            is_same = before.get(section, {}).get(key) == value
            if not is_same and not dotted.startswith(NOT_COMPARED):
                changed[dotted] = value
    return changed


def find_refusals(baseline: Side, candidate: Side) -> Refusals:
    """What cannot be compared between two sides, each with its reason."""
    one = baseline.first
    other = candidate.first
    data = _data_reason(one, other)
    return Refusals(
        sweep=data or _sample_reason(one, other),
        tokens=_token_reason(one, other),
        evaluation=data or _rows_reason(one, other),
        energy=_energy_reason(one, other),
        quality=_weights_reason(one, other)
        or _label_reason(one, other)
        or data
        or _rows_reason(one, other),
    )


def _facts_of_side(side: Side) -> dict[tuple[Category, str], list[str]]:
    """The different values that the runs of a side have, by category and name."""
    values: dict[tuple[Category, str], list[str]] = {}
    for run in side.runs:
        for key, value in _facts(run).items():
            known = values.setdefault(key, [])
            if value not in known:
                known.append(value)
    return values


def _facts(run: RunResults) -> Facts:
    """Everything of a run that may differ, in the order in which it is shown."""
    facts: Facts = {}
    _add(facts, "model", _model_facts(run))
    _add(facts, "data", _data_facts(run))
    _add(facts, "device", _device_facts(run))
    _add(facts, "settings", _setting_facts(run))
    _add(facts, "libraries", run.metrics.environment.libraries.items())
    _add(facts, "machine", _machine_facts(run))
    _add(facts, "code", _code_facts(run))
    return facts


def _add(facts: Facts, category: Category, values: Iterable[tuple[str, object]]) -> None:
    """Add values as text; what a file does not have is left out."""
    for name, value in values:
        if value is not None:
            facts[category, name] = _text(value)


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _model_facts(run: RunResults) -> Iterator[tuple[str, object]]:
    model = run.metrics.model_info
    yield "model", model.name
    yield "model revision", model.revision
    yield "adapter", model.adapter
    yield "model type", model.model_type
    yield "weights", model.weights
    yield "dtype", model.dtype
    yield "parameters", model.total_params
    yield "attention", model.attn_implementation


def _data_facts(run: RunResults) -> Iterator[tuple[str, object]]:
    data = run.metrics.dataset_info
    yield "data set", data.name
    yield "data set revision", data.revision
    yield "data set SHA-256", data.sha256
    yield "rows", data.num_rows
    yield "labels", list(data.label_names)
    if run.evaluation is not None:
        yield "rows evaluated", run.evaluation.num_samples


def _device_facts(run: RunResults) -> Iterator[tuple[str, object]]:
    yield "device", run.metrics.model_info.device
    gpu = run.metrics.environment.gpu
    if gpu is None:
        yield "CPU", run.metrics.environment.cpu.name
        return
    yield "GPU", gpu.name
    yield "GPU memory", gpu.memory_bytes
    yield "GPU power limit (W)", gpu.power_limit_w


def _setting_facts(run: RunResults) -> Iterator[tuple[str, object]]:
    """Settings by dotted key; those of the model and the data are facts of their own too."""
    for section, settings in run.metrics.config.items():
        if not isinstance(settings, dict):
            continue
        for key, value in settings.items():
            dotted = f"{section}.{key}"
            if not dotted.startswith(NOT_COMPARED) and dotted not in RESOLVED:
                yield dotted, _setting_text(value)


def _setting_text(value: object) -> str:
    return _text("null" if value is None else value)


def _default_setting(dotted: str) -> str:
    """The default of a setting, which a file of a version without it is taken to have used."""
    return _setting_text(Config().get(dotted))


def _machine_facts(run: RunResults) -> Iterator[tuple[str, object]]:
    machine = run.metrics.environment
    yield "system", machine.platform
    yield "Python", machine.python
    if machine.gpu is not None:
        yield "CPU", machine.cpu.name
        yield "driver", machine.gpu.driver
        yield "ECC", machine.gpu.ecc_mode
    yield "usable cores", machine.cpu.usable_cores
    yield from machine.torch.to_dict().items()
    yield from machine.variables.items()
    if run.evaluation is not None and run.evaluation.attention_kernels is not None:
        kernels: JsonObject = run.evaluation.attention_kernels.to_dict()
        for name, value in kernels.items():
            yield f"attention kernels: {name}", value


def _code_facts(run: RunResults) -> Iterator[tuple[str, object]]:
    git = run.metrics.environment.git
    if git.commit is not None:
        yield "commit", f"{git.commit[:12]}{' with changes' if git.dirty else ''}"
    yield "version of the metrics file", run.metrics.schema_version


def _data_reason(one: RunResults, other: RunResults) -> str | None:
    before = one.metrics.dataset_info.sha256
    after = other.metrics.dataset_info.sha256
    if before == after:
        return None
    return f"other data: the data sets' SHA-256 are {before[:12]}… and {after[:12]}…"


def _sample_reason(one: RunResults, other: RunResults) -> str | None:
    """Other texts in the sweep: the seed chooses them. Other sizes are not joined anyway."""
    if one.metrics.run.seed == other.metrics.run.seed:
        return None
    return (
        "another sample of texts: profiling.seed is "
        f"{one.metrics.run.seed} and {other.metrics.run.seed}"
    )


def _token_reason(one: RunResults, other: RunResults) -> str | None:
    """Other tokens for the same texts, so that a rate of tokens has another meaning."""
    if one.evaluation is not None and other.evaluation is not None:
        before = one.evaluation.num_tokens
        after = other.evaluation.num_tokens
        same_rows = one.evaluation.num_samples == other.evaluation.num_samples
        if same_rows and before != after:
            return f"other tokens for the same texts: {before:,} and {after:,} in the data set"
    other_rows = other.rows()
    for key, row in one.rows().items():
        if key not in other_rows:
            continue
        tokens = (row.tokens_per_batch_mean, other_rows[key].tokens_per_batch_mean)
        if None not in tokens and tokens[0] != tokens[1]:
            return f"other tokens for the same texts: {tokens[0]:,.1f} and {tokens[1]:,.1f} a batch"
    return None


def _rows_reason(one: RunResults, other: RunResults) -> str | None:
    if one.evaluation is None or other.evaluation is None:
        return None
    before = one.evaluation.num_samples
    after = other.evaluation.num_samples
    if before == after:
        return None
    return f"other rows: {before:,} and {after:,} of the data set were evaluated"


def _energy_reason(one: RunResults, other: RunResults) -> str | None:
    other_rows = other.rows()
    for key, row in one.rows().items():
        if key not in other_rows:
            continue
        sources = (row.energy_source, other_rows[key].energy_source)
        if None not in sources and sources[0] != sources[1]:
            return f"measured in two ways: {sources[0]} and {sources[1]}"
    return None


def _weights_reason(one: RunResults, other: RunResults) -> str | None:
    for name, run in (("baseline", one), ("candidate", other)):
        if run.metrics.model_info.weights == "dummy":
            return f"the weights of the {name} are random (dummy)"
    return None


def _label_reason(one: RunResults, other: RunResults) -> str | None:
    before = one.metrics.dataset_info.label_names
    after = other.metrics.dataset_info.label_names
    if before == after:
        return None
    return f"other labels: {len(before)} and {len(after)}, by name and order"
