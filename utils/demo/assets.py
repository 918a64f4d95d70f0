"""Builds the embedded default once: corpus, tokenizer, model. Then keeps it."""

from __future__ import annotations

import os
import shutil
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from utils.config_loader import Config
from utils.core.errors import UserError
from utils.core.files import fingerprint, read_json, sha256_file, write_error, write_json
from utils.pipeline import console

BUILT_BY = "python scripts/build_demo_assets.py --config configs/demo.yaml"
PARTS = ("corpus_train.parquet", "corpus_eval.parquet", "model")
CODE = ("corpus.py", "training.py", "assets.py")


def ensure_demo_assets(config: Config) -> Path:
    """Build what is missing or was built by other code or settings; return the folder, whose ``model`` is the model.

    Raises:
        UserError: a library of the corpus is missing, too few texts, or the folder cannot be written.
    """
    folder = config.path("embedded.dir")
    wanted = _stamp(config)
    with suppress(
        UserError, OSError
    ):  # none yet, damaged, or the folder is none: build, and that says why it cannot
        kept = read_json(folder / "stamp.json", made_by=BUILT_BY)
        if kept.get("built_from") == wanted and all((folder / name).exists() for name in PARTS):
            return folder
    # Built aside and moved into place, so that a build that was cut off is never taken for a whole one.
    aside = folder.parent / f".{folder.name}.{os.getpid()}.building"
    try:
        aside.mkdir(parents=True)
        figures = _build(config, aside)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "stamp.json").unlink(missing_ok=True)
        shutil.rmtree(folder / "model", ignore_errors=True)
        for name in PARTS:
            (aside / name).replace(folder / name)
    except OSError as error:
        raise write_error(folder, error) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    write_json(folder / "stamp.json", {"built_from": wanted, **figures})
    return folder


def _stamp(config: Config) -> str:
    code = [sha256_file(Path(__file__).parent / name) for name in CODE]
    return fingerprint(
        [code, config.embedded.seed, config.embedded.training_rows, config.embedded.epochs]
    )


def _build(config: Config, folder: Path) -> dict[str, Any]:
    from utils.demo.corpus import collect_corpus, split_corpus
    from utils.demo.training import train_classifier

    started = time.perf_counter()
    console.print_line("Building the embedded corpus from installed libraries (once)...")
    corpus = collect_corpus()
    training, held_out = split_corpus(corpus, config.embedded.training_rows, config.embedded.seed)
    if not len(held_out) or set(held_out["labels"]) - set(training["labels"]):
        raise UserError(
            f"{len(corpus):,} texts are too few to train on {config.embedded.training_rows:,} of them.",
            where="embedded.training_rows",
            fix=f"--set embedded.training_rows={len(corpus) // 2}",
        )
    training.to_parquet(folder / "corpus_train.parquet", index=False)
    held_out.to_parquet(folder / "corpus_eval.parquet", index=False)
    corpus_s = time.perf_counter() - started
    console.print_line(
        f"  {len(training):,} texts to train on, {len(held_out):,} to evaluate, in {corpus_s:.1f} s"
    )
    console.print_line("Training the embedded model (once)...")
    train_classifier(training, folder / "model", config.embedded.epochs, config.embedded.seed)
    training_s = time.perf_counter() - started - corpus_s
    console.print_line(
        f"  trained in {training_s:.1f} s; its accuracy is what the evaluation will measure"
    )
    return {"corpus_s": corpus_s, "training_s": training_s}
