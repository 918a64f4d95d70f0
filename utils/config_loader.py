"""YAML and overrides in, one frozen and validated Config out."""

from __future__ import annotations

import difflib
import glob
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError, field_validator

from utils.core.artifacts import PROJECT_ROOT, ResultFiles
from utils.core.errors import ConfigError

EMBEDDED = "embedded"
"""As ``model.name`` or ``dataset.hf_name``: the model and corpus that are made on the spot."""

DATA_SUFFIXES = (".csv", ".parquet")
SOURCE_SUFFIXES = (*DATA_SUFFIXES, ".jsonl")


class Section(BaseModel):
    """One group of settings: frozen, strict about types, no unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, protected_namespaces=())


class ModelConfig(Section):
    name: str = Field("codefactory4791/intent-classification-qwen", min_length=1)
    """Hub id, local folder, PEFT adapter of either, an architecture's ``.json`` (with
    ``load_format: dummy``), or ``embedded``."""
    revision: str | None = None
    """Commit, tag or branch on the hub; null is the default branch. What it resolved to is recorded."""
    tokenizer: str | None = None
    """Hub id, local folder or ``embedded``; null takes the model's own."""
    device: Annotated[str, Field(pattern=r"^(cuda(:\d+)?|cpu|auto)$")] = "cuda"
    """``cuda``, ``cuda:N``, ``cpu``, or ``auto`` (a CUDA device if there is one)."""
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    """Precision of weights and activations."""
    load_format: Literal["auto", "dummy"] = "auto"
    """``auto``: real weights. ``dummy``: the architecture with seeded random weights; accuracy is then null."""
    attn_implementation: Literal["sdpa", "eager", "flash_attention_2"] = "sdpa"
    """Which attention code transformers uses."""
    matmul_precision: Literal["highest", "high", "medium"] = "highest"
    """``torch.set_float32_matmul_precision``: ``high`` allows TF32 on CUDA."""
    trust_remote_code: bool = False
    """Whether code from the model's repository may run. Leave it off unless you have read that code."""
    seed: int = Field(0, ge=0)
    """Seed of dummy weights and of a classification head that the checkpoint lacks."""


class DatasetConfig(Section):
    hf_name: str = Field("codefactory4791/amazon_test", min_length=1)
    """Hub id, a local ``.csv``, ``.parquet`` or ``.jsonl`` file or a pattern of many (``data/part-*.parquet``), or
    ``embedded``."""
    revision: str | None = None
    """Commit, tag or branch of the data set on the hub."""
    split: str = Field("test", min_length=1)
    """Which split of the hub's data set."""
    local_path: str = "./data/val_df.csv"
    """Where step 01 writes the data set and later steps read it: ``.csv`` or ``.parquet``."""
    text_column: str = "text"
    """Column of the texts in the source; ``query`` and ``text`` stand in for each other."""
    label_column: str = "labels"
    """Column of the labels in the source; ``label`` and ``labels`` stand in for each other."""
    sample_sizes: tuple[PositiveInt, ...] = Field((100,), min_length=1)
    """How many texts the batch-size sweep runs over; several values repeat the sweep on each."""

    @field_validator("local_path")
    @classmethod
    def _known_suffix(cls, value: str) -> str:
        return _with_suffix(value, DATA_SUFFIXES)


class ProfilingConfig(Section):
    batch_sizes: tuple[PositiveInt, ...] = Field((1, 4, 8, 16, 32, 64), min_length=1)
    """Batch sizes of the sweep."""
    num_warmup_runs: int = Field(3, ge=0)
    """Unmeasured runs at each batch size before the first measured one."""
    num_measurement_runs: PositiveInt = 10
    """Measured runs at each batch size, at least; a run is the whole sample once."""
    target_relative_ci: float | None = Field(None, gt=0, lt=1)
    """Measure on until half the 95% interval of the mean is at most this share of it; null stops at the runs above."""
    max_seconds_per_batch_size: float = Field(60.0, gt=0)
    """Seconds after which a batch size is measured no further, where ``target_relative_ci`` asks for more runs."""
    process_spread: float | None = Field(None, ge=0, lt=1)
    """By how much processes differ on this machine, standard deviation over mean, as benchmarks/repeatability.py measures
    it; the 95% intervals allow for it. Null: what is known of this kind of device (CPU: 0.12; CUDA: nothing)."""
    min_window_seconds: float = Field(2.0, ge=0)
    """How long each batch size runs back to back for the GPU's readings, which look back up to a second; 0: not at all."""
    try_all_batch_sizes: bool = False
    """Whether batch sizes above one that ran out of memory are tried too."""
    max_length: PositiveInt = 512
    """Tokens at which a text is cut."""
    seed: int = Field(0, ge=0)
    """Seed of the sample and of the order in which batch sizes are measured."""
    gpu_sample_interval_ms: float = Field(20.0, gt=0)
    """Milliseconds between two NVML readings."""
    trace_steps: PositiveInt = 3
    """Batches that step 03 records in the trace, after one to wait and one to warm up."""

    @field_validator("batch_sizes")
    @classmethod
    def _no_repeats(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        repeated = sorted({size for size in value if value.count(size) > 1})
        if repeated:
            raise ValueError(f"each batch size once; repeated: {repeated}")
        return value


class EvaluationConfig(Section):
    batching: Literal["token_budget", "dataset_order"] = "token_budget"
    """``token_budget``: grouped by length. ``dataset_order``: fixed-size batches in file order, padded to their longest."""
    batch_size: PositiveInt = 32
    """Rows a batch where ``batching`` is ``dataset_order``."""
    max_tokens_per_batch: PositiveInt | Literal["auto"] = "auto"
    """Padded tokens a batch where ``batching`` is ``token_budget``; ``auto`` measures a few and takes the fastest."""
    chunk_rows: PositiveInt = 8192
    """Rows between two safe points."""
    max_samples: PositiveInt | None = None
    """Evaluate only the first rows; null is all of them."""
    compile: bool = False
    """Run batches without padding through ``torch.compile``; what it won is measured, its compile time reported apart."""
    compare_batching: bool = True
    """Measure on some rows what ``token_budget`` wins over ``dataset_order``."""
    unknown_labels: Literal["error", "skip"] = "error"
    """Rows whose label the model does not know: ``error`` refuses the data set and shows them; ``skip`` predicts them,
    leaves them out of accuracy and says how many."""
    num_workers: PositiveInt = 1
    """Processes that share the evaluation, each with a model and, where there are GPUs, a GPU; above 1 through Ray Data."""
    ray_address: Annotated[str, Field(pattern=r"^(auto|[^/\s]+:\d+)$")] | None = None
    """``host:port`` of a Ray cluster, or ``auto`` for the one that this machine belongs to; null needs none."""


class OutputConfig(Section):
    results_dir: str = Field("./results", min_length=1)
    """Folder of everything that is measured or drawn."""
    metrics_file: str = Field("baseline_metrics.json", pattern=r"^[^/]+\.json$")
    """Name of the metrics file inside ``results_dir``."""
    detailed_metrics_file: str = Field("detailed_metrics.csv", pattern=r"^[^/]+\.csv$")
    """Name of the table inside ``results_dir``."""


class EmbeddedConfig(Section):
    dir: str = Field("./data/demo", min_length=1)
    """Folder of the embedded corpus, tokenizer and model."""
    seed: int = Field(0, ge=0)
    """Seed of the corpus's split and of the training."""
    training_rows: PositiveInt = 12000
    """Texts that the small model is trained on."""
    epochs: PositiveInt = 3
    """Passes over those texts."""


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
        return self.path("dataset.local_path")

    @property
    def label_mappings_file(self) -> Path:
        """The label mappings, beside the data set."""
        return self.data_file.parent / "label_mappings.json"


def project_path(value: str | Path) -> Path:
    """An absolute path; relative ones start at the project's root."""
    return (PROJECT_ROOT / Path(value).expanduser()).resolve()


def source_files(name: str) -> list[Path]:
    """The local files that ``dataset.hf_name`` stands for: the file itself, or all that its pattern (``*``) matches."""
    return [file for file in map(Path, sorted(glob.glob(str(project_path(name)), recursive=True))) if file.is_file()]


def load_config(path: str | Path = "configs/config.yaml", overrides: Iterable[str] = ()) -> Config:
    """Read a YAML file, apply ``dotted.key=VALUE`` overrides (VALUE read as YAML), check everything.

    Raises:
        ConfigError: no such file, no YAML, unknown key, wrong type or impossible value.
    """
    file = project_path(path)
    settings = _read_yaml(file)
    for override in overrides:
        _apply(settings, override)
    return _validated(settings, file)


def changed(config: Config, override: str) -> Config:
    """The same settings but for one ``dotted.key=VALUE``, checked as a file's are."""
    settings = config.to_dict()
    _apply(settings, override)
    return _validated(settings, f"--set {override}")


def _validated(settings: dict[str, Any], where: object) -> Config:
    try:
        return Config.model_validate(_lists_to_tuples(settings))
    except ValidationError as error:
        raise _refusal(error, where) from error


def _read_yaml(file: Path) -> dict[str, Any]:
    try:
        settings = yaml.safe_load(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        known = ", ".join(sorted(str(p.relative_to(PROJECT_ROOT)) for p in (PROJECT_ROOT / "configs").glob("*.yaml")))
        raise ConfigError("No such config file.", where=file, fix=f"use one of: {known}") from error
    except IsADirectoryError as error:
        raise ConfigError("The config is a folder, not a file.", where=file, fix="name a .yaml file") from error
    except PermissionError as error:
        raise ConfigError("The config file cannot be read.", where=file, fix="make it readable") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"The config file is not UTF-8: {error}.", where=file, fix="save it as UTF-8") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"The config file is not valid YAML: {error}", where=file, fix="mend that line") from error
    if settings is None:
        return {}
    if not isinstance(settings, dict):
        raise ConfigError("The config file holds no settings by name.", where=file, fix="see configs/config.yaml")
    return settings


def _apply(settings: dict[str, Any], override: str) -> None:
    dotted, equals, text = override.partition("=")
    keys = dotted.strip().split(".")
    if not equals or not all(keys):
        raise ConfigError(f"Cannot read the override {override!r}.", where="--set", fix="write --set section.key=VALUE")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"The override {override!r} is not valid YAML.", where=f"--set {dotted}") from error
    target = settings
    for key in keys[:-1]:
        target = target.setdefault(key, {})
        if not isinstance(target, dict):
            raise ConfigError(f"{dotted} goes below a value.", where=f"--set {override}", fix=_nearest(keys))
    target[keys[-1]] = value


def _lists_to_tuples(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_lists_to_tuples(item) for item in value)
    if isinstance(value, dict):
        return {key: _lists_to_tuples(item) for key, item in value.items()}
    return value


def _refusal(error: ValidationError, where: object) -> ConfigError:
    """One message for all that is wrong, the first problem first."""
    problems: dict[str, list[Any]] = {}
    for detail in error.errors():
        keys = [str(part) for part in detail["loc"]]
        while keys and not keys[-1].isdigit() and not _known(keys) and detail["type"] != "extra_forbidden":
            keys.pop()  # the parts that pydantic adds to name a member of a union
        problems.setdefault(".".join(keys), []).append(detail)
    lines = [_describe(dotted, details) for dotted, details in problems.items()]
    first = next(iter(problems)).split(".")
    return ConfigError("\n".join(lines), where=where, fix=_nearest(first))


def _describe(dotted: str, details: list[Any]) -> str:
    if details[0]["type"] == "extra_forbidden":
        return f"Unknown setting: {dotted}"
    allowed = "; or ".join(str(d["msg"]).removeprefix("Value error, ") for d in details)
    value = details[0]["input"]
    shown = list(value) if isinstance(value, tuple) else value
    return f"{dotted} cannot be {shown!r}: {allowed}"


def _field(keys: list[str]) -> Any:
    """The pydantic field at a path, or None."""
    section: Any = Config
    field = None
    for key in keys:
        if key.isdigit():
            continue
        if not (isinstance(section, type) and issubclass(section, BaseModel)) or key not in section.model_fields:
            return None
        field = section.model_fields[key]
        section = field.annotation
    return field


def _known(keys: list[str]) -> bool:
    return _field(keys) is not None


def _nearest(keys: list[str]) -> str:
    """What to write instead: the nearest valid name, or what the setting allows."""
    field = _field(keys)
    if field is not None:
        choices = [repr(choice) for choice in _choices(field.annotation)]
        default = field.get_default(call_default_factory=True)
        hint = f"allowed: {', '.join(choices)}; " if choices else ""
        plain = list(default) if isinstance(default, tuple) else default
        return f"{hint}the default is {plain!r}" if not isinstance(plain, BaseModel) else "see configs/config.yaml"
    valid = all_keys()
    wanted = ".".join(keys)
    close = difflib.get_close_matches(wanted, valid, n=1, cutoff=0.6)
    # A right name in the wrong section is near too.
    close = close or [key for key in valid if key.rsplit(".", 1)[-1] == keys[-1]][:1]
    return f"did you mean {close[0]}?" if close else "valid settings: " + ", ".join(valid)


def _choices(annotation: Any) -> list[Any]:
    if getattr(annotation, "__origin__", None) is Literal:
        return list(get_args(annotation))
    return [choice for part in get_args(annotation) for choice in _choices(part)]


def all_keys() -> list[str]:
    """The dotted path of every setting."""
    return [f"{name}.{key}" for name, field in Config.model_fields.items() for key in _fields_of(field.annotation)]


def _fields_of(annotation: Any) -> Mapping[str, Any]:
    return annotation.model_fields if isinstance(annotation, type) and issubclass(annotation, BaseModel) else {}


def _with_suffix(value: str, suffixes: tuple[str, ...]) -> str:
    if not re.search("|".join(re.escape(suffix) + "$" for suffix in suffixes), value):
        raise ValueError(f"must end in {' or '.join(suffixes)}")
    return value
