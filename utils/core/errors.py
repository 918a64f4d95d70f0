"""The errors that a user can act on."""

from __future__ import annotations

from functools import partial

LONGEST_REASON = 1000
"""Characters of a message that are shown: some libraries put complete files into messages."""


class UserError(Exception):
    """Something that the user must change: config, data, model, flags. Exit code 2.

    Args:
        what: what is wrong, in one sentence, with the value.
        where: the file, setting or address that it is about.
        fix: what to do about it, if possible as a command or a setting to paste.
    """

    exit_code = 2

    def __init__(self, what: str, *, where: object = None, fix: str | None = None) -> None:
        self.what = what
        self.where = None if where is None else str(where)
        self.fix = fix
        super().__init__(what, self.where, fix)

    def __str__(self) -> str:
        lines = [self.what]
        if self.where:
            lines.append(f"  where: {self.where}")
        if self.fix:
            lines.append(f"  fix:   {self.fix}")
        return "\n".join(lines)

    def __reduce__(self) -> tuple[object, ...]:
        # Keyword-only arguments do not survive the default pickling of exceptions.
        return partial(type(self), where=self.where, fix=self.fix), (self.what,)


class ConfigError(UserError):
    """A setting that cannot be used."""


class DataError(UserError):
    """A data set that cannot be used."""


class ModelError(UserError):
    """A model that cannot be used."""


class Interrupted(BaseException):
    """SIGINT or SIGTERM arrived; has the exit code (130 or 143).

    ``is_reported`` becomes true where a step in a process of its own has told the user.

    Not an ``Exception``, so that no handler of ordinary errors catches it.
    """

    def __init__(self, signal_number: int) -> None:
        self.signal_number = signal_number
        self.exit_code = 128 + signal_number
        self.is_reported = False
        super().__init__(signal_number)


def reason_of(error: BaseException, limit: int = LONGEST_REASON) -> str:
    """The complete message of an error on one line, for use within another message.

    Many libraries write what happened on the first line and why on the second, so no line is left
    out. A message of more than ``limit`` characters ends in an ellipsis; an error without a message
    is named by its class.
    """
    text = " ".join(str(error).split())
    if not text:
        return type(error).__name__
    if len(text) <= limit:
        return text
    return f"{text[: limit - 1].rstrip()}…"
