"""What a loaded model is and how large it is."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from utils.core.files import JsonObject
from utils.model.encoding import InputFormat
from utils.model.lengths import max_positions
from utils.model.location import ModelSource
from utils.model.weights import LoadedWeights
from utils.settings import ModelConfig
from utils.system.device import resolve_device


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadedModelInfo:
    """The properties of a loaded model, under the names that ``baseline_metrics.json`` has.

    ``utils.schema.run.ModelInfo`` is the record of that file, which is made from this one.

    Args:
        total_size_mb: size of the parameters, tied ones once; MB is 10^6 bytes.
        weights: ``pretrained``, or ``dummy`` for random ones.
        max_position_embeddings: tokens of the longest text; None without a limit.
        load_times: seconds by part (``tokenizer_s``, ``weights_s``, ``to_device_s``) and in all
            (``total_s``, which includes the checks between the parts).
        adapter_mode: ``merged`` or ``unmerged``; None without an adapter.
        weights_format: ``safetensors`` or ``pytorch_model.bin``; None for random weights.
        problem_type: ``single_label`` (softmax) or ``multi_label`` (a sigmoid for each label).
        padding_side: where shorter texts of a batch are padded; None where the model's batches may
            have no padding.
    """

    model_type: str
    name: str
    revision: str | None
    adapter: str | None
    total_params: int
    trainable_params: int
    non_trainable_params: int
    total_size_mb: float
    weights: str
    dtype: str
    device: str
    attn_implementation: str
    num_labels: int
    max_position_embeddings: int | None
    load_times: dict[str, float]
    adapter_mode: str | None = None
    weights_format: str | None = None
    problem_type: str = "single_label"
    padding_side: str | None = "right"

    def to_dict(self) -> JsonObject:
        """JSON values under the names of the contract."""
        return {**asdict(self), "load_time_s": self.load_times["total_s"]}


@dataclass(frozen=True, kw_only=True, slots=True)
class ParameterCounts:
    """Parameters of a model, tied ones once, and their size in bytes."""

    total: int
    trainable: int
    num_bytes: int


def _count_parameters(model: Any) -> ParameterCounts:
    total = 0
    trainable = 0
    num_bytes = 0
    for parameter in model.parameters():
        total += parameter.numel()
        num_bytes += parameter.numel() * parameter.element_size()
        if parameter.requires_grad:
            trainable += parameter.numel()
    return ParameterCounts(total=total, trainable=trainable, num_bytes=num_bytes)


def describe_model(
    source: ModelSource,
    settings: ModelConfig,
    weights: LoadedWeights,
    problem_type: str,
    inputs: InputFormat,
    load_times: dict[str, float],
) -> LoadedModelInfo:
    """The properties of a model that has been loaded from ``source`` with ``settings``."""
    model = weights.model
    size = _count_parameters(model)
    name = settings.name
    if source.adapter is not None:
        name = source.base.name
    padding_side = None
    if inputs.allows_padding:
        padding_side = inputs.padding_side
    kind_of_weights = "pretrained"
    if settings.load_format == "dummy":
        kind_of_weights = "dummy"
    return LoadedModelInfo(
        model_type=model.config.model_type,
        name=name,
        revision=source.base.revision,
        adapter=source.adapter_name,
        total_params=size.total,
        trainable_params=size.trainable,
        non_trainable_params=size.total - size.trainable,
        total_size_mb=size.num_bytes / 1e6,
        weights=kind_of_weights,
        dtype=settings.dtype,
        device=str(resolve_device(settings.device)),
        attn_implementation=model.config._attn_implementation or "eager",
        num_labels=model.config.num_labels,
        max_position_embeddings=max_positions(model),
        load_times=load_times,
        adapter_mode=weights.adapter_mode,
        weights_format=weights.weights_format,
        problem_type=problem_type,
        padding_side=padding_side,
    )


def model_summary_lines(info: LoadedModelInfo) -> list[str]:
    """The lines of the MODEL SUMMARY block."""
    lines = []
    if info.adapter is not None:
        how = "run unmerged on"
        if info.adapter_mode == "merged":
            how = "merged into"
        lines.append(f"Adapter: {info.adapter}, {how} {info.name}")
    lines.append(f"Model Type: {info.model_type}")
    lines.append(f"Total Parameters: {info.total_params:,} ({info.total_params / 1e6:.2f}M)")
    lines.append(f"Model Size: {info.total_size_mb:,.2f} MB")
    lines.append(f"Attention: {info.attn_implementation}")
    if info.weights_format == "pytorch_model.bin":
        lines.append("Weights: pytorch_model.bin, read without running code (weights_only)")
    if info.problem_type == "multi_label":
        lines.append("Task: multi-label; a sigmoid for each label, the most probable one counts")
    return lines
