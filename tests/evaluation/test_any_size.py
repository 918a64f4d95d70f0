"""Memory does not grow with the rows: real processes, a model that costs next to nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from utils.core.artifacts import PROJECT_ROOT

TRIVIAL = """
import json, sys
from types import SimpleNamespace
import torch
from utils.config_loader import load_config
from utils.evaluation import runner
from utils.model_utils import LoadedModel

class Tokenizer:
    pad_token_id = 0
    def get_vocab(self):
        return {}
    def __call__(self, texts, **settings):
        return Encoded(texts)

class Encoded(dict):
    encodings = None
    def __init__(self, texts):
        super().__init__(input_ids=[[1, 2, 3 + len(text) % 2] for text in texts])

def model(input_ids, attention_mask):
    return SimpleNamespace(logits=torch.nn.functional.one_hot(input_ids[:, 2] - 3, 2).float())

info = SimpleNamespace(revision=None, adapter=None, weights="pretrained")
loaded = LoadedModel(model=model, tokenizer=Tokenizer(), info=info, device=torch.device("cpu"))
metrics = runner.evaluate_dataset(loaded, load_config(overrides=sys.argv[1:]))
with open("/proc/self/status") as status:  # ru_maxrss would go on from the process that started this one
    [peak] = [int(line.split()[1]) for line in status if line.startswith("VmHWM:")]
print(json.dumps({"peak": peak, **{name: metrics[name] for name in ("num_samples", "num_correct", "num_truncated")}}))
"""


def evaluate(folder: Path, rows: int) -> dict[str, float]:
    (folder / "data").mkdir(parents=True)
    file = folder / "data" / "val_df.parquet"
    with pq.ParquetWriter(file, pa.schema([("text", pa.string()), ("labels", pa.string()), ("label_id", pa.int64())])) as out:
        for start in range(0, rows, 50_000):
            numbers = np.arange(start, min(start + 50_000, rows))
            texts = pa.array(["x" * (1 + number % 20) for number in numbers.tolist()])
            out.write_table(pa.table([texts, pa.array(["a"] * len(numbers)), pa.array(numbers % 2)], schema=out.schema))
    mapping = {"label2id": {"a": 0, "b": 1}, "id2label": {"0": "a", "1": "b"}, "num_labels": 2}
    (folder / "data" / "label_mappings.json").write_text(json.dumps(mapping))
    words = [
        f"dataset.local_path={file}", f"output.results_dir={folder / 'results'}", "model.device=cpu",
        "evaluation.max_tokens_per_batch=4096",
    ]
    done = subprocess.run([sys.executable, "-c", TRIVIAL, *words], cwd=PROJECT_ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found: dict[str, float] = json.loads(done.stdout)
    assert (found["num_samples"], found["num_truncated"]) == (rows, None)
    assert found["num_correct"] == 0, "texts of odd length are of label 0, and the model says 1"
    print(found)
    return found


@pytest.mark.slow
def test_a_million_rows_take_the_memory_of_ten_thousand(tmp_path: Path) -> None:
    small, large = evaluate(tmp_path / "small", 10_000), evaluate(tmp_path / "large", 1_000_000)
    assert large["peak"] < 1.1 * small["peak"], f"{small['peak'] / 1024:.0f} MiB and {large['peak'] / 1024:.0f} MiB"
