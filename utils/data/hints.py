"""Settings as the user types them: `--set key=VALUE`, quoted for YAML and for the shell."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping

PLAIN_VALUE = re.compile(r"[A-Za-z/][A-Za-z0-9_./-]*")
YAML_WORDS = {"null", "true", "false", "yes", "no", "on", "off", "y", "n"}
MAX_PAIRS = 100
"""Longer mappings belong in a configuration file; a command line of that length helps nobody."""


def setting_flag(key: str, value: str) -> str:
    """``--set key=VALUE`` for a text, quoted only where YAML or the shell need it."""
    if PLAIN_VALUE.fullmatch(value) and value.lower() not in YAML_WORDS:
        return f"--set {key}={value}"
    return "--set " + shlex.quote(f"{key}={yaml_text(value)}")


def label_map_flag(pairs: Mapping[str, str]) -> str:
    """``--set 'dataset.label_map={…}'``, ready to paste.

    Of very many pairs it has the first ones and a remark.
    """
    shown = list(pairs.items())[:MAX_PAIRS]
    items = ", ".join(f"{yaml_text(name)}: {yaml_text(target)}" for name, target in shown)
    flag = "--set " + shlex.quote("dataset.label_map={" + items + "}")
    if len(pairs) > MAX_PAIRS:
        rest = len(pairs) - MAX_PAIRS
        flag += f" and {rest} more; write so long a mapping into the configuration file"
    return flag


def yaml_text(text: str) -> str:
    """The text as a double-quoted YAML scalar, which is always read back as this text."""
    return '"' + "".join(map(_yaml_character, text)) + '"'


def _yaml_character(character: str) -> str:
    if character in ('"', "\\"):
        return f"\\{character}"
    if character.isprintable():
        return character
    return f"\\U{ord(character):08x}"
