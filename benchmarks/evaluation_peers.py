#!/usr/bin/env python
"""The evaluator against what a user would pick instead, and against the machine's limit, in one interleaved run."""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np  # noqa: E402
import torch  # noqa: E402
from torch.profiler import ProfilerActivity, profile  # noqa: E402
from transformers import DataCollatorWithPadding, Trainer, TrainingArguments, pipeline  # noqa: E402
from transformers.utils import logging as transformers_logging  # noqa: E402

from utils.config_loader import Config, load_config  # noqa: E402
from utils.core.files import write_text  # noqa: E402
from utils.data.reader import Rows  # noqa: E402
from utils.demo.assets import ensure_demo_assets  # noqa: E402
from utils.diagnosis import roofline  # noqa: E402
from utils.evaluation.batching import Batching  # noqa: E402
from utils.evaluation.chunks import ChunkStore  # noqa: E402
from utils.evaluation.masking import is_causal  # noqa: E402
from utils.evaluation.plan import plan_evaluation
from utils.evaluation.predictions import PendingPredictions  # noqa: E402
from utils.evaluation.predictor import Predictor  # noqa: E402
from utils.evaluation.tokens import tokenize  # noqa: E402
from utils.evaluation.worker import ChunkWorker  # noqa: E402
from utils.model.costs import base_op_name, operator_category  # noqa: E402
from utils.model_utils import LoadedModel, load_model  # noqa: E402
from utils.pipeline import startup  # noqa: E402

Classify = Callable[[list[str]], np.ndarray[Any, Any]]
BATCH = 32
OURS, PLAIN, PIPELINE, TRAINER, CROSS = (
    "this evaluator",
    "plain loop",
    "pipeline",
    "Trainer.predict",
    "CrossEncoder",
)
COMPILED = "this evaluator, compiled"
PEERS = (PLAIN, PIPELINE, TRAINER, CROSS)
WHOLE_DATA_SET = 369_475
"""Rows of the default data set, whose time is projected at the embedded corpus's lengths: its own may be others."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """One line of the verdict; ``passed`` is None where no bar applies or nothing was measured."""

    name: str
    expected: str
    measured: str
    passed: bool | None


class Ours:
    """The evaluator from texts to chunk files, as step 02 runs it; the token budget is found once, before the rounds."""

    def __init__(self, loaded: LoadedModel, config: Config) -> None:
        self.loaded, self.config, self.limit = loaded, config, 0
        self.worker: ChunkWorker | None = None

    def __call__(self, texts: list[str]) -> np.ndarray[Any, Any]:
        size = self.config.evaluation.chunk_rows
        with tempfile.TemporaryDirectory() as folder:
            store = ChunkStore(
                Path(folder) / "predictions", Path(folder) / "state", {"benchmark": 1}
            )
            worker = self.worker = self.worker or ChunkWorker(
                self.loaded, plan_evaluation(self.config), store
            )
            worker.store = store
            chunks = [
                Rows(
                    start=i,
                    texts=texts[i : i + size],
                    label_ids=np.zeros(len(texts[i : i + size]), dtype=np.int64),
                )
                for i in range(0, len(texts), size)
            ]
            for _ in worker.run(iter(chunks)):
                pass
            self.limit = worker.batch_limit or 0
            loaded = [store.load(rows.start, rows.start + len(rows.texts)) for rows in chunks]
        return np.concatenate([chunk.predicted_ids for chunk in loaded if chunk])


def plain_loop(loaded: LoadedModel, max_length: int) -> Classify:
    """Fixed batches in file order, padded to their longest: what every tutorial shows."""

    @torch.inference_mode()
    def run(texts: list[str]) -> np.ndarray[Any, Any]:
        found = []
        for start in range(0, len(texts), BATCH):
            batch = loaded.tokenizer(
                texts[start : start + BATCH],
                padding=True,
                truncation=True,
                max_length=max_length,
                return_tensors="pt",
            ).to(loaded.device)
            logits = loaded.model(
                input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]
            ).logits
            found.append(logits.argmax(-1).cpu())
        return torch.cat(found).numpy()

    return run


def pipeline_peer(loaded: LoadedModel, max_length: int) -> Classify:
    run = pipeline(
        "text-classification", model=loaded.model, tokenizer=loaded.tokenizer, device=loaded.device
    )
    numbers = {name: number for number, name in loaded.model.config.id2label.items()}

    def classify(texts: list[str]) -> np.ndarray[Any, Any]:
        answers = run(texts, batch_size=BATCH, truncation=True, max_length=max_length)
        return np.array([numbers[answer["label"]] for answer in answers])

    return classify


def trainer_peer(loaded: LoadedModel, max_length: int, folder: Path) -> Classify:
    arguments = TrainingArguments(
        output_dir=str(folder),
        per_device_eval_batch_size=BATCH,
        report_to=[],
        disable_tqdm=True,
        use_cpu=loaded.device.type == "cpu",
    )
    trainer = Trainer(
        model=loaded.model, args=arguments, data_collator=DataCollatorWithPadding(loaded.tokenizer)
    )

    def classify(texts: list[str]) -> np.ndarray[Any, Any]:
        encoded = loaded.tokenizer(texts, truncation=True, max_length=max_length)
        names = ("input_ids", "attention_mask")
        rows: Any = [{name: encoded[name][i] for name in names} for i in range(len(texts))]
        return np.asarray(trainer.predict(rows).predictions).argmax(-1)

    return classify


def cross_encoder_peer(loaded: LoadedModel, max_length: int, folder: Path) -> Classify:
    """sentence-transformers sorts by length, then takes fixed batches. It takes pairs alone: the second text is empty."""
    from sentence_transformers import CrossEncoder

    loaded.model.save_pretrained(folder)
    loaded.tokenizer.save_pretrained(folder)
    encoder = CrossEncoder(
        str(folder),
        device=str(loaded.device),
        max_length=max_length,
        model_kwargs={"dtype": loaded.model.dtype},
    )

    def classify(texts: list[str]) -> np.ndarray[Any, Any]:
        answers = encoder.predict(
            [(text, "") for text in texts], batch_size=BATCH, show_progress_bar=False
        )
        return np.asarray(answers).argmax(-1)

    return classify


def contestants(
    ours: Ours, folder: Path, texts: list[str], asked: Sequence[str] = PEERS
) -> tuple[dict[str, Classify], dict[str, str]]:
    """Everyone who runs here, warmed up, and why the others do not."""
    loaded, length = ours.loaded, ours.config.profiling.max_length
    makers: dict[str, Callable[[], Classify]] = {
        OURS: lambda: ours,
        PLAIN: lambda: plain_loop(loaded, length),
        PIPELINE: lambda: pipeline_peer(loaded, length),
        TRAINER: lambda: trainer_peer(loaded, length, folder / "trainer"),
        CROSS: lambda: cross_encoder_peer(loaded, length, folder / "cross"),
        COMPILED: lambda: Ours(loaded, with_compile(ours.config)),
    }
    there: dict[str, Classify] = {}
    absent: dict[str, str] = {}
    for name in (OURS, *asked):
        try:
            make = makers[name]
            there[name] = make()
            there[name](texts if name in (OURS, COMPILED) else texts[: 2 * BATCH])
        except Exception as error:  # noqa: BLE001 - another library's refusal of this model is a result
            if name == OURS:
                raise
            there.pop(name, None)
            absent[name] = f"{type(error).__name__}: {str(error).splitlines()[0][:160]}"
    return there, absent


def with_compile(config: Config) -> Config:
    return config.model_copy(
        update={"evaluation": config.evaluation.model_copy(update={"compile": True})}
    )


def rounds(
    there: dict[str, Classify], texts: list[str], count: int
) -> tuple[dict[str, list[float]], dict[str, Any]]:
    """Seconds of everyone in every round, the order turned round each time, and everyone's labels."""
    seconds: dict[str, list[float]] = defaultdict(list)
    labels: dict[str, Any] = {}
    for number in range(count):
        for name in list(there)[:: 1 if number % 2 == 0 else -1]:
            began = time.perf_counter()
            labels[name] = there[name](texts)
            seconds[name].append(time.perf_counter() - began)
            print(
                f"  round {number + 1}: {name:16} {len(texts) / seconds[name][-1]:10,.1f} samples/s",
                flush=True,
            )
    return seconds, labels


def real_flops(model: Any, lengths: np.ndarray[Any, Any], *, full_square: bool = False) -> float:
    """FLOPs of the matrix products that the real tokens need; of a causal model's attention, the half below the diagonal.

    ``full_square`` counts the other half too, as torch's FLOP counter does, and as masked or eager attention computes it.
    """
    linear = products(model)
    settings = model.config.get_text_config()
    head = (
        getattr(settings, "head_dim", None) or settings.hidden_size // settings.num_attention_heads
    )
    pairs = (
        lengths * (lengths + 1) / 2 if is_causal(model) and not full_square else lengths**2
    ).sum()
    pair = 4 * settings.num_attention_heads * head
    flops = 2 * linear * lengths.sum() + pair * settings.num_hidden_layers * pairs
    return float(flops)


def products(module: torch.nn.Module) -> int:
    """Multiplications that one token costs in the linear layers."""
    return sum(
        m.in_features * m.out_features for m in module.modules() if isinstance(m, torch.nn.Linear)
    )


@contextmanager
def clocked(names: dict[str, tuple[Any, str]]) -> Iterator[dict[str, float]]:
    """Seconds inside each named function, over all threads."""
    spent: dict[str, float] = dict.fromkeys(names, 0.0)
    lock, kept = threading.Lock(), {name: getattr(*place) for name, place in names.items()}

    def timing(name: str) -> Callable[..., Any]:
        def run(*args: Any, **named: Any) -> Any:
            began = time.perf_counter()
            try:
                return kept[name](*args, **named)
            finally:
                with lock:
                    spent[name] += time.perf_counter() - began

        return run

    for name, place in names.items():
        setattr(*place, timing(name))
    try:
        yield spent
    finally:
        for name, place in names.items():
            setattr(*place, kept[name])


def phases(ours: Ours, texts: list[str]) -> dict[str, float]:
    """Where the cores' time goes, in percent; ``waiting and the rest`` is what no clock saw."""
    import utils.evaluation.worker as worker

    places = {
        "tokenise": (worker, "tokenize"),
        "plan batches": (Batching, "plan"),
        "pad and copy": (Predictor, "_make_batch"),
        "batches": (Predictor, "_predict_batch"),
        "copy back": (PendingPredictions, "result"),
        "write": (ChunkStore, "save"),
    }
    with clocked(places) as spent:
        began = time.perf_counter()
        ours(texts)
        wall = time.perf_counter() - began
    spent["forward"] = spent.pop("batches") - spent["pad and copy"]
    cores = torch.get_num_threads() if ours.loaded.device.type == "cpu" else 1
    # On the CPU the tokenizer uses as many cores as there are, and its clock is one thread's wait.
    shares = {name: 100 * seconds / (wall * cores) for name, seconds in spent.items()}
    return {**shares, "waiting and the rest": 100 - sum(shares.values())}


def operators(ours: Ours, texts: list[str]) -> tuple[dict[str, float], float | None]:
    """Percent of the forward pass by kind of operator, and on CUDA the share of time with a kernel running."""
    loaded = ours.loaded
    cuda = loaded.device.type == "cuda"
    chunk = tokenize(loaded.tokenizer, texts, ours.config.profiling.max_length, loaded.inputs)
    predictor = Predictor(
        loaded.model, loaded.inputs, loaded.device, Batching(kind="token_budget", limit=ours.limit)
    )
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if cuda else [])
    with profile(activities=activities) as trace:
        if cuda:
            ours(texts)
        else:  # the profiler sees one thread: batch by batch, on one core as the evaluator runs them
            threads = torch.get_num_threads()
            torch.set_num_threads(1)
            for rows in predictor.batching.plan(chunk.lengths):
                predictor._predict_batch(chunk, rows)
            torch.set_num_threads(threads)
    kinds: dict[str, float] = defaultdict(float)
    for event in trace.key_averages():
        if event.key.startswith("aten::"):
            kinds[operator_category(base_op_name(event.key))] += (
                event.self_device_time_total if cuda else event.self_cpu_time_total
            )
    total = sum(kinds.values())
    shares = {
        kind: 100 * value / total
        for kind, value in sorted(kinds.items(), key=lambda item: -item[1])
    }
    return shares, _busy(trace) if cuda else None


def _busy(trace: Any) -> float:
    """Share of the time from the first kernel's start to the last one's end in which a kernel or copy ran."""
    spans = sorted(
        (event.time_range.start, event.time_range.end)
        for event in trace.events()
        if event.device_type == torch.autograd.DeviceType.CUDA
    )
    covered, reached = 0.0, spans[0][0]
    for start, end in spans:
        covered += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return covered / (reached - spans[0][0])


def ratio(peer: Sequence[float], ours: Sequence[float]) -> tuple[float, tuple[float, float] | None]:
    """How many times faster we are: the median over the rounds of the two times' ratio, and the least and largest of them.

    Of n rounds the range holds the median with a probability of 1 - 2^(1-n): a round that the machine was slow in counts once.
    """
    ratios = [a / b for a, b in zip(peer, ours, strict=True)]
    return median(ratios), (min(ratios), max(ratios)) if len(ratios) > 1 else None


def checks(
    seconds: dict[str, list[float]],
    labels: dict[str, Any],
    absent: dict[str, str],
    share: float,
    *,
    dtype: str,
    cuda: bool,
    asked: Sequence[str] = PEERS,
) -> list[Check]:
    """Everything measured, compared with its bar.

    ``share`` is our speed as a fraction of the limit: the rows/s at which the measured ceiling would compute the matrix
    products of all real tokens.
    """
    bars = {PIPELINE: 10.0} if cuda else dict.fromkeys((PLAIN, PIPELINE, TRAINER), 4.5)
    found = []
    for name in asked:
        bar = bars.get(name)
        expected = f">= {bar:g} times" if bar else "reported"
        if name in absent:
            passed = False if name == COMPILED else None  # that is ours
            found.append(
                Check(
                    name=f"speed over {name}",
                    expected=expected,
                    measured=f"not run: {absent[name]}",
                    passed=passed,
                )
            )
            continue
        faster, interval = ratio(seconds[name], seconds[OURS])
        level = 1 - 2.0 ** (1 - len(seconds[name]))
        said = f"{faster:.2f} times" + (
            f" ({level:.0%}: {interval[0]:.2f} to {interval[1]:.2f})" if interval else ""
        )
        found.append(
            Check(
                name=f"speed over {name}",
                expected=expected,
                measured=said,
                passed=faster >= bar if bar else None,
            )
        )
        agreed = float((labels[name] == labels[OURS]).mean())
        exact = dtype == "float32"
        found.append(
            Check(
                name=f"labels as {name}",
                expected="100%" if exact else "reported",
                measured=f"{agreed:.3%}",
                passed=agreed == 1.0 if exact else None,
            )
        )
    bar = 0.7 if dtype == "float32" else 0.6
    verdict = (
        dict(expected=f">= {bar:.0%}", passed=share >= bar)
        if cuda
        else dict(expected="reported", passed=None)
    )
    found.append(Check(name="share of the limit", measured=f"{share:.1%}", **verdict))
    if COMPILED in seconds:
        compiled_share = share / ratio(seconds[COMPILED], seconds[OURS])[0]
        found.append(
            Check(
                name="share of the limit, compiled",
                expected="reported",
                measured=f"{compiled_share:.1%}",
                passed=None,
            )
        )
    return found


def in_tf32(
    ours: Ours, texts: list[str], exact: np.ndarray[Any, Any], flops: float, count: int
) -> list[Check]:
    """The same float32 weights with their products in TF32: speed, share of TF32's ceiling, labels as in float32."""
    torch.set_float32_matmul_precision("high")
    try:
        ours(texts)
        ceiling = roofline.measure_ceilings(
            ours.loaded.device, ours.loaded.model.dtype
        ).matmul_flops_per_s
        seconds, labels = rounds({OURS: ours}, texts, count)
    finally:
        torch.set_float32_matmul_precision("highest")
    rate = len(texts) * count / sum(seconds[OURS])
    measured = {
        "TF32: rows/s": f"{rate:,.0f}",
        "TF32: share of its ceiling": f"{rate * flops / len(texts) / ceiling:.1%}",
        "TF32: labels as float32": f"{float((labels[OURS] == exact).mean()):.3%}",
    }
    return [
        Check(name=name, expected="reported", measured=said, passed=None)
        for name, said in measured.items()
    ]


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", default="configs/demo.yaml")
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, auto")
    parser.add_argument("--dtype", default="float32", choices=("float32", "float16", "bfloat16"))
    parser.add_argument(
        "--architecture",
        metavar="PATH",
        help="random weights of this shape instead of the embedded model",
    )
    parser.add_argument(
        "--rows", type=int, default=2048, help="texts of the embedded corpus, drawn with a seed"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--peers",
        nargs="*",
        choices=(*PEERS, COMPILED),
        default=PEERS,
        help="who else runs (default: other tools)",
    )
    parser.add_argument(
        "--tf32", action="store_true", help="on CUDA in float32: then the same with TF32"
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="512 texts, 2 rounds: shows that it runs, proves nothing",
    )
    parser.add_argument("--json", metavar="PATH", help="write the lines of the verdict there")
    return parser


def read_config(args: argparse.Namespace) -> Config:
    words = [f"model.device={args.device}", f"model.dtype={args.dtype}"]
    if args.architecture:
        words += [
            f"model.name={args.architecture}",
            "model.load_format=dummy",
            "model.tokenizer=embedded",
        ]
    return load_config(args.config, [*words, *args.overrides])


def read_texts(config: Config, count: int) -> list[str]:
    import pandas as pd

    frame = pd.read_parquet(ensure_demo_assets(config.embedded) / "corpus_eval.parquet")
    return list(frame["text"].sample(min(count, len(frame)), random_state=0))


def save(path: str | None, found: Sequence[Check]) -> None:
    """Write the lines as far as they are there, so that a check that is ended early keeps them."""
    if path:
        write_text(Path(path), json.dumps([asdict(check) for check in found], indent=2) + "\n")


def main(argv: Sequence[str] | None = None) -> int:
    args = make_parser().parse_args(argv)
    logging.disable(logging.INFO)
    transformers_logging.set_verbosity_error()
    config = read_config(args)
    texts = read_texts(config, 512 if args.quick else args.rows)
    loaded = load_model(config)
    startup.prepare_evaluation(on_cuda=loaded.device.type == "cuda")
    cuda = loaded.device.type == "cuda"
    ours = Ours(loaded, config)
    print(
        f"{len(texts):,} texts, {loaded.info.total_params / 1e6:.1f}M parameters, {args.dtype}, {loaded.device}"
    )
    with tempfile.TemporaryDirectory() as folder:
        there, absent = contestants(ours, Path(folder), texts, args.peers)
        before = roofline.measure_ceilings(loaded.device, loaded.model.dtype).matmul_flops_per_s
        seconds, labels = rounds(there, texts, 2 if args.quick else args.rounds)
        ceiling = max(
            before, roofline.measure_ceilings(loaded.device, loaded.model.dtype).matmul_flops_per_s
        )
    chunk = tokenize(loaded.tokenizer, texts, config.profiling.max_length, loaded.inputs)
    flops = real_flops(loaded.model, chunk.lengths)
    limit_s, our_s = flops / ceiling, median(seconds[OURS])
    found = checks(
        seconds, labels, absent, limit_s / our_s, dtype=args.dtype, cuda=cuda, asked=args.peers
    )
    said = (
        f"{WHOLE_DATA_SET * our_s / len(texts) / 60:,.1f} min at {len(texts) / our_s:,.0f} rows/s"
    )
    found.append(
        Check(name=f"{WHOLE_DATA_SET:,} such rows", expected="reported", measured=said, passed=None)
    )
    save(args.json, found)
    if args.tf32 and cuda and args.dtype == "float32":
        found += in_tf32(ours, texts, labels[OURS], flops, len(seconds[OURS]))
        save(args.json, found)
    if args.dtype != "float32":
        exact = Ours(
            load_model(read_config(argparse.Namespace(**{**vars(args), "dtype": "float32"}))),
            config,
        )(texts)
        said = f"{float((exact == labels[OURS]).mean()):.3%}"
        found.append(
            Check(
                name=f"labels of {args.dtype} as float32",
                expected="reported",
                measured=said,
                passed=None,
            )
        )
        save(args.json, found)
    kinds, busy = operators(ours, texts)
    if busy is not None:
        found.append(
            Check(
                name="device busy", expected=">= 95%", measured=f"{busy:.1%}", passed=busy >= 0.95
            )
        )
        save(args.json, found)
    print(
        f"\nMatrix ceiling {ceiling / 1e9:,.1f} GFLOP/s in {args.dtype}: at most {len(texts) / limit_s:,.0f} samples/s"
    )
    for check in found:
        verdict = {True: "pass", False: "MISSED", None: ""}[check.passed]
        print(f"{check.name:32} {check.expected:>12}  {check.measured:44} {verdict}")
    print("\nWhere our time goes, percent of the time" + ("" if cuda else " of all cores"))
    for name, percent in phases(ours, texts).items():
        print(f"  {name:24} {percent:6.1f}")
    print("Inside the forward pass, percent")
    for name, percent in kinds.items():
        print(f"  {name:24} {percent:6.1f}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
