"""The verdicts of the diagnosis in plain words."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class VerdictWords:
    """A verdict for a reader who does not know the word.

    Args:
        name: a few words.
        meaning: completes the sentence "It is limited by …".
    """

    name: str
    meaning: str


VERDICTS = {
    "input-bound": VerdictWords(
        name="input-bound", meaning="preparing the input: tokenising and copying"
    ),
    "overhead-bound": VerdictWords(
        name="overhead-bound", meaning="starting many small operators, not by their work"
    ),
    "memory-bound": VerdictWords(
        name="memory-bound", meaning="the speed of the memory, not by arithmetic"
    ),
    "compute-bound": VerdictWords(
        name="compute-bound", meaning="arithmetic: the machine computes about as fast as it can"
    ),
    "no-dominant-limit": VerdictWords(
        name="no dominant limit", meaning="several things, of which none dominates"
    ),
}
