"""Writes what is generated from the records: JSON Schemas, tables of metrics and of settings.

python -m utils.schema.generate           writes them
python -m utils.schema.generate --check   only compares; 1 where one is not up to date
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from utils.core.files import PROJECT_ROOT, write_text
from utils.schema.baseline import BaselineMetrics
from utils.schema.ceilings import CeilingsFile
from utils.schema.change import ChangeRecord
from utils.schema.common import Record
from utils.schema.comparison import Comparison
from utils.schema.dataset import LabelMappings, PreparedDatasetInfo
from utils.schema.diagnosis import Diagnosis
from utils.schema.json_schema import schema_text
from utils.schema.markdown import with_generated_part
from utils.schema.metrics_page import metrics_tables
from utils.schema.settings_page import settings_tables

FILES: dict[str, type[Record]] = {
    "baseline_metrics.json": BaselineMetrics,
    "bottlenecks.json": Diagnosis,
    "change.json": ChangeRecord,
    "ceilings.json": CeilingsFile,
    "comparison.json": Comparison,
    "dataset_info.json": PreparedDatasetInfo,
    "label_mappings.json": LabelMappings,
}
"""The record of each file that is published."""
SCHEMA_FOLDER = PROJECT_ROOT / "configs"
METRICS_PAGE = PROJECT_ROOT / "docs" / "METRICS.md"
SETTINGS_PAGE = PROJECT_ROOT / "docs" / "SETTINGS.md"


def generated_files() -> dict[Path, str]:
    """The content that each generated file has to have."""
    contents = {
        METRICS_PAGE: with_generated_part(_read(METRICS_PAGE), metrics_tables(FILES)),
        SETTINGS_PAGE: with_generated_part(_read(SETTINGS_PAGE), settings_tables()),
    }
    for file_name, record in FILES.items():
        path = SCHEMA_FOLDER / f"{Path(file_name).stem}.schema.json"
        contents[path] = schema_text(file_name, record)
    return contents


def outdated_files() -> list[Path]:
    """The generated files whose content is not that of the records."""
    return [path for path, content in generated_files().items() if _read(path) != content]


def _read(path: Path) -> str:
    """The text of a file; empty where there is none yet."""
    if not path.exists():
        return ""
    return path.read_text(encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the generated files, or compare them; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m utils.schema.generate", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--check", action="store_true", help="write nothing, only compare")
    only_compare = parser.parse_args(arguments).check
    outdated = outdated_files()
    contents = generated_files()
    for path in outdated:
        name = path.relative_to(PROJECT_ROOT)
        if only_compare:
            sys.stderr.write(f"{name} is not up to date: python -m utils.schema.generate\n")
        else:
            write_text(path, contents[path])
            sys.stdout.write(f"{name}\n")
    return 1 if outdated and only_compare else 0


if __name__ == "__main__":
    raise SystemExit(main())
