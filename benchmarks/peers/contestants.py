"""The evaluator and what a user would pick instead, each as a function from texts to label ids."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import DataCollatorWithPadding, Trainer, TrainingArguments, pipeline

from utils.config_loader import Config
from utils.data.reader import Rows
from utils.evaluation.chunks import ChunkStore
from utils.evaluation.evaluation_settings import EvaluationSettings
from utils.evaluation.worker import ChunkWorker
from utils.model_utils import LoadedModel

LabelIds = np.ndarray[Any, Any]
Classify = Callable[[list[str]], LabelIds]
BATCH_SIZE = 32
EVALUATOR = "this evaluator"
COMPILED = "this evaluator, compiled"
PLAIN = "plain loop"
PIPELINE = "pipeline"
TRAINER = "Trainer.predict"
CROSS_ENCODER = "CrossEncoder"
PEERS = (PLAIN, PIPELINE, TRAINER, CROSS_ENCODER)


class Evaluator:
    """The evaluator from texts to chunk files, as step 02 runs it.

    It chooses the token budget at its first call, so before the rounds.
    """

    def __init__(self, loaded: LoadedModel, config: Config) -> None:
        self.loaded = loaded
        self.config = config
        self.limit = 0
        self.worker: ChunkWorker | None = None

    def __call__(self, texts: list[str]) -> LabelIds:
        chunks = self._chunks(texts)
        with tempfile.TemporaryDirectory() as folder:
            store = ChunkStore(
                Path(folder) / "predictions", Path(folder) / "state", {"benchmark": 1}
            )
            if self.worker is None:
                self.worker = ChunkWorker(self.loaded, EvaluationSettings.of(self.config), store)
            self.worker.store = store
            for _ in self.worker.run(iter(chunks)):
                pass
            self.limit = self.worker.batch_limit or 0
            stored = [store.load(rows.start, rows.start + len(rows.texts)) for rows in chunks]
        return np.concatenate([chunk.predicted_ids for chunk in stored if chunk])

    def close(self) -> None:
        """End the thread that reads the GPU."""
        if self.worker is not None:
            self.worker.close()

    def _chunks(self, texts: list[str]) -> list[Rows]:
        size = self.config.evaluation.chunk_rows
        chunks = []
        for start in range(0, len(texts), size):
            part = texts[start : start + size]
            label_ids = np.zeros(len(part), dtype=np.int64)
            chunks.append(Rows(start=start, texts=part, label_ids=label_ids))
        return chunks


def plain_loop(loaded: LoadedModel, max_length: int) -> Classify:
    """Fixed batches in file order, padded to their longest: what every tutorial shows."""

    @torch.inference_mode()
    def classify(texts: list[str]) -> LabelIds:
        predicted = []
        for start in range(0, len(texts), BATCH_SIZE):
            batch = loaded.tokenizer(
                texts[start : start + BATCH_SIZE],
                padding=True,
                truncation=True,
                max_length=max_length,
                return_tensors="pt",
            ).to(loaded.device)
            output = loaded.model(
                input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]
            )
            predicted.append(output.logits.argmax(-1).cpu())
        return torch.cat(predicted).numpy()

    return classify


def pipeline_peer(loaded: LoadedModel, max_length: int) -> Classify:
    """The text-classification pipeline of transformers."""
    run = pipeline(
        "text-classification", model=loaded.model, tokenizer=loaded.tokenizer, device=loaded.device
    )
    label_ids = {name: number for number, name in loaded.model.config.id2label.items()}

    def classify(texts: list[str]) -> LabelIds:
        results = run(texts, batch_size=BATCH_SIZE, truncation=True, max_length=max_length)
        return np.array([label_ids[result["label"]] for result in results])

    return classify


def trainer_peer(loaded: LoadedModel, max_length: int, folder: Path) -> Classify:
    """``Trainer.predict`` of transformers."""
    arguments = TrainingArguments(
        output_dir=str(folder),
        per_device_eval_batch_size=BATCH_SIZE,
        report_to=[],
        disable_tqdm=True,
        use_cpu=loaded.device.type == "cpu",
    )
    trainer = Trainer(
        model=loaded.model, args=arguments, data_collator=DataCollatorWithPadding(loaded.tokenizer)
    )

    def classify(texts: list[str]) -> LabelIds:
        encoded = loaded.tokenizer(texts, truncation=True, max_length=max_length)
        rows: Any = []
        for ids, mask in zip(encoded["input_ids"], encoded["attention_mask"], strict=True):
            rows.append({"input_ids": ids, "attention_mask": mask})
        return np.asarray(trainer.predict(rows).predictions).argmax(-1)

    return classify


def cross_encoder_peer(loaded: LoadedModel, max_length: int, folder: Path) -> Classify:
    """sentence-transformers, which sorts by length, then takes fixed batches.

    It takes pairs alone: the second text is empty.
    """
    from sentence_transformers import CrossEncoder

    loaded.model.save_pretrained(folder)
    loaded.tokenizer.save_pretrained(folder)
    encoder = CrossEncoder(
        str(folder),
        device=str(loaded.device),
        max_length=max_length,
        model_kwargs={"dtype": loaded.model.dtype},
    )

    def classify(texts: list[str]) -> LabelIds:
        pairs = [(text, "") for text in texts]
        scores = encoder.predict(pairs, batch_size=BATCH_SIZE, show_progress_bar=False)
        return np.asarray(scores).argmax(-1)

    return classify


@dataclass(frozen=True, kw_only=True, slots=True)
class Contestants:
    """Everyone who runs here, warmed up, and why the others do not."""

    running: dict[str, Classify] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)


def prepare_contestants(
    evaluator: Evaluator, folder: Path, texts: list[str], names: Sequence[str] = PEERS
) -> Contestants:
    """Make the evaluator and the peers of these names, and let each run once."""
    loaded = evaluator.loaded
    max_length = evaluator.config.profiling.max_length
    makers: dict[str, Callable[[], Classify]] = {
        PLAIN: lambda: plain_loop(loaded, max_length),
        PIPELINE: lambda: pipeline_peer(loaded, max_length),
        TRAINER: lambda: trainer_peer(loaded, max_length, folder / "trainer"),
        CROSS_ENCODER: lambda: cross_encoder_peer(loaded, max_length, folder / "cross"),
        COMPILED: lambda: Evaluator(loaded, with_compile(evaluator.config)),
    }
    evaluator(texts)
    contestants = Contestants(running={EVALUATOR: evaluator})
    for name in names:
        try:
            classify = makers[name]()
            # The compiled evaluator compiles for the shapes that it sees, so it sees all.
            classify(texts if name == COMPILED else texts[: 2 * BATCH_SIZE])
        except Exception as error:  # noqa: BLE001 - a library that refuses a model is a result
            first_line = str(error).partition("\n")[0]
            contestants.absent[name] = f"{type(error).__name__}: {first_line[:160]}"
        else:
            contestants.running[name] = classify
    return contestants


def with_compile(config: Config) -> Config:
    """The same settings with ``evaluation.compile``."""
    evaluation = config.evaluation.model_copy(update={"compile": True})
    return config.model_copy(update={"evaluation": evaluation})


@dataclass(frozen=True, kw_only=True, slots=True)
class Timings:
    """Each contestant's seconds in every round, and its labels."""

    seconds: dict[str, list[float]] = field(default_factory=dict)
    labels: dict[str, LabelIds] = field(default_factory=dict)


def time_rounds(
    running: dict[str, Classify],
    texts: list[str],
    num_rounds: int,
    after_round: Callable[[Timings], object] = lambda timings: None,
) -> Timings:
    """Let everyone run in every round, in an order that is reversed each time.

    Args:
        after_round: receives what all rounds so far took.
    """
    timings = Timings(seconds={name: [] for name in running})
    for number in range(num_rounds):
        names = list(running)
        if number % 2:
            names.reverse()
        for name in names:
            started = time.perf_counter()
            timings.labels[name] = running[name](texts)
            seconds = time.perf_counter() - started
            timings.seconds[name].append(seconds)
            rate = len(texts) / seconds
            print(f"  round {number + 1}: {name:16} {rate:10,.1f} samples/s", flush=True)
        after_round(timings)
    return timings
