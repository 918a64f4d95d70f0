"""The settings that a change is made of: what differs between the two sides, and its name."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence

from utils.config_loader import Config
from utils.core.errors import ConfigError
from utils.core.files import fingerprint
from utils.schema.change import ChangedSetting
from utils.settings import all_keys

EVALUATION = "evaluation."
EVALUATION_ENABLED = "evaluation.enabled"
NOT_MEASURED = ("output.", "cost.", "targets.")
"""Sections that decide where results are or what is shown, not what is measured."""
MAX_NAME_LENGTH = 80
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._=+-]*")
"""Names of folders that every file system takes."""


def find_changes(baseline: Config, candidate: Config) -> tuple[ChangedSetting, ...]:
    """Every setting that the two sides have with different values, in the order of the settings."""
    changes = []
    for key in all_keys():
        before = baseline.get(key)
        after = candidate.get(key)
        if before != after:
            change = ChangedSetting(key=key, before=_as_text(before), after=_as_text(after))
            changes.append(change)
    return tuple(changes)


def check_changes(
    changes: Sequence[ChangedSetting], overrides: Sequence[str], baseline: Config
) -> None:
    """Refuse a change that nothing would be measured of.

    Args:
        overrides: the change as it was typed, each ``section.key=VALUE``.

    Raises:
        ConfigError: a setting has its present value, or decides nothing that is measured.
    """
    for override in overrides:
        key = override.partition("=")[0].strip()
        changed = [change.key for change in changes if _belongs_to(change.key, key)]
        if not changed:
            raise ConfigError(
                f"{key} changes nothing: it is {_as_text(baseline.get(key))} already.",
                where=f"--set {override}",
                fix="give another value, or leave it out",
            )
        for name in changed:
            _check_measured(name, override, evaluates=baseline.evaluation.enabled)


def _check_measured(key: str, override: str, *, evaluates: bool) -> None:
    where = f"--set {override}"
    if key.startswith(NOT_MEASURED):
        raise ConfigError(
            f"{key} decides nothing that is measured.",
            where=where,
            fix=f"give it to both sides: --both {override}",
        )
    if key == EVALUATION_ENABLED:
        raise ConfigError(
            "Both sides are evaluated, or none.",
            where=where,
            fix="add --evaluate to evaluate the complete data set on both sides",
        )
    if key.startswith(EVALUATION) and not evaluates:
        raise ConfigError(
            f"{key} changes the evaluation of the complete data set, which is not measured.",
            where=where,
            fix="add --evaluate",
        )


def _belongs_to(changed_key: str, typed_key: str) -> bool:
    """Whether what was typed changes a setting: its key, its section, or a part of its value."""
    same = changed_key == typed_key
    within = changed_key.startswith(f"{typed_key}.")
    around = typed_key.startswith(f"{changed_key}.")
    return same or within or around


def change_name(changes: Sequence[ChangedSetting]) -> str:
    """A folder's name made of the changed settings, such as ``model.dtype=bfloat16``."""
    parts = list(_name_parts(changes))
    name = "+".join(parts)
    if len(name) <= MAX_NAME_LENGTH:
        return name
    digest = fingerprint(parts)[:8]
    return f"{name[: MAX_NAME_LENGTH - len(digest) - 1]}-{digest}"


def _name_parts(changes: Sequence[ChangedSetting]) -> Iterator[str]:
    for change in changes:
        value = re.sub(r"[^A-Za-z0-9._-]+", "-", change.after).strip("-")
        yield f"{change.key}={value}"


def check_name(name: str) -> str:
    """The name, if a folder can have it.

    Raises:
        ConfigError: it has characters that a folder's name should not have.
    """
    if NAME.fullmatch(name):
        return name
    raise ConfigError(
        f"{name!r} cannot be the name of a change.",
        where="--name",
        fix="use letters, digits and . _ = + -, and begin with a letter or digit",
    )


def describe_changes(changes: Sequence[ChangedSetting]) -> str:
    """The changed settings with their values before and after."""
    parts = [f"{change.key} {change.before} -> {change.after}" for change in changes]
    return "; ".join(parts)


def _as_text(value: object) -> str:
    """Text as it is, everything else as JSON."""
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False)
