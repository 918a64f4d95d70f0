"""What a warning is about: the code that it begins with, as in ``drift: The last third of …``.

A program finds warnings by their code; a reader finds the code in ``docs/WARNINGS.md``.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum


class WarningCode(str, Enum):
    """The kinds of warnings about results. Files of earlier versions have sentences without one."""

    OUTPUTS = "outputs"
    VERSION = "version"
    CPU_WAIT = "cpu-wait"
    SHARED = "shared"
    THROTTLED = "throttled"
    SPREAD = "spread"
    DRIFT = "drift"
    FEW_RUNS = "few-runs"
    DIAGNOSIS = "diagnosis"
    COMPARISON = "comparison"
    LABELS = "labels"
    DATA = "data"
    TEXTS = "texts"
    TOKENIZER = "tokenizer"
    MEMORY = "memory"
    SAMPLE = "sample"
    INTERVAL = "interval"
    PHASES = "phases"
    GPU_READINGS = "gpu-readings"
    RESUMED = "resumed"
    FORECAST = "forecast"
    OPERATORS = "operators"
    TRACE = "trace"

    def warn(self, sentence: str) -> str:
        """The warning as files store it: the code and the sentence."""
        return f"{self.value}{SEPARATOR}{sentence}"


SEPARATOR = ": "
CODES = {code.value: code for code in WarningCode}


def code_of(warning: str) -> WarningCode | None:
    """The code of a warning; None where it has none."""
    return CODES.get(warning.partition(SEPARATOR)[0])


def with_code(code: WarningCode, sentences: Iterable[str]) -> tuple[str, ...]:
    """Several warnings of one kind, as files store them."""
    return tuple(code.warn(sentence) for sentence in sentences)


def sentences_of(warnings: Iterable[str]) -> list[str]:
    """Warnings for a reader: the sentences without their codes."""
    return [sentence_of(warning) for warning in warnings]


def sentence_of(warning: str) -> str:
    """A warning for a reader: the sentence without its code."""
    if code_of(warning) is None:
        return warning
    return warning.partition(SEPARATOR)[2]
