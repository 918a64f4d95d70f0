"""The folder of a change: whose it is, which of its processes are still valid."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence

from utils.core.errors import UserError
from utils.pipeline.change_plan import Change, MeasuringProcess
from utils.pipeline.machine import read_machine
from utils.pipeline.steps import get_step, stale_reason
from utils.schema.change import ChangedSetting, ChangeRecord, load_change, save_change

RECORD_NAME = "change.json"
PROCESS_FOLDER = re.compile(r"\d{2,}-(baseline|candidate)")
OTHER_FOLDER = "choose another folder with --name NAME, or remove this one"


def read_machine_changes(change: Change) -> list[str]:
    """What differs between the machine of the finished processes and the present one.

    Raises:
        UserError: the folder has another content: another change, or files of something else.
    """
    record = _read_record(change)
    if record is None:
        return []
    if _values(record.settings) != _values(change.settings):
        known = ", ".join(f"{key}={value}" for key, value in _values(record.settings).items())
        raise UserError(
            f"The folder has the results of another change: {known}.",
            where=change.folder,
            fix=OTHER_FOLDER,
        )
    machine = read_machine()
    differences = []
    for name in {**record.machine, **machine}:
        before = record.machine.get(name)
        now = machine.get(name)
        if before != now:
            differences.append(f"{name} (then {before or 'none'}, now {now or 'none'})")
    return differences


def _read_record(change: Change) -> ChangeRecord | None:
    """The record of the folder; None where the folder is new."""
    file = change.folder / RECORD_NAME
    if file.exists():
        return load_change(file)
    if change.folder.exists() and any(change.folder.iterdir()):
        raise UserError(
            f"The folder has no {RECORD_NAME}: something else is in it.",
            where=change.folder,
            fix=OTHER_FOLDER,
        )
    return None


def _values(settings: Sequence[ChangedSetting]) -> dict[str, str]:
    """What makes a change: the values of the candidate. Those before it may change over time."""
    return {setting.key: setting.after for setting in settings}


def prepare_folder(change: Change, *, delete_processes: bool) -> None:
    """Write the record; first delete the processes that were measured on another machine.

    In this order, so that an interruption in between leaves no process of another machine under
    the record of this one.
    """
    if delete_processes:
        for path in sorted(change.folder.iterdir()):
            if PROCESS_FOLDER.fullmatch(path.name):
                shutil.rmtree(path)
    record = ChangeRecord(settings=change.settings, machine=read_machine())
    save_change(change.folder / RECORD_NAME, record)


def reason_to_measure(process: MeasuringProcess) -> str | None:
    """Why a process has to be measured; None where it has finished and is still valid."""
    return stale_reason(get_step("02"), process.config)


def reason_to_diagnose(process: MeasuringProcess) -> str | None:
    """Why the diagnosis of a process has to run; None where it is valid."""
    return stale_reason(get_step("03"), process.config)


def clear_process(process: MeasuringProcess) -> None:
    """Delete what a process that has to be measured again has left.

    A sweep that two processes measured would be no repeat, so an interrupted one is not continued.
    """
    if process.folder.exists():
        shutil.rmtree(process.folder)
