"""Builds the embedded default once: corpus, tokenizer and model."""

from __future__ import annotations

import os
import shutil
import time
from contextlib import suppress
from pathlib import Path

from utils.core.errors import UserError
from utils.core.files import fingerprint, read_json, sha256_file, write_error, write_json
from utils.core.paths import project_path
from utils.pipeline import console
from utils.settings import EmbeddedConfig

BUILT_BY = "python scripts/build_demo_assets.py --config configs/demo.yaml"
PARTS = ("corpus_train.parquet", "corpus_eval.parquet", "model")
CODE = ("corpus.py", "training.py", "assets.py")
STAMP = "stamp.json"


def ensure_demo_assets(settings: EmbeddedConfig) -> Path:
    """Build what is missing or was built by other code or settings.

    Returns:
        The folder with the corpus and, in ``model``, the model and its tokenizer.

    Raises:
        UserError: a library of the corpus is missing, there are too few texts, or the folder cannot
            be written.
    """
    folder = project_path(settings.dir)
    fingerprint_now = stamp_fingerprint(settings)
    if _is_built(folder, fingerprint_now):
        return folder
    # Built in another folder and moved into place, so that an interrupted build is never used.
    staging = folder.parent / f".{folder.name}.{os.getpid()}.building"
    try:
        staging.mkdir(parents=True)
        times = _build(settings, staging)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / STAMP).unlink(missing_ok=True)
        shutil.rmtree(folder / "model", ignore_errors=True)
        for name in PARTS:
            (staging / name).replace(folder / name)
    except OSError as error:
        raise write_error(folder, error) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    write_json(folder / STAMP, {"built_from": fingerprint_now, **times})
    return folder


def stamp_fingerprint(settings: EmbeddedConfig) -> str:
    """Fingerprint of the code and settings that decide what is built."""
    code = [sha256_file(Path(__file__).parent / name) for name in CODE]
    return fingerprint([code, settings.seed, settings.training_rows, settings.epochs])


def _is_built(folder: Path, fingerprint_now: str) -> bool:
    # Without a readable stamp everything is built, and the build reports what is wrong.
    with suppress(UserError, OSError):
        stamp = read_json(folder / STAMP, made_by=BUILT_BY)
        has_parts = all((folder / name).exists() for name in PARTS)
        return stamp.get("built_from") == fingerprint_now and has_parts
    return False


def _build(settings: EmbeddedConfig, folder: Path) -> dict[str, float]:
    """Build corpus and model into ``folder``; seconds of each."""
    # They import pandas, torch and transformers, which takes seconds.
    from utils.demo.corpus import collect_corpus, split_corpus
    from utils.demo.training import train_classifier

    started = time.perf_counter()
    console.print_line("Building the embedded corpus from installed libraries (once)...")
    corpus = collect_corpus()
    training, evaluation = split_corpus(corpus, settings.training_rows, settings.seed)
    unseen_labels = set(evaluation["labels"]) - set(training["labels"])
    if evaluation.empty or unseen_labels:
        raise UserError(
            f"{len(corpus):,} texts are too few to train on {settings.training_rows:,} of them.",
            where="embedded.training_rows",
            fix=f"--set embedded.training_rows={len(corpus) // 2}",
        )
    training.to_parquet(folder / "corpus_train.parquet", index=False)
    evaluation.to_parquet(folder / "corpus_eval.parquet", index=False)
    corpus_s = time.perf_counter() - started
    console.print_line(
        f"  {len(training):,} texts to train on, {len(evaluation):,} to evaluate, "
        f"in {corpus_s:.1f} s"
    )
    console.print_line("Training the embedded model (once)...")
    train_classifier(training, folder / "model", settings.epochs, settings.seed)
    training_s = time.perf_counter() - started - corpus_s
    console.print_line(
        f"  trained in {training_s:.1f} s; its accuracy is what the evaluation will measure"
    )
    return {"corpus_s": corpus_s, "training_s": training_s}
