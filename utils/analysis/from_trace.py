"""What a trace says of kernels and memory: into ``bottlenecks.json`` and tables of their own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd
import torch

from utils.analysis import kernels, memory, tracing
from utils.analysis.kernels import Event
from utils.config_loader import Config
from utils.core.artifacts import write_text
from utils.data.reader import sample_texts
from utils.model_utils import LoadedModel, encode_batch


def add_kernels_and_memory(
    result: dict[str, Any], layer_table: pd.DataFrame, traced: tracing.Trace, bare: Sequence[Event],
    inputs: Sequence[dict[str, torch.Tensor]], forward: Callable[[dict[str, torch.Tensor]], object], loaded: LoadedModel,
    sweep: Sequence[Mapping[str, Any]], config: Config,
) -> pd.DataFrame:
    """Put ``kernels``, ``memory`` and ``not_measured`` into the result; return the layers with the memory that each adds.

    Args:
        bare: events of a trace without shapes, memory and stacks, for the kernels.
        inputs: of each traced step.
        sweep: rows of ``batch_size_profiling`` of one sample and this model.
    """
    files, device, max_length = config.files, loaded.device, config.profiling.max_length
    longest = None
    if sweep:
        texts = sample_texts(config.data_file, sweep[0]["sample_size"], config.profiling.seed)
        longest = encode_batch(loaded.tokenizer, texts, max_length)["input_ids"].shape[1]
    masks = [batch["attention_mask"] for batch in inputs]
    shapes = [None if mask.all() else (mask.shape[0], mask.shape[1]) for mask in masks]
    found, step = memory.analyse(traced.events, shapes, forward, loaded.model, device, max_length, sweep, longest)
    not_measured = {f"memory.{name}": reason for name, reason in found.pop("not_measured").items()}
    on_device = kernels.summarise(bare) if device.type == "cuda" else None
    if device.type == "cpu":
        not_measured["kernels"] = "no GPU was used"
    elif on_device is None:
        not_measured["kernels"] = tracing.NO_KERNELS if bare else tracing.NONE_READABLE
    result |= {"kernels": on_device, "memory": found, "not_measured": not_measured}
    for file, table in ((files.kernels, kernels.table(bare) if on_device else None),
                        (files.memory, memory.timeline(step) if step else None)):
        if table is None:
            file.unlink(missing_ok=True)  # an earlier run's
        else:
            write_text(file, table.to_csv(index=False, lineterminator="\n"))
    added = memory.by_module(step, traced.events) if step else {}
    kept, most = ({name: both[place] for name, both in added.items()} for place in (0, 1))
    names = layer_table["module"]
    return layer_table.assign(memory_kept_mb=names.map(kept).astype(float), memory_peak_mb=names.map(most).astype(float))
