"""The small run that the golden tests look at: its model, its data set, its settings, its start.

The model has the architecture and the tokenizer of ``tests.support``. Its weights come from NumPy's
``RandomState``, whose stream is frozen, so they are the same with every version of PyTorch, and
they are so large that the predictions differ clearly from text to text.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from tests import support

GOLDEN_FOLDER = Path(__file__).resolve().parent
EXPECTED_FOLDER = GOLDEN_FOLDER / "expected"
DATASET = GOLDEN_FOLDER / "dataset.csv"
MAX_LENGTH = 64
SEED = 20


@dataclass(frozen=True, kw_only=True)
class SmallRun:
    """One finished run of ``run_week1.py``: its folder, its model, its flags, its process."""

    folder: Path
    model: Path
    flags: tuple[str, ...]
    process: subprocess.CompletedProcess[str]

    @property
    def results(self) -> Path:
        return self.folder / "results"


def build_golden_model(folder: Path) -> Path:
    """Save the model, whose weights are the same on every machine, into ``folder``."""
    support.build_tiny_model(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    stream = np.random.RandomState(SEED)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            values = stream.standard_normal(tuple(parameter.shape))
            parameter.copy_(torch.from_numpy(_scaled(name, values)).float())
    model.save_pretrained(folder)
    return folder


def _scaled(name: str, values: np.ndarray) -> np.ndarray:
    if name.startswith("score"):
        return 0.4 * values
    if values.ndim == 2:
        return values / np.sqrt(values.shape[1])
    if name.endswith("bias"):
        return 0.1 * values
    # The factors of a normalisation layer.
    return 1.0 + 0.1 * values


def settings(folder: Path, model: Path) -> list[str]:
    """The settings of the small run as ``key=value``; all that it writes is below ``folder``."""
    changed = ("profiling.max_length", "profiling.trace_steps", "dataset.hf_name")
    common = support.small_overrides(folder, model)
    return [
        *(setting for setting in common if not setting.startswith(changed)),
        f"profiling.max_length={MAX_LENGTH}",
        "profiling.trace_steps=2",
        f"dataset.hf_name={DATASET}",
    ]


def make_small_run(folder: Path) -> SmallRun:
    """Run all steps on the golden model and data set, as a user would, in processes."""
    model = build_golden_model(folder / "model")
    flags = support.set_flags(settings(folder, model))
    process = support.run_script("run_week1.py", *flags, OMP_NUM_THREADS="1")
    assert process.returncode == 0, process.stdout + process.stderr
    return SmallRun(folder=folder, model=model, flags=tuple(flags), process=process)


def read_predictions(run: SmallRun) -> pd.DataFrame:
    """The rows of ``results/predictions`` in the data set's order, with the contract's columns."""
    rows = support.read_predictions(run.folder)
    columns = ["row_id", "label_id", "predicted_id", "predicted_probability", "num_tokens"]
    return rows[columns].astype({"predicted_probability": "float64"})


def predict_with_transformers(model_folder: Path) -> pd.DataFrame:
    """The independent judge: transformers alone, one text at a time, without padding."""
    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    model = AutoModelForSequenceClassification.from_pretrained(model_folder).eval()
    data = pd.read_csv(DATASET, keep_default_na=False)
    rows = []
    for row_id, (text, label) in enumerate(zip(data["text"], data["label"], strict=True)):
        inputs = tokenizer(text, truncation=True, max_length=MAX_LENGTH, return_tensors="pt")
        with torch.inference_mode():
            logits = model(input_ids=inputs["input_ids"]).logits[0]
        probabilities = logits.softmax(dim=-1)
        predicted_id = int(probabilities.argmax())
        rows.append(
            {
                "row_id": row_id,
                "label_id": support.LABELS.index(label),
                "predicted_id": predicted_id,
                "predicted_probability": float(probabilities[predicted_id]),
                "num_tokens": inputs["input_ids"].shape[1],
            }
        )
    return pd.DataFrame(rows)
