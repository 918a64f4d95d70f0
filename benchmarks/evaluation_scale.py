"""Time and peak memory of the evaluation by number of rows.

The model costs next to nothing, so that the data path is measured. Each point is a process of its
own that evaluates a Parquet file of so many rows. Run it from the project's root:
``python benchmarks/evaluation_scale.py`` (some minutes), with ``--quick`` up to 100,000 rows only.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

ROWS = (1_000, 10_000, 100_000, 300_000, 1_000_000)
QUICK_ROWS = (1_000, 10_000, 100_000)
# The longest text; lengths are even from 1 to this.
CHARACTERS = 200
TOKENS = 3


class Tokenizer:
    """Three tokens a text, the last of which is the label."""

    pad_token_id = 0

    def __call__(self, texts: list[str], **_: Any) -> Any:
        return Encoded(input_ids=[[1, 2, 3 + len(text) % 2] for text in texts])

    def get_vocab(self) -> dict[str, int]:
        return {}


class Encoded(dict[str, Any]):
    encodings = None


def predict_last_token(input_ids: Any, attention_mask: Any = None) -> Any:
    import torch

    return SimpleNamespace(
        logits=torch.nn.functional.one_hot(input_ids[:, TOKENS - 1] - 3, 2).float()
    )


def write_dataset(folder: Path, rows: int) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = folder / "val_df.parquet"
    schema = pa.schema([("text", pa.string()), ("labels", pa.string()), ("label_id", pa.int64())])
    with pq.ParquetWriter(file, schema) as out:
        for start in range(0, rows, 50_000):
            lengths = [
                1 + number % CHARACTERS for number in range(start, min(start + 50_000, rows))
            ]
            labels = [length % 2 for length in lengths]
            names = ["ab"[label] for label in labels]
            out.write_table(
                pa.table(
                    [pa.array(["x" * n for n in lengths]), pa.array(names), pa.array(labels)],
                    schema=schema,
                )
            )
    mapping = {"label2id": {"a": 0, "b": 1}, "id2label": {"0": "a", "1": "b"}, "num_labels": 2}
    (folder / "label_mappings.json").write_text(json.dumps(mapping))
    return file


def evaluate(file: Path) -> dict[str, float]:
    """One point, in this process.

    Seconds are of the complete call (counting, hashing, chunks, totals); bytes are at the peak.
    """
    import torch

    from utils.config_loader import load_config
    from utils.evaluation import runner
    from utils.evaluation.evaluation_settings import EvaluationSettings
    from utils.model.encoding import input_format
    from utils.model_utils import LoadedModel
    from utils.pipeline import startup

    info: Any = SimpleNamespace(
        revision=None,
        adapter=None,
        weights="pretrained",
        problem_type="single_label",
        dtype="float32",
    )
    tokenizer = Tokenizer()
    loaded = LoadedModel(
        model=predict_last_token,
        tokenizer=tokenizer,
        info=info,
        device=torch.device("cpu"),
        inputs=input_format(predict_last_token, tokenizer),
    )
    overrides = [
        f"dataset.local_path={file}",
        f"output.results_dir={file.parent / 'results'}",
        "model.device=cpu",
        "evaluation.max_tokens_per_batch=4096",
        "evaluation.compare_batching=false",
    ]
    startup.prepare_evaluation(on_cuda=False)
    started = time.perf_counter()
    settings = EvaluationSettings.of(load_config(overrides=overrides))
    metrics = runner.evaluate_dataset(loaded, settings)
    seconds = time.perf_counter() - started
    assert metrics.accuracy == 1.0, "every label is known"
    return {
        "rows": metrics.num_samples,
        "seconds": seconds,
        "peak_bytes": peak_bytes(),
        "chunks_s": metrics.inference_time_s,
    }


def peak_bytes() -> int:
    """Most resident memory of this process since it began. Source: proc(5), VmHWM."""
    [line] = [
        line
        for line in Path("/proc/self/status").read_text().splitlines()
        if line.startswith("VmHWM")
    ]
    return 1024 * int(line.split()[1])


def measure(rows: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        file = write_dataset(Path(folder), rows)
        done = subprocess.run(
            [sys.executable, __file__, "--point", str(file)],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise SystemExit(done.stderr)
        point: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
        return point


def table(points: list[dict[str, float]]) -> str:
    lines = [
        f"{'rows':>10} {'seconds':>9} {'rows/s':>9} {'peak MB':>8} {'against 10,000 rows':>20}"
    ]
    base = next((point["peak_bytes"] for point in points if point["rows"] == 10_000), None)
    for point in points:
        against = f"{100 * (point['peak_bytes'] / base - 1):+.1f}%" if base else "-"
        rate = point["rows"] / point["seconds"]
        lines.append(
            f"{point['rows']:>10,.0f} {point['seconds']:>9.2f} {rate:>9,.0f} "
            f"{point['peak_bytes'] / 1e6:>8.0f} {against:>20}"
        )
    return "\n".join(lines)


def draw(points: list[dict[str, float]], file: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    picture, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6), constrained_layout=True)
    rows = [point["rows"] for point in points]
    left.loglog(rows, [point["seconds"] for point in points], marker="o")
    left.set(xlabel="rows", ylabel="seconds", title="Time of the evaluation, the model left out")
    right.semilogx(rows, [point["peak_bytes"] / 1e6 for point in points], marker="o")
    right.set(xlabel="rows", ylabel="MB", title="Peak resident memory", ylim=(0, None))
    for axes in (left, right):
        axes.grid(alpha=0.3)
    file.parent.mkdir(parents=True, exist_ok=True)
    picture.savefig(file, dpi=110)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="up to 100,000 rows")
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write the points there")
    plot = Path("results/evaluation_scale.png")
    parser.add_argument(
        "--plot", metavar="FILE", type=Path, default=plot, help="default: %(default)s"
    )
    parser.add_argument("--point", metavar="FILE", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.point:
        print(json.dumps(evaluate(args.point)))
        return 0
    points = [measure(rows) for rows in (QUICK_ROWS if args.quick else ROWS)]
    print(table(points))
    draw(points, args.plot)
    print(f"plot: {args.plot}")
    if args.json:
        args.json.write_text(json.dumps(points, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
