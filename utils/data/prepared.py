"""The prepared data set: its record, and whether it is the one that a configuration asks for."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from utils.core.errors import DataError
from utils.core.files import PROJECT_ROOT, JsonObject, sha256_file
from utils.core.paths import project_path, source_files
from utils.data.dataset_settings import INFO_NAME, DatasetSettings
from utils.data.files import origin_of
from utils.data.formats import file_kind
from utils.data.labels import STEP_01, LabelMapping, ModelLabels, read_mapping_file
from utils.data.reader import count_rows, hash_data
from utils.schema.dataset import DATASET_RECORD_VERSION, PreparedDatasetInfo
from utils.schema.warning_codes import WarningCode

ORIGINS_WITH_SPLITS = ("hub", "folder", "saved")
MAX_SHOWN = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class PreparedData:
    """The data set that belongs to a configuration: its label mapping and what it was made from."""

    mapping: LabelMapping
    info: PreparedDatasetInfo


def decisive_settings(settings: DatasetSettings) -> JsonObject:
    """The settings that decide the content of the data set.

    Only those: a single file has no split, for example. Local names are resolved, so that the same
    file by another name is the same; below the project's root they are relative to it, so that a
    project that was copied to another machine keeps its data.
    """
    dataset = settings.dataset
    origin = origin_of(dataset.hf_name)
    name = dataset.hf_name
    if origin in ("files", "folder", "saved"):
        name = _portable_path(name)
    decisive: JsonObject = {"dataset.hf_name": name}
    if origin == "hub":
        decisive["dataset.revision"] = dataset.revision
        decisive["dataset.config"] = dataset.config
    if origin in ORIGINS_WITH_SPLITS:
        decisive["dataset.split"] = dataset.split
    if origin == "embedded":
        decisive["embedded.dir"] = _portable_path(settings.embedded.dir)
        decisive["embedded.seed"] = settings.embedded.seed
        decisive["embedded.training_rows"] = settings.embedded.training_rows
    decisive["dataset.text_column"] = dataset.text_column
    decisive["dataset.label_column"] = dataset.label_column
    decisive["dataset.label_map"] = dict(dataset.label_map)
    decisive["evaluation.unknown_labels"] = settings.unknown_labels
    return decisive


def _portable_path(name: str) -> str:
    path = project_path(name)
    if path.is_relative_to(PROJECT_ROOT):
        path = path.relative_to(PROJECT_ROOT)
    return str(path)


def check_prepared_data(settings: DatasetSettings, model_labels: ModelLabels) -> PreparedData:
    """The data set that step 01 wrote, if it is the one that this configuration asks for.

    Args:
        model_labels: of the configured model, from ``utils.model_utils.model_labels``.

    Raises:
        DataError: there is no data set, it was made with other settings or for another model's
            labels, or it was changed since.
        UserError: a file beside it cannot be read.
    """
    file = settings.data_file
    # A missing or damaged file is reported first, because the other errors may follow from it.
    count_rows(file)
    mapping = read_mapping_file(settings.label_mappings_file)
    info = _read_matching_info(settings)
    differences = _differences(info, settings, model_labels)
    if differences:
        raise DataError(
            "The data set was made with another configuration, and would be reported under this "
            "one's name:\n  " + "\n  ".join(differences),
            where=file,
            fix=f"make it again: {STEP_01}",
        )
    if hash_data(file) != info.sha256:
        raise DataError(
            "The data set was changed after step 01 wrote it.",
            where=file,
            fix=f"make it again: {STEP_01}",
        )
    _check_mapping_unchanged(settings.label_mappings_file, info)
    warnings = (*info.warnings, *_warn_about_newer_source(settings))
    return PreparedData(mapping=mapping, info=info.model_copy(update={"warnings": warnings}))


def _warn_about_newer_source(settings: DatasetSettings) -> tuple[str, ...]:
    """A warning if a local source was changed after step 01 read it.

    It is no error, because copying a project gives its files new times as well.
    """
    name = settings.dataset.hf_name
    if origin_of(name) not in ("files", "folder", "saved"):
        return ()
    written = settings.info_file.stat().st_mtime_ns
    newer = []
    for file in source_files(name):
        is_data = file_kind(file) is not None or file.suffix == ".arrow"
        if is_data and file.stat().st_mtime_ns > written:
            newer.append(file.name)
    if not newer:
        return ()
    return (
        WarningCode.DATA.warn(
            f"{_names(newer)} was changed after step 01 read it, and the results are those of the "
            f"data set as it was before: make it again with {STEP_01}"
        ),
    )


def _read_matching_info(settings: DatasetSettings) -> PreparedDatasetInfo:
    """The record of the configured file (DataError: there is none, or it is another file's)."""
    path = settings.info_file
    info = read_info(path)
    if info is None:
        raise DataError(
            "It is not recorded what the data set was made from (or by an earlier version of step "
            "01 only).",
            where=path,
            fix=f"make the data set again: {STEP_01}",
        )
    name = settings.data_file.name
    if info.file != name:
        raise DataError(
            f"{INFO_NAME} describes {info.file}, which was made after {name} in the same folder.",
            where=path,
            fix=f"make the data set again: {STEP_01}; to keep both, give each a folder of its own: "
            "--set dataset.local_path=PATH",
        )
    return info


def _check_mapping_unchanged(file: Path, info: PreparedDatasetInfo) -> None:
    hashes = info.written_files.get(file.name, ())
    if sha256_file(file) not in hashes:
        raise DataError(
            "The label mappings were changed after step 01 wrote them.",
            where=file,
            fix=f"make them again: {STEP_01}; to rename labels, set dataset.label_map",
        )


def read_info(path: Path) -> PreparedDatasetInfo | None:
    """The record, or None if there is none of the present version."""
    try:
        return PreparedDatasetInfo.model_validate_json(path.read_bytes(), extra="allow")
    except (OSError, ValidationError):
        return None


def refuse_foreign_files(settings: DatasetSettings) -> None:
    """Refuse to replace files that step 01 did not write, or that were changed since.

    Raises:
        DataError: such a file is where the data set is to be written.
    """
    for path in settings.output_files:
        if path.exists() and not _was_written_by_step_01(path, settings):
            raise DataError(
                f"{path.name} was not written by step 01, or was changed since, and would be "
                "overwritten.",
                where=path,
                fix="move it away, or write the data set to another place: --set "
                "dataset.local_path=PATH",
            )


def read_record(settings: DatasetSettings) -> JsonObject:
    """The JSON object beside the data set as it is, also of an earlier version; empty if absent."""
    try:
        content = json.loads(settings.info_file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(content, dict):
        return {}
    return content


def known_hashes(settings: DatasetSettings) -> dict[str, tuple[str, ...]]:
    """The hashes of the files that step 01 wrote, by file name."""
    record = read_record(settings)
    written = record.get("written_files")
    if record.get("record_version") == DATASET_RECORD_VERSION and isinstance(written, dict):
        lists = {name: hashes for name, hashes in written.items() if isinstance(hashes, list)}
        return {name: tuple(hashes) for name, hashes in lists.items()}
    if not _is_of_earlier_version(record, settings):
        return {}
    present = [
        path for path in (settings.data_file, settings.label_mappings_file) if path.is_file()
    ]
    return {path.name: (sha256_file(path),) for path in present}


def _was_written_by_step_01(path: Path, settings: DatasetSettings) -> bool:
    written = known_hashes(settings)
    if path == settings.info_file:
        return bool(written)
    return path.is_file() and sha256_file(path) in written.get(path.name, ())


def _is_of_earlier_version(record: JsonObject, settings: DatasetSettings) -> bool:
    """Whether step 01 wrote these files before records had a version.

    Those records have only the data set's hash.
    """
    if "label_mapping_source" not in record or not settings.data_file.is_file():
        return False
    return sha256_file(settings.data_file) == record.get("sha256")


def _differences(
    info: PreparedDatasetInfo, settings: DatasetSettings, model_labels: ModelLabels
) -> list[str]:
    """A line for each setting that was another one: the setting, then, now."""
    lines = _differing_settings(info.settings, decisive_settings(settings))
    if info.model_label_names != model_labels.names:
        lines.append(
            f"the model's labels: then {_names(info.model_label_names)}, now "
            f"{_names(model_labels.names)}"
        )
    if info.model_num_labels != model_labels.num_labels:
        lines.append(
            f"the model's number of labels: then {info.model_num_labels}, now "
            f"{model_labels.num_labels}"
        )
    return lines


def _differing_settings(then: JsonObject, now: JsonObject) -> list[str]:
    lines = []
    for key in dict.fromkeys([*now, *then]):
        # Which settings count depends on the name: if that differs, it alone is reported.
        if key in then and key in now and then[key] != now[key]:
            lines.append(f"{key}: then {then[key]!r}, now {now[key]!r}")
    if not lines and set(then) != set(now):
        lines.append(
            f"the kind of dataset.hf_name: then with {_names(sorted(then))}, now with "
            f"{_names(sorted(now))}"
        )
    return lines


def _names(names: Sequence[str] | None) -> str:
    if names is None:
        return "without names"
    shown = ", ".join(names[:MAX_SHOWN])
    if len(names) > MAX_SHOWN:
        shown += f" and {len(names) - MAX_SHOWN} more"
    return shown
