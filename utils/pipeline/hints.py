"""Hints to paste: commands and settings in messages, completed with what the user typed.

Messages name a command of this project without flags (``python scripts/01_download_data.py``) and a
setting as ``--set KEY=VALUE``. Here both are completed, in one place, before they are shown on the
terminal. For an error that reaches a Python caller, settings become arguments instead.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from utils.config_loader import default_config
from utils.core.errors import UserError
from utils.core.files import PROJECT_ROOT
from utils.core.paths import works_in_project_root
from utils.settings import EMBEDDED, SECTIONS

VARIABLE = "WEEK1_USER_COMMAND"
"""In the environment of a step that a runner started: the words of the user's command, as JSON."""

TWO_SIDED_SCRIPT = "06_measure_change.py"
"""Its ``--set`` is a change of one side."""
BOTH_SIDES_FLAG = "--both"
SETTINGS_FLAGS = ("--set", BOTH_SIDES_FLAG)

SCRIPT = r"(?<!\w)python\s+(?P<script>scripts/\w+\.py|run_week1\.py|example_interactive\.py)"
"""The beginning of a command of this project."""
CONFIG_FLAG = r"(?P<config>\s+--config\s+[^\s,;]+)"
ANY_FLAG = r"(?:\s+--[\w-]+(?:[ =](?!--)[^\s,;]+)?)"
"""A flag with or without a value."""
COMMAND = re.compile(rf"{SCRIPT}{CONFIG_FLAG}?(?:\.$)?", re.MULTILINE)
"""A command and its ``--config``.

A full stop at the end of the line belongs to the sentence; it would become part of the command's
last word, so it is left out.
"""
COMMAND_WITH_FLAGS = re.compile(rf"{SCRIPT}{ANY_FLAG}*")

SINGLE_QUOTED = r"'[^']*'"
DOUBLE_QUOTED = r'"(?:[^"\\]|\\.)*"'
YAML_LIST = r"\[[^\]]*\]"
YAML_MAPPING = r"\{[^}]*\}"
PLAIN_CHARACTER = r"""[^\s'"\[\]{},;()]"""
WORD = rf"(?:{SINGLE_QUOTED}|{DOUBLE_QUOTED}|{YAML_LIST}|{YAML_MAPPING}|{PLAIN_CHARACTER})+"
"""One word of a shell, which may have brackets and braces of YAML without quotes."""
QUOTED_OR_PLAIN = re.compile(rf"""{SINGLE_QUOTED}|{DOUBLE_QUOTED}|[^'"]+""")
"""One part of a word, with quotes or without."""
SETTING = re.compile(rf"--set[ =](?P<word>{WORD})")
SETTINGS = re.compile(rf"--set[ =]{WORD}(?:\s+--set[ =]{WORD})*")
"""Several ``--set`` flags in a row, which belong into one command."""
PLACEHOLDER = re.compile(r"[A-Z][A-Z_]*|.*….*|.*\b(NAME|PATH|VALUE|LABEL)\b.*", re.DOTALL)
"""A value that the user has to replace, such as ``NAME`` or ``FOLDER/*.csv…``."""
PYTHON_SECTIONS = ("model", "profiling", "evaluation", "dataset")
ARGUMENTS = {"model.name": "model_name"}
"""Arguments of Python functions whose name is not the setting's last part."""


@dataclass(frozen=True, kw_only=True)
class CommandLine:
    """What the user has typed.

    ``flags`` are the ``--config`` and ``--set`` flags of this process; ``words`` the script and all
    arguments of the user's own command, which for a step is the runner's where a runner has started
    it.
    """

    flags: tuple[str, ...]
    words: tuple[str, ...]


_command_line: CommandLine | None = None


@contextmanager
def command_line(config: str, overrides: Sequence[str], words: Sequence[str]) -> Iterator[None]:
    """While the block runs, hints have these flags.

    ``words`` are the script and its arguments as typed.
    """
    global _command_line
    flags = []
    if config != default_config():
        flags = ["--config", config]
    for override in overrides:
        flags += ["--set", override]
    before = _command_line
    _command_line = CommandLine(flags=tuple(flags), words=runner_words() or tuple(words))
    try:
        yield
    finally:
        _command_line = before


def environment_of_step() -> dict[str, str]:
    """The environment for a step of this process: the step's hints name the user's own command."""
    words = _command_line.words if _command_line else ()
    return {**os.environ, VARIABLE: json.dumps(words)}


def runner_words() -> tuple[str, ...]:
    """The words of the command that started this step; empty where the user started it."""
    try:
        return tuple(json.loads(os.environ.get(VARIABLE, "[]")))
    except ValueError:
        return ()


def resume_command() -> str:
    """The command that continues where this one stopped; of the runner, with ``--resume``."""
    words = list(sys.argv)
    if _command_line is not None:
        words = list(_command_line.words)
    is_runner = Path(words[0]).name == "run_week1.py"
    if is_runner and "--resume" not in words:
        words.append("--resume")
    return _command(words)


def with_flags(text: str) -> str:
    """The text with the user's ``--config`` and ``--set`` flags in every command of this project.

    The user's ``--config`` replaces one that the command names as an example. Settings of the
    command itself come after the user's, so that they apply. Outside the project's root the
    script's path is absolute.
    """
    if _command_line is None:
        return text
    flags = _command_line.flags

    def complete(match: re.Match[str]) -> str:
        command = f"python {_shown_script(match['script'])}"
        example_config = match["config"] or ""
        rest = match.string[match.end("script") :]
        if not flags or rest.startswith(f" {shlex.join(flags)}"):
            return command + example_config
        if "--config" in flags:
            example_config = ""
        return f"{command}{example_config} {shlex.join(flags)}"

    return COMMAND.sub(complete, text)


def complete_text(text: str) -> str:
    """A warning with complete commands, and a command to paste for each suggested setting."""
    return "\n".join([with_flags(text), *_lines_to_paste(text)])


def complete_error(error: UserError) -> str:
    """An error's message with complete commands, and one to paste for each setting of its fix."""
    return "\n".join([with_flags(str(error)), *_lines_to_paste(error.fix or "")])


def _lines_to_paste(text: str) -> list[str]:
    if _command_line is None:
        return []
    # Settings inside a complete command need no second one.
    alone = COMMAND_WITH_FLAGS.sub("", text)
    lines = []
    for match in SETTINGS.finditer(alone):
        settings = [_unquoted(setting["word"]) for setting in SETTING.finditer(match[0])]
        if all(_is_setting(setting) for setting in settings):
            lines.append(f"  paste: {_command(_replaced(_command_line.words, settings))}")
    return list(dict.fromkeys(lines))


def _is_setting(text: str) -> bool:
    """Whether this is a setting with a value, not a placeholder such as ``model.name=NAME``."""
    key, equals, value = text.partition("=")
    section, _, field = key.partition(".")
    known = field in SECTIONS.get(section, {})
    return bool(equals) and known and not PLACEHOLDER.fullmatch(value)


def _replaced(words: Sequence[str], settings: Sequence[str]) -> list[str]:
    """A command's words with the settings added, in place of those of the same keys."""
    flags = dict.fromkeys((_key_of(setting) for setting in settings), _settings_flag(words))
    result: list[str] = []
    rest = iter(words)
    for word in rest:
        flag, equals, override = word.partition("=")
        if flag not in SETTINGS_FLAGS:
            result.append(word)
            continue
        if not equals:
            override = next(rest, "")
        key = _key_of(override)
        if key in flags:
            flags[key] = flag
        else:
            result += [flag, override]
    for setting in settings:
        result += [flags[_key_of(setting)], setting]
    return result


def _key_of(override: str) -> str:
    """The dotted key of ``section.key=VALUE``."""
    return override.partition("=")[0].strip()


def _settings_flag(words: Sequence[str]) -> str:
    """The flag of a command that changes a setting: of both sides, where it measures two."""
    if Path(words[0]).name == TWO_SIDED_SCRIPT:
        return BOTH_SIDES_FLAG
    return "--set"


def _command(words: Sequence[str]) -> str:
    """A command line; the script is relative if the user works in the project's root."""
    script = Path(words[0])
    if works_in_project_root() and script.is_absolute() and script.is_relative_to(PROJECT_ROOT):
        script = script.relative_to(PROJECT_ROOT)
    return shlex.join(["python", str(script), *words[1:]])


def _shown_script(script: str) -> str:
    if works_in_project_root():
        return script
    return shlex.quote(str(PROJECT_ROOT / script))


def _unquoted(word: str) -> str:
    """A word as the shell would pass it on, without the full stop or colon of a sentence."""
    is_plain_yaml = re.search(r"=[\[{]", word) is not None and word[0] not in "'\""
    if is_plain_yaml:
        # The quotes in it are YAML's, not the shell's.
        return word
    text = ""
    for piece in QUOTED_OR_PLAIN.findall(word.rstrip(".:")):
        if piece[0] in "'\"":
            text += shlex.split(piece)[0]
        else:
            text += piece
    return text


@contextmanager
def python_arguments() -> Iterator[None]:
    """Let the errors of a function that Python callers use name its arguments; also a decorator."""
    try:
        yield
    except UserError as error:
        raise for_python(error) from error


def for_python(error: UserError) -> UserError:
    """The same error for a Python caller.

    ``--set model.dtype=float16`` becomes ``dtype="float16"``, ``--config configs/demo.yaml`` the
    name of the embedded model, and a setting without a value the argument's name.
    """
    where = error.where
    if where is not None:
        where = _in_python(where)
    fix = error.fix
    if fix is not None:
        fix = _in_python(fix)
    return type(error)(_in_python(error.what), where=where, fix=fix)


def _in_python(text: str) -> str:
    """The text with arguments in place of settings, except for those of complete commands."""
    shown = []
    end = 0
    for command in COMMAND_WITH_FLAGS.finditer(text):
        shown += [_with_arguments(text[end : command.start()]), command[0]]
        end = command.end()
    return "".join([*shown, _with_arguments(text[end:])])


def _with_arguments(text: str) -> str:
    text = SETTINGS.sub(_as_arguments, text)
    text = text.replace("--config configs/demo.yaml", f'model_name="{EMBEDDED}"')
    names = "|".join(re.escape(key) for key in _settings_of_functions())
    return re.sub(rf"(?<![\w./-])({names})(?![\w.]*\w)", lambda match: _argument(match[1]), text)


def _as_arguments(match: re.Match[str]) -> str:
    """Several ``--set`` flags as arguments."""
    return ", ".join(map(_as_argument, SETTING.finditer(match[0])))


def _as_argument(match: re.Match[str]) -> str:
    word = match["word"]
    after = word[len(word.rstrip(".:")) :]
    key, equals, value = _unquoted(word).partition("=")
    name = _argument(key)
    if not equals:
        return name + after
    if PLACEHOLDER.fullmatch(value):
        return f"{name}={value}{after}"
    return f"{name}={_literal(value)}{after}"


def _literal(text: str) -> str:
    """A setting's value as Python source, text in double quotes."""
    try:
        value: Any = yaml.safe_load(text)
    except yaml.YAMLError:
        value = text
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    return repr(value)


def _argument(key: str) -> str:
    return ARGUMENTS.get(key, key.rpartition(".")[2])


def _settings_of_functions() -> list[str]:
    """The dotted keys of the settings that Python functions take as arguments."""
    return [f"{section}.{field}" for section in PYTHON_SECTIONS for field in SECTIONS[section]]
