"""YAML and overrides in, one frozen and validated Config out."""

from __future__ import annotations

import difflib
import glob
import json
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError, field_validator

from utils.core.errors import ConfigError
from utils.core.files import PROJECT_ROOT
from utils.core.result_files import ResultFiles

EMBEDDED = "embedded"
"""As ``model.name`` or ``dataset.hf_name``: the model and corpus that are made on the spot."""
INPUT_KEYS = ("model.name", "model.tokenizer", "model.adapter_base", "dataset.hf_name")
"""Settings that may name a local file, folder or pattern to read."""
SOURCE_SUFFIXES = tuple(
    suffix + packed
    for suffix in (".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".parquet")
    for packed in ("", ".gz")
)
"""Endings, in lower case, by which ``dataset.hf_name`` is a local file even where there is none of that name."""


class Section(BaseModel):
    """One group of settings: frozen, strict about types, no unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, protected_namespaces=())


class ModelConfig(Section):
    # Hub id, local folder, PEFT adapter of either, an architecture's .json (with load_format: dummy), or "embedded".
    name: str = Field("codefactory4791/intent-classification-qwen", min_length=1)
    revision: str | None = (
        None  # commit, tag or branch on the hub; null: its default branch. What it came to is recorded
    )
    tokenizer: str | None = None  # hub id, local folder or "embedded"; null takes the model's own
    # Hub id or local folder of an adapter's base model; null takes the one that the adapter names.
    adapter_base: str | None = None
    device: Annotated[str, Field(pattern=r"^(cuda(:\d+)?|cpu|auto)$")] = (
        "cuda"  # auto: a CUDA device if there is one
    )
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"  # of weights and activations
    load_format: Literal["auto", "dummy"] = (
        "auto"  # auto: real weights. dummy: seeded random ones; accuracy is then null
    )
    # Which attention transformers uses; auto: sdpa where the architecture has it, else eager.
    attn_implementation: Literal["auto", "sdpa", "eager", "flash_attention_2"] = "auto"
    # torch.set_float32_matmul_precision: "high" allows TF32 on CUDA.
    matmul_precision: Literal["highest", "high", "medium"] = "highest"
    trust_remote_code: bool = False  # may code from the model's repository run? Leave it off unless you have read that code
    seed: int = Field(
        0, ge=0
    )  # of dummy weights and of a classification head that the checkpoint lacks


class DatasetConfig(Section):
    # Hub id, a local file, a pattern of many (data/part-*.parquet), a folder, or "embedded".
    hf_name: str = Field("codefactory4791/amazon_test", min_length=1)
    revision: str | None = None  # commit, tag or branch of the data set on the hub
    split: str = Field("test", min_length=1)  # which split of the hub's data set
    config: str | None = None  # which configuration of a hub's data set that has several
    # Where step 01 writes the data set and later steps read it: .csv or .parquet; null names it after the data set.
    local_path: str | None = "./data/val_df.csv"
    text_column: str = "text"  # of the source; "query" and "text" stand in for each other
    # Of the source; "label" and "labels" stand in for each other. null: the data set has no labels.
    label_column: str | None = "labels"
    # Renames labels: the data set's name to the model's name, or to LABEL_0, LABEL_1 … of a model without names.
    label_map: dict[str, str] = {}
    # How many texts the batch-size sweep runs over; several values repeat the sweep on each.
    sample_sizes: tuple[PositiveInt, ...] = Field((100,), min_length=1)

    @field_validator("local_path")
    @classmethod
    def _known_suffix(cls, value: str | None) -> str | None:
        if value is not None and not value.endswith((".csv", ".parquet")):
            raise ValueError("must end in .csv or .parquet")
        return value

    @field_validator("label_map", mode="before")
    @classmethod
    def _labels_as_text(cls, value: Any) -> Any:
        """Labels that YAML reads as numbers (1: positive) are text."""
        if not isinstance(value, dict):
            return value
        return {str(name): str(target) for name, target in value.items()}


class ProfilingConfig(Section):
    batch_sizes: tuple[PositiveInt, ...] = Field(
        (1, 4, 8, 16, 32, 64), min_length=1
    )  # of the sweep
    num_warmup_runs: int = Field(
        3, ge=0
    )  # unmeasured runs at each batch size before the first measured one
    num_measurement_runs: PositiveInt = (
        10  # measured ones at each batch size, at least; a run is the whole sample once
    )
    # Measure on until half the 95% interval of the mean is at most this share of it; null stops at the runs above.
    target_relative_ci: float | None = Field(None, gt=0, lt=1)
    # Seconds after which a batch size is measured no further, where target_relative_ci asks for more runs.
    max_seconds_per_batch_size: float = Field(60.0, gt=0)
    # By how much processes differ on this machine, standard deviation over mean, as benchmarks/repeatability.py measures
    # it; the 95% intervals allow for it. Null: what is known of this kind of device (CPU: 0.12; CUDA: nothing).
    process_spread: float | None = Field(None, ge=0, lt=1)
    # How long each batch size runs back to back for the GPU's readings, which look back up to a second; 0: not at all.
    min_window_seconds: float = Field(2.0, ge=0)
    try_all_batch_sizes: bool = False  # also those above one that ran out of memory
    max_length: PositiveInt = 512  # tokens at which a text is cut
    seed: int = Field(0, ge=0)  # of the sample and of the order in which batch sizes are measured
    gpu_sample_interval_ms: float = Field(20.0, gt=0)  # between two NVML readings
    trace_steps: PositiveInt = (
        3  # batches that step 03 records in the trace, after one to wait and one to warm up
    )

    @field_validator("batch_sizes")
    @classmethod
    def _no_repeats(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        repeated = sorted({size for size in value if value.count(size) > 1})
        if repeated:
            raise ValueError(f"each batch size once; repeated: {repeated}")
        return value


class EvaluationConfig(Section):
    # token_budget: grouped by length. dataset_order: fixed-size batches in file order, padded to their longest.
    batching: Literal["token_budget", "dataset_order"] = "token_budget"
    batch_size: PositiveInt = 32  # rows a batch where batching is dataset_order
    # Padded tokens a batch where batching is token_budget; "auto" measures a few and takes the fastest.
    max_tokens_per_batch: PositiveInt | Literal["auto"] = "auto"
    chunk_rows: PositiveInt = 8192  # rows between two safe points
    max_samples: PositiveInt | None = None  # evaluate only the first rows; null is all of them
    compile: bool = False  # batches without padding through torch.compile; what it won is measured, compiling apart
    compare_batching: bool = True  # measure on some rows what token_budget wins over dataset_order
    # Rows whose label the model does not know: "error" refuses the data set and shows them; "skip" predicts them, leaves
    # them out of accuracy and says how many.
    unknown_labels: Literal["error", "skip"] = "error"
    # Processes that share the evaluation, each with a model and, where there are GPUs, a GPU; above 1 through Ray Data.
    num_workers: PositiveInt = 1
    # host:port of a Ray cluster, or "auto" for the one that this machine belongs to; null needs none.
    ray_address: Annotated[str, Field(pattern=r"^(auto|[^/\s]+:\d+)$")] | None = None


class OutputConfig(Section):
    results_dir: str = Field(
        "./results", min_length=1
    )  # folder of everything that is measured or drawn
    # Names of the metrics file and of the table inside results_dir.
    metrics_file: str = Field("baseline_metrics.json", pattern=r"^[^/]+\.json$")
    detailed_metrics_file: str = Field("detailed_metrics.csv", pattern=r"^[^/]+\.csv$")


class EmbeddedConfig(Section):
    dir: str = Field(
        "./data/demo", min_length=1
    )  # folder of the embedded corpus, tokenizer and model
    seed: int = Field(0, ge=0)  # of the corpus's split and of the training
    training_rows: PositiveInt = 12000  # texts that the small model is trained on
    epochs: PositiveInt = 3  # passes over those texts


class Config(Section):
    """All settings of a run. Sections and fields that a file leaves out have the defaults given here."""

    model: ModelConfig = ModelConfig()
    dataset: DatasetConfig = DatasetConfig()
    profiling: ProfilingConfig = ProfilingConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    output: OutputConfig = OutputConfig()
    embedded: EmbeddedConfig = EmbeddedConfig()

    def get(self, dotted: str, default: Any = None) -> Any:
        """The value at a dotted key (``profiling.batch_sizes``), or ``default`` where there is none."""
        value: Any = self.to_dict()
        for key in dotted.split("."):
            if not isinstance(value, dict) or key not in value:
                return default
            value = value[key]
        return value

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, all defaults filled in."""
        return self.model_dump(mode="json")

    def path(self, dotted: str) -> Path:
        """The path that a setting names; relative ones start at the project's root."""
        return project_path(self.get(dotted))

    @property
    def files(self) -> ResultFiles:
        """Where this run's results lie."""
        folder = self.path("output.results_dir")
        return ResultFiles(
            results_dir=folder,
            metrics=folder / self.output.metrics_file,
            detailed_metrics=folder / self.output.detailed_metrics_file,
        )

    @property
    def data_file(self) -> Path:
        """The data set that step 01 writes."""
        if self.dataset.local_path is not None:
            return self.path("dataset.local_path")
        # A folder of its own: the label mappings and the record of the data set lie beside the data set.
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", self.dataset.hf_name).strip("-.") or "dataset"
        return project_path(f"data/{name}/{name}.csv")

    @property
    def label_mappings_file(self) -> Path:
        """The label mappings, beside the data set."""
        return self.data_file.parent / "label_mappings.json"


SECTIONS = {name: type(field.default).model_fields for name, field in Config.model_fields.items()}


def all_keys() -> list[str]:
    """The dotted path of every setting."""
    return [f"{section}.{key}" for section, fields in SECTIONS.items() for key in fields]


def project_path(value: str | Path) -> Path:
    """An absolute path; relative ones start at the project's root."""
    return (PROJECT_ROOT / Path(value).expanduser()).resolve()


def working_directory() -> Path:
    """The directory that the user works in; the project's root where that directory has been removed."""
    try:
        return Path.cwd()
    except FileNotFoundError:
        return PROJECT_ROOT


def works_in_project_root() -> bool:
    """Whether relative paths mean the same on the command line and in a configuration file."""
    return working_directory().resolve() == PROJECT_ROOT


def default_config() -> str:
    """The settings file that is used where none is named: always the project's own."""
    name = "configs/config.yaml"
    return name if works_in_project_root() else str(PROJECT_ROOT / name)


def tried_places(name: str | Path) -> str:
    """The places where a local path was looked for, for the ``where`` of an error.

    Returns:
        One absolute path, or two, as ``/first/place/name and /second/place/name``.
    """
    in_project = project_path(name)
    in_working_directory = (working_directory() / Path(name).expanduser()).resolve()
    if in_working_directory == in_project:
        return str(in_project)
    return f"{in_working_directory} and {in_project}"


def find_in_working_directory(name: str) -> Path | None:
    """The absolute path of what a name or pattern stands for in the working directory; None where it is not there."""
    path = Path(os.path.abspath(working_directory() / Path(name).expanduser()))
    return path if _exists(path) else None


def source_files(name: str) -> list[Path]:
    """The local files that ``dataset.hf_name`` stands for: the file, all files of the folder, or all that a pattern matches."""
    path = project_path(name)
    if path.is_file():
        return [path]
    if path.is_dir():
        return sorted(file for file in path.rglob("*") if file.is_file())
    return [
        file for file in map(Path, sorted(glob.glob(str(path), recursive=True))) if file.is_file()
    ]


def load_config(path: str | Path | None = None, overrides: Iterable[str] = ()) -> Config:
    """Read a YAML file, apply ``dotted.key=VALUE`` overrides (VALUE read as YAML), check everything.

    Args:
        path: the file, looked up from the working directory first, then from the project's root;
            None is the project's ``configs/config.yaml``.
        overrides: settings that replace those of the file. Local models and data sets that they name are looked up as
            ``path`` is; one that is in the working directory becomes an absolute path, so that other processes find it.

    Raises:
        ConfigError: no such file, no YAML, unknown key, wrong type or impossible value.
    """
    file = _config_file(path)
    settings = _read_yaml(file, path)
    overridden: dict[str, Any] = {}
    for override in overrides:
        _apply(settings, override)
        _apply(overridden, override)
    if not works_in_project_root():
        _resolve_inputs(settings, set(_named_inputs(overridden)))
    return _validated(settings, file)


def _resolve_inputs(settings: dict[str, Any], overridden: set[str]) -> None:
    """Make the local inputs that lie in the working directory absolute, so that other processes find them.

    What the command line names is looked up in the working directory first; what the configuration file names, in
    the project's root first.
    """
    for key, name in _named_inputs(settings).items():
        if name == EMBEDDED:
            continue
        if key not in overridden and _exists(project_path(name)):
            continue
        found = find_in_working_directory(name)
        if found is not None:
            section, field = key.split(".")
            settings[section][field] = str(found)


def _exists(path: Path) -> bool:
    """Whether a path or a pattern stands for something."""
    return path.exists() or bool(glob.glob(str(path), recursive=True))


def _config_file(path: str | Path | None) -> Path:
    if path is None:
        return PROJECT_ROOT / "configs" / "config.yaml"
    if works_in_project_root():
        return project_path(path)
    return find_in_working_directory(str(path)) or project_path(path)


def _named_inputs(settings: Mapping[str, Any]) -> dict[str, str]:
    """The names of inputs among some settings, by dotted key."""
    names = {}
    for key in INPUT_KEYS:
        section, field = key.split(".")
        fields = settings.get(section)
        name = fields.get(field) if isinstance(fields, dict) else None
        if isinstance(name, str) and name:
            names[key] = name
    return names


def changed(config: Config, override: str) -> Config:
    """The same settings but for one ``dotted.key=VALUE``, checked as a file's are."""
    settings = config.to_dict()
    _apply(settings, override)
    return _validated(settings, f"--set {override}")


def _validated(settings: dict[str, Any], where: object) -> Config:
    try:
        # As JSON, whose lists may be strict tuples; what YAML has beyond JSON (dates) becomes text.
        return Config.model_validate_json(json.dumps(settings, default=str))
    except ValueError as error:  # pydantic's own is one
        if isinstance(error, ValidationError) and all(detail["loc"] for detail in error.errors()):
            raise _refusal(error, where) from error
        fix = "see configs/config.yaml"
        raise ConfigError(
            f"The settings hold what no setting can be: {error}", where=where, fix=fix
        ) from error


def _read_yaml(file: Path, name: str | Path | None) -> dict[str, Any]:
    try:
        settings = yaml.safe_load(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        known = ", ".join(
            sorted(
                str(p.relative_to(PROJECT_ROOT)) for p in (PROJECT_ROOT / "configs").glob("*.yaml")
            )
        )
        where = tried_places(name) if name else file
        raise ConfigError(
            "No such config file.", where=where, fix=f"use one of: {known}"
        ) from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(
            f"The config file cannot be read: {error}", where=file, fix="name a YAML file in UTF-8"
        ) from error
    if not isinstance(settings, dict | None):
        raise ConfigError(
            "The config file holds no settings by name.", where=file, fix="see configs/config.yaml"
        )
    return settings or {}


def _apply(settings: dict[str, Any], override: str) -> None:
    dotted, equals, text = override.partition("=")
    keys = dotted.strip().split(".")
    if not equals or not all(keys):
        raise ConfigError(
            f"Cannot read the override {override!r}.",
            where="--set",
            fix="write --set section.key=VALUE",
        )
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(
            f"The override {override!r} is not valid YAML.", where=f"--set {dotted}"
        ) from error
    target = settings
    for key in keys[:-1]:
        target = target.setdefault(key, {})
        if not isinstance(target, dict):
            raise ConfigError(
                f"{dotted} goes below a value.", where=f"--set {override}", fix=_nearest(keys)
            )
    target[keys[-1]] = value


def _refusal(error: ValidationError, where: object) -> ConfigError:
    """One message for all that is wrong, the first problem first."""
    problems: dict[tuple[str, ...], list[Any]] = {}
    for detail in error.errors():
        section, *rest = detail[
            "loc"
        ]  # section, key, position in a list, and for a union the name of its member
        keys = (section, *(part for i, part in enumerate(rest) if i == 0 or isinstance(part, int)))
        problems.setdefault(tuple(map(str, keys)), []).append(detail)
    lines = [_describe(".".join(keys), details) for keys, details in problems.items()]
    return ConfigError("\n".join(lines), where=where, fix=_nearest(list(next(iter(problems)))))


def _describe(dotted: str, details: list[Any]) -> str:
    if details[0]["type"] == "extra_forbidden":
        return f"Unknown setting: {dotted}"
    allowed = "; or ".join(str(d["msg"]).removeprefix("Value error, ") for d in details)
    return f"{dotted} cannot be {details[0]['input']!r}: {allowed}"


def _nearest(keys: list[str]) -> str:
    """What to write instead: what the setting allows, or the nearest valid name."""
    if keys in ([section] for section in SECTIONS):
        return "see configs/config.yaml"
    field = SECTIONS.get(keys[0], {}).get(keys[1] if len(keys) > 1 else "")
    if field is not None and all(key.isdigit() for key in keys[2:]):
        choices = ", ".join(map(repr, _choices(field.annotation)))
        default = list(field.default) if isinstance(field.default, tuple) else field.default
        return f"{f'allowed: {choices}; ' if choices else ''}the default is {default!r}"
    valid, wanted = all_keys(), ".".join(keys)
    close = difflib.get_close_matches(wanted, valid, n=1, cutoff=0.6)
    # A right name in the wrong section is near too.
    close = close or [key for key in valid if key.rsplit(".", 1)[-1] == keys[-1]][:1]
    return f"did you mean {close[0]}?" if close else "valid settings: " + ", ".join(valid)


def _choices(annotation: Any) -> list[Any]:
    """The values of every Literal in a type."""
    if getattr(annotation, "__origin__", None) is Literal:
        return list(get_args(annotation))
    return [choice for part in get_args(annotation) for choice in _choices(part)]
