"""The records of what was run on what: the run, the machine, the model and the data set."""

from __future__ import annotations

from typing import Literal

from utils.schema.common import (
    Count,
    NonNegative,
    PositiveCount,
    Record,
    Sha256,
    optional,
    required,
    text,
    warnings,
)


class RunInfo(Record):
    """One run of step 02."""

    id: str = text("Name of the run: start time and a random part.")
    started_at: str = text("Start, ISO 8601 with the time zone.")
    finished_at: str = text("End, ISO 8601 with the time zone.")
    duration_s: NonNegative = required("s", "Time of the step, loading included.")
    command: str = text("The command that started it.")
    seed: Count = text("`profiling.seed`.")
    config_sha256: Sha256 = text("Hash of the resolved settings.")
    data_sha256: Sha256 = text("Hash of the data set's file.")
    warnings: tuple[str, ...] = warnings()


class CpuInfo(Record):
    """The processor and the main memory."""

    name: str = text("Model name.")
    physical_cores: int | None = optional("Physical cores; null where the system does not say.")
    logical_cores: int | None = optional("Hardware threads.")
    usable_cores: int | None = optional("Hardware threads that this process may use.")
    memory_bytes: int | None = optional("Main memory.", unit="bytes")


class GpuInfo(Record):
    """The GPU that the model is on, and how its driver has set it up."""

    name: str = text("Model name.")
    uuid: str | None = optional("By which NVML finds it.")
    compute_capability: str | None = optional("CUDA compute capability.")
    multiprocessors: int | None = optional("Streaming multiprocessors.")
    memory_bytes: int | None = optional("Memory of the device.", unit="bytes")
    driver: str | None = optional("Version of the driver.")
    max_sm_clock_mhz: float | None = optional("Highest clock of the multiprocessors.", unit="MHz")
    max_memory_clock_mhz: float | None = optional("Highest clock of the memory.", unit="MHz")
    power_limit_w: float | None = optional("Enforced power limit.", unit="W")
    persistence_mode: float | None = optional("1 where the driver stays loaded.")
    ecc_mode: float | None = optional("1 where the memory corrects errors.")


class TorchSettings(Record):
    """Settings of PyTorch that decide speed or precision."""

    num_threads: int | None = optional("Threads of one operator.", unit="threads")
    num_interop_threads: int | None = optional("Threads of several operators.", unit="threads")
    matmul_precision: str | None = optional("`torch.get_float32_matmul_precision()`.")
    cudnn_allow_tf32: bool | None = optional("Whether cuDNN may use TF32.")
    deterministic_algorithms: bool | None = optional("Whether only deterministic ones are used.")
    cuda_build: str | None = optional("Version of CUDA that PyTorch was built with.")


class GitState(Record):
    """The commit of this project."""

    commit: str | None = optional("Commit; null outside a checkout.")
    dirty: bool | None = optional("Whether files differ from it.")


class Environment(Record):
    """The machine and its software: what decides whether two runs can be compared."""

    platform: str = text("Operating system.")
    python: str = text("Version of Python.")
    libraries: dict[str, str | None] = text("Version of each library; null: not installed.")
    cpu: CpuInfo = text("The processor.")
    gpu: GpuInfo | None = optional("The GPU; null where the model is on the CPU.")
    torch: TorchSettings = text("Settings of PyTorch.")
    variables: dict[str, str | None] = text(
        "Environment variables that decide speed; `TOKENIZERS_PARALLELISM` as it was in effect for "
        "the batches of the sweep."
    )
    git: GitState = text("The commit of this project.")


class ModelInfo(Record):
    """The model as it was loaded."""

    model_type: str = text("Architecture, as transformers names it.")
    name: str = text("Hub id or folder.")
    revision: str | None = optional("Commit on the hub.")
    adapter: str | None = optional("PEFT adapter.")
    total_params: Count = required("parameters", "All parameters, tied ones once.")
    trainable_params: Count = required("parameters", "Parameters that require gradients.")
    non_trainable_params: Count = required("parameters", "The others.")
    total_size_mb: NonNegative = required("MB", "Size of the parameters.")
    weights: Literal["pretrained", "dummy"] = text("`dummy`: random weights.")
    dtype: Literal["float32", "float16", "bfloat16"] = text("Type of the weights.")
    device: str = text("Device of the model.")
    attn_implementation: str | None = optional("Attention that transformers uses.")
    num_labels: PositiveCount = text("Labels that the model predicts.")
    max_position_embeddings: Count | None = optional(
        "Longest text that the model has positions for; null without a limit.", unit="tokens"
    )
    load_times: dict[str, NonNegative] = required("s", "Time to load, by part.")
    adapter_mode: str | None = optional("`merged` or `unmerged`; null without an adapter.")
    weights_format: str | None = optional("File format of the weights; null for random ones.")
    problem_type: str = optional(
        "`single_label`: softmax; `multi_label`: a sigmoid for each label.", default="single_label"
    )
    padding_side: str | None = optional(
        "Where shorter texts of a batch are padded; null where batches may hold no padding.",
        default="right",
    )
    load_time_s: NonNegative = required("s", "Time to load tokenizer and model.")


class DatasetInfo(Record):
    """The data set as step 01 made it."""

    name: str = text("Hub id, path or pattern that it was made from.")
    revision: str | None = optional("Commit on the hub.")
    config: str | None = optional("Configuration of a hub's data set that has several.")
    split: str | None = optional("Split of the hub's data set.")
    path: str = text("File that step 01 wrote.")
    num_rows: PositiveCount = required("rows", "Rows of the file.")
    num_labels: PositiveCount = text("Labels of the data set.")
    label_names: tuple[str, ...] = text("Label names in the order of their ids.")
    sha256: Sha256 = text("Hash of the file.")
    sample_sizes: tuple[PositiveCount, ...] = required("rows", "Texts of each sweep.")
    label_mapping_source: str | None = optional("What the label ids were decided by.")
    label_mapping_confidence: Literal["certain", "assumed", "guessed", "none"] | None = optional(
        "How sure the label ids are."
    )
    label_mapping_note: str | None = optional("What to know about the label ids.")
