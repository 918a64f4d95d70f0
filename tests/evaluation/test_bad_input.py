"""Unusual texts and labels do what the guide describes, from the source file to the metrics."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests import support
from utils.config_loader import Config
from utils.core.errors import DataError
from utils.data import writer
from utils.data.dataset_settings import DatasetSettings
from utils.data.sources import DatasetSource
from utils.evaluation import runner
from utils.evaluation.evaluation_settings import EvaluationSettings
from utils.model_utils import LoadedModel, load_model, model_labels

TEXTS = (
    "",
    " \n\t ",
    "word " * 200_000,
    "a\x00b",
    "lone \ud800 surrogate",
    'quoted "text"\nover\r\nlines',
    "plain",
)


@pytest.fixture(scope="module")
def loaded(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load_model(support.small_config(tmp_path_factory.mktemp("config"), tiny_model))


def settings(folder: Path, model: Path, *more: str) -> Config:
    return support.small_config(
        folder, model, f"dataset.local_path={folder / 'data' / 'new.parquet'}", *more
    )


def prepare(config: Config, source: DatasetSource) -> None:
    """What step 01 does."""
    dataset_settings = DatasetSettings.of(config)
    preparation = writer.prepare(dataset_settings, source, model_labels(config))
    writer.write_dataset(dataset_settings, preparation)


def source(texts: tuple[str, ...], labels: tuple[str | None, ...]) -> DatasetSource:
    return DatasetSource(rows=lambda: iter(zip(texts, labels, strict=True)))


def evaluate(loaded: LoadedModel, config: Config) -> tuple[dict[str, Any], pd.DataFrame]:
    metrics = runner.evaluate_dataset(loaded, EvaluationSettings.of(config))
    files = sorted(config.files.predictions_dir.glob("*.parquet"))
    return metrics, pd.concat([pd.read_parquet(file) for file in files], ignore_index=True)


def test_every_odd_text_is_predicted_and_counted(
    loaded: LoadedModel, tmp_path: Path, tiny_model: Path
) -> None:
    config = settings(tmp_path, tiny_model, "evaluation.chunk_rows=3")
    prepare(config, source(TEXTS, ("books",) * len(TEXTS)))
    metrics, rows = evaluate(loaded, config)
    assert rows.row_id.tolist() == list(range(len(TEXTS)))
    assert rows.num_tokens[0] == 0, (
        "an empty text has no token; it is predicted from one of padding"
    )
    assert rows.num_tokens[1] > 0
    assert (rows.num_tokens[2], metrics.num_truncated) == (64, 1)
    assert rows.predicted_probability.between(0, 1).all()
    assert metrics.num_labelled == len(TEXTS)
    assert metrics.num_correct == (rows.predicted_id == 0).sum()


def test_unknown_and_missing_labels(loaded: LoadedModel, tmp_path: Path, tiny_model: Path) -> None:
    labels = ("books", "zebra", None, "games", "zebra", "", "music")
    texts = tuple(f"text {i}" for i in range(len(labels)))
    given = source(texts, labels)
    with pytest.raises(DataError, match=r"only in the data set, 2 rows: 'zebra' \(2\)") as caught:
        prepare(settings(tmp_path, tiny_model), given)
    assert "evaluation.unknown_labels=skip" in str(caught.value)
    config = settings(
        tmp_path, tiny_model, "evaluation.unknown_labels=skip", "evaluation.chunk_rows=2"
    )
    prepare(config, source(texts, tuple(label or None for label in labels)))
    metrics, rows = evaluate(loaded, config)
    assert rows.label_id.isna().tolist() == [False, True, True, False, True, True, False]
    assert rows.predicted_id.between(0, 2).all(), "they are predicted all the same"
    assert (
        metrics.num_unknown_labels,
        metrics.num_missing_labels,
        metrics.num_labelled,
    ) == (2, 2, 3)
    known = rows.dropna(subset=["label_id"])
    assert metrics.accuracy == pytest.approx((known.label_id == known.predicted_id).mean())
    assert any(
        warning.startswith("labels: 2 rows have a label that the model does not know")
        for warning in metrics.warnings
    )
    again = runner.evaluate_dataset(loaded, EvaluationSettings.of(config))
    assert (again.num_unknown_labels, again.resumed_rows) == (2, 7), (
        "counted in what is stored, too"
    )


def test_a_csv_with_quoted_newlines_keeps_its_rows(
    loaded: LoadedModel, tmp_path: Path, tiny_model: Path
) -> None:
    file = tmp_path / "in.csv"
    file.write_text(
        'text,labels\n"one\ntext, ""quoted""\r\n\nover lines",books\nplain,games\n', newline=""
    )
    config = settings(
        tmp_path,
        tiny_model,
        f"dataset.hf_name={file}",
        f"dataset.local_path={tmp_path / 'data' / 'new.csv'}",
    )
    prepare(config, support.read_configured_source(config))
    metrics, rows = evaluate(loaded, config)
    assert (metrics.num_samples, rows.label_id.tolist()) == (2, [0, 1])
    assert rows.num_tokens[0] > rows.num_tokens[1]


def test_a_row_count_that_changes_is_another_data_set(
    loaded: LoadedModel, tmp_path: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = settings(tmp_path, tiny_model, "evaluation.chunk_rows=2")
    for count in (5, 6, 3):
        prepare(
            config,
            source(TEXTS[2:5] * 2, ("books",) * 6)
            if count == 6
            else source(TEXTS[2:7][:count], ("books",) * count),
        )
        metrics, rows = evaluate(loaded, config)
        assert (metrics.num_samples, len(rows), metrics.resumed_rows) == (count, count, 0)
        output = capsys.readouterr().out
        assert ("data set: " in output) == (count != 5)
