"""What tests share: a tiny Qwen2 classifier with its own tokenizer, a data set, a config."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForSequenceClassification

from tests import script_server, small_tokenizers
from tests.script_server import StartedScript
from utils.config_loader import Config, load_config
from utils.core.files import PROJECT_ROOT
from utils.data import writer
from utils.data.dataset_settings import DatasetSettings
from utils.data.labels import ModelLabels
from utils.data.sources import DatasetSource, read_source

LABELS = ("books", "games", "music")
TEXTS = tuple(f"{word} number {i} " * (1 + i % 7) for i in range(20) for word in LABELS)
MAX_POSITIONS = 512


def build_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer of 300 entries, which splits texts as Qwen2's does.

    ``AutoTokenizer`` of some versions of transformers replaces the splitting that is stored by that
    of the model's kind. So the same texts give the same tokens with all of them.
    """
    core = small_tokenizers.train_byte_bpe(TEXTS, 300, ["<pad>", "<eos>"])
    small_tokenizers.split_as_qwen2(core)
    return PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", eos_token="<eos>", model_max_length=MAX_POSITIONS
    )


def build_model_config(labels: tuple[str, ...] = LABELS, **changes: Any) -> Qwen2Config:
    """Two layers of width 32; ``changes`` are passed on."""
    settings: dict[str, Any] = {
        "vocab_size": 320,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": MAX_POSITIONS,
        "pad_token_id": 0,
        "eos_token_id": 1,
        "bos_token_id": None,
        "tie_word_embeddings": True,
        "id2label": dict(enumerate(labels)),
        "label2id": {name: i for i, name in enumerate(labels)},
    }
    return Qwen2Config(**{**settings, **changes})


def build_tiny_model(folder: Path, labels: tuple[str, ...] = LABELS, **changes: Any) -> Path:
    """Save a tiny classifier with seeded random weights and its tokenizer into ``folder``."""
    torch.manual_seed(0)
    Qwen2ForSequenceClassification(build_model_config(labels, **changes)).save_pretrained(folder)
    build_tokenizer().save_pretrained(folder)
    return folder


def write_dataset(
    folder: Path,
    texts: tuple[str, ...] = TEXTS,
    labels: tuple[str, ...] = LABELS,
    settings: tuple[str, ...] = (),
    label_ids: tuple[int, ...] | None = None,
) -> Path:
    """Write the data set with its mapping and its record as step 01 does; return the CSV.

    Args:
        labels: of the model and, in turn, of the rows unless ``label_ids`` are given.
        settings: those that the run will have beside ``dataset.local_path``.
    """
    file = folder / "val_df.csv"
    for old in (file, folder / "label_mappings.json", folder / "dataset_info.json"):
        old.unlink(missing_ok=True)
    config = load_config("configs/config.yaml", [*settings, f"dataset.local_path={file}"])
    model_labels = ModelLabels(names=labels, num_labels=len(labels), source="id2label")
    ids = label_ids or tuple(i % len(labels) for i in range(len(texts)))
    rows = [
        (text, None if number < 0 else labels[number])
        for text, number in zip(texts, ids, strict=True)
    ]
    source = DatasetSource(rows=lambda: iter(rows))
    dataset_settings = DatasetSettings.of(config)
    preparation = writer.prepare(dataset_settings, source, model_labels)
    writer.write_dataset(dataset_settings, preparation)
    return file


def small_overrides(folder: Path, model: Path) -> list[str]:
    """Settings that run any step on the tiny model in seconds, everything below ``folder``."""
    return [
        f"model.name={model}",
        "model.device=cpu",
        f"dataset.local_path={folder / 'data' / 'val_df.csv'}",
        "dataset.sample_sizes=[8]",
        "profiling.batch_sizes=[1, 4]",
        "profiling.num_warmup_runs=1",
        "profiling.num_measurement_runs=3",
        "profiling.max_length=64",
        "profiling.trace_steps=1",
        "evaluation.chunk_rows=25",
        "evaluation.compare_batching=false",
        f"output.results_dir={folder / 'results'}",
        f"embedded.dir={folder / 'demo'}",
    ]


def read_configured_source(config: Config) -> DatasetSource:
    """The source that the settings name."""
    return read_source(config.dataset, config.embedded_dir)


def small_config(folder: Path, model: Path, *more: str) -> Config:
    """A config on the tiny model with its data set written."""
    write_dataset(folder / "data")
    return load_config("configs/config.yaml", [*small_overrides(folder, model), *more])


def prediction_bytes(folder: Path) -> dict[str, bytes]:
    """The content of each predictions file of the run below ``folder``, by name."""
    files = sorted((folder / "results" / "predictions").glob("*.parquet"))
    return {file.name: file.read_bytes() for file in files}


def read_predictions(folder: Path) -> pd.DataFrame:
    """The predictions of the run below ``folder``, in the order of the data set."""
    files = sorted((folder / "results" / "predictions").glob("*.parquet"))
    return pd.concat([pd.read_parquet(file) for file in files], ignore_index=True)


def run_script(
    script: str,
    *arguments: str,
    timeout: float = 550,
    in_new_interpreter: bool = False,
    **environment: str,
) -> subprocess.CompletedProcess[str]:
    """Run a script of the project in a process of its own, as a user would.

    ``environment`` is added to this process's. The process is forked from one that has imported the
    libraries (see ``script_server``), unless the test asks for a new interpreter.
    """
    if in_new_interpreter:
        words = [sys.executable, str(PROJECT_ROOT / script), *arguments]
        variables = {**os.environ, **environment}
        return subprocess.run(words, capture_output=True, text=True, timeout=timeout, env=variables)
    started = start_script(script, *arguments, **environment)
    stdout, stderr = started.communicate(timeout)
    assert started.returncode is not None
    return subprocess.CompletedProcess(started.args, started.returncode, stdout, stderr)


def start_script(
    script: str, *arguments: str, folder: Path | None = None, **environment: str
) -> StartedScript:
    """Start a script as ``run_script`` does, in ``folder`` or the working directory.

    One script at a time: a second one ends the first.
    """
    words = [str(PROJECT_ROOT / script), *arguments]
    return script_server.start_forked(words, {**os.environ, **environment}, folder)


def set_flags(overrides: list[str]) -> list[str]:
    """``--set`` before each override."""
    return [word for override in overrides for word in ("--set", override)]
