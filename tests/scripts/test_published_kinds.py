"""Published kinds of models through steps 01 to 03: right accuracy, and no step fails."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pandas as pd
import peft
import pytest
import torch
import transformers as tr

from tests import builders, support

STEPS = ("01_download_data.py", "02_baseline_inference.py", "03_detailed_profiling.py")
TEXTS = [*builders.make_texts(24, seed=4), "a text that holds </s> the end token"]


def build_p_tuning(folder: Path) -> Path:
    base = builders.build_bert(folder / "base")
    torch.manual_seed(3)
    settings = peft.PromptEncoderConfig(
        task_type="SEQ_CLS", num_virtual_tokens=5, encoder_hidden_size=32
    )
    model = tr.AutoModelForSequenceClassification.from_pretrained(base)
    peft.get_peft_model(model, settings).save_pretrained(str(folder / "adapter"))
    return folder / "adapter"


@torch.no_grad()
def judge(folder: Path) -> list[int]:
    if not (folder / "adapter_config.json").exists():
        return builders.judge(folder, TEXTS).argmax(-1).tolist()
    base = tr.AutoModelForSequenceClassification.from_pretrained(folder.parent / "base")
    model = peft.PeftModel.from_pretrained(base, str(folder)).eval()
    tokenizer = tr.AutoTokenizer.from_pretrained(folder.parent / "base")
    labels = []
    for text in TEXTS:
        encoded = tokenizer(
            text, return_tensors="pt", truncation=True, max_length=builders.MAX_LENGTH
        )
        logits = model(
            input_ids=encoded["input_ids"], attention_mask=encoded["attention_mask"]
        ).logits
        labels.append(int(logits.argmax(-1)))
    return labels


@pytest.mark.parametrize(
    "build",
    [
        builders.build_t5,
        builders.build_bart,
        builders.build_xlnet,
        build_p_tuning,
        partial(builders.build_llama, template="<s> $A </s>"),
    ],
    ids=["t5", "bart", "xlnet", "p-tuning", "llama"],
)
def test_every_step_ends_well_and_the_accuracy_is_right(
    build: Callable[[Path], Path], tmp_path: Path
) -> None:
    model = build(tmp_path / "model")
    names = [builders.LABELS[number] for number in judge(model)]
    pd.DataFrame({"text": TEXTS, "label": names}).to_csv(tmp_path / "mine.csv", index=False)
    settings = [
        *support.small_overrides(tmp_path, model),
        f"dataset.hf_name={tmp_path / 'mine.csv'}",
        f"dataset.local_path={tmp_path / 'prepared' / 'val_df.csv'}",
        "profiling.num_measurement_runs=2",
    ]
    for step in STEPS:
        done = support.run_script(f"scripts/{step}", *support.set_flags(settings))
        assert done.returncode == 0, done.stderr
    metrics = json.loads((tmp_path / "results" / "baseline_metrics.json").read_text())
    assert metrics["full_dataset_metrics"]["accuracy"] == 1.0
    assert [row["status"] for row in metrics["batch_size_profiling"]] == ["ok", "ok"]
    assert json.loads((tmp_path / "results" / "bottlenecks.json").read_text())["main_bottleneck"]
