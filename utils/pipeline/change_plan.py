"""The processes that measure a change: their settings, their order, their folders."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from utils.config_loader import Config, load_config
from utils.pipeline.change_settings import change_name, check_changes, check_name, find_changes
from utils.schema.change import ChangedSetting

SideName = Literal["baseline", "candidate"]
SIDE_NAMES: tuple[SideName, SideName] = ("baseline", "candidate")


@dataclass(frozen=True, kw_only=True, slots=True)
class ChangeRequest:
    """What the user wants to know.

    Args:
        config_file: settings file, as typed.
        shared: settings of both sides that replace those of the file, each ``section.key=VALUE``.
        changed: settings of the candidate alone.
        repeats: processes of each side.
        evaluates: whether each process evaluates the complete data set too.
        name: of the change's folder; None makes it of the changed settings.
    """

    config_file: str
    shared: tuple[str, ...]
    changed: tuple[str, ...]
    repeats: int
    evaluates: bool
    name: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Side:
    """One side of the change: the settings file, and what replaces its settings."""

    name: SideName
    config_file: str
    overrides: tuple[str, ...]

    def load_config(self, *more: str) -> Config:
        """The settings, checked; ``more`` overrides come last."""
        return load_config(self.config_file, (*self.overrides, *more))

    def arguments(self, *more: str) -> list[str]:
        """The settings as flags of a step; ``more`` overrides come last."""
        words = ["--config", self.config_file]
        for override in (*self.overrides, *more):
            words.append(f"--set={override}")
        return words


@dataclass(frozen=True, kw_only=True, slots=True)
class MeasuringProcess:
    """One fresh process, with a results folder of its own.

    Args:
        number: place in the order of measurement, from 1.
    """

    number: int
    side: Side
    folder: Path

    @property
    def config(self) -> Config:
        return self.side.load_config(self._output)

    @property
    def arguments(self) -> list[str]:
        """Its settings as flags of a step."""
        return self.side.arguments(self._output)

    @property
    def _output(self) -> str:
        # As JSON, which is YAML too, whatever characters the path has.
        return f"output.results_dir={json.dumps(str(self.folder))}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """A change that is measured.

    Args:
        settings: what differs between the sides.
        folder: of everything that is measured for it.
        processes: in the order of measurement.
    """

    settings: tuple[ChangedSetting, ...]
    folder: Path
    processes: tuple[MeasuringProcess, ...]

    def of_side(self, name: SideName) -> list[MeasuringProcess]:
        """The processes of one side, in the order of measurement."""
        return [process for process in self.processes if process.side.name == name]


def plan_change(request: ChangeRequest) -> Change:
    """What has to be measured.

    Raises:
        ConfigError: a setting is impossible, the change is none or decides nothing that is
            measured, or a folder cannot have the name.
    """
    evaluation = f"evaluation.enabled={json.dumps(request.evaluates)}"
    shared = (*request.shared, evaluation)
    baseline = Side(name="baseline", config_file=request.config_file, overrides=shared)
    candidate = Side(
        name="candidate",
        config_file=request.config_file,
        overrides=(*shared, *request.changed),
    )
    config = baseline.load_config()
    settings = find_changes(config, candidate.load_config())
    check_changes(settings, request.changed, config)
    name = change_name(settings) if request.name is None else check_name(request.name)
    folder = config.files.changes_dir / name
    processes = []
    sides = order_of_sides(baseline, candidate, request.repeats)
    for number, side in enumerate(sides, start=1):
        process_folder = folder / f"{number:02d}-{side.name}"
        processes.append(MeasuringProcess(number=number, side=side, folder=process_folder))
    return Change(settings=settings, folder=folder, processes=tuple(processes))


def order_of_sides(baseline: Side, candidate: Side, repeats: int) -> Sequence[Side]:
    """A B B A A B …: each side ``repeats`` times.

    Each pair begins with the side that the pair before it ended with, so that a machine that
    becomes steadily faster or slower does so for both sides. More repeats continue the order of
    fewer.
    """
    order = []
    for pair in range(repeats):
        if pair % 2 == 0:
            order += [baseline, candidate]
        else:
            order += [candidate, baseline]
    return order
