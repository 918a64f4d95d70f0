"""The embedded default is built once, completely or not at all."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import torch
from transformers import AutoConfig, AutoTokenizer

from tests import support
from utils.config_loader import load_config
from utils.core.errors import UserError
from utils.core.files import sha256_tree
from utils.demo import assets as demo_assets
from utils.demo import corpus, training
from utils.settings import EmbeddedConfig

CORPUS = pd.DataFrame(
    {
        "text": [f"{text} {i}" for i, text in enumerate(support.TEXTS)],
        "labels": list(support.LABELS) * 20,
    }
)


def settings_in(folder: Path, *more: str) -> EmbeddedConfig:
    overrides = [f"embedded.dir={folder}", "embedded.training_rows=40", "embedded.epochs=1"]
    return load_config("configs/demo.yaml", [*overrides, *more]).embedded


@pytest.fixture
def builds(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Replaces the corpus by a small one; counts how often it was asked for."""
    asked: list[int] = []

    def collect() -> pd.DataFrame:
        asked.append(1)
        return CORPUS

    monkeypatch.setattr(corpus, "collect_corpus", collect)
    monkeypatch.setattr(training, "VOCABULARY", 400)
    return asked


def test_a_build_is_kept_until_its_settings_change(tmp_path: Path, builds: list[int]) -> None:
    folder = demo_assets.ensure_demo_assets(settings_in(tmp_path / "demo"))
    first = sha256_tree(folder)
    demo_assets.ensure_demo_assets(settings_in(tmp_path / "demo"))
    assert (len(builds), sha256_tree(folder)) == (1, first)
    demo_assets.ensure_demo_assets(settings_in(tmp_path / "demo", "embedded.seed=1"))
    assert len(builds) == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == ["demo"]


def test_the_model_has_names_positions_and_a_pad_token(tmp_path: Path, builds: list[int]) -> None:
    folder = demo_assets.ensure_demo_assets(settings_in(tmp_path / "demo"))
    settings = AutoConfig.from_pretrained(folder / "model")
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    assert settings.id2label == dict(enumerate(sorted(support.LABELS)))
    assert settings.max_position_embeddings >= 1024
    assert settings.pad_token_id == tokenizer.pad_token_id
    assert len(tokenizer) <= settings.vocab_size
    assert (folder / "model" / "model.safetensors").is_file()


def test_the_same_seed_trains_the_same_model(tmp_path: Path, builds: list[int]) -> None:
    weights = [
        demo_assets.ensure_demo_assets(settings_in(tmp_path / name)) / "model" / "model.safetensors"
        for name in "ab"
    ]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def test_the_number_of_threads_changes_neither_the_model_nor_itself(
    tmp_path: Path, builds: list[int]
) -> None:
    before = torch.get_num_threads()
    weights = []
    try:
        for num_threads in (1, 3):
            torch.set_num_threads(num_threads)
            folder = demo_assets.ensure_demo_assets(settings_in(tmp_path / str(num_threads)))
            weights.append((folder / "model" / "model.safetensors").read_bytes())
            assert torch.get_num_threads() == num_threads
    finally:
        torch.set_num_threads(before)
    assert weights[0] == weights[1]


def test_a_build_that_fails_leaves_no_stamp_and_no_litter(
    tmp_path: Path, builds: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("interrupted")

    with monkeypatch.context() as patch:
        patch.setattr(training, "train_classifier", broken)
        with pytest.raises(RuntimeError, match="interrupted"):
            demo_assets.ensure_demo_assets(settings_in(tmp_path / "demo"))
    assert list(tmp_path.iterdir()) == []
    demo_assets.ensure_demo_assets(settings_in(tmp_path / "demo"))
    assert len(builds) == 2


def test_a_lost_part_is_built_again(tmp_path: Path, builds: list[int]) -> None:
    folder = demo_assets.ensure_demo_assets(settings_in(tmp_path / "demo"))
    (folder / "corpus_eval.parquet").unlink()
    demo_assets.ensure_demo_assets(settings_in(tmp_path / "demo"))
    assert (folder / "corpus_eval.parquet").is_file()


def test_more_training_rows_than_texts_are_refused(tmp_path: Path, builds: list[int]) -> None:
    with pytest.raises(UserError, match="too few"):
        demo_assets.ensure_demo_assets(settings_in(tmp_path / "demo", "embedded.training_rows=60"))


def test_batches_hold_every_row_once_under_the_budget() -> None:
    lengths = [1 + (i * 37) % 128 for i in range(500)]
    batches = list(training.make_batches(lengths))
    assert sorted(row for batch in batches for row in batch) == list(range(500))
    assert all(
        len(batch) * max(lengths[row] for row in batch) <= training.TOKENS_PER_BATCH
        for batch in batches
    )
