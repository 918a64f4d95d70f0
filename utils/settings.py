"""All settings with their types, defaults and meanings: one section for each stage."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, field_validator

from utils.core.files import JsonObject
from utils.core.paths import project_path
from utils.core.result_files import ResultFiles

EMBEDDED = "embedded"
"""As ``model.name`` or ``dataset.hf_name``: the model and corpus that are built locally."""


class Section(BaseModel):
    """One group of settings: frozen, strict about types, no unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, protected_namespaces=())


class ModelConfig(Section):
    """Which model is loaded, and how."""

    name: str = Field(
        "codefactory4791/intent-classification-qwen",
        min_length=1,
        description="Hub id, local folder, PEFT adapter of either, an architecture's .json (with "
        "load_format: dummy), or `embedded`.",
    )
    revision: str | None = Field(
        None,
        description="Commit, tag or branch on the hub; null: its default branch. The commit is "
        "recorded.",
    )
    tokenizer: str | None = Field(
        None, description="Hub id, local folder or `embedded`; null: the model's own."
    )
    adapter_base: str | None = Field(
        None,
        description="Hub id or local folder of an adapter's base model; null: the one that the "
        "adapter names.",
    )
    device: str = Field(
        "cuda",
        pattern=r"^(cuda(:\d+)?|cpu|auto)$",
        description="auto: a CUDA device if there is one.",
    )
    dtype: Literal["float32", "float16", "bfloat16"] = Field(
        "float32", description="Precision of weights and activations."
    )
    load_format: Literal["auto", "dummy"] = Field(
        "auto",
        description="auto: real weights. dummy: seeded random ones; accuracy is then null.",
    )
    attn_implementation: Literal["auto", "sdpa", "eager", "flash_attention_2"] = Field(
        "auto",
        description="Attention that transformers uses; auto: sdpa where the architecture has it, "
        "else eager.",
    )
    matmul_precision: Literal["highest", "high", "medium"] = Field(
        "highest",
        description='torch.set_float32_matmul_precision: "high" allows TF32 on CUDA.',
    )
    trust_remote_code: bool = Field(
        False,
        description="May code from the model's repository run? Leave it off unless you have read "
        "that code.",
    )
    seed: int = Field(
        0,
        ge=0,
        description="Of dummy weights and of a classification head that the checkpoint lacks.",
    )


class DatasetConfig(Section):
    """Which texts and labels are read, and where step 01 writes them."""

    hf_name: str = Field(
        "codefactory4791/amazon_test",
        min_length=1,
        description="Hub id, a local file, a pattern of many (data/part-*.parquet), a folder, or "
        "`embedded`.",
    )
    revision: str | None = Field(
        None, description="Commit, tag or branch of the data set on the hub."
    )
    split: str = Field("test", min_length=1, description="Split of the hub's data set.")
    config: str | None = Field(
        None, description="Configuration of a hub's data set that has several."
    )
    local_path: str | None = Field(
        "./data/val_df.csv",
        description="Where step 01 writes the data set and later steps read it: .csv or .parquet; "
        "null: named after the data set.",
    )
    text_column: str = Field(
        "text", description="Column of the texts; `query` and `text` are both accepted."
    )
    label_column: str | None = Field(
        "labels",
        description="Column of the labels; `label` and `labels` are both accepted. null: the data "
        "set has no labels.",
    )
    label_map: dict[str, str] = Field(
        {},
        description="Renames labels: the data set's name to the model's name, or to LABEL_0, "
        "LABEL_1 … of a model without names; null: rows with that name have no label.",
    )
    sample_sizes: tuple[PositiveInt, ...] = Field(
        (100,),
        min_length=1,
        description="How many texts the batch-size sweep uses; several values repeat the sweep.",
    )

    @field_validator("local_path")
    @classmethod
    def _check_ending(cls, value: str | None) -> str | None:
        if value is not None and not value.endswith((".csv", ".parquet")):
            raise ValueError("must end in .csv or .parquet")
        return value

    @field_validator("label_map", mode="before")
    @classmethod
    def _labels_as_text(cls, value: Any) -> Any:
        """Numbers (1: positive) are text, and null as a target is no label."""
        if not isinstance(value, dict):
            return value
        texts = {}
        for name, target in value.items():
            texts[str(name)] = "" if target is None else str(target)
        return texts


class ProfilingConfig(Section):
    """How the batch-size sweep and step 03 measure."""

    batch_sizes: tuple[PositiveInt, ...] = Field(
        (1, 4, 8, 16, 32, 64), min_length=1, description="Batch sizes of the sweep."
    )
    num_warmup_runs: int = Field(
        3, ge=0, description="Unmeasured runs at each batch size before the first measured one."
    )
    num_measurement_runs: PositiveInt = Field(
        10,
        description="Measured runs at each batch size, at least; a run is the complete sample.",
    )
    target_relative_ci: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="Measure until half the 95% interval of the mean is at most this share of it; "
        "null: stop at num_measurement_runs.",
    )
    max_seconds_per_batch_size: float = Field(
        60.0,
        gt=0,
        description="Seconds after which a batch size is measured no further, where "
        "target_relative_ci asks for more runs.",
    )
    process_spread: float | None = Field(
        None,
        ge=0,
        lt=1,
        description="How much processes differ on this machine, standard deviation over mean, as "
        "benchmarks/repeatability.py measures it; the 95% intervals allow for it. null: what is "
        "known of this kind of device (CPU: 0.12; CUDA: nothing).",
    )
    min_window_seconds: float = Field(
        2.0,
        ge=0,
        description="How long each batch size runs without a pause for the GPU's readings, which "
        "look back up to a second; 0: not at all.",
    )
    try_all_batch_sizes: bool = Field(
        False, description="Also those above one that ran out of memory."
    )
    max_length: PositiveInt = Field(512, description="Tokens at which a text is truncated.")
    seed: int = Field(
        0, ge=0, description="Of the sample and of the order in which batch sizes are measured."
    )
    gpu_sample_interval_ms: float = Field(
        20.0, gt=0, description="Milliseconds between two NVML readings."
    )
    latency_target_ms: float | None = Field(
        None,
        gt=0,
        description="Milliseconds that a batch may take: step 02 looks for the largest batch size "
        "below it, also between the swept ones. Queueing is not included. null: none.",
    )
    latency_target_percentile: int = Field(
        95,
        ge=50,
        le=99,
        description="The percentile of the time of a batch that has to stay below "
        "latency_target_ms.",
    )
    trace_steps: PositiveInt = Field(
        3,
        description="Batches that step 03 records in the trace, after one to wait and one to warm "
        "up.",
    )

    @field_validator("batch_sizes")
    @classmethod
    def _check_repeats(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        repeated = sorted({size for size in value if value.count(size) > 1})
        if repeated:
            raise ValueError(f"each batch size once; repeated: {repeated}")
        return value


class EvaluationConfig(Section):
    """Whether and how the complete data set is evaluated."""

    enabled: bool = Field(
        True,
        description="false: step 02 measures the batch-size sweep alone, and "
        "`full_dataset_metrics` is null.",
    )
    batching: Literal["token_budget", "dataset_order"] = Field(
        "token_budget",
        description="token_budget: grouped by length. dataset_order: fixed-size batches in file "
        "order, padded to their longest.",
    )
    batch_size: PositiveInt = Field(
        32, description="Rows of a batch where batching is dataset_order."
    )
    max_tokens_per_batch: PositiveInt | Literal["auto"] = Field(
        "auto",
        description='Padded tokens of a batch where batching is token_budget; "auto" measures a '
        "few and takes the fastest.",
    )
    chunk_rows: PositiveInt = Field(8192, description="Rows between two safe points.")
    max_samples: PositiveInt | None = Field(
        None, description="Evaluate only the first rows; null: all of them."
    )
    compile: bool = Field(
        False,
        description="Batches without padding through torch.compile; its gain is measured, "
        "compiling apart.",
    )
    compare_batching: bool = Field(
        True,
        description="Measure on some rows how much faster token_budget is than dataset_order.",
    )
    unknown_labels: Literal["error", "skip"] = Field(
        "error",
        description="Rows whose label the model does not know: `error` refuses the data set and "
        "shows them; `skip` predicts them, leaves them out of accuracy and reports how many.",
    )
    num_workers: PositiveInt = Field(
        1,
        description="Processes that share the evaluation, each with a model and, where there are "
        "GPUs, a GPU; above 1 through Ray Data.",
    )
    ray_address: Annotated[str, Field(pattern=r"^(auto|[^/\s]+:\d+)$")] | None = Field(
        None,
        description='host:port of a Ray cluster, or "auto" for the one that this machine belongs '
        "to; null: none.",
    )


class CostConfig(Section):
    """What the machine costs."""

    gpu_price_per_hour_usd: float | None = Field(
        None,
        ge=0,
        description="Price of one GPU (of the machine, where there is none) in USD per hour; null: "
        "reports and comparisons give no costs.",
    )


class TargetsConfig(Section):
    """What the complete data set should reach; the reports compare it. null: no target."""

    latency_per_sample_ms: float | None = Field(
        None, gt=0, description="Milliseconds per text, at most."
    )
    throughput_samples_per_sec: float | None = Field(
        None, gt=0, description="Texts per second, at least."
    )
    gpu_util: float | None = Field(
        None, gt=0, le=100, description="Utilisation of the GPU in percent, at least."
    )
    peak_gpu_mem: float | None = Field(
        None, gt=0, description="Peak of the GPU memory in MB, at most."
    )
    accuracy: float | None = Field(None, gt=0, le=1, description="Accuracy, at least.")
    f1_macro: float | None = Field(None, gt=0, le=1, description="Macro F1, at least.")
    f1_weighted: float | None = Field(None, gt=0, le=1, description="Weighted F1, at least.")


class OutputConfig(Section):
    """Where results are written."""

    results_dir: str = Field(
        "./results", min_length=1, description="Folder of everything that is measured or drawn."
    )
    metrics_file: str = Field(
        "baseline_metrics.json",
        pattern=r"^[^/]+\.json$",
        description="Name of the metrics file inside results_dir.",
    )
    detailed_metrics_file: str = Field(
        "detailed_metrics.csv",
        pattern=r"^[^/]+\.csv$",
        description="Name of the table inside results_dir.",
    )


class EmbeddedConfig(Section):
    """How the embedded corpus and model are built."""

    dir: str = Field(
        "./data/demo",
        min_length=1,
        description="Folder of the embedded corpus, tokenizer and model.",
    )
    seed: int = Field(0, ge=0, description="Of the corpus's split and of the training.")
    training_rows: PositiveInt = Field(
        12000, description="Texts that the small model is trained on."
    )
    epochs: PositiveInt = Field(3, description="Passes over those texts.")


class Config(Section):
    """All settings of a run; what a file leaves out has the defaults given here."""

    model: ModelConfig = ModelConfig()
    dataset: DatasetConfig = DatasetConfig()
    profiling: ProfilingConfig = ProfilingConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    cost: CostConfig = CostConfig()
    targets: TargetsConfig = TargetsConfig()
    output: OutputConfig = OutputConfig()
    embedded: EmbeddedConfig = EmbeddedConfig()

    def get(self, dotted: str, default: Any = None) -> Any:
        """The value at a dotted key (``profiling.batch_sizes``), or ``default`` without one."""
        value: Any = self.to_dict()
        for key in dotted.split("."):
            if not isinstance(value, dict) or key not in value:
                return default
            value = value[key]
        return value

    def to_dict(self) -> JsonObject:
        """Plain JSON values, all defaults filled in."""
        return self.model_dump(mode="json")

    @property
    def files(self) -> ResultFiles:
        """The paths of this run's results."""
        folder = project_path(self.output.results_dir)
        return ResultFiles(
            results_dir=folder,
            metrics=folder / self.output.metrics_file,
            detailed_metrics=folder / self.output.detailed_metrics_file,
        )

    @property
    def data_file(self) -> Path:
        """The data set that step 01 writes."""
        if self.dataset.local_path is not None:
            return project_path(self.dataset.local_path)
        # In a folder of its own, because the label mappings and the record of the data set are
        # beside the data set.
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", self.dataset.hf_name).strip("-.") or "dataset"
        return project_path(f"data/{name}/{name}.csv")

    @property
    def label_mappings_file(self) -> Path:
        """The label mappings, beside the data set."""
        return self.data_file.parent / "label_mappings.json"

    @property
    def embedded_dir(self) -> Path:
        """The folder of the embedded corpus, tokenizer and model."""
        return project_path(self.embedded.dir)

    @property
    def embedded_model_dir(self) -> Path:
        """The folder of the embedded model and tokenizer."""
        return self.embedded_dir / "model"


SECTIONS = {name: type(field.default).model_fields for name, field in Config.model_fields.items()}
"""The fields of every section."""


def all_keys() -> list[str]:
    """The dotted path of every setting."""
    return [f"{section}.{key}" for section, fields in SECTIONS.items() for key in fields]
