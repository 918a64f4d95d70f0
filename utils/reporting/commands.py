"""The commands that make the files of a report, for messages."""

from __future__ import annotations

import shlex

from utils.pipeline.steps import get_step

STEP_02 = get_step("02").command
STEP_03 = get_step("03").command
STEP_03_MISSING = f"step 03 has not run; run it with the same --config: {STEP_03}"
CONFIG_FLAG = "--config"
SETTING_FLAG = "--set"


def flags_of_command(command: str, setting_flag: str = SETTING_FLAG) -> str:
    """The configuration and the settings that a recorded command was given, for another command.

    Args:
        setting_flag: how the other command calls its settings.
    """
    try:
        words = shlex.split(command)
    except ValueError:
        return ""
    names = {CONFIG_FLAG: CONFIG_FLAG, SETTING_FLAG: setting_flag}
    flags: list[str] = []
    for position, word in enumerate(words):
        name, equals, value = word.partition("=")
        if name not in names:
            continue
        if not equals:
            value = "".join(words[position + 1 : position + 2])
        flags += [names[name], value]
    return shlex.join(flags)
